"""Levels as the page's scripts read them."""

import base64
import json

import numpy as np
import pytest
from report_pages import (
    PLACEMENTS,
    SIZE,
    random_values,
)

from mmdet_featviz.report.page_data import level_data
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level


def decode_cells(data):
    """The values of a level's cells."""
    return np.frombuffer(base64.b64decode(data['cells']), '<f4').reshape(data['rows'], data['columns'])


@pytest.mark.parametrize('align', ['center', 'corner'])
@pytest.mark.parametrize('placement', PLACEMENTS.values(), ids=PLACEMENTS)
def test_map_and_matrix_reproduce_the_heatmap(placement, align):
    """Interpolated in float64 by SciPy, from the data of the page alone."""
    from scipy.ndimage import map_coordinates

    rows, columns = (-(-side // 8) for side in placement.input_size)
    level = Level('neck', 0, 4, (8.0, 8.0), random_values(rows, columns))
    data = json.loads(json.dumps(level_data(level, placement, align)))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    u, v, w = np.einsum('ij,jhw->ihw', np.array(data['matrix']).reshape(3, 3), np.stack([x, y, np.ones_like(x)]))
    found = map_coordinates(decode_cells(data), [v / w, u / w], order=1, mode='nearest')
    left, top, right, bottom = data['bounds']
    seen = (u / w >= left) & (u / w <= right) & (v / w >= top) & (v / w <= bottom)
    expected = Grid(level.values.shape, level.stride, placement, align).heatmap(level.values)
    assert np.abs(np.where(seen, found, 0) - expected).max() <= 1e-4
    assert data['rows'] * data['columns'] <= level.values.size


def test_values_that_are_not_finite_stay_as_they_are():
    values = np.array([[1, np.nan, 3], [np.inf, 2, -1]], np.float32)
    data = level_data(Level('neck', 0, 4, (16.0, 16.0), values), identity_placement((32, 48), (32, 48)), 'center')
    np.testing.assert_array_equal(decode_cells(data), values)
    assert list(data['range']) == [-1, 3]


@pytest.mark.parametrize('value', [0, 7, np.nan])
def test_constant_maps_are_exact(value):
    values = np.full((2, 3), value, np.float32)
    data = level_data(Level('neck', 0, 4, (16.0, 16.0), values), identity_placement((32, 48), (32, 48)), 'center')
    np.testing.assert_array_equal(decode_cells(data), values)


def test_maps_with_a_cell_per_pixel_are_shrunk():
    """As in the mean of passes. The map is a slope, which keeps its values when it is shrunk."""
    size = 1500, 2400
    values = np.add.outer(np.arange(size[0]), 2 * np.arange(size[1])).astype(np.float32)
    data = level_data(Level('neck', 0, 4, (1.0, 1.0), values), identity_placement(size, size), 'center')
    assert (data['rows'], data['columns']) == (1000, 1000)
    matrix, cells = np.array(data['matrix']).reshape(3, 3), decode_cells(data)
    for x, y in ((100.5, 80.5), (2000.5, 1400.5), (1200.5, 700.5)):
        column, row, _ = matrix @ (x, y, 1)
        assert cells[round(row), round(column)] == pytest.approx(y + 2 * x - 1.5, abs=4)


def test_shrinking_leaves_out_values_that_are_not_finite():
    values = np.full((1, 2000), 3e38, np.float32)
    values[0, 1::2] = np.nan
    values[0, 1990:] = np.inf
    data = level_data(Level('neck', 0, 4, (1.0, 1.0), values), identity_placement((1, 2000), (1, 2000)), 'center')
    np.testing.assert_array_equal(decode_cells(data), [[np.float32(3e38)] * 995 + [np.nan] * 5])
