"""Attention weights: how much each query of a decoder looks at each part of the image, in one call of one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np
from torch import Tensor

from mmdet_featviz.capture.activation_map import ActivationMap
from mmdet_featviz.structures.snapshot import Level


@dataclass(frozen=True, eq=False)
class DenseAttention:
    """Attention of queries to all cells of one feature map.

    Attributes:
        weights: (N, queries, cells): the mean over heads. Those of a query sum to 1.
    """

    weights: Tensor

    def levels(self, layer: str, image: int, query: int, maps: Sequence[ActivationMap]) -> list[Level]:
        """Return what a query looks at, as the only level of a layer.

        Args:
            layer: Name of the layer.
            image: Index of the image in the batch.
            query: Index of the query.
            maps: The feature maps of the pass; one of them has these cells.

        Raises:
            ValueError: If none of the maps has as many cells.
        """
        weights = _finite(self.weights[image, query])
        for seen in maps:
            grid = seen.values.shape[1:]
            if grid.numel() == len(weights):
                return [Level(layer, 0, seen.channels, seen.stride, weights.reshape(grid), offset=seen.offset)]
        raise ValueError(f'layer {layer!r} looks at {len(weights)} cells, which are no feature map of the image')


@dataclass(frozen=True, eq=False)
class SampledAttention:
    """Attention of queries to some points of several feature maps.

    Attributes:
        locations: (N, queries, heads, levels, points, 2): x and y, from 0 to 1 across the feature map.
        weights: (N, queries, heads, levels, points). Those of a query and head sum to 1.
        grids: (rows, columns) of each feature map.
    """

    locations: Tensor
    weights: Tensor
    grids: Sequence[tuple[int, int]]

    def levels(self, layer: str, image: int, query: int, maps: Sequence[ActivationMap]) -> list[Level]:
        """Return what a query looks at; each point adds its weight to the cells that it is interpolated from.

        The arguments and errors are those of :meth:`DenseAttention.levels`.
        """
        heads = self.weights.shape[2]
        locations, weights = _finite(self.locations[image, query]), _finite(self.weights[image, query]) / heads
        levels, left = [], list(maps)
        for number, grid in enumerate(self.grids):
            place = next((place for place, seen in enumerate(left) if seen.values.shape[1:] == grid), None)
            if place is None:
                raise ValueError(f'layer {layer!r} looks at {grid} cells, which are no feature map of the image')
            seen = left.pop(place)  # levels may be of the same size
            cells = locations[:, number].reshape(-1, 2) * grid[::-1] - 0.5
            points = np.column_stack([cells, weights[:, number].ravel()])
            heat = np.float32(spread(points, grid))
            levels.append(Level(layer, number, seen.channels, seen.stride, heat, offset=seen.offset, points=points))
        return levels


def spread(points: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Share the weights of points (P, 3: column, row, weight) out to cells (rows, columns), as bilinear interpolation.

    What falls outside the grid is lost, as the features are zero there.
    """
    heat = np.zeros(grid)
    columns, rows, weights = points.T
    for row in (np.floor(rows), np.floor(rows) + 1):
        for column in (np.floor(columns), np.floor(columns) + 1):
            parts = weights * (1 - abs(rows - row)) * (1 - abs(columns - column))
            inside = (row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1])
            np.add.at(heat, (row[inside].astype(int), column[inside].astype(int)), parts[inside])
    return heat


def _finite(tensor: Tensor) -> np.ndarray:
    """The values in float32; NaN and infinity are 0."""
    return tensor.float().nan_to_num(0, 0, 0).cpu().numpy()
