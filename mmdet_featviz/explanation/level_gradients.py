"""Level gradients: gradients of a prediction at the tapped layers, without passing through levels it does not use.

A dense head treats each level on its own, and joins their outputs only afterwards. PyTorch does not see that most of
the joined gradient is zero, and would pass zeros back through the convolutions of all levels.
"""

from __future__ import annotations

from typing import Any, Sequence

from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn

from mmdet_featviz.capture.module_outputs import tensors_in
from mmdet_featviz.explanation.differentiable import gradients_of, kept_gradients


class HeadOutputs:
    """Keeps what the dense heads of a detector return, inside a ``with`` block.

    Args:
        model: The detector.
    """

    def __init__(self, model: nn.Module) -> None:
        self._heads = [module for module in model.modules() if isinstance(module, BaseDenseHead)]
        self._handles: list[Any] = []
        self._tensors: list[Tensor] = []

    def __enter__(self) -> HeadOutputs:
        self._handles = [head.register_forward_hook(self._keep) for head in self._heads]
        return self

    def __exit__(self, *exc_info: object) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._tensors = []

    def _keep(self, module: nn.Module, args: Any, output: Any) -> None:
        self._tensors += [tensor for tensor in tensors_in(output) if tensor.grad_fn is not None]

    def gradients(self, number: Tensor, tensors: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the gradient of a number at each of some tensors; None where it does not depend on one.

        Args:
            number: A predicted number, with its graph, which is kept.
            tensors: What the tapped layers returned.
        """
        return gradients_of([number], tensors, self._gradients)

    def _gradients(
        self, numbers: Sequence[Tensor], tensors: Sequence[Tensor], seeds: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        if self._tensors and all(self._lie_between(number, tensors) for number in numbers):
            heads = kept_gradients(numbers, self._tensors, seeds)
            used = [(end, part) for end, part in zip(self._tensors, heads) if part is not None and part.any()]
            if not used:
                return (None,) * len(tensors)
            numbers, seeds = zip(*used)
        return kept_gradients(numbers, tensors, seeds)

    def _lie_between(self, number: Tensor, tensors: Sequence[Tensor]) -> bool:
        """Whether every way in the graph from a number to the tensors leads through the outputs of the heads."""
        heads = {tensor.grad_fn for tensor in self._tensors}
        targets, leaves = {tensor.grad_fn for tensor in tensors} - {None}, {id(tensor) for tensor in tensors}
        seen, waiting = set(), [number.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in heads or node in seen:
                continue
            if node in targets or id(getattr(node, 'variable', None)) in leaves:
                return False
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
        return True
