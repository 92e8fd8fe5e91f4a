"""Module outputs: finds the feature maps in what a module returns, or describes why there are none."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from operator import itemgetter
from typing import Any, Iterator

from mmengine.structures import BaseDataElement
from torch import Tensor

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.strides import is_dense, stride_of
from mmdet_featviz.capture.tokens import fold_tokens

QUERY_DECODERS = {'decoder', 'transformer_decoder'}


def feature_maps_in(
    output: Any, layer: str, current: Pass, shift: int | None = None
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Find the feature maps in the output of a module.

    Args:
        output: What the module returned: a tensor, or tensors in containers, as in :func:`tensors_in`.
        layer: Path of the module inside the detector.
        current: The pass that the output belongs to.
        shift: How many cells the window attention around the module rolls its grid; None outside window attention.

    Yields:
        Each tensor with the feature maps (N, C, H, W) in it: the tensor itself, its folded tokens, or none.
    """
    # Shape of tokens that cover several levels. Other tokens in the same output are text, as in Grounding DINO.
    token_shape = None
    for tensor in tensors_in(output):
        maps = []
        if token_shape is None or tensor.dim() != 3 or tensor.shape[:2] == token_shape:
            maps = _feature_maps(tensor.detach(), layer, current, shift)
        if tensor.dim() == 3 and len(maps) > 1:
            token_shape = tensor.shape[:2]
        yield tensor, maps


def tensors_in(output: Any) -> Iterator[Tensor]:
    """All tensors in a module's output, in order.

    Dicts, tuples, lists, dataclasses and mmengine's data elements are searched, also nested ones; data elements in the
    order of the names of their fields, without the meta information.
    """
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from tensors_in(list(output.values()))
    elif isinstance(output, BaseDataElement):
        # Sorted by name: an element keeps its names in a set, whose order differs from process to process.
        yield from tensors_in([value for _, value in sorted(output.items(), key=itemgetter(0))])
    elif is_dataclass(output) and not isinstance(output, type):
        yield from tensors_in([getattr(output, field.name) for field in fields(output)])
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from tensors_in(value)


def describe_tensor(tensor: Tensor, inputs: Tensor) -> str:
    """Describe an output that is not a feature map of the input (N, C, H, W): in words, with its shape."""
    if tensor.is_nested:  # only its parts have a shape
        return 'a nested tensor'
    return f'{_kind_of(tensor, inputs)}, {tuple(tensor.shape)}'


def _kind_of(tensor: Tensor, inputs: Tensor) -> str:
    if not is_dense(tensor):
        return f'a tensor of the layout {tensor.layout}'
    if tensor.numel() == 0:
        return 'an empty set'
    if not tensor.is_floating_point():
        return 'indices or masks'
    if tensor.data_ptr() == inputs.data_ptr():
        return 'the input image itself'
    if tensor.dim() == 4 and len(tensor) != len(inputs):
        return 'crops of regions, or several maps for each image (one per query or branch)'
    if tensor.dim() == 4 and tensor.shape[2] == tensor.shape[3]:
        return 'a grid that is square for any input'
    return 'scores, queries or similar'


def _feature_maps(tensor: Tensor, layer: str, current: Pass, shift: int | None) -> list[Tensor]:
    if not is_dense(tensor):
        return []
    if stride_of(tensor, current.inputs) is not None:
        return [] if tensor.data_ptr() == current.inputs.data_ptr() else [tensor]
    if not QUERY_DECODERS.isdisjoint(layer.split('.')):  # the number of queries may equal the cells of a grid by chance
        return []
    maps = fold_tokens(tensor, current.inputs, current.grids.values(), shift)
    return maps if all(stride_of(level, current.inputs) for level in maps) else []
