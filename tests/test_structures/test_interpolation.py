"""Interpolation between cells, against sums of its kernel over all cells in float64."""

import numpy as np
import pytest

from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.interpolation import INTERPOLATIONS, interpolate_lines, interpolate_points
from mmdet_featviz.structures.placement import Placement

VALUES = np.random.default_rng(0).normal(size=(6, 9))


def kernel(kind, distance):
    """Weight of a cell at a distance."""
    s = np.abs(distance)
    if kind == 'nearest':
        return (s < 0.5).astype(float)
    if kind == 'bilinear':
        return np.maximum(1 - s, 0)
    near, far = 1.5 * s**3 - 2.5 * s**2 + 1, -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2
    return np.where(s < 1, near, np.where(s < 2, far, 0))


def weights(kind, positions, cells):
    """(positions, cells): the first and the last cell also stand for those beyond."""
    each = kernel(kind, np.subtract.outer(positions, np.arange(-3, cells + 3)))
    each[:, 3] += each[:, :3].sum(1)
    each[:, cells + 2] += each[:, cells + 3 :].sum(1)
    return each[:, 3 : cells + 3]


def reference(kind, values, rows, columns):
    return weights(kind, rows, values.shape[0]) @ values @ weights(kind, columns, values.shape[1]).T


@pytest.mark.parametrize('kind', INTERPOLATIONS)
def test_lines_and_points_equal_the_sum_over_the_kernel(kind):
    rng = np.random.default_rng(1)
    rows, columns = rng.uniform(0, 5, 40), rng.uniform(0, 8, 50)
    expected = reference(kind, VALUES, rows, columns)
    np.testing.assert_allclose(interpolate_lines(VALUES, rows, columns, kind), expected, atol=1e-12)
    lines = interpolate_lines(VALUES.astype(np.float32), rows, columns, kind)
    assert lines.dtype == np.float32
    np.testing.assert_allclose(lines, expected, atol=1e-5)
    down, across = np.meshgrid(rows, columns, indexing='ij')
    np.testing.assert_allclose(interpolate_points(VALUES, down, across, kind), expected, atol=1e-12)


@pytest.mark.parametrize('kind', INTERPOLATIONS)
def test_cells_keep_their_values_and_ends_are_inside(kind):
    at = np.arange(6.0), np.arange(9.0)
    np.testing.assert_allclose(interpolate_lines(VALUES, *at, kind), VALUES, atol=1e-12)
    one = np.array([[7.0]])
    assert interpolate_lines(one, np.zeros(3), np.zeros(2), kind).tolist() == [[7, 7]] * 3


@pytest.mark.parametrize('kind', INTERPOLATIONS)
def test_padding_has_no_influence(kind):
    """An image of 4 x 6 cells, in an input that is padded with hot cells."""
    grid = Grid((8, 12), (8, 8), Placement(np.eye(3), (32, 48), (64, 96)))
    values = np.full((8, 12), 1e6)
    values[:4, :6] = VALUES[:4, :6]
    (heat,) = (block for _, block in grid.heatmap_blocks(values, kind))
    rows, columns = (np.clip((np.arange(size) + 0.5) / 8 - 0.5, 0, size / 8 - 1) for size in (32, 48))
    np.testing.assert_allclose(heat, reference(kind, values[:4, :6], rows, columns), atol=1e-9)


@pytest.mark.parametrize('kind', INTERPOLATIONS)
def test_a_turned_image_has_the_values_at_its_places(kind):
    matrix = np.array([[0.9, 0.1, 3], [-0.1, 0.9, 7], [0, 0, 1]])
    grid = Grid((6, 9), (8, 8), Placement(matrix, (30, 50), (48, 72)))
    heat = np.concatenate([block for _, block in grid.heatmap_blocks(VALUES, kind)])
    for x, y in [(10, 10), (37, 21), (44, 5)]:
        column, row, _ = matrix @ (x + 0.5, y + 0.5, 1) / 8 - 0.5
        expected = reference(kind, VALUES, np.array([np.clip(row, 0, 5)]), np.array([np.clip(column, 0, 8)]))
        assert heat[y, x] == pytest.approx(expected[0, 0], abs=1e-9)
