"""Measures of heatmaps: correlation, and the share of heat inside boxes."""

from __future__ import annotations

import math

import numpy as np

from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level
from mmdet_featviz.visualization.value_ranges import finite_heat

# Interpolation in float32 leaves a constant map so uneven, as a part of its value: this is no signal.
UNEVENNESS = 1e-6


def heat_on_image(level: Level, placement: Placement, align: str) -> np.ndarray:
    """Bring a level onto its image.

    Returns:
        The heatmap (height, width) float32, in which what is not finite or was not seen is as cold as the coldest
        visible value.
    """
    grid = Grid(level.values.shape, level.stride, placement, align)
    heat, lowest = finite_heat(level.values, grid)
    return np.where(placement.seen, heat, lowest)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two heatmaps of one shape, in float64; NaN if one is constant."""
    if is_constant(a) or is_constant(b):
        return math.nan
    a, b = (heat.astype(np.float64).ravel() - heat.mean(dtype=np.float64) for heat in (a, b))
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))


def energy_inside(heat: np.ndarray, inside: np.ndarray) -> float:
    """Share of a heatmap's energy that lies inside the boxes, 0 to 1.

    The energy-based pointing game of Wang et al., Score-CAM, CVPR Workshops 2020: the heat, normalized to begin at
    zero, inside the boxes over all of it. (That its largest value becomes one cancels out.) NaN for a constant heatmap:
    it has no heat above its minimum that could lie anywhere.

    Args:
        heat: Of any shape.
        inside: The same shape, bool.
    """
    if is_constant(heat):
        return math.nan
    energy = heat.astype(np.float64) - heat.min()
    return float(energy[inside].sum() / energy.sum())


def inside_boxes(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which pixels of a image have their centre in any of the boxes.

    Args:
        corners: (N, 4) as left, top, right, bottom, in pixels of the image.
        size: (height, width) of the image.

    Returns:
        (height, width) bool.
    """
    inside = np.zeros(size, bool)
    for left, top, right, bottom in pixels_of(corners, size).tolist():
        inside[top:bottom, left:right] = True
    return inside


def pixels_of(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which pixels of a image have their centre in each box.

    Args:
        corners: (N, 4) as left, top, right, bottom, in pixels of the image.
        size: (height, width) of the image.

    Returns:
        (N, 4) int: first column and row, and those behind the last.
    """
    height, width = size
    return np.clip(np.ceil(corners - 0.5), 0, [width, height, width, height]).astype(int)


def is_constant(heat: np.ndarray) -> bool:
    """Whether a heatmap is nowhere warmer than elsewhere, but for errors of rounding."""
    if not heat.size:
        return True
    low, high = float(heat.min()), float(heat.max())
    return high - low <= UNEVENNESS * max(abs(low), abs(high))
