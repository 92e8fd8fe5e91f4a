"""Pictures of a comparison: both heatmaps and their difference."""

from __future__ import annotations

import math
from typing import Sequence

import cv2
import numpy as np

from mmdet_featviz.evaluation.comparison_scores import ComparisonScores, HeatmapPair
from mmdet_featviz.evaluation.level_matching import LevelPair
from mmdet_featviz.visualization.colors import get_colormap, overlay, quantize, to_unit
from mmdet_featviz.visualization.sheets import add_colorbar, make_sheet, shrink_to_tile
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.value_ranges import finite_range

DIVERGING = 'RdBu_r'  # ColorBrewer's: blue is less, white is zero, red is more


def draw_pair(
    pair: LevelPair, heats: HeatmapPair, figures: ComparisonScores, image: np.ndarray | None, style: Style
) -> list[tuple[list[str], np.ndarray]]:
    """Captions and tiles of a pair: A, B, and B - A."""
    tiles = []
    for letter, level, heat, share in (
        ('A', pair.a, heats.a, figures.inside_a),
        ('B', pair.b, heats.b, figures.inside_b),
    ):
        colors = cv2.applyColorMap(quantize(to_unit(heat, heats.limits)), style.table)
        laid = colors if image is None else overlay(image, colors, style.alpha, style.blend)
        caption = [f'{letter}: {level.name}', f'{level.channels} channels, stride {level.stride_text}']
        if not math.isnan(share):
            caption.append(f'{share:.1%} inside boxes (chance {figures.chance:.1%})')
        tiles.append((caption, add_colorbar(shrink_to_tile(laid), style.table, heats.limits)))
    agreement = 'undefined: one is constant' if math.isnan(figures.correlation) else f'{figures.correlation:.3f}'
    return [*tiles, (['B - A', f'correlation {agreement}'], draw_difference(heats.difference, image))]


def draw_difference(difference: np.ndarray, image: np.ndarray | None) -> np.ndarray:
    """A difference (height, width) as a tile with a color bar: blue is less, red more, zero leaves the image grey."""
    largest = finite_range(np.abs(difference))[1] or 1.0
    table, limits = get_colormap(DIVERGING), (-largest, largest)
    colors = cv2.applyColorMap(quantize(to_unit(difference, limits)), table)
    if image is not None:
        # A faint grey image, tinted: a plain blend would turn the white of zero into fog.
        faint = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) // 2 + 128, cv2.COLOR_GRAY2BGR)
        colors = cv2.multiply(colors, faint, scale=1 / 255)
    return add_colorbar(shrink_to_tile(colors), table, limits)


def draw_sheet(rows: Sequence[Sequence[tuple[list[str], np.ndarray]]], title: str) -> np.ndarray:
    """Rows of captioned tiles as one titled sheet."""
    width = max(tile.shape[1] for row in rows for _, tile in row)  # numbers beside color bars differ in length
    return make_sheet([[(caption, _widened(tile, width)) for caption, tile in row] for row in rows], title)


def _widened(tile: np.ndarray, width: int) -> np.ndarray:
    return cv2.copyMakeBorder(tile, 0, 0, 0, width - tile.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255))
