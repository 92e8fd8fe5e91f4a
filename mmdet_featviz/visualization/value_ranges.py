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
        own: Range of the level: of all visible values, or with ``normalize='percentile'`` their percentiles.
        layer: Visible ranges of all levels of its layer in this image that have one; used with ``normalize='layer'``.
        run: Range of the level over all images of the run; used with ``normalize='run'``.
    """
    if normalize in ('image', 'percentile'):
        return own
    if normalize == 'max':
        return 0.0, max(own[1], 0.0)  # an empty range if all values are negative
    if normalize == 'layer':
        return union_of_ranges(layer)
    return run if normalize == 'run' else normalize


def score_limits(score_of: str, ranges: Iterable[tuple[str | None, tuple[float, float] | None]]) -> tuple[float, float]:
    """The probabilities that are drawn in the first and the last color: 0, and the largest of all levels of a class.

    So the levels of a head can be compared, and a class with a low score is still visible.

    Args:
        score_of: The class, as in :class:`Level`.
        ranges: ``score_of`` and own range of the levels of the image.
    """
    return 0.0, max([0.0, *((own or NO_RANGE)[1] for other, own in ranges if other == score_of)])


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


def finite_visible(values: np.ndarray, grid: Grid, border: int = 0) -> np.ndarray:
    """The finite values visible in the image, as :meth:`Grid.visible`; with a border, as :meth:`Grid.inside`.

    Args:
        values: (rows, columns) of the level.
        grid: The grid of the level over the image.
        border: Number of cells that are left out along each side of the image. None are where no others remain.
    """
    return _finite_inside(values, grid, border) if border else _finite(grid.visible(_without_infinity(values)))


def _finite_inside(values: np.ndarray, grid: Grid, border: int) -> np.ndarray:
    """The finite values of the cells over the image, without a border where others remain."""
    inside = _finite(grid.inside(_without_infinity(values), border))
    return inside if inside.size or not border else _finite_inside(values, grid, 0)


def _without_infinity(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def find_own_range(
    values: np.ndarray, grid: Grid, border: int = 0, percentiles: Sequence[float] | None = None
) -> tuple[float, float] | None:
    """The range of a level without regard to others; None without finite values.

    Args:
        values: (rows, columns) of the level.
        grid: The grid of the level over the image.
        border: As in :func:`finite_visible`.
        percentiles: The range is from the first to the second percentile of the cells over the image, interpolated
            linearly. If they are equal, as in a map that is nearly all zero, or None, it is from the smallest to the
            largest visible value.
    """
    if percentiles is not None:
        inside = _finite_inside(values, grid, border)
        low, high = np.percentile(inside.astype(np.float64), percentiles).tolist() if inside.size else NO_RANGE
        if high > low:
            return low, high
    if not border:
        return find_visible_range(values, grid)
    visible = finite_visible(values, grid, border)
    return finite_range(visible) if visible.size else None


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
