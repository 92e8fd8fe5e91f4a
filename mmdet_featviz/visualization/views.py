"""Views: draws the pictures of a snapshot (overlays, heatmaps, panels, overviews, channels, attention)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Iterator, Mapping, Sequence

import cv2
import numpy as np
import torch

from mmdet_featviz.capture.channel_selection import (
    ChannelChoice,
    parse_channel_choice,
    select_channels,
    top_channels,
)
from mmdet_featviz.structures.channel_maps import ChannelMaps
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.principal_components import COLORS, PrincipalComponents
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.box_drawing import BoxStyle
from mmdet_featviz.visualization.charts import weight_chart
from mmdet_featviz.visualization.colors import overlay, quantize, to_unit
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.panel_layout import arrange_panel
from mmdet_featviz.visualization.sheets import (
    TILE_SIZE,
    CaptionedTile,
    add_colorbar,
    make_heading,
    make_sheet,
    shrink_to_tile,
)
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.unseen_pixels import hatch_unseen, unseen_caption
from mmdet_featviz.visualization.value_ranges import (
    NO_RANGE,
    Limits,
    channel_limits,
    find_own_range,
    find_visible_range,
    picture_limits,
    score_limits,
)

SHEET_TILES, SHEET_COLUMNS, SMALL_TILE = 64, 8, 240
CHART_WIDTH, CHART_HEIGHT = 1200, 240


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a snapshot.

    Attributes:
        name: File name in the image's folder.
        pixels: (H, W, 3), BGR, uint8.
        levels: Names of the levels that the picture shows.
    """

    name: str
    pixels: np.ndarray
    levels: Sequence[str]


@dataclass(frozen=True, eq=False)
class PlacedLevel:
    """A level laid over its image.

    Attributes:
        level: The level.
        grid: Its cells on the image.
        visible_range: Range of its finite values that are visible in the image, if it has any.
        own_range: The same, or what the style makes of it: without a border of cells, or percentiles.
        seen: (height, width) bool: which pixels of the image the network saw; the others are hatched.
        colors: (3, rows, columns) float32: red, green and blue of the cells, 0 to 1, if principal components are drawn;
            NaN is black.
        shares: Shares of the variance that these have.
    """

    level: Level
    grid: Grid
    visible_range: tuple[float, float] | None
    own_range: tuple[float, float] | None
    seen: np.ndarray
    colors: np.ndarray | None = None
    shares: Sequence[float] = ()

    @property
    def range(self) -> tuple[float, float]:
        """The same; (0, 0) without finite values."""
        return self.visible_range or NO_RANGE


class _Pages:
    """Collects tiles for sheets of at most 64, so that only the tiles of one sheet are in memory.

    Args:
        name: File name with ``{}`` in place of the page number; a single page has no number.
        count: Total number of tiles.
    """

    def __init__(self, name: str, count: int) -> None:
        self.count = count
        self._name = name
        self._pages = math.ceil(count / SHEET_TILES)
        self._added = self._taken = 0
        self._tiles: list = []

    def add(self, tile: tuple) -> None:
        self._tiles.append(tile)
        self._added += 1

    @property
    def is_full(self) -> bool:
        return len(self._tiles) == SHEET_TILES or self._added == self.count

    def take(self) -> tuple[str, str, list]:
        """Return file name, page number for the title, and tiles of the current page, and begin the next page."""
        tiles, self._tiles = self._tiles, []
        self._taken += 1
        if self._pages == 1:
            return self._name.format(''), '', tiles
        number = f'_{self._taken:0{len(str(self._pages))}d}'
        return self._name.format(number), f' (page {self._taken} of {self._pages})', tiles


