"""Snapshot: everything captured of one image in one pass: activation maps, boxes, placement."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Callable, Sequence

import numpy as np

from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.channel_maps import ChannelMaps
from mmdet_featviz.structures.compact_features import CompactFeatures
from mmdet_featviz.structures.placement import Placement


@dataclass(frozen=True, eq=False)
class Level:
    """One level of one image: an activation map, and details if they were recorded.

    Attributes:
        layer: Path of the module inside the detector.
        level: Index of the map among the outputs of the layer.
        channels: Number of channels of the feature map.
        stride: (vertical, horizontal) distance of neighboring cells, in pixels of the network's input.
        values: (rows, columns), float32: the activation map.
        picked: The channels chosen for channel pictures.
        pooled: The channels with the largest weights, for attention pictures.
        raw: (C, rows, columns), float16 or float32: the whole feature map.
        compact: Leading principal components of the feature map, from which those of a run are found.
        embedding: (16, rows, columns) int8: the first principal components of the run, each cell with its own scale.
        offset: (vertical, horizontal) center of the first cell's receptive field, in pixels of the network's input;
            None if it is not known.
        score_of: For a map of probabilities, of what: the name of a class, ``the best class`` or ``an object``; None
            for an activation map.
        label: Index of that class, if it is one.
        points: (P, 3): column, row and weight of points, in cells: those of deformable attention. The middle of the
            first cell is 0, 0.
    """

    layer: str
    level: int
    channels: int
    stride: tuple[float, float]
    values: np.ndarray
    picked: ChannelMaps | None = None
    pooled: ChannelMaps | None = None
    raw: np.ndarray | None = None
    compact: CompactFeatures | None = None
    embedding: np.ndarray | None = None
    offset: tuple[float, float] | None = None
    score_of: str | None = None
    label: int | None = None
    points: np.ndarray | None = None

    @property
    def name(self) -> str:
        return f'{self.layer}_{self.level}'

    @property
    def content(self) -> str:
        """What the map is made from or shows, for captions."""
        return f'{self.channels} channels' if self.score_of is None else f'probability of {self.score_of}'

    @property
    def stride_text(self) -> str:
        return format_stride(self.stride)


def format_stride(stride: tuple[float, float]) -> str:
    """Format a stride (vertical, horizontal) as text, as one number if both are equal."""
    vertical, horizontal = stride
    return f'{vertical:g}' if vertical == horizontal else f'{vertical:.3g} x {horizontal:.3g}'


def is_mean(augmentation: int | str) -> bool:
    """Whether the number of a pass, as in :class:`Snapshot`, stands for the mean of passes."""
    return re.fullmatch(r'mean(_\d+)?', str(augmentation)) is not None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything captured of one image in one pass.

    Attributes:
        key: Image key, which names the output folder.
        path: Path or URL of the image; None for an array.
        augmentation: Number of the pass over this image, counted from 0, or ``mean`` for the mean of all passes. If
            an image has several samples in the data set, ``mean_4`` is the mean of the passes from 4 on.
        placement: Where the image lies in the network's input.
        levels: The levels, in the order in which the layers fired.
        attention: Outputs of channel-attention modules; their `pooled` has the channel weights.
        boxes: Ground truth and predictions.
        ignored: Corners (M, 4) of ignored boxes (crowds), in pixels of the image.
        image: Returns the image (height, width, 3), BGR, uint8; may raise ImageError.
        is_file: Whether the image is the file at `path`; otherwise it is rebuilt from the network's input.
        dataset_meta: ``classes`` and ``palette`` (RGB) of the data set, if known.
        folder: The first part of `key` that names an epoch or iteration, such as ``epoch_3``; empty in a test.
        position: Position of the image in the data set, the same on any number of ranks; None if unknown.
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
    position: int | None = None

    @property
    def is_mean(self) -> bool:
        """Whether this is the mean of passes."""
        return is_mean(self.augmentation)

    @property
    def suffix(self) -> str:
        """Part of file names after the level's name: empty for the first pass."""
        if self.is_mean:
            return f'.{self.augmentation}'
        return f'.pass_{self.augmentation}' if self.augmentation else ''

    @property
    def maps_file(self) -> str:
        """Name of the file of saved maps in the image's folder."""
        return f'maps{self.suffix}.npz'

    @property
    def embeddings_file(self) -> str:
        """Name of the file of embeddings in the image's folder."""
        return f'embeddings{self.suffix}.npz'

    @property
    def image_file(self) -> str:
        """Name of the file in the image's folder that holds the rebuilt image, if the original is not a file."""
        return f'photo{self.suffix}.png'

    def raw_file(self, level: Level) -> str:
        """Name of the file in the image's folder that holds the whole feature map of a level."""
        return f'{level.name}{self.suffix}.raw.npy'

    def with_levels(self, keep: Callable[[str], bool]) -> Snapshot:
        """A copy with only the levels for whose name `keep` returns True."""
        return replace(self, levels=[level for level in self.levels if keep(level.name)])
