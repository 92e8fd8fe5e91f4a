"""Percentiles: one value range for all images of a run."""

from __future__ import annotations

from typing import Iterator, Sequence

import numpy as np

from mmdet_featviz.runs.maps_file import load_snapshot
from mmdet_featviz.structures.grid import Grid

PERCENTILES = 0.5, 99.5
BINS = 1 << 16


def run_ranges(paths: Sequence[str], align: str) -> dict[str, tuple[float, float]]:
    """For each level the 0.5th and 99.5th percentile of all finite values that the images show.

    Saved maps are read twice, for the bounds and for a histogram of 65,536 bins between them: memory does not grow with
    the number of images, and a percentile is exact to one bin.
    """
    bounds: dict[str, tuple[float, float]] = {}
    for name, values in _visible(paths, align):
        low, high = bounds.get(name, (np.inf, -np.inf))
        bounds[name] = min(low, float(values.min())), max(high, float(values.max()))
    counts = {name: np.zeros(BINS, np.int64) for name in bounds}
    for name, values in _visible(paths, align):
        counts[name] += np.histogram(values.astype(np.float64), BINS, bounds[name])[0]
    return {name: _percentiles(counts[name], *bounds[name]) for name in bounds}


def _percentiles(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    shares = np.cumsum(counts) / counts.sum() * 100
    first, last = np.searchsorted(shares, PERCENTILES)
    width = (high - low) / BINS
    return low + first * width, min(low + (last + 1) * width, high)


def _visible(paths: Sequence[str], align: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and finite visible values of each level of each file, unless there are none."""
    for path in paths:
        try:
            snapshot = load_snapshot(path)
        except ValueError:  # it is gone, which is counted when it should be drawn
            continue
        for level in snapshot.levels:
            grid = Grid(level.values.shape, level.stride, snapshot.placement, align)
            values = grid.visible(np.where(np.isfinite(level.values), level.values, np.float32(np.nan)))
            values = values[np.isfinite(values)]
            if values.size:
                yield level.name, values
