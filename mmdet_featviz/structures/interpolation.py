"""Interpolation: nearest, bilinear and cubic interpolation between the cells of a map."""

from __future__ import annotations

from typing import Callable

import numpy as np

INTERPOLATIONS = ('bilinear', 'nearest', 'cubic')
HALF_OF_FLOAT32 = 1e38  # differences of smaller values fit into float32
Taps = 'list[tuple[np.ndarray, np.ndarray]]'  # cells and their weights, for each position


def interpolate_lines(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, kind: str = 'bilinear') -> np.ndarray:
    """Interpolate finite values at each crossing of row and column positions.

    Args:
        values: (R, C).
        rows: (H,) positions in rows, from 0 to R - 1.
        columns: (W,) positions in columns, from 0 to C - 1.
        kind: One of `INTERPOLATIONS`.

    Returns:
        (H, W), of the type of the values.
    """
    wide = interpolate_columns(values, columns, kind)
    return interpolate_rows(wide, rows, kind).astype(values.dtype, copy=False)


def interpolate_columns(values: np.ndarray, columns: np.ndarray, kind: str = 'bilinear') -> np.ndarray:
    """Interpolate each row of finite values (R, C) at column positions (W,): the first half of the above.

    Returns:
        (R, W), of the type of the values, or float64 where their differences could overflow float32.
    """
    if kind != 'bilinear':
        return sum(values[:, cells] * weights for cells, weights in TAPS[kind](columns, values.shape[1]))
    dtype = values.dtype if np.abs(values).max(initial=0) < HALF_OF_FLOAT32 else np.dtype(np.float64)
    values = values.astype(dtype, copy=False)
    left, along = split_positions(columns, values.shape[1])
    wide = values.take(left, axis=1)
    steps = values.take(np.minimum(left + 1, values.shape[1] - 1), axis=1)
    steps -= wide
    steps *= along.astype(dtype)
    wide += steps
    return wide


def interpolate_rows(wide: np.ndarray, rows: np.ndarray, kind: str = 'bilinear') -> np.ndarray:
    """Interpolate between the rows of (R, W) values at row positions (H,): the second half, (H, W).

    A matrix product would start BLAS threads that compete with the detector for the cores. OpenCV's resize cannot shift
    by a fraction of a cell, and its warps round positions to 1/32 of a cell (two pixels at stride 64).
    """
    if kind != 'bilinear':
        return sum(wide[cells] * weights[:, None] for cells, weights in TAPS[kind](rows, len(wide)))
    top, down = split_positions(rows, len(wide))
    first = top.min()
    needed, top = wide[first : top.max() + 2], top - first
    steps = np.zeros_like(needed)  # to the next row; there is none after the last one
    np.subtract(needed[1:], needed[:-1], out=steps[:-1])
    result = steps.take(top, axis=0)
    result *= down.astype(wide.dtype)[:, None]
    result += needed.take(top, axis=0)
    return result


def interpolate_points(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, kind: str = 'bilinear') -> np.ndarray:
    """Interpolate values (R, C), float64, at points with row and column positions of any one shape."""
    if kind == 'bilinear':
        (top, down), (left, along) = split_positions(rows, len(values)), split_positions(columns, values.shape[1])
        bottom, right = np.minimum(top + 1, len(values) - 1), np.minimum(left + 1, values.shape[1] - 1)
        upper = values[top, left] + (values[top, right] - values[top, left]) * along
        lower = values[bottom, left] + (values[bottom, right] - values[bottom, left]) * along
        return upper + (lower - upper) * down
    taps = TAPS[kind]
    across = taps(columns, values.shape[1])
    return sum(
        values[row_cells, column_cells] * (row_weights * column_weights)
        for row_cells, row_weights in taps(rows, len(values))
        for column_cells, column_weights in across
    )


def split_positions(positions: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Split cell positions into the cell before (at most the last but one) and the fraction toward the next cell."""
    before = np.minimum(positions.astype(np.intp), max(cells - 2, 0))
    return before, positions - before


def _nearest(positions: np.ndarray, cells: int) -> Taps:
    nearest = np.minimum((positions + 0.5).astype(np.intp), cells - 1)
    return [(nearest, np.ones(positions.shape))]


def _cubic(positions: np.ndarray, cells: int) -> Taps:
    """Cubic convolution with a = -1/2: Keys, IEEE Trans. ASSP 29(6), 1981, equation 15; cells repeat at the sides."""
    before, t = split_positions(positions, cells)
    weights = (
        (-t + 2 * t**2 - t**3) / 2,
        (2 - 5 * t**2 + 3 * t**3) / 2,
        (t + 4 * t**2 - 3 * t**3) / 2,
        (-(t**2) + t**3) / 2,
    )
    return [(np.clip(before + k, 0, cells - 1), weight) for k, weight in enumerate(weights, -1)]


TAPS: dict[str, Callable[[np.ndarray, int], Taps]] = {'nearest': _nearest, 'cubic': _cubic}
