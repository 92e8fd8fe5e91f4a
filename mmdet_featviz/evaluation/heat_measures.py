"""Heat measures: correlation of two heatmaps, and the share of heat inside boxes."""

from __future__ import annotations

import math

import numpy as np

from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level
from mmdet_featviz.visualization.value_ranges import finite_heat

# Relative to the largest value: interpolating a constant map in float32 leaves differences of up to this size.
UNEVENNESS = 1e-6
FLOOR = 0.05  # share of the pixels at or below the value that energy is counted from


def heat_on_image(level: Level, placement: Placement, align: str) -> np.ndarray:
    """Bring the activation map of a level onto its image.

    Args:
        level: The level.
        placement: Where the image is in the network's input.
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.

    Returns:
        The heatmap (height, width), float32. Values that are not finite, and pixels that the network did not see, get
        the smallest visible value.
    """
    grid = Grid(level.values.shape, level.stride, placement, align, level.offset)
    heat, lowest = finite_heat(level.values, grid)
    return np.where(placement.seen, heat, lowest)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two heatmaps of the same shape, -1 to 1, in float64; NaN if one is constant."""
    if is_constant(a) or is_constant(b):
        return math.nan
    a, b = (heat.astype(np.float64).ravel() - heat.mean(dtype=np.float64) for heat in (a, b))
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))


def heat_above_floor(heat: np.ndarray) -> np.ndarray | None:
    """Return the energy of each pixel: how far its value is above the floor, and 0 below; None if constant.

    The floor is the 5th percentile of the heatmap, so that a few cold pixels do not make all others look warm. If all
    values from there on are the same, it is the smallest value.

    Args:
        heat: The heatmap, of any shape; only the pixels that count.

    Returns:
        float64, of the same shape; None if the heatmap is constant.
    """
    if is_constant(heat):
        return None
    rank = int(FLOOR * (heat.size - 1))
    floor = np.partition(heat, rank, axis=None)[rank]
    if is_constant(np.maximum(heat, floor)):
        floor = heat.min()
    return np.maximum(np.subtract(heat, floor, dtype=np.float64), 0)


def energy_inside(heat: np.ndarray, inside: np.ndarray) -> float:
    """Share of a heatmap's energy inside boxes, 0 to 1; NaN if the heatmap is constant.

    This is the energy-based pointing game of Wang et al., Score-CAM, CVPR Workshops 2020: the sum of heat inside the
    boxes divided by the sum of all heat. In the paper no heat is negative; here it is counted from a floor, see
    :func:`heat_above_floor`. (The paper also divides by the largest value, which cancels out.)

    Args:
        heat: The heatmap, of any shape.
        inside: Which pixels are inside boxes: bool, of the same shape.
    """
    energy = heat_above_floor(heat)
    if energy is None:
        return math.nan
    return float(energy[inside].sum() / energy.sum())


def inside_boxes(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Find the pixels of an image whose center is in any of the boxes.

    Args:
        corners: (N, 4) as left, top, right, bottom, in pixels of the image.
        size: (height, width) of the image.

    Returns:
        (height, width) bool.
    """
    inside = np.zeros(size, bool)
    for left, top, right, bottom in pixel_ranges(corners, size).tolist():
        inside[top:bottom, left:right] = True
    return inside


def pixel_ranges(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Find the pixels of an image whose center is in each box.

    Args:
        corners: (N, 4) as left, top, right, bottom, in pixels of the image.
        size: (height, width) of the image.

    Returns:
        (N, 4) int: first column, first row, last column + 1, last row + 1.
    """
    height, width = size
    return np.clip(np.ceil(corners - 0.5), 0, [width, height, width, height]).astype(int)


def is_constant(heat: np.ndarray) -> bool:
    """Whether a heatmap has the same value everywhere, except for rounding errors."""
    if not heat.size:
        return True
    low, high = float(heat.min()), float(heat.max())
    return high - low <= UNEVENNESS * max(abs(low), abs(high))
