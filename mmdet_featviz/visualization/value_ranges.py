"""Value ranges: computes the range of values that the colors of a picture span (option ``normalize``)."""

from __future__ import annotations

from typing import Iterable, Mapping, Sequence

import numpy as np

from mmdet_featviz.structures.grid import Grid

Limits = Mapping[str, 'tuple[float, float]']  # level name: (low, high)
NO_RANGE = 0.0, 0.0


def picture_limits(
    normalize: str | tuple[float, float],
    own: tuple[float, float],
    layer: Sequence[tuple[float, float]],
    run: tuple[float, float] | None,
) -> tuple[float, float]:
    """The values that are drawn in the first and the last color in the picture of a level.

    Args:
        normalize: As in :class:`mmdet_featviz.Style`.
        own: Visible range of the level.
        layer: Visible ranges of all levels of its layer in this image that have one; used with ``normalize='layer'``.
        run: Range of the level over all images of the run; used with ``normalize='run'``.
    """
    if normalize == 'image':
        return own
    if normalize == 'max':
        return 0.0, max(own[1], 0.0)  # an empty range if all values are negative
    if normalize == 'layer':
        return union_of_ranges(layer)
    return run if normalize == 'run' else normalize


def score_limits(score_of: str, ranges: Iterable[tuple[str | None, tuple[float, float]]]) -> tuple[float, float]:
    """The probabilities that are drawn in the first and the last color: 0, and the largest of all levels of a class.

    So the levels of a head can be compared, and a class with a low score is still visible.

    Args:
        score_of: The class, as in :class:`Level`.
        ranges: ``score_of`` and visible range of the levels of the image.
    """
    return 0.0, max([0.0, *(high for other, (_, high) in ranges if other == score_of)])


def channel_limits(
    normalize: str | tuple[float, float], ranges: Sequence[tuple[float, float] | None]
) -> list[tuple[float, float]]:
    """The values that are drawn in the first and the last color, for the picture of each channel.

    ``layer`` and ``run`` both use the common range of these channels.

    Args:
        normalize: As in :class:`mmdet_featviz.Style`.
        ranges: Visible range of each channel, or None without finite values.
    """
    if normalize in ('layer', 'run'):
        return [union_of_ranges([limits for limits in ranges if limits is not None])] * len(ranges)
    return [picture_limits(normalize, limits or NO_RANGE, [], None) for limits in ranges]


def finite_range(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value; (0, 0) if there is none."""
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else NO_RANGE


def find_visible_range(values: np.ndarray, grid: Grid) -> tuple[float, float] | None:
    """Smallest and largest finite value visible in the image, without padding; None if there is none.

    Args:
        values: (rows, columns) of the level.
        grid: The grid of the level over the image.
    """
    finite = np.isfinite(values)
    if finite.all():
        visible = grid.visible(values)
        return finite_range(visible) if visible.size else None
    if not grid.visible(finite.astype(np.float32)).any():
        return None
    # NaN and infinite values must neither spread into their neighbors nor be part of the range.
    low, high = finite_range(values)
    lowest = finite_range(grid.visible(np.where(finite, values, np.float32(high))))[0]
    highest = finite_range(grid.visible(np.where(finite, values, np.float32(low))))[1]
    return min(lowest, highest), highest


def visible_range(values: np.ndarray, grid: Grid) -> tuple[float, float]:
    """As :func:`find_visible_range`, but (0, 0) without finite values: all of the level is then drawn as zero heat."""
    return find_visible_range(values, grid) or NO_RANGE


def finite_heat(values: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.float32]:
    """The heatmap (height, width) with NaN and infinite values set to the smallest visible value, and that value."""
    lowest = np.float32(visible_range(values, grid)[0])
    return grid.heatmap(np.where(np.isfinite(values), values, lowest)), lowest


def union_of_ranges(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The smallest range that contains all given ranges; (0, 0) without any."""
    if not ranges:
        return NO_RANGE
    return min(low for low, _ in ranges), max(high for _, high in ranges)
