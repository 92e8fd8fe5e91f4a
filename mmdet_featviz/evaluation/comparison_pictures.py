"""Comparison pictures: the overlays of two runs and their difference, side by side."""

from __future__ import annotations

import math
from typing import Sequence

import cv2
import numpy as np

from mmdet_featviz.evaluation.comparison_scores import ComparisonScores, HeatmapPair
from mmdet_featviz.visualization.colors import get_colormap, overlay, quantize, to_unit
from mmdet_featviz.visualization.sheets import add_colorbar, make_sheet, shrink_to_tile
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.unseen_pixels import hatch_unseen
from mmdet_featviz.visualization.value_ranges import finite_range

DIFFERENCE_COLORMAP = 'RdBu_r'  # from ColorBrewer: blue is negative, white is zero, red is positive


def draw_pair(
    captions: Sequence[Sequence[str]],
    heats: HeatmapPair,
    scores: ComparisonScores,
    image: np.ndarray | None,
    style: Style,
) -> list[tuple[list[str], np.ndarray]]:
    """Draw a pair of heatmaps: A and B, in one range or each in its own, and B - A.

    Args:
        captions: Lines on A and on B.
        heats: Their heatmaps.
        scores: Their scores, for the captions.
        image: The original image (height, width, 3), BGR; None draws the heatmaps without it.
        style: Of its fields, `table`, `alpha` and `blend` are used.

    Returns:
        Lines of the caption, and the tile, of each of the three.
    """
    tiles = []
    for letter, lines, heat, limits, share in zip(
        'AB', captions, (heats.a, heats.b), heats.limits, (scores.inside_a, scores.inside_b)
    ):
        gray = quantize(to_unit(heat, limits))
        colors = cv2.applyColorMap(gray, style.table)
        picture = colors if image is None else overlay(image, colors, style.alpha, style.blend, gray=gray)
        hatch_unseen(picture, heats.seen, image)
        caption = [f'{letter}: {lines[0]}', *lines[1:]]
        if not math.isnan(share):
            caption.append(f'{share:.1%} inside boxes (chance {scores.chance:.1%})')
        if not heats.seen.all():
            caption.append('hatched: A or B did not see it')
        tiles.append((caption, add_colorbar(shrink_to_tile(picture), style.table, limits)))
    correlation = 'undefined: one is constant' if math.isnan(scores.correlation) else f'{scores.correlation:.3f}'
    name = 'B - A' if heats.one_scale else 'B - A, each divided by its range'
    return [*tiles, ([name, f'correlation {correlation}'], draw_difference(heats.difference, heats.seen, image))]


def draw_difference(difference: np.ndarray, seen: np.ndarray, image: np.ndarray | None) -> np.ndarray:
    """Draw a difference (height, width): negative values in blue, positive ones in red, zero as the gray image.

    Pixels that are not `seen` (height, width) by both networks are hatched.
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


def draw_sheet(rows: Sequence[Sequence[tuple[list[str], np.ndarray]]], title: str) -> np.ndarray:
    """Join rows of captioned tiles into one sheet with a title."""
    width = max(tile.shape[1] for row in rows for _, tile in row)  # the numbers at color bars differ in length
    return make_sheet([[(caption, _pad_to_width(tile, width)) for caption, tile in row] for row in rows], title)


def _pad_to_width(tile: np.ndarray, width: int) -> np.ndarray:
    """Add white on the right of a tile."""
    return cv2.copyMakeBorder(tile, 0, 0, 0, width - tile.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255))
