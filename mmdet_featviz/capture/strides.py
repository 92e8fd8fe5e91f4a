"""Strides: the nominal stride of a feature map, from its shape and the shape of the network's input."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor is an ordinary array; sparse, nested and mkldnn tensors lack a shape or memory to read."""
    return tensor.layout == torch.strided and not tensor.is_nested


def stride_of(tensor: Tensor, inputs: Tensor) -> tuple[float, float] | None:
    """Nominal stride (vertical, horizontal) of a tensor, in pixels of the input; None if it is not a feature map.

    Args:
        tensor: Any output of a module. A feature map is (N, C, rows, columns), dense, floating point, of the same N.
        inputs: The network's input (N, ., H, W).
    """
    if not is_dense(tensor):
        return None
    if tensor.dim() != 4 or len(tensor) != len(inputs) or tensor.numel() == 0 or not tensor.is_floating_point():
        return None
    return nominal_stride(tuple(tensor.shape[2:]), tuple(inputs.shape[2:]))


@lru_cache(maxsize=1024)
def nominal_stride(cells: tuple[int, int], pixels: tuple[int, int]) -> tuple[float, float] | None:
    """Stride of a map of (rows, columns) cells over an input of (height, width) pixels.

    Strided layers round up, so a chain of them outputs ceil(pixels / stride) cells: 13 rows over 800 pixels have the
    stride 64 and cover 832 pixels, while 800 / 13 would give 61.5. Pooling without padding rounds down. The result is
    the smallest power of two that gives this shape on both axes: rounded up, or else down, or else up on one axis and
    down on the other (layers that round down, followed by layers that round up). If there is none (a resampled map),
    it is pixels / cells on each axis.

    Returns:
        (vertical, horizontal), or None if no single stride gives this shape, because the map has other proportions than
        the input.
    """
    for roundings in ({math.ceil}, {math.floor}, {math.ceil, math.floor}):
        for exponent in range(max(pixels).bit_length() + 1):
            stride = 2**exponent
            if all(c in {rounded(p / stride) for rounded in roundings} for p, c in zip(pixels, cells)):
                return float(stride), float(stride)
    # A common stride s needs c - 1 < p / s < c + 1 on both axes, that is p / (c + 1) < s < p / (c - 1).
    lowest = max(p / (c + 1) for p, c in zip(pixels, cells))
    highest = min(p / (c - 1) if c > 1 else math.inf for p, c in zip(pixels, cells))
    if lowest >= highest:
        return None
    return pixels[0] / cells[0], pixels[1] / cells[1]
