"""Comparison pictures: the overlays of runs and their differences, side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, List, Sequence, Tuple

import cv2
import numpy as np

from mmdet_featviz.evaluation.comparison_scores import ComparisonScores, HeatmapGroup
from mmdet_featviz.runs.run_names import in_words
from mmdet_featviz.visualization.colors import get_colormap, overlay, quantize, to_unit
from mmdet_featviz.visualization.sheets import add_colorbar, make_sheet, shrink_to_tile
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.unseen_pixels import hatch_unseen
from mmdet_featviz.visualization.value_ranges import finite_range

Tile = Tuple[List[str], np.ndarray]  # lines of the caption, and the tile
DIFFERENCE_COLORMAP = 'RdBu_r'  # from ColorBrewer: blue is negative, white is zero, red is positive


@dataclass(frozen=True)
class ComparisonLook:
    """How the pictures of a comparison look.

    Attributes:
        style: Of its fields, `table`, `alpha` and `blend` are used.
        names: Names of the runs, for captions.
        original: Whether the image without heat is the first column.
    """

    style: Style
    names: Sequence[str]
    original: bool = False


def draw_group(
    captions: Sequence[Sequence[str]],
    group: HeatmapGroup,
    scores: ComparisonScores,
    image: np.ndarray | None,
    look: ComparisonLook,
    outlines: Sequence[Callable[[np.ndarray], np.ndarray]] = (),
) -> list[list[Tile]]:
    """Draw a group of heatmaps: each run, in one range or each in its own, and its difference to the first.

    Args:
        captions: Lines on the heatmap of each run.
        group: The heatmaps.
        scores: Their scores, for the captions.
        image: The original image (height, width, 3), BGR; None draws the heatmaps without it.
        look: How they look.
        outlines: For each run a function that draws its boxes on a tile.

    Returns:
        Lines of tiles: the runs and, beside two of them or else below each further one, the difference.
    """
    tiles = [_heat_tile(number, lines, group, scores, image, look, outlines) for number, lines in enumerate(captions)]
    differences = [_difference_tile(number, group, scores, image, look.names) for number in range(1, len(captions))]
    height, width = tiles[0][1].shape[:2]
    if look.original:
        blank = np.full((*group.seen.shape, 3), 255, np.uint8)
        original = ['image' if image is not None else 'image: cannot be read'], blank if image is None else image
        tiles.insert(0, (original[0], shrink_to_tile(original[1])))
    if len(captions) == 2:
        return [[*tiles, *differences]]
    left = len(tiles) - len(differences)
    return [tiles, [([], np.full((height, width, 3), 255, np.uint8))] * left + differences]


def _heat_tile(
    number: int,
    lines: Sequence[str],
    group: HeatmapGroup,
    scores: ComparisonScores,
    image: np.ndarray | None,
    look: ComparisonLook,
    outlines: Sequence[Callable[[np.ndarray], np.ndarray]],
) -> Tile:
    """The heatmap of a run; the image alone where it has none."""
    heat, limits, style = group.heats[number], group.limits[number], look.style
    caption = [f'{look.names[number]}: {lines[0]}', *lines[1:]]
    if heat is None:
        return caption, shrink_to_tile(np.full((*group.seen.shape, 3), 255, np.uint8) if image is None else image)
    gray = quantize(to_unit(heat, limits))
    colors = cv2.applyColorMap(gray, style.table)
    picture = colors if image is None else overlay(image, colors, style.alpha, style.blend, gray=gray)
    hatch_unseen(picture, group.seen, image)
    if not math.isnan(scores.inside[number]):
        caption.append(f'{scores.inside[number]:.1%} inside boxes (chance {scores.chance:.1%})')
    if not group.seen.all():
        caption.append(f'hatched: {in_words(look.names, "or")} did not see it')
    tile = shrink_to_tile(picture)
    return caption, add_colorbar(outlines[number](tile) if outlines else tile, style.table, limits)


def _difference_tile(
    number: int, group: HeatmapGroup, scores: ComparisonScores, image: np.ndarray | None, names: Sequence[str]
) -> Tile:
    """The difference of a run to the first one."""
    name = f'{names[number]} - {names[0]}'
    if group.heats[number] is None:
        return [name, 'no difference'], shrink_to_tile(np.full((*group.seen.shape, 3), 255, np.uint8))
    value = scores.correlations[number - 1]
    correlation = 'undefined: one is constant' if math.isnan(value) else f'{value:.3f}'
    name = name if group.one_scale else f'{name}, each divided by its range'
    return [name, f'correlation {correlation}'], draw_difference(group.difference(number), group.seen, image)


def draw_difference(difference: np.ndarray, seen: np.ndarray, image: np.ndarray | None) -> np.ndarray:
    """Draw a difference (height, width): negative values in blue, positive ones in red, zero as the gray image.

    Pixels that are not `seen` (height, width) by all networks are hatched.
    """
    largest = finite_range(np.abs(difference))[1] or 1.0
    table, limits = get_colormap(DIFFERENCE_COLORMAP), (-largest, largest)
    colors = cv2.applyColorMap(quantize(to_unit(difference, limits)), table)
    if image is not None:
        # Tint a light gray image: blending would cover it with the white of zero.
        light_gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) // 2 + 128, cv2.COLOR_GRAY2BGR)
        colors = cv2.multiply(colors, light_gray, scale=1 / 255)
    hatch_unseen(colors, seen, image)
    return add_colorbar(shrink_to_tile(colors), table, limits)


def draw_sheet(rows: Sequence[Sequence[Tile]], title: str) -> np.ndarray:
    """Join rows of captioned tiles into one sheet with a title; tiles of one column stand above each other."""
    width = max(tile.shape[1] for row in rows for _, tile in row)  # the numbers at color bars differ in length
    padded = [[(caption, _pad_to_width(tile, width)) for caption, tile in row] for row in rows]
    return make_sheet(padded, title, columns=max(map(len, rows)))


def _pad_to_width(tile: np.ndarray, width: int) -> np.ndarray:
    """Add white on the right of a tile."""
    return cv2.copyMakeBorder(tile, 0, 0, 0, width - tile.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255))
