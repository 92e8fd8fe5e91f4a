"""Grid: lays the cells of a feature map over the original image and interpolates them to a heatmap."""

from __future__ import annotations

import math
from functools import cached_property

import cv2
import numpy as np

from mmdet_featviz.structures.placement import Placement

ALIGNMENTS = ('auto', 'center', 'corner')
HALF_OF_FLOAT32 = 1e38  # differences of smaller values fit into float32


class Grid:
    """The cells of one feature map, laid over one image, with bilinear interpolation between them.

    Args:
        cells: (rows, columns) of the feature map.
        stride: Nominal stride (vertical, horizontal) in pixels of the input.
        placement: Where the image lies in the input.
        align: Where the value of a cell is: in the block of input pixels that the cell covers, at its ``center`` or at
            its top left ``corner``, or at `offset` (``auto``; without an offset this is ``center``). For an input
            without padding, the first two are the formulas ``src = (dst + 0.5) * in / out - 0.5`` and
            ``src = dst * in / out``, clamped at the borders.
        offset: Position (vertical, horizontal) of the first cell, in pixels of the input.
    """

    def __init__(
        self,
        cells: tuple[int, int],
        stride: tuple[float, float],
        placement: Placement,
        align: str = 'center',
        offset: tuple[float, float] | None = None,
    ) -> None:
        self.cells = cells
        self.stride = stride
        self.placement = placement
        self.align = align
        self._middle = stride[0] / 2, stride[1] / 2  # of the first block
        self._offset = self._middle if align != 'auto' or offset is None else offset

    @cached_property
    def _cell_positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Cell positions of the rows and of the columns of the image that the network saw (separable placements)."""
        seen = (
            positions[seen_range]
            for positions, seen_range in zip(self.placement.axis_positions, self.placement.seen_ranges)
        )
        cells = (self._to_cells(positions, axis) for axis, positions in enumerate(seen))
        rows, columns = (np.clip(c, used.start, used.stop - 1) for c, used in zip(cells, self.window()))
        return rows, columns

    def _cells_between(self, start: float, stop: float, axis: int) -> tuple[int, int]:
        """First and last cell that cover part of the image: cells of padding only must not influence the heatmap."""
        last = self.cells[axis] - 1
        stride = self.stride[axis]
        # The cell covers the block around its position.
        shift = self._offset[axis] - self._middle[axis]
        # The tolerance keeps a rounding error at the edge of a block from including the next cell.
        low, high = math.floor((start - shift) / stride + 1e-6), math.ceil((stop - shift) / stride - 1e-6) - 1
        return min(max(low, 0), last), max(min(high, last), 0)

    def _resize_factors(self) -> np.ndarray | None:
        """Image pixels per cell (x, y) if OpenCV's resize can draw this grid: image and first cell start together."""
        factors = np.array(self.stride[::-1]) / np.diag(self.placement.matrix)[:2]
        starts_together = (factors > 0).all() and not self.placement.matrix[:2, 2].any()
        covered = np.multiply(self.cells[::-1], factors) >= np.subtract(self.placement.image_size[::-1], 1e-6)
        is_centered = self.align != 'corner' and self._offset == self._middle
        can_resize = is_centered and starts_together and covered.all() and self.placement.all_seen
        return factors if can_resize else None

    def _to_cells(self, positions: np.ndarray, axis: int) -> np.ndarray:
        """Convert input coordinates along y (axis 0) or x (axis 1) to fractional cell indices."""
        scale, shift = self.input_to_cells[1 - axis, [1 - axis, 2]]
        return np.clip(positions * scale + shift, 0, self.cells[axis] - 1)

    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the cells that the heatmap is interpolated from: those that cover part of the image."""
        if not self.placement.is_separable:
            return slice(0, self.cells[0]), slice(0, self.cells[1])
        left, top, right, bottom = self.placement.content_box
        ends = self._cells_between(top, bottom, 0), self._cells_between(left, right, 1)
        # The ends are crossed if the image lies entirely outside the input.
        rows, columns = (slice(min(low, high), high + 1) for low, high in ends)
        return rows, columns

    @cached_property
    def input_to_cells(self) -> np.ndarray:
        """(3, 3) float64, from homogeneous input coordinates to fractional cell indices (column, row, 1)."""
        matrix, (vertical, horizontal) = self.placement.matrix, self.stride
        offset = self._offset[1] / horizontal, self._offset[0] / vertical
        if self.align == 'corner':
            pixel = np.abs(matrix[[0, 1], [0, 1]]) if self.placement.is_separable else np.ones(2)
            offset = pixel / 2 / (horizontal, vertical)
        to_cells = np.diag([1 / horizontal, 1 / vertical, 1.0])
        to_cells[:2, 2] = np.negative(offset)
        return to_cells

    def visible(self, values: np.ndarray) -> np.ndarray:
        """The values visible in the image, of all values (rows, columns); padding is ignored.

        These are the cells inside the image and the interpolated values along its edges. Their minimum and maximum
        bound the heatmap. Empty if the image lies entirely outside the input. They are interpolated in float64, so that
        a constant map has one value.
        """
        if not self.placement.is_separable:
            return self._warp(values)[self.placement.seen]
        rows, columns = self._cell_positions
        if not len(rows) or not len(columns):
            return values[:0]
        return _interpolate(values.astype(np.float64), _nodes(rows), _nodes(columns))

    def heatmap(self, values: np.ndarray) -> np.ndarray:
        """Interpolate values (rows, columns) to the pixels of the image.

        Returns:
            (height, width) of the image, of the type of the values, float32 or float64. Zero where the pipeline cropped
            the image.
        """
        if not self.placement.is_separable:
            return self._warp(values)
        factors, window = self._resize_factors(), values[self.window()]
        # OpenCV computes positions, and the differences of values, in float32.
        if factors is not None and values.dtype == np.float32 and np.abs(window).max() < HALF_OF_FLOAT32:
            height, width = self.placement.image_size
            wide = cv2.resize(window, None, fx=factors[0], fy=factors[1], interpolation=cv2.INTER_LINEAR)
            return wide[:height, :width]
        whole = _interpolate(values, *self._cell_positions)
        if self.placement.all_seen:
            return whole
        heatmap = np.zeros(self.placement.image_size, values.dtype)
        heatmap[self.placement.seen_ranges] = whole
        return heatmap

    def _warp(self, values: np.ndarray) -> np.ndarray:
        """The heatmap (height, width) for any homography; zero at pixels that the network did not see."""
        heatmap = np.zeros(self.placement.image_size, values.dtype)
        values = values.astype(np.float64)
        for block, x, y in self.placement.row_blocks():
            seen = self.placement.seen[block]
            rows, columns = self._to_cells(np.where(seen, y, 0), 0), self._to_cells(np.where(seen, x, 0), 1)
            (top, down), (left, along) = _split_positions(rows, self.cells[0]), _split_positions(columns, self.cells[1])
            bottom, right = np.minimum(top + 1, self.cells[0] - 1), np.minimum(left + 1, self.cells[1] - 1)
            upper = values[top, left] + (values[top, right] - values[top, left]) * along
            lower = values[bottom, left] + (values[bottom, right] - values[bottom, left]) * along
            heatmap[block] = np.where(seen, upper + (lower - upper) * down, 0)
        return heatmap


def _nodes(positions: np.ndarray) -> np.ndarray:
    """The lowest and highest of some cell positions, and the whole cells between them."""
    low, high = positions.min(), positions.max()
    return np.concatenate([[low], np.arange(np.ceil(low), np.floor(high) + 1), [high]])


def _split_positions(positions: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Split cell positions into the cell before (at most the last but one) and the fraction toward the next cell."""
    before = np.minimum(positions.astype(np.intp), max(cells - 2, 0))
    return before, positions - before


