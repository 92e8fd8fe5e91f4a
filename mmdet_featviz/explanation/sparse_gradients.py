"""Sparse gradients: operations that pass back gradients without computing what is zero.

The gradient of one predicted number is zero almost everywhere: it begins at one cell of one level. PyTorch does not see
that, and would pass zeros through the convolutions of all levels.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.grad import conv2d_input


def join(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """``torch.cat``, of which parts with a gradient of zero get none, so that nothing is passed further."""
    # torch.cat leaves out flat empty tensors among others.
    if any(tensor.requires_grad for tensor in tensors) and len({tensor.dim() for tensor in tensors}) == 1:
        return _Join.apply(dim, *tensors)
    return torch.cat(tensors, dim)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dim: int, *tensors: Tensor) -> Tensor:
        ctx.dim, ctx.sizes = dim, [tensor.shape[dim] for tensor in tensors]
        ctx.set_materialize_grads(False)
        return torch.cat(tensors, dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        parts = [None] * len(ctx.sizes) if gradient is None else gradient.split(ctx.sizes, ctx.dim)
        return None, *(part if part is not None and part.any() else None for part in parts)


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.conv2d``, whose gradient is computed only around cells that have one. Weights get no gradient."""
    are_fixed = weight.grad_fn is None and (bias is None or bias.grad_fn is None)  # not predicted by the detector
    if not (are_fixed and input.requires_grad and input.dim() == 4) or isinstance(padding, str):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    settings = _pair(stride), _pair(padding), _pair(dilation), groups
    return _Convolve.apply(input, weight, lambda: F.conv2d(input, weight, bias, *settings), *settings)


def convolve_known(output: Tensor, input: Tensor, convolution: nn.Conv2d) -> Tensor:
    """The output of a convolution that is known for this input, with the gradient of :func:`convolve`."""
    if isinstance(convolution.padding, str) or not (torch.is_grad_enabled() and input.requires_grad):
        return output
    settings = convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    return _Convolve.apply(input, convolution.weight, lambda: output, *settings)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, output: Callable[[], Tensor], *settings: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.settings = input.shape, settings
        ctx.set_materialize_grads(False)
        return output()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        found = None if gradient is None else _input_gradient(ctx.size, weight.to(gradient), gradient, *ctx.settings)
        return found, None, None, None, None, None, None


def _input_gradient(
    size: torch.Size,
    weight: Tensor,
    gradient: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """The gradient at the input of a convolution, computed for the smallest window that is not zero."""
    if gradient[..., 0, :].any() and gradient[..., -1, :].any():  # the window is all there is
        return conv2d_input(size, weight, gradient, stride, padding, dilation, groups)
    found = gradient.new_zeros(size)
    cells = (gradient != 0).flatten(0, 1).any(0).nonzero()
    if not len(cells):
        return found
    first, last = cells.amin(0).tolist(), cells.amax(0).tolist()
    starts, lengths, inside = [], [], []
    for axis in (0, 1):
        start = first[axis] * stride[axis] - padding[axis]
        length = (last[axis] - first[axis]) * stride[axis] + dilation[axis] * (weight.shape[2 + axis] - 1) + 1
        starts.append(start)
        lengths.append(length)
        inside.append(slice(max(start, 0), max(min(start + length, size[2 + axis]), 0)))
    window = gradient[..., first[0] : last[0] + 1, first[1] : last[1] + 1]
    part = conv2d_input((*size[:2], *lengths), weight, window, stride, 0, dilation, groups)
    rows, columns = (slice(one.start - start, one.stop - start) for one, start in zip(inside, starts))
    found[..., inside[0], inside[1]] = part[..., rows, columns]
    return found


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
