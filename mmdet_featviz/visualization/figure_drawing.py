"""Figure drawing: draws the tiles of a figure for print with matplotlib."""

from __future__ import annotations

import logging
from typing import Any, Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from mmengine.logging import print_log

from mmdet_featviz.utils.messages import count_noun
from mmdet_featviz.visualization.figure_layout import (
    MOST_PIXELS,
    POINTS_PER_INCH,
    SMALL_GAP,
    TICK,
    Bar,
    FigureLayout,
    FigureLook,
    FigureRow,
    FigureTile,
)
from mmdet_featviz.visualization.label_places import Area, free_place

EDGE = 1e-6  # pixels: older matplotlib rounds up, so that an error beyond a whole pixel stretches an image by one
LINE_WIDTH, FRAME_WIDTH = 0.9, 0.4  # points
INSET_COLOR, TEXT_COLOR = '#ffd400', 'black'


class PrintFigure(Figure):
    """A matplotlib figure whose fonts are embedded as TrueType in PDF and EPS files, as publishers ask for."""

    def savefig(self, fname: Any, **options: Any) -> None:
        with matplotlib.rc_context({'pdf.fonttype': 42, 'ps.fonttype': 42}):
            super().savefig(fname, **options)


def draw_figure_rows(rows: Sequence[FigureRow], columns: Sequence[str], look: FigureLook) -> PrintFigure:
    """Draw a figure: the tiles with their boxes, names of rows and columns, color bars.

    A picture of the size of its tile is drawn pixel by pixel. Labels of boxes that would cover others are left out,
    with a warning.

    Args:
        rows: The rows; each has a tile for each column.
        columns: Names of the columns; empty for none.
        look: How it looks.

    Raises:
        ValueError: If a tile would be too narrow, a name does not fit beside its tiles, or the figure is too large.
        ImageError: If an image cannot be read.
    """
    layout = FigureLayout(rows, columns, look)
    if layout.width * layout.height > MOST_PIXELS:
        raise ValueError(
            f'the figure would have {layout.width} x {layout.height:.0f} pixels, more than fit into memory: choose a '
            'smaller dpi or width, or fewer rows'
        )
    drawing = _FigureDrawing(layout)
    for name, tile in zip(layout.columns, layout.tiles[0]):
        drawing.text(name, (tile.left + tile.right) / 2, layout.top - look.pixels(SMALL_GAP), va='bottom')
    for number, (row, name, areas) in enumerate(zip(rows, layout.names, layout.tiles)):
        middle = (areas[0].top + areas[0].bottom) / 2
        left = areas[0].left - look.pixels(SMALL_GAP) - layout.text_height(name) / 2
        drawing.text(name, left, middle, va='center', rotation=90)
        for column, (tile, area) in enumerate(zip(row.tiles, areas)):
            drawing.tile(tile, row, area, layout.limits.get((number, column)))
    for bar in layout.bars():
        drawing.bar(bar)
    if drawing.omitted:
        print_log(
            f'{count_noun(drawing.omitted, "label")} of boxes left out, as they would cover others: '
            "choose a higher score_thr, wider tiles or labels='class'",
            'current',
            logging.WARNING,
        )
    return drawing.figure