def _interpolate(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of finite values at each crossing of row and column positions (in cells).

    Columns are interpolated first, while there are few rows, in float64: the difference of two float32 values may
    overflow float32. Rows follow in the type of the values, one row of cells after the other; a matrix product would
    start BLAS threads that compete with the detector for the cores. OpenCV is no option here: its resize cannot shift
    by a fraction of a cell, and its warps round positions to 1/32 of a cell (two pixels at stride 64).
    """
    left, along = _split_positions(columns, values.shape[1])
    wide = values[:, left] + np.diff(values.astype(np.float64), axis=1, append=values[:, -1:])[:, left] * along
    top, down = _split_positions(rows, len(values))
    steps, down = np.diff(wide, axis=0, append=wide[-1:]), down[:, None]
    if np.abs(wide).max(initial=0) < HALF_OF_FLOAT32:
        wide, steps, down = (part.astype(values.dtype) for part in (wide, steps, down))
    # The columns were picked, which leaves the cells of a row apart in memory.
    wide, steps = np.ascontiguousarray(wide), np.ascontiguousarray(steps)
    result = np.empty((len(rows), len(columns)), wide.dtype)
    begins = np.flatnonzero(np.diff(top, prepend=-1))  # rows are in order, also in a flipped image
    for begin, end in zip(begins, [*begins[1:], len(top)]):
        block = result[begin:end]
        np.multiply(down[begin:end], steps[top[begin]], out=block)
        block += wide[top[begin]]
    return result.astype(values.dtype, copy=False)
