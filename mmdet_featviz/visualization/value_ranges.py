"""Value ranges: which values of a map become 0 to 255 in a picture."""

from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np

from mmdet_featviz.structures.grid import Grid

Limits = Mapping[str, 'tuple[float, float]']


def finite_range(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value; (0, 0) if there is none."""
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def visible_range(values: np.ndarray, grid: Grid) -> tuple[float, float]:
    """Smallest and largest finite value that the image shows; (0, 0) if there is none."""
    finite = np.isfinite(values)
    if finite.all():
        return finite_range(grid.visible(values))
    # What is not finite must neither spread into its neighbours nor bound the range.
    low, high = finite_range(values)
    lowest = finite_range(grid.visible(np.where(finite, values, np.float32(high))))[0]
    highest = finite_range(grid.visible(np.where(finite, values, np.float32(low))))[1]
    return min(lowest, highest), highest


def finite_heat(values: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.float32]:
    """The heatmap (height, width) of values in which what is not finite is as cold as the coldest, and that value."""
    lowest = np.float32(visible_range(values, grid)[0])
    return grid.heatmap(np.where(np.isfinite(values), values, lowest)), lowest


def union_of_ranges(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in ranges), max(high for _, high in ranges)
