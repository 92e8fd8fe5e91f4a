"""Activation maps and passes: what the taps capture while the detector runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Sequence

import torch
from torch import Tensor

from mmdet_featviz.structures.snapshot import Level

if TYPE_CHECKING:
    from mmdet_featviz.capture.kept_features import KeptCalls, KeptFeatures


@dataclass(frozen=True)
class ActivationMap:
    """The reduced output of one layer for all images of one pass.

    Attributes:
        layer: Path of the module inside the detector.
        level: Index of the map among the outputs of the layer.
        channels: Number of channels of the feature map.
        stride: (vertical, horizontal) distance of neighboring cells, in pixels of the network's input.
        values: (N, H, W), float32, on the device of the features.
        details: N dicts from the taps' :class:`DetailRecorder`, one per image; None without a recorder.
        offset: (vertical, horizontal) center of the first cell's receptive field, in pixels of the network's input;
            None if it is not known.
        is_folded: Whether the map was folded from tokens, which may be queries that only happen to fill a grid.
        score_of: For a map of probabilities, of what: the name of a class, ``the best class`` or ``an object``.
        label: Index of that class, if it is one.
    """

    layer: str
    level: int
    channels: int
    stride: tuple[float, float]
    values: Tensor
    details: Sequence[Any] | None = None
    offset: tuple[float, float] | None = None
    is_folded: bool = False
    score_of: str | None = None
    label: int | None = None

    @property
    def name(self) -> str:
        return f'{self.layer}_{self.level}'

    def of_image(self, index: int) -> Level:
        """Return the level of one image of the batch; the values must be in CPU memory."""
        names = 'layer', 'level', 'channels', 'stride', 'offset', 'score_of', 'label'
        facts = {name: getattr(self, name) for name in names}
        details = self.details[index] if self.details is not None else {}
        return Level(values=self.values[index].numpy(), **facts, **details)


def to_host(maps: Sequence[ActivationMap]) -> list[ActivationMap]:
    """Copy the values of all maps to CPU memory, in one transfer, so that the CPU waits for the GPU only once."""
    if not maps:
        return []
    values = torch.cat([activation.values.flatten() for activation in maps]).cpu()
    parts = values.split([activation.values.numel() for activation in maps])
    return [replace(activation, values=part.view(activation.values.shape)) for activation, part in zip(maps, parts)]


@dataclass
class Pass:
    """One call of the detector on one batch, and what the taps captured during it.

    Attributes:
        inputs: The network's input (N, C, H, W), normalized and padded.
        samples: The N data samples of the batch, with their meta information.
        maps: The activation maps, in the order in which the layers fired.
        attention: Activation maps of channel-attention modules; the channel weights are in their `details`.
        grids: {layer: [(rows, columns) of each level]} of the default layers (backbone, neck, ...), tapped or not.
        outputs_seen: {layer: number of its outputs so far}; the next output gets this number as its level.
        features: {path of a default layer, or of a convolution of a head: what it returned}, if the taps keep it and it
            can be used again.
        kept_bytes: The size of what is kept of convolutions.
        is_augmented: Whether the pass belongs to test-time augmentation, which merges the predictions of all passes.
        failed: Layers of which no map is kept, because capturing one of their outputs raised an error.
        head_scores: {path of a head: the scores of its levels}, until the maps are made of them.
        scores: For each image its class-score maps, with the values of this image only: (1, H, W).
    """

    inputs: Tensor
    samples: Sequence[Any]
    maps: list[ActivationMap] = field(default_factory=list)
    attention: list[ActivationMap] = field(default_factory=list)
    grids: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    outputs_seen: dict[str, int] = field(default_factory=dict)
    features: dict[str, KeptFeatures | KeptCalls] = field(default_factory=dict)
    kept_bytes: int = 0
    is_augmented: bool = False
    failed: set[str] = field(default_factory=set)
    head_scores: dict[str, list[Any]] = field(default_factory=dict)
    scores: list[list[ActivationMap]] = field(default_factory=list)
