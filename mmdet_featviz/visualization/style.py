"""Style: the options that decide which pictures are made and how they look."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Sequence

import numpy as np

from mmdet_featviz.capture.channel_selection import parse_channel_choice
from mmdet_featviz.structures.grid import ALIGNMENTS
from mmdet_featviz.utils.arguments import (
    check_choice,
    check_choice_or_range,
    check_names,
    check_number,
    check_whole_number,
)
from mmdet_featviz.visualization.box_drawing import BOXES
from mmdet_featviz.visualization.colors import get_colormap
from mmdet_featviz.visualization.encoding import ENCODINGS

NORMALIZATIONS = ('image', 'max', 'layer', 'run')
BLENDS = ('alpha', 'add')
PICTURES = ('overlay', 'heatmap', 'panel', 'channels', 'overview', 'attention')
KINDS = (*PICTURES, 'maps', 'raw')
CHANNEL_TILES = ('overlay', 'heatmap')
MAPS_DTYPES = ('float32', 'float16')


@dataclass(frozen=True)
class Style:
    """How pictures look, and which are made.

    Args:
        normalize: The range that becomes 0-255, of what the image shows and never of padding: ``image`` (this
            heatmap's smallest to largest value), ``max`` (zero to largest), ``layer`` (smallest to largest of all
            levels of the layer in this image), ``run`` (of all images of the run, for each level: its 0.5th to 99.5th
            percentile; pictures are then drawn at the end, from saved maps), or a pair of numbers.
        colormap: Any color map of OpenCV or matplotlib.
        alpha: Weight of the heat in the overlay, 0 to 1.
        blend: ``alpha`` is ``(1 - alpha) * image + alpha * heat``, ``add`` is ``image + alpha * heat``, saturated.
        align: Where the value of a cell sits: ``center`` of its block, or its top left ``corner``.
        save: Any of ``overlay``, ``heatmap`` (colors alone, always PNG), ``panel`` (image and all levels on one
            sheet), ``channels`` (single channels of each level), ``overview`` (all levels in forward order, on titled
            sheets), ``attention`` (the weights that channel attention gives the channels), ``maps`` (activation maps,
            to be drawn later) and ``raw`` (whole feature maps; `maps` go with them).
        image_format: ``jpg``, ``png`` or ``webp``.
        boxes: ``pred``, ``gt`` or ``both`` on overlays and panels.
        score_thr: Smallest score of a predicted box that is drawn.
        colorbar: Whether values are told: a color bar beside overlays and heatmaps, ranges in captions.
        channels: Which channels are shown: ``first 16``, ``top 16`` (by mean activation), ``all``, or their numbers.
        channel_tiles: A channel as ``overlay`` over the image, or as ``heatmap`` alone.
        channel_files: Whether each channel gets a file of its own, instead of sheets of at most 64.
        attention_channels: How many of the most weighted channels ``attention`` shows.
        maps_dtype: ``float32`` or ``float16`` in saved maps.
    """

    normalize: str | Sequence[float] = 'image'
    colormap: str = 'jet'
    alpha: float = 0.4
    blend: str = 'alpha'
    align: str = 'center'
    save: Sequence[str] | str = ('overlay',)
    image_format: str = 'jpg'
    boxes: str | None = None
    score_thr: float = 0.3
    colorbar: bool = False
    channels: str | Sequence[int] = 'top 16'
    channel_tiles: str = 'overlay'
    channel_files: bool = False
    attention_channels: int = 8
    maps_dtype: str = 'float32'

    def __post_init__(self) -> None:
        def assign(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        assign('normalize', check_choice_or_range('normalize', self.normalize, NORMALIZATIONS))
        assign('save', tuple(check_choice('save', kind, KINDS) for kind in check_names('save', self.save)))
        check_number('alpha', self.alpha, 0, 1)
        check_number('score_thr', self.score_thr)
        check_choice('blend', self.blend, BLENDS)
        check_choice('align', self.align, ALIGNMENTS)
        check_choice('image_format', self.image_format, tuple(ENCODINGS))
        check_choice('channel_tiles', self.channel_tiles, CHANNEL_TILES)
        check_choice('maps_dtype', self.maps_dtype, MAPS_DTYPES)
        check_whole_number('attention_channels', self.attention_channels)
        if self.boxes is not None:
            check_choice('boxes', self.boxes, BOXES)
        parse_channel_choice(self.channels)
        self.table  # noqa: B018  an unknown color map is an error here, not at the first image

    @property
    def table(self) -> np.ndarray:
        """Look-up table (256, 1, 3) of the color map, BGR."""
        return get_colormap(self.colormap)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The kinds to save that are pictures."""
        return tuple(kind for kind in self.save if kind in PICTURES)


STYLE_OPTIONS = tuple(field.name for field in fields(Style))
