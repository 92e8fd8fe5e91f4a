"""Snapshot: the activation maps, boxes and placement of one image in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Callable, Sequence

import numpy as np

from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.channel_maps import ChannelMaps
from mmdet_featviz.structures.placement import Placement


@dataclass(frozen=True, eq=False)
class Level:
    """One level of one image.

    Attributes:
        layer: Path of the module inside the detector.
        level: Index among the outputs of the layer.
        channels: How many channels the feature map had.
        stride: Nominal stride (vertical, horizontal): pixels of the network's input per cell.
        values: (rows, columns), float32: the activation map.
        picked: The channels to be shown.
        pooled: The most weighted channels.
        raw: (C, rows, columns): the whole feature map.
    """

    layer: str
    level: int
    channels: int
    stride: tuple[float, float]
    values: np.ndarray
    picked: ChannelMaps | None = None
    pooled: ChannelMaps | None = None
    raw: np.ndarray | None = None

    @property
    def name(self) -> str:
        return f'{self.layer}_{self.level}'

    @property
    def stride_text(self) -> str:
        return format_stride(self.stride)


def format_stride(stride: tuple[float, float]) -> str:
    """A stride (vertical, horizontal) in words: one number where both are the same."""
    vertical, horizontal = stride
    return f'{vertical:g}' if vertical == horizontal else f'{vertical:.3g} x {horizontal:.3g}'


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What one pass told of one image.

    Attributes:
        key: Names the output folder.
        path: Path or URL of the image; None for an array.
        augmentation: Number of the pass over this image, or ``mean``.
        placement: Where the image lies in the network's input.
        levels: In the order in which the layers fired.
        attention: Outputs of channel-attention modules; their `pooled` has the weights.
        boxes: Ground truth and predictions.
        ignored: Corners (M, 4) of ignored boxes (crowds), in pixels of the image.
        image: Gives the image (height, width, 3), BGR; may raise ImageError.
        is_file: Whether the image is the file at `path`, not something rebuilt from the network's input.
        dataset_meta: ``classes`` and ``palette`` (RGB) of the data set, as far as they are known.
        folder: The part of `key` that tells of an epoch or iteration, such as ``epoch_3``; empty in a test.
    """

    key: str
    path: str | None
    augmentation: int | str
    placement: Placement
    levels: Sequence[Level]
    attention: Sequence[Level] = ()
    boxes: Boxes | None = None
    ignored: np.ndarray | None = None
    image: Callable[[], np.ndarray] | None = field(default=None, repr=False)
    is_file: bool = True
    dataset_meta: dict | None = field(default=None, repr=False)
    folder: str = ''

    @property
    def suffix(self) -> str:
        """What names of files have after the level's: nothing for the first pass."""
        if self.augmentation == 'mean':
            return '.mean'
        return f'.pass_{self.augmentation}' if self.augmentation else ''

    @property
    def maps_file(self) -> str:
        """Name of the file of maps in the image's folder."""
        return f'maps{self.suffix}.npz'

    @property
    def image_file(self) -> str:
        """Name of the file of a rebuilt image in the image's folder."""
        return f'photo{self.suffix}.png'

    def raw_file(self, level: Level) -> str:
        """Name of the file of a whole feature map in the image's folder."""
        return f'{level.name}{self.suffix}.raw.npy'

    def with_levels(self, keep: Callable[[str], bool]) -> Snapshot:
        """The same with only those levels whose name is kept."""
        return replace(self, levels=[level for level in self.levels if keep(level.name)])
