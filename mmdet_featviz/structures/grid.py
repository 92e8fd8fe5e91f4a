"""Grid of the cells of a feature map over the original image: interpolates values to pixels."""

from __future__ import annotations

import math
from functools import cached_property

import cv2
import numpy as np

from mmdet_featviz.structures.placement import Placement

ALIGNMENTS = ('center', 'corner')
BLOCK_ROWS = 64


class Grid:
    """The cells of one feature map, laid over one image; interpolates between them bilinearly.

    Args:
        cells: (rows, columns) of the map.
        stride: Nominal stride (vertical, horizontal) in pixels of the input.
        placement: Where the image lies in the input.
        align: Where in the input the value of cell i sits: ``center`` of its block, or its top left ``corner``. Over an
            input that is wholly content these are the classical formulas ``src = (dst + 0.5) * in / out - 0.5`` and
            ``src = dst * in / out``, with the borders clamped.
    """

    def __init__(
        self, cells: tuple[int, int], stride: tuple[float, float], placement: Placement, align: str = 'center'
    ) -> None:
        self.cells = cells
        self.stride = stride
        self.placement = placement
        self.align = align

    @cached_property
    def _axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Of a separable placement: cell positions of those of the image's rows and columns that were seen."""
        seen = (positions[kept] for positions, kept in zip(self.placement.axes, self.placement.seen_ranges))
        cells = (self._to_cells(positions, axis) for axis, positions in enumerate(seen))
        rows, columns = (np.clip(c, kept.start, kept.stop - 1) for c, kept in zip(cells, self.window()))
        return rows, columns

    def _cells_between(self, start: float, stop: float, axis: int) -> tuple[int, int]:
        """First and last cell whose block holds any content: those of padding alone must not shine into the image."""
        last = self.cells[axis] - 1
        stride = self.stride[axis]
        # A content that ends a rounding error beyond a block does not reach into the next.
        low, high = math.floor(start / stride + 1e-6), math.ceil(stop / stride - 1e-6) - 1
        return min(max(low, 0), last), max(min(high, last), 0)

    def _zoom(self) -> np.ndarray | None:
        """Image pixels per cell (x, y) where the first cell starts with the image: OpenCV's resize can do no other."""
        zoom = np.array(self.stride[::-1]) / np.diag(self.placement.matrix)[:2]
        starts_together = (zoom > 0).all() and not self.placement.matrix[:2, 2].any()
        covered = np.multiply(self.cells[::-1], zoom) >= np.subtract(self.placement.image_size[::-1], 1e-6)
        is_zoom = self.align == 'center' and starts_together and covered.all() and self.placement.sees_all
        return zoom if is_zoom else None

    def _to_cells(self, positions: np.ndarray, axis: int) -> np.ndarray:
        """Input coordinates along y (axis 0) or x (axis 1) to cell indices with fractions."""
        scale, shift = self.input_to_cells[1 - axis, [1 - axis, 2]]
        return np.clip(positions * scale + shift, 0, self.cells[axis] - 1)

    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the cells that the heatmap is made of: between them the others play no part."""
        if not self.placement.is_separable:
            return slice(0, self.cells[0]), slice(0, self.cells[1])
        left, top, right, bottom = self.placement.content_box
        ends = self._cells_between(top, bottom, 0), self._cells_between(left, right, 1)
        # Of a image wholly outside the input the ends are crossed.
        rows, columns = (slice(min(low, high), high + 1) for low, high in ends)
        return rows, columns

    @cached_property
    def input_to_cells(self) -> np.ndarray:
        """(3, 3) float64, from homogeneous input coordinates to cell indices with fractions (column, row, 1)."""
        matrix, (vertical, horizontal) = self.placement.matrix, self.stride
        before = 0.5, 0.5
        if self.align == 'corner':
            pixel = np.abs(matrix[[0, 1], [0, 1]]) if self.placement.is_separable else np.ones(2)
            before = pixel / 2 / (horizontal, vertical)
        to_cells = np.diag([1 / horizontal, 1 / vertical, 1.0])
        to_cells[:2, 2] = np.negative(before)
        return to_cells

    def visible(self, values: np.ndarray) -> np.ndarray:
        """The values (rows, columns) that the image shows, without those that only padding has.

        These are the cells inside the image and the interpolated values along its edge, so that their smallest and
        largest bound the heatmap. Empty if the image lies wholly outside the input.
        """
        if not self.placement.is_separable:
            return self._warp(values)[self.placement.seen]
        rows, columns = self._axes
        if not len(rows) or not len(columns):
            return values[:0]
        return _interpolate(values, _nodes(rows), _nodes(columns))

    def heatmap(self, values: np.ndarray) -> np.ndarray:
        """Bring values (rows, columns) onto the image.

        Returns:
            (height, width) of the image, float32. Zero where the pipeline cut the image away.
        """
        if not self.placement.is_separable:
            return np.where(self.placement.seen, self._warp(values), np.float32(0))
        zoom = self._zoom()
        if zoom is not None:
            height, width = self.placement.image_size
            wide = cv2.resize(values[self.window()], None, fx=zoom[0], fy=zoom[1], interpolation=cv2.INTER_LINEAR)
            return wide[:height, :width]
        whole = _interpolate(values, *self._axes)
        if self.placement.sees_all:
            return whole
        heatmap = np.zeros(self.placement.image_size, np.float32)
        heatmap[self.placement.seen_ranges] = whole
        return heatmap

    def _warp(self, values: np.ndarray) -> np.ndarray:
        """The heatmap (height, width) under any homography; of no meaning where the input does not show the image."""
        x, y = (np.where(self.placement.seen, positions, 0) for positions in self.placement.points)
        rows, columns = self._to_cells(y, 0), self._to_cells(x, 1)
        (top, down), (left, along) = _split(rows, self.cells[0]), _split(columns, self.cells[1])
        bottom, right = np.minimum(top + 1, self.cells[0] - 1), np.minimum(left + 1, self.cells[1] - 1)
        upper = values[top, left] * (1 - along) + values[top, right] * along
        lower = values[bottom, left] * (1 - along) + values[bottom, right] * along
        return (upper * (1 - down) + lower * down).astype(np.float32)


def _nodes(positions: np.ndarray) -> np.ndarray:
    """Both ends of a range of cell positions and the whole cells between them."""
    low, high = positions.min(), positions.max()
    return np.concatenate([[low], np.arange(np.ceil(low), np.floor(high) + 1), [high]])


def _split(positions: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell positions as the cell before (at most the last but one) and the fraction towards the next."""
    before = np.minimum(positions.astype(np.intp), max(cells - 2, 0))
    return before, (positions - before).astype(np.float32)


def _interpolate(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of finite float32 values at each crossing of row and column positions (in cells).

    Columns come first, while the picture is low. Rows follow in blocks that stay in the cache, and not as a matrix
    product: the threads of a BLAS that wait for each other take the cores that the detector needs. (OpenCV's resize
    cannot shift by a part of a cell, and its warps round the position to 1/32 of a cell: two pixels at stride 64.)
    """
    left, along = _split(columns, values.shape[1])
    wide = values[:, left] + np.diff(values, axis=1, append=values[:, -1:])[:, left] * along
    top, down = _split(rows, len(values))
    bottom, down = np.minimum(top + 1, len(values) - 1), down[:, None]
    result = np.empty((len(rows), len(columns)), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        upper, lower = wide[top[block]], wide[bottom[block]]
        upper *= 1 - down[block]
        lower *= down[block]
        np.add(upper, lower, out=result[block])
    return result
