"""Figure layout: sizes and positions of everything in a figure for print, in whole pixels."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Callable, Hashable, Iterator, Sequence

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.visualization.box_drawing import BoxStyle
from mmdet_featviz.visualization.label_places import Area
from mmdet_featviz.visualization.round_ticks import round_ticks

MM_PER_INCH, POINTS_PER_INCH = 25.4, 72
GAP, SMALL_GAP, BAR, TICK = 1.5, 0.6, 2.2, 1.2  # mm: between tiles, beside text, thickness of a bar, tick and its gap
NARROWEST_TILE = 8  # mm
SMALLEST_TEXT = 6  # points
LINE = 1.25  # height of a line of text, in font sizes
MOST_TICKS = 5
INSET, INSET_MARGIN = 0.42, 0.02  # share of the sides of a tile, and of its width
MOST_PIXELS = 1 << 28
SHARES = ('tile', 'row', 'column', 'figure')


def is_math_text(text: str) -> bool:
    """Whether matplotlib sets a text as a formula: one between two dollar signs."""
    return len(re.findall(r'(?<!\\)\$', text)) > 1


@dataclass(frozen=True, eq=False)
class FigureTile:
    """A picture of one image in a figure.

    Attributes:
        paint: Returns the picture (height, width, 3), BGR, uint8, in the size of the image, for a range of values.
        limits: The range of its heat, if it shares none; None for a picture without heat.
        kind: What the values are; those of one kind can be compared.
        boxes: The boxes that are drawn.
        box_style: Their colors and captions.
        points: (x, y, weight) of the points that are drawn, in pixels of the image.
    """

    paint: Callable[[tuple[float, float] | None], np.ndarray]
    limits: tuple[float, float] | None = None
    kind: Hashable = None
    boxes: Boxes | None = None
    box_style: BoxStyle | None = None
    points: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True, eq=False)
class FigureRow:
    """A row of a figure: one image.

    Attributes:
        name: Text on its left; empty for none.
        tiles: One picture for each column.
        crop: The part of the image that is shown.
        zoom: The part of the image that is also shown enlarged, in a corner; None for no inset.
    """

    name: str
    tiles: Sequence[FigureTile]
    crop: Area
    zoom: Area | None = None


@dataclass(frozen=True)
class FigureLook:
    """How a figure looks.

    Attributes:
        table: (256, 1, 3), BGR: the color map of the heat.
        width: Width of the figure in mm.
        dpi: Resolution of pictures.
        font: Families; a letter is taken from the first that has it.
        font_size: Size of names in points. Other text is one point smaller, but has at least 6 points.
        share: Which tiles share a range of values, and so a color bar: one of `SHARES`.
        colorbar: Whether color bars are drawn.
        labels: Text at boxes: class and score (``full``), ``class`` or ``none``.
    """

    table: np.ndarray = field(repr=False)
    width: float = 180
    dpi: int = 300
    font: Sequence[str] = ('DejaVu Sans',)
    font_size: float = 7
    share: str = 'row'
    colorbar: bool = True
    labels: str = 'full'

    @property
    def small_size(self) -> float:
        """Font size of ticks and of labels, in points."""
        return max(self.font_size - 1, SMALLEST_TEXT)

    def pixels(self, mm: float) -> int:
        """Convert millimeters to whole pixels."""
        return round(mm / MM_PER_INCH * self.dpi)


@dataclass(frozen=True)
class Bar:
    """A color bar.

    Attributes:
        limits: Values at its ends.
        area: Its place, without ticks.
        is_upright: Whether it is vertical, with the largest value above.
        ticks: Values and labels.
    """

    limits: tuple[float, float]
    area: Area
    is_upright: bool
    ticks: Sequence[tuple[float, str]]


def check_fonts(names: Sequence[str]) -> None:
    """Raise ValueError for a font family that matplotlib does not find."""
    for name in names:
        try:
            font_manager.findfont(font_manager.FontProperties(family=[name]), fallback_to_default=False)
        except ValueError:
            known = sorted({font.name for font in font_manager.fontManager.ttflist})
            close = difflib.get_close_matches(name, known, n=3) or known
            raise ValueError(f'no font {name!r} is installed: choose for example {first_names(close)}') from None


def share_limits(rows: Sequence[FigureRow], share: str) -> dict[tuple[int, int], tuple[float, float]]:
    """Return {(row, column): range of values} of the tiles with heat; tiles that share a range have its union."""
    own = {
        (row, column): tile.limits
        for row, line in enumerate(rows)
        for column, tile in enumerate(line.tiles)
        if tile.limits is not None
    }
    shared: dict[Hashable, tuple[float, float]] = {}
    for cell, (low, high) in own.items():
        lowest, highest = shared.get(_sharing(cell, share), (low, high))
        shared[_sharing(cell, share)] = min(low, lowest), max(high, highest)
    return {cell: shared[_sharing(cell, share)] for cell in own}


def _sharing(cell: tuple[int, int], share: str) -> Hashable:
    """What all cells (row, column) that share a range have in common."""
    return {'tile': cell, 'row': cell[0], 'column': cell[1], 'figure': None}[share]


def _tile_height(row: FigureRow, width: int) -> int:
    return max(1, round(width * row.crop.height / row.crop.width))


def _tick_distance(ticks: Sequence[tuple[float, str]], limits: tuple[float, float], length: int) -> float:
    """Distance of two ticks of a bar of a length; of a single one, the length."""
    if len(ticks) < 2:
        return length
    return (ticks[1][0] - ticks[0][0]) / (limits[1] - limits[0]) * length


class FigureLayout:
    """Where everything in a figure is. All tiles have one width, and the height that their rows need.

    Args:
        rows: The rows; each has a tile for each column.
        columns: Names of the columns; empty for none.
        look: How the figure looks.

    Attributes:
        limits: {(row, column): range of values} of the tiles with heat.
        width: Width of the figure.
        height: Height of the figure.
        names: Names of the rows, broken into lines.
        columns: The same of the columns.
        top: Upper end of the tiles.
        tiles: The area of each tile, for each row.

    Raises:
        ValueError: If a tile would be too narrow, or a name does not fit beside its tiles.
    """

    def __init__(self, rows: Sequence[FigureRow], columns: Sequence[str], look: FigureLook) -> None:
        self.rows, self.look = rows, look
        self.limits = share_limits(rows, look.share)
        self.width = look.pixels(look.width)
        self._count = len(columns)
        self._has_bars = look.colorbar and bool(self.limits)
        tile_width = self._break_names()
        self.columns = [self._wrap(name, tile_width) for name in columns]
        names = max(map(self.text_height, self.columns))
        self.top = bottom = names + look.pixels(SMALL_GAP) if names else 0
        self.tiles: list[list[Area]] = []
        for row in rows:
            height, lefts = _tile_height(row, tile_width), self._lefts(tile_width)
            self.tiles.append([Area(left, bottom, left + tile_width, bottom + height) for left in lefts])
            bottom += height + look.pixels(GAP)
        self.height = bottom - look.pixels(GAP)
        if self._has_bars and look.share == 'column':
            self.height += look.pixels(SMALL_GAP + BAR + TICK) + self.line_height(look.small_size)

    def bars(self) -> list[Bar]:
        """The color bars."""
        if not self._has_bars:
            return []
        places = {_sharing(cell, self.look.share): (cell, limits) for cell, limits in self.limits.items()}
        return [self._bar(*cell, limits) for cell, limits in places.values()]

    def inset(self, row: FigureRow, tile: Area) -> Area:
        """The place of an inset: the corner of a tile where it covers the least of what it enlarges, then of boxes.

        It is the same corner in all tiles of a row.
        """
        zoom, crop = row.zoom, row.crop
        factor = min(INSET * tile.width / zoom.width, INSET * tile.height / zoom.height)
        width, height = max(1, round(zoom.width * factor)), max(1, round(zoom.height * factor))
        margin, scale = max(1, round(INSET_MARGIN * tile.width)), tile.width / crop.width
        boxes = [corners for one in row.tiles if one.boxes is not None for corners in one.boxes.corners.tolist()]
        shown, *boxes = (
            [(side - crop[k % 2]) * scale + tile[k % 2] for k, side in enumerate(r)] for r in (zoom, *boxes)
        )
        corners = [
            Area(left, top, left + width, top + height)
            for top in (tile.bottom - margin - height, tile.top + margin)
            for left in (tile.right - margin - width, tile.left + margin)
        ]
        return min(corners, key=lambda corner: (corner.overlap(shown), sum(map(corner.overlap, boxes))))

    def text_width(self, text: str, size: float) -> int:
        """Width of a line of text."""
        font = font_manager.FontProperties(family=list(self.look.font), size=size)
        text = text if is_math_text(text) else text.replace(r'\$', '$')
        return math.ceil(self._renderer.get_text_width_height_descent(text, font, is_math_text(text))[0])

    def line_height(self, size: float) -> int:
        """Height of a line of text."""
        return math.ceil(LINE * size / POINTS_PER_INCH * self.look.dpi)

    def text_height(self, name: str) -> int:
        """Height of a name of one or several lines."""
        return self.line_height(self.look.font_size) * len(name.split('\n')) if name else 0

    @cached_property
    def _renderer(self) -> Any:
        return FigureCanvasAgg(Figure((1, 1), self.look.dpi)).get_renderer()

    def _break_names(self) -> int:
        """Break the names of the rows, each line of which makes all tiles smaller; return the width of the tiles."""
        self.names, room = [row.name for row in self.rows], -1
        while room < (needed := max(map(self.text_height, self.names))):
            room = needed
            self._left = room + self.look.pixels(SMALL_GAP) if room else 0
            width = self._tile_width()
            self.names = [self._wrap(row.name, _tile_height(row, width)) for row in self.rows]
        return width

    def _wrap(self, name: str, width: int) -> str:
        """Break a name at blanks, and a long word after a dot, underscore, slash or dash, so that it fits a width.

        Raises:
            ValueError: If a part does not.
        """
        lines = []
        for paragraph in name.split('\n'):
            lines.append('')
            for part in self._parts(paragraph, width):
                longer = lines[-1] + part
                if lines[-1] and self.text_width(longer.rstrip(), self.look.font_size) > width:
                    lines.append(part)
                else:
                    lines[-1] = longer
        lines = [line.strip() for line in lines]
        wrapped = '\n'.join(lines)
        self._check_width(wrapped, width)
        return wrapped

    def _parts(self, paragraph: str, width: int) -> Iterator[str]:
        """Where a paragraph can be broken: its words, and the parts of those that are wider than a line."""
        for word in re.findall(r'(?:\\.|\$[^$]*\$|\S)+', paragraph):  # blanks in a formula separate no words
            is_long = self.text_width(word, self.look.font_size) > width and not is_math_text(word)
            *parts, last = re.findall(r'.+?(?:[._/-]+|$)', word) if is_long else [word]
            yield from parts
            yield f'{last} '

    def _check_width(self, name: str, width: int) -> None:
        for line in name.split('\n'):
            if self.text_width(line, self.look.font_size) > width + self.look.pixels(GAP) / 2:
                raise ValueError(
                    f'the name {line!r} is longer than the {width / self.look.dpi * MM_PER_INCH:.0f} mm of its tiles: '
                    'shorten it, break it with a line end, or make the figure wider'
                )

    def _has_upright_bar(self, column: int) -> bool:
        """Whether color bars are right of the tiles of a column."""
        if not self._has_bars or self.look.share == 'column':
            return False
        is_last = column == self._count - 1
        return any(column == other for _, other in self.limits) if self.look.share == 'tile' else is_last

    @cached_property
    def _bar_room(self) -> int:
        """Width of an upright color bar with its labels."""
        ticks = [text for limits in self.limits.values() for _, text in round_ticks(*limits, MOST_TICKS)]
        widest = max(self.text_width(text, self.look.small_size) for text in ticks)
        return self.look.pixels(SMALL_GAP + BAR + TICK) + widest

    def _tile_width(self) -> int:
        bars = sum(map(self._has_upright_bar, range(self._count)))
        room = self.width - self._left - (self._count - 1) * self.look.pixels(GAP)
        width = (room - (bars * self._bar_room if bars else 0)) // self._count
        if width < self.look.pixels(NARROWEST_TILE):
            raise ValueError(
                f'{count_noun(self._count, "column")} do not fit into {self.look.width:g} mm: make the figure wider, '
                'or choose fewer columns'
            )
        return width

    def _lefts(self, tile_width: int) -> list[int]:
        """Left end of each column."""
        lefts = [self._left]
        for column in range(self._count - 1):
            bar = self._bar_room if self._has_upright_bar(column) else 0
            lefts.append(lefts[-1] + tile_width + bar + self.look.pixels(GAP))
        return lefts

    def _bar(self, row: int, column: int, limits: tuple[float, float]) -> Bar:
        """The color bar of a tile, or of all tiles that share its range."""
        look, gap, thickness = self.look, self.look.pixels(SMALL_GAP), self.look.pixels(BAR)
        if look.share == 'column':
            tile = self.tiles[-1][column]
            area = Area(tile.left, tile.bottom + gap, tile.right, tile.bottom + gap + thickness)
            return self._lying_bar(limits, area)
        tile = self.tiles[row][column if look.share == 'tile' else -1]
        tops = self.tiles[0][0].top if look.share == 'figure' else tile.top
        # Shorter by half a line at both ends, where a label may be.
        margin = self.line_height(look.small_size) // 2
        area = Area(tile.right + gap, tops + margin, tile.right + gap + thickness, tile.bottom - margin)
        height = self.line_height(look.small_size)
        ticks = round_ticks(*limits, max(min(MOST_TICKS, area.height // height), 2))
        if _tick_distance(ticks, limits, area.height) < height / LINE:  # digits are lower than a line
            raise ValueError(
                f'tiles of {tile.height / look.dpi * MM_PER_INCH:.0f} mm are too low for the ticks of their color '
                'bars: set share to column or colorbar to false'
            )
        return Bar(limits, area, True, ticks)

    def _lying_bar(self, limits: tuple[float, float], area: Area) -> Bar:
        """A horizontal bar with as many ticks as have place; a label reaches beyond it by at most half of its width."""
        size = self.look.small_size
        for most in range(MOST_TICKS, 1, -1):
            ticks = round_ticks(*limits, most)
            widest = max(self.text_width(text, size) for _, text in ticks)
            bar = area._replace(left=area.left + widest // 2, right=area.right - widest // 2)
            if widest + self.look.pixels(2 * SMALL_GAP) < bar.width / max(len(ticks), 1):
                return Bar(limits, bar, False, ticks)
        if _tick_distance(ticks, limits, bar.width) <= widest:
            raise ValueError(
                f'columns of {area.width / self.look.dpi * MM_PER_INCH:.0f} mm are too narrow for the ticks of their '
                'color bars: make the figure wider, or set share to row or colorbar to false'
            )
        return Bar(limits, bar, False, ticks)
