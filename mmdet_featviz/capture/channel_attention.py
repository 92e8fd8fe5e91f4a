"""Channel attention: finds the channel weights that modules such as SELayer compute."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Iterator, Sequence

from torch import Tensor, nn

from mmdet_featviz.capture.layer_selection import modules_by_name
from mmdet_featviz.capture.strides import is_dense


class ChannelAttentionFinder:
    """Finds channel-attention modules by their outputs: modules that compute one weight for each output channel.

    A module counts as channel attention (mmdet's ``SELayer`` and ``ChannelAttention``, for example) if one of its
    direct children outputs (N, C, 1, 1) and the module itself outputs a map with C channels. The last output of that
    shape before the module returns is taken as the weights.

    Args:
        model: The detector.
        layers: Paths of the tapped modules. Only these, the modules around them and the modules inside them are
            searched.
        on_found: Called with the path of an attention module, its output (N, C, rows, columns) and its weights (N, C).
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str], on_found: Callable[[str, Tensor, Tensor], None]
    ) -> None:
        self.on_found = on_found
        self._names: dict[nn.Module, str] = {}
        for name, module in modules_by_name(model).items():
            if any(f'{name}.'.startswith(f'{layer}.') or name == layer.rpartition('.')[0] for layer in layers):
                self._names.setdefault(module, name)
        self._weights: dict[str, Tensor] = {}  # path of a module: the last (N, C, 1, 1) output of its children

    def hooks(self) -> Iterator[tuple[nn.Module, Callable]]:
        """The modules to hook, each with its forward hook; forgets weights of earlier passes."""
        self._weights.clear()
        for module, name in self._names.items():
            yield module, partial(self._on_output, name)

    def _on_output(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or not is_dense(output) or output.dim() != 4:
            return
        if output.shape[2:] == (1, 1):
            self._weights[name.rpartition('.')[0]] = output.detach().flatten(1).clone()
            return
        weights = self._weights.pop(name, None)
        if weights is not None and weights.shape == output.shape[:2]:
            self.on_found(name, output.detach(), weights)
