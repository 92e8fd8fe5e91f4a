"""Channel attention: finds the weights that modules such as SELayer give to channels."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Iterator, Sequence

from torch import Tensor, nn


class ChannelAttentionFinder:
    """Finds channel attention: modules that make one weight for each channel of what they put out.

    Such a module (mmdet's ``SELayer`` and ``ChannelAttention``, and their like) has a part whose output is
    (N, C, 1, 1), the last of which are the weights, and puts out a map of as many channels itself.

    Args:
        model: The detector.
        layers: The modules of the detector that are tapped: weights are looked for inside these.
        found: Called with the module's path, its output (N, C, rows, columns) and the weights (N, C).
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], found: Callable[[str, Tensor, Tensor], None]) -> None:
        self.found = found
        self._modules = {
            name: module
            for name, module in model.named_modules()
            if any(f'{name}.'.startswith(f'{layer}.') or name == layer.rpartition('.')[0] for layer in layers)
        }
        self._weights: dict[str, Tensor] = {}  # of the module whose part put them out last

    def hooks(self) -> Iterator[tuple[nn.Module, Callable]]:
        """The modules to hook, and their hooks."""
        self._weights.clear()
        for name, module in self._modules.items():
            yield module, partial(self._on_output, name)

    def _on_output(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.dim() != 4:
            return
        if output.shape[2:] == (1, 1):
            self._weights[name.rpartition('.')[0]] = output.detach().flatten(1).clone()
            return
        weights = self._weights.pop(name, None)
        if weights is not None and weights.shape == output.shape[:2]:
            self.found(name, output.detach(), weights)
