"""Differentiable prediction: lets scores and boxes of a detector's own ``predict`` carry gradients back to its layers.

Nothing of a head is computed again here: suppression only selects, so that each predicted score keeps its graph.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmdet_featviz.explanation.replacement import one_thread, replace
from mmdet_featviz.explanation.sparse_gradients import convolve, join

SCALES = 2.0**15, 2.0**7, 1.0


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within the context, the model and all its parts are in evaluation mode; then each is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Within the context, predictions carry gradients back to the layers that :class:`GradientTaps` observe.

    - Gradients are off until the first of these layers has returned, so that nothing before it keeps memory. The taps
      turn them on. The flags of the weights stay as they are: some kernels of PyTorch are chosen by them, and the bits
      of the predictions would change.
    - Dense heads cut the graph when they select the outputs of an image, with ``detach()`` in ``predict_by_feat``.
      There it keeps the graph.
    - Square roots have a finite gradient at 0.
    - Gradients of zero are not passed back: not to levels that did not find a box, nor by convolutions to cells that
      it does not depend on.
    - Deep copies keep their graph. PyTorch refuses to copy a tensor with one, and YOLACT copies its boxes.
    - Activation checkpointing is off: it cannot be combined with ``torch.autograd.grad``.

    All of this is undone afterwards, also after an error.
    """
    with one_thread, ExitStack() as undo:
        for module in model.modules():
            if getattr(module, 'with_cp', False):
                replace(module, 'with_cp', False, undo)
            if hasattr(module, 'predict_by_feat'):
                replace(module, 'predict_by_feat', _Attached.within(module.predict_by_feat), undo)
        undo.enter_context(torch.inference_mode(False))
        undo.enter_context(torch.no_grad())
        undo.enter_context(_KeptGraph())
        yield


class _KeptGraph(TorchFunctionMode):
    """Within this mode, operations carry the gradients that an explanation needs, and only those.

    The gradient of a square root is 0 at 0, as that of ReLU, not infinite. PAA takes the root of all scores, also of
    those that are 0 by definition: infinity times no gradient is NaN.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.sqrt, Tensor.sqrt) and not kwargs and args[0].requires_grad:
            return _Root.apply(args[0])
        if torch.is_grad_enabled() and func is torch.cat and set(kwargs or ()) <= {'dim'}:
            return join(*args, **(kwargs or {}))
        if torch.is_grad_enabled() and func is torch.conv2d:
            return convolve(*args, **(kwargs or {}))
        if func is Tensor.__deepcopy__ and args[0].grad_fn is not None:
            return args[0].clone()
        return func(*args, **(kwargs or {}))


class _Attached(TorchFunctionMode):
    """Within this mode, ``detach()`` keeps the graph."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.detach and args[0].requires_grad else func(*args, **(kwargs or {}))

    @classmethod
    def within(cls, function: Callable) -> Callable:
        """Return the function, which runs within this mode."""

        def attached(*args: Any, **kwargs: Any) -> Any:
            with cls():
                return function(*args, **kwargs)

        return attached


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        root = values.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return torch.where(root > 0, gradient / (2 * root), torch.zeros_like(gradient))


def gradients_of(numbers: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradient of the sum of some numbers at each tensor, None where nothing depends on the tensor.

    In half precision, gradients below 6e-8 would vanish. So the sum is scaled by a power of two, which changes no other
    digit, as long as that does not overflow. The gradients are in float32, or in float64 at tensors of that type.

    Args:
        numbers: Predicted numbers, with their graph, which is kept.
        tensors: What the tapped layers returned.
    """
    for scale in SCALES:
        seeds = [torch.full_like(number, scale) for number in numbers]
        found = torch.autograd.grad(numbers, tensors, seeds, retain_graph=True, allow_unused=True)
        if scale == 1 or all(gradient is None or is_finite(gradient) for gradient in found):
            break
    return [None if gradient is None else precise(gradient) / scale for gradient in found]


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite; their sum is not if one is not, and takes a fifth of the time."""
    total = tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32))
    return bool(total.isfinite()) or bool(tensor.isfinite().all())


def precise(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or in float64 if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
