"""Style: the options that decide which pictures are made and how they look."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Iterable, Sequence

import numpy as np

from mmdet_featviz.capture.channel_selection import parse_channel_choice
from mmdet_featviz.structures.grid import ALIGNMENTS
from mmdet_featviz.structures.interpolation import INTERPOLATIONS
from mmdet_featviz.utils.arguments import (
    check_bool,
    check_choice,
    check_choice_or_range,
    check_name,
    check_names,
    check_number,
    check_range,
    check_whole_number,
)
from mmdet_featviz.visualization.box_drawing import BOX_KINDS, LABELS
from mmdet_featviz.visualization.colors import get_colormap
from mmdet_featviz.visualization.encoding import ENCODINGS

NORMALIZATIONS = ('image', 'percentile', 'max', 'layer', 'run')
BLENDS = ('alpha', 'fade', 'add')
RECEPTIVE_FIELD = 'receptive_field'
PICTURES = ('overlay', 'heatmap', 'panel', 'channels', 'overview', 'attention', 'scores', RECEPTIVE_FIELD)
BOX_FEATURES = 'box_features'
EMBEDDINGS = 'embeddings'
KINDS = (*PICTURES, 'maps', 'raw', BOX_FEATURES, EMBEDDINGS)
CHANNEL_TILES = ('overlay', 'heatmap')
FOREGROUNDS = ('component', 'boxes')
SMALLEST_TILE = 32
MAPS_DTYPES = ('float32', 'float16')


@dataclass(frozen=True)
class Style:
    """Which pictures are drawn, and how they look.

    Args:
        normalize: How values map to colors. Padding is ignored. ``image``: smallest to largest value of this heatmap;
            ``percentile``: two percentiles of its values, see `percentiles`; ``max``: zero to largest value, with
            negative cells as zero; ``layer``: smallest to largest value of all levels of the layer in this image;
            ``run``: 0.5th to 99.5th percentile of the level over all images of the run (pictures are then drawn at the
            end, from saved maps); or two numbers.
        percentiles: The two percentiles of ``normalize='percentile'``, 0 to 100.
        border: Number of cells along each side of the image that are left out when the range is found, as padding acts
            on them; they are drawn all the same.
        colormap: Any OpenCV or matplotlib color map.
        alpha: Weight of the heat in the overlay, 0 to 1.
        blend: ``alpha``: ``(1 - alpha) * image + alpha * heatmap``; ``fade``: the same with a weight that grows with
            the heat, from 0 at the first color to `alpha` at the last, so that cold regions keep the colors of the
            image; ``add``: ``image + alpha * heatmap``, clipped at white.
        interpolation: How heat is drawn between cells: ``bilinear``, ``nearest`` (each cell as a block) or ``cubic``.
            Explanations and the report page are bilinear.
        foreground: With ``reduction='pca'``, which cells the components are found of, and drawn; others are black.
            None: all cells. ``component``: those whose first component of all cells is positive, with the sign that
            makes the sides of the images negative (as in DINOv2: Oquab et al., TMLR 2024). ``boxes``: those centered in
            a box of the kind `boxes`, or else in any.
        align: Where the value of a cell is: at the center of its receptive field, as found from the network with the
            weights that are loaded (``auto``), or, in the block of input pixels that the cell covers, at its ``center``
            or at its top left ``corner``. Where no receptive field is found, ``auto`` is ``center``.
        save: What to save, one or several of ``overlay`` (heatmap over the image), ``heatmap`` (colors only, always
            PNG), ``panel`` (image and all levels on one sheet), ``overview`` (all levels in forward order, on titled
            sheets), ``channels`` (single channels of each level), ``attention`` (weights of channel attention, or mean
            activations of the channels without it), ``scores`` (what the head says at each cell, as the probability of
            the best class and of each of `classes`, over the image), ``receptive_field`` (theoretical and effective
            receptive field of each level, as the mean over the first 20 images of a test or validation, and a table),
            ``maps`` (activation maps, to draw later), ``raw`` (whole feature maps, with ``maps``), ``box_features`` (a
            vector per level for each box, of predictions with a score of at least `score_thr` and of ground truth) and
            ``embeddings`` (the first 16 principal components of each cell over all images, in eight bits, to find
            similar cells; written at the end, with ``maps``).
        tile_size: Longer side of the pictures on sheets in pixels, at least 32. None is 320, and 240 on sheets of
            channels.
        image_format: File format of pictures: ``jpg``, ``png`` or ``webp``.
        boxes: Boxes on overlays and panels: ``pred`` (predictions), ``gt`` (ground truth) or ``both``.
        score_thr: Lowest score of a predicted box that is drawn.
        labels: Text at boxes: ``full`` (class and score), ``class`` or ``none``. A label that would cover one of a
            higher score is left out.
        line_width: Width of the outlines of boxes, in pixels of the image. None follows the size of the image.
        font_size: Font size of labels and color bars, in pixels of the image. None follows the size of the image.
        colorbar: Show values: a color bar beside overlays and heatmaps, value ranges in captions.
        channels: Which channels to show: ``first 16``, ``top 16`` (largest mean activation), ``all``, or channel
            numbers, counted from 0.
        channel_tiles: Draw each channel as ``overlay`` on the image, or as ``heatmap`` only.
        channel_files: Write one file per channel instead of sheets of up to 64 channels.
        classes: Classes to show, as names or numbers: their boxes, and with ``scores`` their score maps. None draws all
            boxes, and score maps of the classes of the boxes predicted in the image with a score of at least
            `score_thr`.
        attention_channels: How many channels ``attention`` shows, those with the largest weights.
        maps_dtype: Precision of saved activation maps: ``float32`` or ``float16``.

    Raises:
        TypeError, ValueError: If an argument has another type or value.
    """

    normalize: str | Sequence[float] = 'image'
    percentiles: Sequence[float] = (1, 99)
    border: int = 0
    colormap: str = 'jet'
    alpha: float = 0.4
    blend: str = 'alpha'
    interpolation: str = 'bilinear'
    foreground: str | None = None
    align: str = 'auto'
    save: Sequence[str] | str = ('overlay',)
    tile_size: int | None = None
    image_format: str = 'jpg'
    boxes: str | None = None
    score_thr: float = 0.3
    labels: str = 'full'
    line_width: float | None = None
    font_size: float | None = None
    colorbar: bool = False
    channels: str | Sequence[int] = 'top 16'
    channel_tiles: str = 'overlay'
    channel_files: bool = False
    attention_channels: int = 8
    classes: Sequence[str] | str | None = None
    maps_dtype: str = 'float32'

    def __post_init__(self) -> None:
        def assign(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        assign('normalize', check_choice_or_range('normalize', self.normalize, NORMALIZATIONS))
        assign('save', tuple(check_choice('save', kind, KINDS) for kind in check_names('save', self.save)))
        assign('percentiles', check_range('percentiles', self.percentiles, 0, 100))
        check_whole_number('border', self.border, 0)
        check_bool('colorbar', self.colorbar)
        check_bool('channel_files', self.channel_files)
        check_name('colormap', self.colormap)
        if self.tile_size is not None:
            check_whole_number('tile_size', self.tile_size, SMALLEST_TILE)
        check_number('alpha', self.alpha, 0, 1)
        check_number('score_thr', self.score_thr)
        check_choice('blend', self.blend, BLENDS)
        check_choice('interpolation', self.interpolation, INTERPOLATIONS)
        check_choice('align', self.align, ALIGNMENTS)
        check_choice('image_format', self.image_format, tuple(ENCODINGS))
        check_choice('channel_tiles', self.channel_tiles, CHANNEL_TILES)
        check_choice('maps_dtype', self.maps_dtype, MAPS_DTYPES)
        check_whole_number('attention_channels', self.attention_channels)
        if self.classes is not None:
            assign('classes', check_names('classes', _as_texts(self.classes)))
        if self.foreground is not None:
            check_choice('foreground', self.foreground, FOREGROUNDS)
        check_choice('labels', self.labels, LABELS)
        for name, least in (('line_width', 0.1), ('font_size', 1)):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), least, 10_000)
        if self.boxes is not None:
            check_choice('boxes', self.boxes, BOX_KINDS)
        parse_channel_choice(self.channels)
        self.table  # noqa: B018  raise for an unknown color map now, not at the first image

    @property
    def table(self) -> np.ndarray:
        """Lookup table (256, 1, 3) of the color map, BGR, uint8."""
        return get_colormap(self.colormap)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The entries of `save` that are pictures, not map files."""
        return tuple(kind for kind in self.save if kind in PICTURES)


def _as_texts(classes: Any) -> Any:
    """The same with class indices as text; what is wrong stays so."""
    classes = [classes] if isinstance(classes, (str, int)) else classes
    return (
        [str(label) if type(label) is int else label for label in classes] if isinstance(classes, Iterable) else classes
    )


COLOR_OPTIONS = ('normalize', 'percentiles', 'border', 'colormap', 'alpha', 'blend', 'interpolation')
BOX_OPTIONS = ('boxes', 'score_thr', 'classes', 'labels', 'line_width', 'font_size')
STYLE_OPTIONS = tuple(field.name for field in fields(Style))
