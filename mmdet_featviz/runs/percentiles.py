"""Percentiles: the value range of each level over all images of a run, for normalize='run'."""

from __future__ import annotations

from typing import Iterator, Sequence

import numpy as np

from mmdet_featviz.runs.maps_file import load_snapshot
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.snapshot import is_mean
from mmdet_featviz.visualization.value_ranges import finite_visible

PERCENTILES = 0.5, 99.5
BINS = 1 << 16


def run_ranges(paths: Sequence[str], align: str, border: int = 0) -> dict[str, tuple[float, float]]:
    """Return {level name: 0.5th and 99.5th percentile of its values} over all images of a run.

    Counted are the finite values visible in the images; padding is ignored. The mean of passes is left out: it lies
    between the passes, but has a value per pixel instead of one per cell, and would outweigh them. The maps are read
    twice, once for minimum and maximum and once for a histogram of 65,536 bins between them: memory does not grow with
    the number of images, and a percentile is exact to the width of one bin.

    Args:
        paths: Maps files of the run.
        align: Where the value of a cell sits, as in :class:`mmdet_featviz.Style`.
        border: Number of cells that are left out along each side of an image.
    """
    bounds: dict[str, tuple[float, float]] = {}
    for name, values in _visible(paths, align, border):
        low, high = bounds.get(name, (np.inf, -np.inf))
        bounds[name] = min(low, float(values.min())), max(high, float(values.max()))
    counts = {name: np.zeros(BINS, np.int64) for name in bounds}
    for name, values in _visible(paths, align, border):
        counts[name] += np.histogram(values.astype(np.float64), BINS, bounds[name])[0]
    return {name: _percentiles(counts[name], *bounds[name]) for name in bounds}


def _percentiles(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    shares = np.cumsum(counts) / counts.sum() * 100
    first, last = np.searchsorted(shares, PERCENTILES)
    width = (high - low) / BINS
    return low + first * width, min(low + (last + 1) * width, high)


def _visible(paths: Sequence[str], align: str, border: int) -> Iterator[tuple[str, np.ndarray]]:
    """Iterate over the levels of all files: name, and finite values visible in the image, if it has any."""
    for path in paths:
        try:
            snapshot = load_snapshot(path)
        except ValueError:  # missing or damaged: counted later, when it should be drawn
            continue
        if is_mean(snapshot.augmentation):
            continue
        for level in snapshot.levels:
            grid = Grid(level.values.shape, level.stride, snapshot.placement, align, level.offset)
            values = finite_visible(level.values, grid, border)
            if values.size:
                yield level.name, values
