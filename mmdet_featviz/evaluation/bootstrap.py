"""Bootstrap: intervals of statistics, found by drawing from the sample with replacement."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import numpy as np

RESAMPLES = 2000
RESAMPLES_AT_ONCE = 50
CONFIDENCE = 0.95


def resamples(size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yields indices (resamples, size) of items that are drawn with replacement from `size` items, some at once."""
    rng = np.random.default_rng(seed)
    for _ in range(0, RESAMPLES, RESAMPLES_AT_ONCE):
        yield rng.integers(0, size, (RESAMPLES_AT_ONCE, size))


def percentile_interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the interval of 95 % of resampled statistics (resamples, ...); NaN is left out."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(samples, (tail, 1 - tail), axis=0)
    return low, high


def interval(
    values: np.ndarray, seed: int = 0, statistic: Callable[..., Any] = np.mean
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of 95 % of a mean or another statistic of values (N, ...) over N items, by the percentile bootstrap."""
    return percentile_interval(
        np.concatenate([statistic(values[drawn], axis=1) for drawn in resamples(len(values), seed)])
    )
