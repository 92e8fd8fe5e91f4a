"""Grid: lays the cells of a feature map over the original image and interpolates them to a heatmap."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Iterator

import numpy as np

from mmdet_featviz.structures.interpolation import (
    interpolate_columns,
    interpolate_lines,
    interpolate_points,
    interpolate_rows,
)
from mmdet_featviz.structures.placement import Placement

ALIGNMENTS = ('auto', 'center', 'corner')
BLOCK_PIXELS = 2**16  # of a heatmap, that are computed at a time: 256 KiB, several of which fit into a core's cache


class Grid:
    """The cells of one feature map, laid over one image, with interpolation between them.

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

    def to_image(self, cells: np.ndarray) -> np.ndarray:
        """Convert fractional cell indices (K, 2), column and row, to positions x and y in pixels of the image.

        NaN where a homography has the cell behind the horizon of the image.
        """
        x, y, depth = np.linalg.inv(self.input_to_cells @ self.placement.matrix) @ np.c_[cells, np.ones(len(cells))].T
        # The horizon of the image is that of the way there: its depth is the inverse of this one.
        return np.stack([x, y], 1) / np.where(depth > 0, depth, np.nan)[:, None]

    def nearest_cell(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the cell whose position is nearest to a place in the image, in pixels.

        Cells that cover only padding are not chosen.
        """
        column, row, depth = self.input_to_cells @ self.placement.matrix @ (x, y, 1)
        cells = (row / depth, column / depth)
        row, column = (min(max(round(cell), used.start), used.stop - 1) for cell, used in zip(cells, self.window()))
        return row, column

    def cell_at(self, x: float, y: float) -> tuple[int, int]:
        """As :meth:`nearest_cell`, of a place that may not have one.

        Raises:
            ValueError: If the place is outside the image, or was cropped from the network's input.
        """
        height, width = self.placement.image_size
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f'({x}, {y}) is outside the image, which has {width}x{height} pixels')
        if not self.placement.seen[min(int(y), height - 1), min(int(x), width - 1)]:
            raise ValueError(f'the network did not see ({x}, {y}): the pipeline cropped it')
        return self.nearest_cell(x, y)

    def visible(self, values: np.ndarray) -> np.ndarray:
        """The values visible in the image, of all values (rows, columns); padding is ignored.

        These are the cells inside the image and the interpolated values along its edges. Their minimum and maximum
        bound the heatmap. Empty if the image lies entirely outside the input. They are interpolated in float64, so that
        a constant map has one value.
        """
        if not self.placement.is_separable:
            return self.heatmap(values)[self.placement.seen]
        rows, columns = self._cell_positions
        if not len(rows) or not len(columns):
            return values[:0]
        values, across, down = values.astype(np.float64), _nodes(columns), _nodes(rows)
        inside = values[tuple(slice(int(np.ceil(nodes[0])), int(nodes[-1]) + 1) for nodes in (down, across))]
        edges = interpolate_lines(values, down[[0, -1]], across), interpolate_lines(values, down, across[[0, -1]])
        return np.concatenate([part.ravel() for part in (inside, *edges)])

    def inside(self, values: np.ndarray, border: int = 0) -> np.ndarray:
        """The values of the cells that cover part of the image, each once; with a homography, those of all pixels.

        Args:
            values: Values of the cells (rows, columns).
            border: Number of cells that are left out along each side of the image; with a homography, of the map.
        """
        if not self.placement.is_separable:
            return self.heatmap(values)[self.placement.seen & self._is_within(border)]
        inner = tuple(slice(used.start + border, max(used.stop - border, 0)) for used in self.window())
        return values[inner].ravel() if len(self._cell_positions[0]) and len(self._cell_positions[1]) else values[:0]

    def covers_image(self, border: int = 0) -> np.ndarray:
        """(rows, columns) bool: which cells cover part of the image; with a homography, those centered inside it.

        Args:
            border: Number of cells that are left out along each side of the image; with a homography, of the map.
        """
        covers = np.zeros(self.cells, bool)
        if not self.placement.seen.any():
            return covers
        covers[tuple(slice(used.start + border, max(used.stop - border, 0)) for used in self.window())] = True
        if not self.placement.is_separable:
            height, width = self.placement.image_size
            covers &= self.centers_inside(np.array([[0, 0, width, height]], np.float64))
        return covers

    def centers_inside(self, corners: np.ndarray) -> np.ndarray:
        """(rows, columns) bool: which cells have their center in one of the boxes (N, 4), in pixels of the image."""
        rows, columns = np.indices(self.cells)
        x, y = self.to_image(np.stack([columns.ravel(), rows.ravel()], 1)).T[..., None]
        left, top, right, bottom = corners.T
        with np.errstate(invalid='ignore'):  # NaN behind a horizon
            inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        return inside.any(1).reshape(self.cells)

    def _is_within(self, border: int) -> np.ndarray:
        """(height, width) bool: which pixels of the image are not nearer to the edge of the map than the border."""
        is_within = np.ones(self.placement.image_size, bool)
        for block, x, y in self.placement.row_blocks() if border else ():
            for axis, positions in enumerate((y, x)):
                cells = self._to_cells(np.where(self.placement.seen[block], positions, 0), axis)
                is_within[block] &= (cells >= border) & (cells <= self.cells[axis] - 1 - border)
        return is_within

    def heatmap(self, values: np.ndarray) -> np.ndarray:
        """Interpolate values (rows, columns) to the pixels of the image.

        Returns:
            (height, width) of the image, of the type of the values, float32 or float64. Zero where the pipeline cropped
            the image.
        """
        heatmap = np.empty(self.placement.image_size, values.dtype)
        for rows, block in self.heatmap_blocks(values):
            heatmap[rows] = block
        return heatmap

    def heatmap_blocks(self, values: np.ndarray, interpolation: str = 'bilinear') -> Iterator[tuple[slice, np.ndarray]]:
        """Interpolate as :meth:`heatmap` does, a block of rows at a time.

        What is computed from a block stays in the processor's cache.

        Args:
            values: Values of the cells (rows, columns).
            interpolation: One of `INTERPOLATIONS`; :meth:`heatmap`, and so every figure that is measured, is bilinear.

        Yields:
            The rows of the image, and their values (rows, width).
        """
        if not self.placement.is_separable:
            yield from self._warped_blocks(values, interpolation)
            return
        rows, columns = self._cell_positions
        if interpolation == 'cubic':  # would reach cells of padding
            window = self.window()
            values, rows, columns = values[window], rows - window[0].start, columns - window[1].start
        seen_rows, seen_columns = self.placement.seen_ranges
        height, width = self.placement.image_size
        rows_at_once = max(BLOCK_PIXELS // max(width, 1), 1)
        wide = interpolate_columns(values, columns, interpolation)
        for start in range(0, height, rows_at_once):
            stop = min(start + rows_at_once, height)
            first, last = (min(max(row, seen_rows.start), seen_rows.stop) for row in (start, stop))
            here = rows[first - seen_rows.start : last - seen_rows.start]
            block = interpolate_rows(wide, here, interpolation) if len(here) else np.zeros((0, len(columns)))
            if not self.placement.all_seen:
                seen, block = block, np.zeros((stop - start, width), values.dtype)
                block[first - start : last - start, seen_columns] = seen
            yield slice(start, stop), block

    def _warped_blocks(self, values: np.ndarray, interpolation: str) -> Iterator[tuple[slice, np.ndarray]]:
        """The same for any homography; zero at pixels that the network did not see."""
        dtype, values = values.dtype, values.astype(np.float64)
        for block, x, y in self.placement.row_blocks():
            seen = self.placement.seen[block]
            rows, columns = self._to_cells(np.where(seen, y, 0), 0), self._to_cells(np.where(seen, x, 0), 1)
            heat = interpolate_points(values, rows, columns, interpolation)
            yield block, np.where(seen, heat, 0).astype(dtype)


def _nodes(positions: np.ndarray) -> np.ndarray:
    """The lowest and highest of some cell positions, and the whole cells between them."""
    low, high = positions.min(), positions.max()
    return np.concatenate([[low], np.arange(np.ceil(low), np.floor(high) + 1), [high]])
