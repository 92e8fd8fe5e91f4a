"""Gradient taps: keep the feature maps of a pass together with their graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Sequence

import torch
from torch import Tensor, nn

from mmdet_featviz.capture.activation_map import ActivationMap, Pass
from mmdet_featviz.capture.module_outputs import feature_maps_in
from mmdet_featviz.capture.taps import Taps


@dataclass(frozen=True, eq=False)
class TappedTensor:
    """A tensor that a layer returned: one feature map, or the tokens of one or several.

    Attributes:
        layer: Path of the module inside the detector.
        tensor: The tensor itself, with its graph.
        maps: The activation maps of its feature maps, which have their level, stride and number of channels.
    """

    layer: str
    tensor: Tensor
    maps: Sequence[ActivationMap]


class GradientTaps(Taps):
    """Taps that keep what the layers return, and turn gradients on from there on.

    Args:
        model: The detector.
        layers: Module paths or globs, as in :class:`mmdet_featviz.capture.taps.Taps`.
        gradients: Whether gradients are turned on; otherwise the feature maps are only kept.

    Attributes:
        tapped: The tensors of the latest pass, in the order in which the layers fired.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] | None, gradients: bool = True) -> None:
        super().__init__(model, layers, first_channel)
        self._gradients = gradients
        self.tapped: list[TappedTensor] = []

    def begin(self, inputs: Tensor, samples: Sequence[Any]) -> Pass:
        self.tapped = []
        return super().begin(inputs, samples)

    def take(self) -> list[Pass]:
        """Return the passes as :class:`Taps` do; the maps of `tapped` then have the centers that were found, too."""
        passes = super().take()
        placed = {activation.name: activation for pass_ in passes for activation in pass_.maps}
        self.tapped = [replace(one, maps=[placed.get(found.name, found) for found in one.maps]) for one in self.tapped]
        return passes

    def detach(self) -> None:
        super().detach()
        self.tapped = []

    def feature_maps(self, tapped: TappedTensor, pass_: Pass, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        """Return the feature maps (N, C, H, W) in tensors that all have the shape of a tapped one.

        Args:
            tapped: A tensor of the pass.
            pass_: The pass.
            *tensors: The tensor, its gradient, or both.

        Returns:
            For each of ``tapped.maps``, the feature map in each tensor.
        """
        if tapped.tensor.dim() == 4:
            return [tensors]
        # Tokens are folded together: their values decide between grids of as many cells.
        tokens = torch.cat(tensors, dim=-1)
        found = feature_maps_in(tokens, tapped.layer, pass_, self._shifts[tapped.layer])
        return [feature_map.chunk(len(tensors), dim=1) for _, maps in found for feature_map in maps]

    def _keep(self, layer: str, tensor: Tensor, maps: Sequence[ActivationMap]) -> None:
        if self._gradients and not tensor.requires_grad:
            tensor.requires_grad_()
        self.tapped.append(TappedTensor(layer, tensor, maps))

    def _on_output(self, layer: str, module: nn.Module, args: Any, output: Any) -> Tensor | None:
        super()._on_output(layer, module, args, output)
        if self._gradients and self.tapped and self._current is not None:  # a pass of this thread
            torch.set_grad_enabled(True)  # from here on; the context of the pass restores the mode
        # The network goes on with a copy: an in-place operation such as ReLU after a norm would change the tensor here.
        return output.clone() if isinstance(output, Tensor) and output.requires_grad else None


def first_channel(features: Tensor) -> Tensor:
    """A reduction that costs nothing, where only the feature maps themselves are needed."""
    return features[:, 0]