class _FigureDrawing:
    """Draws the parts of one figure.

    Args:
        layout: Where they are.

    Attributes:
        figure: The figure.
        omitted: Number of labels that found no place.
    """

    def __init__(self, layout: FigureLayout) -> None:
        self.layout, self.look, self.omitted = layout, layout.look, 0
        # Older matplotlib cuts the fraction of a pixel, and so all of the last one if division loses a bit.
        size = (layout.width + EDGE) / self.look.dpi, (layout.height + EDGE) / self.look.dpi
        self.figure = PrintFigure(figsize=size, dpi=self.look.dpi)
        FigureCanvasAgg(self.figure)

    def text(self, text: str, x: float, y: float, **options: Any) -> None:
        """Write a name, centered at x."""
        if text:
            x, y = x / self.layout.width, 1 - y / self.layout.height
            self.figure.text(x, y, text, ha='center', **self._font(self.look.font_size), linespacing=1.1, **options)

    def tile(self, tile: FigureTile, row: FigureRow, area: Area, limits: tuple[float, float] | None) -> None:
        """Draw a picture with its boxes, labels and inset."""
        painted = tile.paint(limits)
        axes = self._picture(painted, row.crop, area)
        self._marks(axes, tile, row.crop, area)
        taken = []
        if row.zoom is not None:
            inset = self.layout.inset(row, area)
            frame = Rectangle(row.zoom[:2], row.zoom.width, row.zoom.height)
            axes.add_patch(_outlined(frame, INSET_COLOR))
            enlarged = self._picture(painted, row.zoom, inset)
            self._marks(enlarged, tile, row.zoom, inset)
            for spine in enlarged.spines.values():
                spine.set(visible=True, edgecolor=INSET_COLOR, linewidth=LINE_WIDTH)
            taken.append(Area(*(side - area[k % 2] for k, side in enumerate(inset))))
        if self.look.labels != 'none':
            self._labels(axes, tile, row.crop, area, taken)

    def bar(self, bar: Bar) -> None:
        """Draw a color bar with its ticks."""
        axes, rgb = self._axes(bar.area), self.look.table[..., ::-1]
        picture = rgb[::-1] if bar.is_upright else rgb.transpose(1, 0, 2)
        axes.imshow(picture, extent=(0, 1, 0, 1), interpolation='none', aspect='auto')
        low, high = bar.limits
        places = [(value - low) / ((high - low) or 1) for value, _ in bar.ticks]
        texts = [text for _, text in bar.ticks]
        axis = axes.yaxis if bar.is_upright else axes.xaxis
        axis.set_ticks(places)
        axis.set_ticklabels(texts, color=TEXT_COLOR, **self._font(self.look.small_size))
        half = self.look.pixels(TICK) / self.look.dpi * POINTS_PER_INCH / 2
        axis.set_tick_params(length=half, pad=half, width=FRAME_WIDTH)
        if bar.is_upright:
            axis.tick_right()
        axes.spines[:].set_linewidth(FRAME_WIDTH)

    def _font(self, size: float) -> dict[str, Any]:
        return dict(fontfamily=list(self.look.font), fontsize=size)

    def _axes(self, area: Area) -> Axes:
        """Axes without ticks over an area."""
        width, height = self.layout.width, self.layout.height
        left, bottom = area.left + EDGE / 2, height - area.bottom + EDGE / 2
        place = left / width, bottom / height, (area.width - EDGE) / width, (area.height - EDGE) / height
        return self.figure.add_axes(place, xticks=[], yticks=[])

    def _picture(self, painted: np.ndarray, part: Area, area: Area) -> Axes:
        """Axes in pixels of the image that show a part of a picture."""
        pixels = painted[part.top : part.bottom, part.left : part.right]
        if pixels.shape[:2] != (area.height, area.width):
            way = cv2.INTER_AREA if area.width < part.width else cv2.INTER_LINEAR
            pixels = cv2.resize(pixels, (area.width, area.height), interpolation=way)
        axes = self._axes(area)
        extent = part.left, part.right, part.bottom, part.top
        axes.imshow(pixels[..., ::-1], extent=extent, interpolation='none', aspect='auto')
        axes.spines[:].set_visible(False)
        return axes

    def _marks(self, axes: Axes, tile: FigureTile, part: Area, area: Area) -> None:
        """Draw the outlines of boxes, and points."""
        for corners, color, _ in _drawn_boxes(tile):
            left, top, right, bottom = corners.tolist()
            axes.add_patch(_outlined(Rectangle((left, top), right - left, bottom - top), color))
        largest = max((weight for *_, weight in tile.points), default=0.0) or 1.0
        radius = self.look.pixels(0.8) * part.width / area.width
        for x, y, weight in sorted(tile.points, key=lambda point: point[2]):  # the largest weights on top
            own = radius * (weight / largest) ** 0.5
            axes.add_patch(Circle((x, y), own, facecolor='white', edgecolor='black', linewidth=FRAME_WIDTH))

    def _labels(self, axes: Axes, tile: FigureTile, part: Area, area: Area, taken: list[Area]) -> None:
        """Label the boxes where the labels cover no other; the highest scores choose first."""
        height, pad = self.layout.line_height(self.look.small_size), max(1, self.look.pixels(0.3))
        scale = area.width / part.width
        for corners, color, caption in _drawn_boxes(tile, self.look.labels == 'full')[::-1]:
            box = (corners - [part.left, part.top, part.left, part.top]) * scale
            if (box[2:] <= 0).any() or box[0] >= area.width or box[1] >= area.height:
                continue
            caption = caption.replace('$', r'\$')  # no formula
            width = self.layout.text_width(caption, self.look.small_size) + 2 * pad
            place = free_place(box.tolist(), (width, height), (area.width, area.height), taken)
            if place is None:
                self.omitted += 1
            else:
                taken.append(place)
                self._label(axes, caption, color, place, area)

    def _label(self, axes: Axes, caption: str, color: Sequence[float], place: Area, area: Area) -> None:
        """Write a label on a ground of the color of its box, in black or white, whichever can be read."""
        left, top, right, bottom = (side / (area.height if k % 2 else area.width) for k, side in enumerate(place))
        ground = Rectangle((left, 1 - bottom), right - left, bottom - top, transform=axes.transAxes)
        ground.set(facecolor=color, edgecolor='none', zorder=3)
        axes.add_patch(ground)
        ink = 'black' if np.dot(color, (0.299, 0.587, 0.114)) > 0.5 else 'white'
        options = dict(ha='center', va='center', color=ink, zorder=4, transform=axes.transAxes)
        axes.text((left + right) / 2, 1 - (top + bottom) / 2, caption, **options, **self._font(self.look.small_size))


def _drawn_boxes(tile: FigureTile, with_scores: bool = True) -> list[tuple[np.ndarray, list[float], str]]:
    """Corners, RGB color (0 to 1) and caption of each box of a tile."""
    if tile.boxes is None:
        return []
    style, drawn = tile.box_style, []
    for corners, label, score in zip(tile.boxes.corners, tile.boxes.labels.tolist(), tile.boxes.scores.tolist()):
        color = [value / 255 for value in style.color(label, score)[::-1]]
        drawn.append((corners, color, style.caption(label, score if with_scores else float('nan'))))
    return drawn


def _outlined(patch: Rectangle, color: Any) -> Rectangle:
    """The outline of a patch, with a dark rim that keeps it visible on any color."""
    patch.set(facecolor='none', edgecolor=color, linewidth=LINE_WIDTH)
    patch.set_path_effects([patheffects.withStroke(linewidth=LINE_WIDTH + 0.8, foreground='black')])
    return patch