class Views:
    """Draws the pictures of snapshots.

    Args:
        style: Which pictures are drawn, and how they look.
        limits: Value range of each level by its name; needed with ``normalize='run'`` only.
        components: Principal components of each level by its name; needed to draw these. Levels without are drawn from
            their activation maps.
    """

    def __init__(
        self, style: Style, limits: Limits | None = None, components: Mapping[str, PrincipalComponents] | None = None
    ) -> None:
        self.style = style
        self.limits = limits
        self.components = components

    def place(self, snapshot: Snapshot) -> list[PlacedLevel]:
        """Lay the levels of a snapshot over its image."""
        size = snapshot.placement.image_size
        placed = [self._with_colors(self.place_level(level, snapshot.placement), snapshot) for level in snapshot.levels]
        # The mean of passes has one value per pixel, and none where no pass saw the image.
        is_per_pixel = snapshot.is_mean and all(level.values.shape == size for level in snapshot.levels)
        return [replace(one, seen=~np.isnan(one.level.values)) for one in placed] if is_per_pixel else placed

    def _with_colors(self, placed: PlacedLevel, snapshot: Snapshot) -> PlacedLevel:
        """The same with the colors of its principal components, if these are known."""
        level, components = placed.level, (self.components or {}).get(placed.level.name)
        if level.compact is None or components is None:
            return placed
        colors = components.units(level.compact)
        if self.style.foreground == 'boxes':
            colors[:, ~self.cells_in_boxes(placed.grid, snapshot)] = np.nan
        return replace(placed, colors=colors, shares=components.shares[:COLORS])

    def cells_in_boxes(self, grid: Grid, snapshot: Snapshot) -> np.ndarray:
        """(rows, columns) bool: which cells are centered in a box of the kind that the style draws, or else in any."""
        if snapshot.boxes is None:
            return np.zeros(grid.cells, bool)
        style = BoxStyle(self.style.boxes or 'both', self.style.score_thr, snapshot.dataset_meta)
        return grid.centers_inside(style.select(snapshot.boxes).corners)

    def draw(self, snapshot: Snapshot, placed: Sequence[PlacedLevel], reuse: bool = False) -> Iterator[Picture]:
        """Draw all pictures that the style selects, one at a time.

        Args:
            snapshot: The snapshot.
            placed: Its levels, laid over the image.
            reuse: Whether the pixels of a picture are done with when the next one is asked for, which is then drawn in
                the same memory. Fresh memory for each picture takes about as long as its interpolation.

        Raises:
            ImageError: If the image is needed and cannot be read, after all pictures that do not need it.
        """
        kinds, image, error = set(self.style.pictures), None, None
        if kinds & self._kinds_with_image:
            try:
                image = snapshot.image()
            except ImageError as reason:  # still draw the pictures that do not need the image
                kinds, error = kinds - self._kinds_with_image, reason
        if kinds & {'overlay', 'scores', 'heatmap', 'panel', 'overview'}:
            yield from self._level_pictures(snapshot, placed, image, kinds, reuse)
        if 'channels' in kinds:
            for placed_level in placed:
                yield from self._channel_pictures(placed_level, image, snapshot.suffix)
        if 'attention' in kinds:
            yield from self._attention_pictures(snapshot, placed, image)
        if error is not None:
            raise error

    @property
    def _kinds_with_image(self) -> set[str]:
        channels = {'channels', 'attention'} if self.style.channel_tiles == 'overlay' else set()
        return {'overlay', 'scores', 'panel', 'overview'} | channels

    def _level_pictures(
        self,
        snapshot: Snapshot,
        placed: Sequence[PlacedLevel],
        image: np.ndarray | None,
        kinds: set[str],
        reuse: bool,
    ) -> Iterator[Picture]:
        suffix, ending = snapshot.suffix, self.style.image_format
        rows, pages = {}, _Pages(f'overview{{}}{suffix}.{ending}', len(placed))
        size = *snapshot.placement.image_size, 3
        overlays, heatmaps = (np.empty(size, np.uint8), np.empty(size, np.uint8)) if reuse else (None, None)
        for placed_level in placed:
            level, limits = placed_level.level, self.limits_of(placed_level, placed)
            if image is not None:
                laid = self.paint_level(placed_level, limits, image, overlays)
            if 'overlay' in kinds or (level.score_of is not None and 'scores' in kinds):
                finished = self._with_colorbar(self.draw_boxes(laid, snapshot), placed_level, limits)
                yield Picture(f'{level.name}{suffix}.{ending}', finished, [level.name])
            if 'heatmap' in kinds:
                heat = self.paint_level(placed_level, limits, out=heatmaps)
                name = f'{level.name}{suffix}.heatmap.png'
                yield Picture(name, self._with_colorbar(heat, placed_level, limits), [level.name])
            if {'panel', 'overview'} & kinds:
                tile = self._caption(placed_level, limits), shrink_to_tile(laid, self.style.tile_size or TILE_SIZE)
            if 'panel' in kinds:
                row = level.layer if level.score_of is None else (level.score_of,)  # a class has several layers
                rows.setdefault(row, []).append((level, *tile))
            if 'overview' in kinds:
                pages.add((level, *tile))
                if pages.is_full:
                    yield self._overview(snapshot, pages)
        if rows:
            yield self._panel(snapshot, rows, image)

    def draw_boxes(self, picture: np.ndarray, snapshot: Snapshot, scale: float = 1.0) -> np.ndarray:
        if self.style.boxes is None or snapshot.boxes is None:
            return picture
        look = self.style
        style = BoxStyle(
            look.boxes,
            look.score_thr,
            snapshot.dataset_meta,
            look.classes,
            look.labels,
            look.line_width,
            look.font_size,
        )
        return style.draw(picture, snapshot.boxes, scale)

    def _with_colorbar(self, picture: np.ndarray, placed_level: PlacedLevel, limits: tuple[float, float]) -> np.ndarray:
        if not self._shows_values(placed_level):
            return picture
        return add_colorbar(picture, self.style.table, limits, self.style.font_size)

    def _shows_values(self, placed_level: PlacedLevel) -> bool:
        """Whether the value range is shown: a color alone is no probability, and a principal component is no value."""
        return (self.style.colorbar and placed_level.colors is None) or placed_level.level.score_of is not None

    def _panel(self, snapshot: Snapshot, rows: Mapping[Any, Sequence[tuple]], image: np.ndarray) -> Picture:
        """One sheet with the image and all levels."""
        small = shrink_to_tile(image, self.style.tile_size or TILE_SIZE)
        scale = max(small.shape) / max(image.shape)
        tiles = {
            level.name: (caption, self.draw_boxes(tile, snapshot, scale))
            for row in rows.values()
            for level, caption, tile in row
        }
        layout = arrange_panel([[level for level, *_ in row] for row in rows.values()])
        sheet = [[level and tiles[level.name] for level in row] for row in layout]
        sheet[0][0] = ['image'], self.draw_boxes(small, snapshot, scale)
        picture = make_sheet(sheet, columns=max(map(len, sheet)), scale=self._text_scale)
        return Picture(f'panel{snapshot.suffix}.{self.style.image_format}', picture, list(tiles))

    @property
    def _text_scale(self) -> float:
        """Size of text on sheets, relative to the usual one: larger tiles have larger text."""
        return max(1.0, (self.style.tile_size or 0) / TILE_SIZE)

    def _overview(self, snapshot: Snapshot, pages: _Pages) -> Picture:
        """One page of levels in forward order."""
        name, number, page = pages.take()
        title = f'{snapshot.key}: {pages.count} levels in forward order{number}'
        picture = self._sheet([(caption, tile) for _, caption, tile in page], title)
        return Picture(name, picture, [level.name for level, _, _ in page])

    def _sheet(self, tiles: Sequence[CaptionedTile], title: str) -> np.ndarray:
        return make_sheet([tiles], title, SHEET_COLUMNS, self._text_scale)

    def _channel_pictures(self, placed_level: PlacedLevel, image: np.ndarray | None, suffix: str) -> Iterator[Picture]:
        level, channels = placed_level.level, self._picked(placed_level.level)
        if channels is None:
            return
        base, ending = f'{level.name}{suffix}', self.style.image_format
        ranges = self._channel_limits(channels, placed_level.grid)
        if self.style.channel_files:
            digits = len(str(level.channels - 1))
            for number, values, limits in zip(channels.indices.tolist(), channels.maps, ranges):
                tile = self._draw_channel(values, placed_level.grid, limits, image)
                name = f'{base}.channel_{number:0{digits}d}.{ending}'
                yield Picture(name, self._with_colorbar(tile, placed_level, limits), [level.name])
            return
        pages = _Pages(f'{base}.channels{{}}.{ending}', len(channels.indices))
        for tile in self._channel_tiles(channels, placed_level.grid, ranges, image):
            pages.add(tile)
            if pages.is_full:
                name, number, page = pages.take()
                title = f'{level.name}: {pages.count} of {level.channels} channels, stride {level.stride_text}{number}'
                yield Picture(name, self._sheet(page, title), [level.name])

    def _attention_pictures(
        self, snapshot: Snapshot, placed: Sequence[PlacedLevel], image: np.ndarray | None
    ) -> Iterator[Picture]:
        """The weights of channel attention or, without channel attention, the mean activation of each channel."""
        attended = [self.place_level(level, snapshot.placement) for level in snapshot.attention]
        for placed_level in attended or placed:
            channels = self._pooled(placed_level.level)
            if channels is not None:
                name = f'{placed_level.level.name}{snapshot.suffix}.attention.{self.style.image_format}'
                figure = self._weight_figure(placed_level, channels, bool(attended), image)
                yield Picture(name, figure, [] if attended else [placed_level.level.name])

    def _weight_figure(
        self, placed_level: PlacedLevel, channels: ChannelMaps, is_attention: bool, image: np.ndarray | None
    ) -> np.ndarray:
        """A title that names the weights, the channels with the largest weights, and a chart of all weights."""
        level, quantity, tiles = placed_level.level, 'weight', []
        if level.values.shape == (1, 1):  # a tile would show a single value, which the chart shows too
            title = f'{level.name}: its {level.channels} numbers, one for each channel'
        elif is_attention:
            title = f'{level.layer}: weights that this channel attention gives its {level.channels} channels'
        else:
            quantity = 'mean activation'
            title = f'{level.name}: global average pooling of its {level.channels} channels (no channel attention)'
        if level.values.shape != (1, 1):
            ranges = self._channel_limits(channels, placed_level.grid)
            tiles = list(self._channel_tiles(channels, placed_level.grid, ranges, image, quantity))
        scale = self._text_scale
        top = self._sheet(tiles, title) if tiles else make_heading(title, round(CHART_WIDTH * scale), scale)
        size = top.shape[1], round(CHART_HEIGHT * scale)
        chart = weight_chart(channels.weights, channels.indices, quantity, size, scale)
        return np.concatenate([top, chart])

    def _channel_tiles(
        self,
        channels: ChannelMaps,
        grid: Grid,
        ranges: Sequence[tuple[float, float]],
        image: np.ndarray | None,
        quantity: str = '',
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """Draw captions and tiles of channels, one at a time."""
        for number, values, limits in zip(channels.indices.tolist(), channels.maps, ranges):
            values_text = self._range_text(limits) if self.style.colorbar else []
            caption = [f'channel {number}', *values_text, *unseen_caption(grid.placement.seen)]
            if quantity:
                caption.insert(1, f'{quantity} {channels.weights[number]:.4g}')
            tile = self._draw_channel(values, grid, limits, image)
            yield caption, shrink_to_tile(tile, self.style.tile_size or SMALL_TILE)

    def _draw_channel(
        self, values: np.ndarray, grid: Grid, limits: tuple[float, float], image: np.ndarray | None
    ) -> np.ndarray:
        return self.paint(
            values, grid, limits, grid.placement.seen, image if self.style.channel_tiles == 'overlay' else None
        )

    def overlay_level(self, image: np.ndarray, placed_level: PlacedLevel, placed: Sequence[PlacedLevel]) -> np.ndarray:
        """The overlay (height, width, 3) of one of the placed levels on the image."""
        return self.paint_level(placed_level, self.limits_of(placed_level, placed), image)

    def paint_level(
        self,
        placed_level: PlacedLevel,
        limits: tuple[float, float],
        image: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draw the colored heatmap (height, width, 3) of a level, or lay it over an image.

        Its principal components have colors of their own, whatever the limits are. The picture is written to `out`, or
        to a new array.
        """
        if placed_level.colors is None:
            return self.paint(placed_level.level.values, placed_level.grid, limits, placed_level.seen, image, out)
        picture = self._paint_colors(placed_level.colors, placed_level.grid, out)
        if image is not None:
            gray = picture.max(2) if self.style.blend == 'fade' else None
            overlay(image, picture, self.style.alpha, self.style.blend, picture, gray)
        return hatch_unseen(picture, placed_level.seen, image, 0.5 if image is None else self.style.alpha)

    def _paint_colors(self, colors: np.ndarray, grid: Grid, out: np.ndarray | None) -> np.ndarray:
        """The picture (height, width, 3), BGR, of the colors of cells (3, rows, columns), RGB, 0 to 1."""
        picture = _new_picture(grid) if out is None else out
        for channel, values in zip((2, 1, 0), colors):
            for rows, heat in grid.heatmap_blocks(to_unit(values, (0.0, 1.0)), self.style.interpolation):
                picture[rows, :, channel] = quantize(heat)
        return picture

    def paint(
        self,
        values: np.ndarray,
        grid: Grid,
        limits: tuple[float, float],
        seen: np.ndarray,
        image: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draw the colored heatmap (height, width, 3) of the values of cells (rows, columns), or lay it over an image.

        Pixels that are not `seen` (height, width) are hatched. The picture is written to `out`, or to a new array.
        """
        if self.style.normalize == 'max':  # as published code does: negative cells are 0, also to their neighbors
            values = np.maximum(values, 0)
        picture = _new_picture(grid) if out is None else out
        unit = to_unit(values, limits)
        shown = unit[grid.window()]
        is_cut = self.style.interpolation != 'cubic' and bool(shown.size and shown.min() >= 0 and shown.max() <= 1)
        for rows, heat in grid.heatmap_blocks(unit, self.style.interpolation):
            gray = quantize(heat, is_cut)
            colors = cv2.applyColorMap(gray, self.style.table, picture[rows] if image is None else None)
            if image is not None:
                overlay(image[rows], colors, self.style.alpha, self.style.blend, picture[rows], gray)
        return hatch_unseen(picture, seen, image, 0.5 if image is None else self.style.alpha)

    def place_level(self, level: Level, placement: Placement) -> PlacedLevel:
        """Lay a level over an image."""
        grid = Grid(level.values.shape, level.stride, placement, self.style.align, level.offset)
        own = visible = find_visible_range(level.values, grid)
        if self.style.border or self.style.normalize == 'percentile':
            own = self._own_range(level.values, grid, level.score_of is not None)
        return PlacedLevel(level, grid, visible, own, placement.seen)

    def _own_range(self, values: np.ndarray, grid: Grid, are_scores: bool = False) -> tuple[float, float] | None:
        """The range of a map by the style. Scores have no percentiles: most cells of a class are near zero."""
        percentiles = self.style.percentiles if self.style.normalize == 'percentile' and not are_scores else None
        return find_own_range(values, grid, self.style.border, percentiles)

    def _picked(self, level: Level) -> ChannelMaps | None:
        """The channels for channel pictures: from the whole feature map if there is one, else as recorded."""
        return _select_raw(level, parse_channel_choice(self.style.channels)) or level.picked

    def _pooled(self, level: Level) -> ChannelMaps | None:
        """The channels with the largest weights, for attention pictures."""
        return _select_raw(level, partial(top_channels, self.style.attention_channels)) or level.pooled

    def limits_of(self, placed_level: PlacedLevel, placed: Sequence[PlacedLevel]) -> tuple[float, float]:
        """The values drawn in the first and the last color, for one of the levels placed over an image."""
        normalize, level = self.style.normalize, placed_level.level
        own = placed_level.own_range or NO_RANGE
        if level.score_of is not None and normalize in ('image', 'max', 'layer', 'percentile'):
            return score_limits(level.score_of, ((other.level.score_of, other.own_range) for other in placed))
        same_layer = (other.own_range for other in placed if other.level.layer == level.layer)
        layer = [limits for limits in same_layer if limits is not None]
        # A level without finite values in any image has no range over the run.
        run = self.limits.get(level.name, own) if normalize == 'run' else None
        return picture_limits(normalize, own, layer, run)

    def _channel_limits(self, channels: ChannelMaps, grid: Grid) -> list[tuple[float, float]]:
        """The values drawn in the first and the last color, for each channel."""
        return channel_limits(self.style.normalize, [self._own_range(values, grid) for values in channels.maps])

    def _caption(self, placed_level: PlacedLevel, limits: tuple[float, float]) -> list[str]:
        level = placed_level.level
        facts = f'{level.content}, stride {level.stride_text}'
        values = self._range_text(limits) if self._shows_values(placed_level) else []
        if placed_level.colors is not None:
            values = [variance_text(placed_level.shares)]
        return [level.name, facts, *values, *unseen_caption(placed_level.seen)]

    @staticmethod
    def _range_text(limits: tuple[float, float]) -> list[str]:
        return [f'{limits[0]:.4g} to {limits[1]:.4g}']


def _new_picture(grid: Grid) -> np.ndarray:
    return np.empty((*grid.placement.image_size, 3), np.uint8)


def variance_text(shares: Sequence[float]) -> str:
    """What share of the variance principal components have, for captions."""
    return f'PCA: {" + ".join(f"{share:.0%}" for share in shares)} of the variance'


def _select_raw(level: Level, choice: ChannelChoice) -> ChannelMaps | None:
    """The chosen channels of the whole feature map; None if it was not recorded."""
    return (
        None if level.raw is None else select_channels(torch.from_numpy(np.array(level.raw)), choice, level=level.name)
    )
