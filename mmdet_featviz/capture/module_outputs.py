"""Outputs of modules: finds the feature maps in them, whatever a module returns."""

from __future__ import annotations

from typing import Any, Iterator

from torch import Tensor

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.strides import stride_of
from mmdet_featviz.capture.tokens import fold_tokens

QUERY_DECODERS = {'decoder', 'transformer_decoder'}


def feature_maps_in(output: Any, layer: str, current: Pass, shift: int = 0) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Find the feature maps in the output of a module.

    Args:
        output: What the module returned: a tensor, or tensors in tuples, lists and dicts.
        layer: Path of the module inside the detector.
        current: The pass that the output belongs to.
        shift: How far a shifted-window attention rolls the grid of its windows, in cells.

    Yields:
        Each tensor, and the feature maps (N, C, H, W) in it: itself, folded tokens, or none.
    """
    tokens = None  # how many there are on several levels: tokens beside them are a text, as in Grounding DINO
    for tensor in tensors_in(output):
        found = []
        if tokens is None or tensor.dim() != 3 or tensor.shape[1] == tokens:
            found = _feature_maps(tensor.detach(), layer, current, shift)
        if tensor.dim() == 3 and len(found) > 1:
            tokens = tensor.shape[1]
        yield tensor, found


def tensors_in(output: Any) -> Iterator[Tensor]:
    """All tensors of a module's output, however nested, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from tensors_in(value)


def describe_tensor(tensor: Tensor, inputs: Tensor) -> str:
    """What an output is that is no feature map of the input, in words."""
    if tensor.numel() == 0:
        return 'an empty set'
    if not tensor.is_floating_point():
        return 'indices or masks'
    if tensor.data_ptr() == inputs.data_ptr():
        return 'the input image itself'
    if tensor.dim() == 4 and len(tensor) != len(inputs):
        return 'crops of regions, or several maps for each image, as of queries or branches'
    if tensor.dim() == 4 and tensor.shape[2] == tensor.shape[3]:
        return 'a grid that is square whatever the input'
    return 'scores, queries or the like'


def _feature_maps(tensor: Tensor, layer: str, current: Pass, shift: int) -> list[Tensor]:
    if stride_of(tensor, current.inputs) is not None:
        return [] if tensor.data_ptr() == current.inputs.data_ptr() else [tensor]
    if not QUERY_DECODERS.isdisjoint(layer.split('.')):  # as many queries as some grid has cells are no map
        return []
    maps = fold_tokens(tensor, current.inputs, current.grids.values(), shift)
    return maps if all(stride_of(level, current.inputs) for level in maps) else []
