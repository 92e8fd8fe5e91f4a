"""Kept features: what a module returned in a pass, so that another pass over the same batch need not compute it."""

from __future__ import annotations

from typing import Any, Callable

from torch import Tensor

from mmdet_featviz.capture.module_outputs import tensors_in


class KeptFeatures:
    """What a module returned: tensors, in tuples and lists.

    Args:
        output: The output. Its tensors are neither copied nor changed.

    Raises:
        TypeError: If it has something else in it, or tensors of inference mode, which gradients cannot begin at.
    """

    def __init__(self, output: Any) -> None:
        self._output = _map(output, Tensor.detach)
        self._versions = self._count_changes()

    @property
    def are_intact(self) -> bool:
        """Whether nothing has changed the tensors in place since."""
        return self._count_changes() == self._versions

    def output(self) -> Any:
        """Return the output, in tensors and containers that share nothing with others but the values."""
        return _map(self._output, Tensor.detach)

    def _count_changes(self) -> list[int]:
        return [tensor._version for tensor in tensors_in(self._output)]


def _map(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if type(output) in (list, tuple):
        return type(output)(_map(value, function) for value in output)
    if not isinstance(output, Tensor) or output.is_inference():
        raise TypeError(f'{type(output).__name__} cannot be kept')
    return function(output)
