"""Activation maps and the pass of the detector that they come from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Sequence

import torch
from torch import Tensor


@dataclass(frozen=True)
class ActivationMap:
    """The reduced output of one layer for all images of one pass.

    Attributes:
        layer: Path of the module inside the detector.
        level: Index among the outputs of the layer.
        channels: How many channels the feature map had.
        stride: Nominal stride (vertical, horizontal): pixels of the network's input per cell.
        values: (N, H, W), float32, on the device of the features.
        details: What else was kept of each image: N times whatever the taps' `details` gave.
    """

    layer: str
    level: int
    channels: int
    stride: tuple[float, float]
    values: Tensor
    details: Sequence[Any] | None = None

    @property
    def name(self) -> str:
        return f'{self.layer}_{self.level}'


def to_host(maps: Sequence[ActivationMap]) -> list[ActivationMap]:
    """The maps with their values in the host's memory: one copy for all, so that a GPU is waited for only once."""
    if not maps:
        return []
    values = torch.cat([activation.values.flatten() for activation in maps]).cpu()
    parts = values.split([activation.values.numel() for activation in maps])
    return [replace(one, values=part.view(one.values.shape)) for one, part in zip(maps, parts)]


@dataclass
class Pass:
    """One call of the detector on one batch, and what the taps caught in it.

    Attributes:
        inputs: The network's input (N, C, H, W), after normalisation and padding.
        samples: The N data samples of the batch, with their metas.
        maps: The activation maps, in the order in which the layers fired.
        attention: Those of channel-attention modules; their details have the weights.
        grids: (rows, columns) of each level of backbone and neck, whether tapped or not.
        outputs_seen: How many outputs of each layer have been met.
    """

    inputs: Tensor
    samples: Sequence[Any]
    maps: list[ActivationMap] = field(default_factory=list)
    attention: list[ActivationMap] = field(default_factory=list)
    grids: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    outputs_seen: dict[str, int] = field(default_factory=dict)
