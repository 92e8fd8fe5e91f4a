"""Tensors in the output of a module."""

from __future__ import annotations

from typing import Any, Iterator

from torch import Tensor

QUERY_DECODERS = {'decoder', 'transformer_decoder'}


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
    """A name for an output that is no map of the input."""
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
