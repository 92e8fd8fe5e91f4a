"""Value ranges: those of levels and channels with values that are not finite."""

import numpy as np
import pytest

from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement, identity_placement
from mmdet_featviz.visualization.value_ranges import (
    channel_limits,
    find_own_range,
    find_visible_range,
    union_of_ranges,
    visible_range,
)

SIZE = (32, 48)
VALUES = np.arange(100, 124, dtype=np.float32).reshape(4, 6)


def grid(placement=None):
    return Grid((4, 6), (8, 8), placement or identity_placement(SIZE, SIZE))


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_level_without_finite_values_has_no_range(value):
    values = np.full((4, 6), value, np.float32)
    assert find_visible_range(values, grid()) is None
    assert visible_range(values, grid()) == (0, 0)


def test_values_that_are_not_finite_are_no_part_of_the_range():
    values = VALUES.copy()
    values[0, 0], values[3, 5], values[1, 1] = np.nan, np.inf, -np.inf
    assert find_visible_range(values, grid()) == (101, 122)
    alone = np.full((4, 6), np.nan, np.float32)
    alone[2, 3] = 7
    assert find_visible_range(alone, grid()) == (7, 7)
    alone[2, 3] = 0
    assert find_visible_range(alone, grid()) == (0, 0)


@pytest.mark.parametrize(
    'matrix', [np.eye(3), np.array([[0.7, 0, 3.3], [0, 0.9, 1.7], [0, 0, 1]]), [[0.9, 0.1, 1], [0, 0.9, 1], [0, 0, 1]]]
)
@pytest.mark.parametrize('value', [0.1, -7.3, 3e38])
def test_a_constant_map_has_one_value(matrix, value):
    """Rounding errors of the interpolation would be drawn as noise from the first to the last color."""
    low, high = find_visible_range(np.full((4, 6), value, np.float32), grid(Placement(np.array(matrix), SIZE, SIZE)))
    assert low == high == np.float32(value)


def test_the_largest_floats_do_not_overflow():
    values = np.where(np.indices((4, 6)).sum(0) % 2, np.float32(3e38), np.float32(-3e38))
    for matrix in (np.eye(3), [[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], [[0.9, 0.1, 1], [0, 0.9, 1], [0, 0, 1]]):
        placed = grid(Placement(np.array(matrix), SIZE, SIZE))
        low, high = find_visible_range(values, placed)
        assert -3.01e38 < low < -2e38
        assert 2e38 < high < 3.01e38
        assert np.isfinite(placed.heatmap(values)).all()


def test_finite_values_of_padding_are_no_range():
    """The image is the left half of the input; only the padding has finite values."""
    values = VALUES.copy()
    values[:, :3] = np.nan
    assert find_visible_range(values, grid(identity_placement((32, 24), SIZE))) is None
    outside = Placement(np.array([[1.0, 0, 500], [0, 1, 0], [0, 0, 1]]), SIZE, SIZE)
    assert find_visible_range(VALUES, grid(outside)) is None


def test_channels_without_finite_values_add_nothing_to_the_common_range():
    ranges = [(100.0, 110.0), None, (105.0, 120.0)]
    for normalize in ('layer', 'run'):
        assert channel_limits(normalize, ranges) == [(100, 120)] * 3
        assert channel_limits(normalize, [None]) == [(0, 0)]
    assert channel_limits('image', ranges) == [(100, 110), (0, 0), (105, 120)]
    assert channel_limits('max', ranges) == [(0, 110), (0, 0), (0, 120)]
    assert channel_limits((1.0, 2.0), ranges) == [(1, 2)] * 3
    assert union_of_ranges([]) == (0, 0)


def outlier_map():
    """Values from 0 to 1, one hot cell inside, and hot cells along all sides."""
    values = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    values[[0, -1]], values[:, [0, -1]] = 50, -50
    values[7, 9] = 1000
    return values


def padded_grid(padding=16):
    """A map of 20x30 cells over an image of 160x240 pixels, with cells of padding on the right and below."""
    size = 160 - padding, 240 - padding
    return Grid((20, 30), (8, 8), Placement(np.eye(3), size, (160, 240)))


def test_percentiles_are_those_of_the_cells_over_the_image():
    values = outlier_map()
    expected = np.percentile(values[:18, :28].astype(np.float64), (1, 99))
    assert find_own_range(values, padded_grid(), percentiles=(1, 99)) == pytest.approx(tuple(expected), rel=1e-12)


def test_a_border_is_left_out_of_the_range():
    values = outlier_map()
    inner = values[2:16, 2:26]
    assert find_own_range(values, padded_grid(), border=2) == (inner.min(), inner.max())
    expected = np.percentile(inner.astype(np.float64), (1, 99))
    found = find_own_range(values, padded_grid(), border=2, percentiles=(1, 99))
    assert found == pytest.approx(tuple(expected), rel=1e-12)
    assert 0 <= found[0] < found[1] <= 1


def test_a_border_of_a_turned_image_is_that_of_the_map():
    angle = np.deg2rad(5)
    turn = np.array([[np.cos(angle), -np.sin(angle), 12], [np.sin(angle), np.cos(angle), -6], [0, 0, 1]])
    turned = Grid((20, 30), (8, 8), Placement(turn, (160, 240), (160, 240)))
    values = outlier_map()
    values[7, 9] = 0.5
    low, high = find_own_range(values, turned, border=1)
    assert 0 <= low < high <= 1
    assert find_own_range(values, turned)[1] > 40


def test_a_border_larger_than_the_map_leaves_nothing_out():
    values = outlier_map()
    assert find_own_range(values, padded_grid(0), border=10) == find_own_range(values, padded_grid(0)) == (-50, 1000)


def test_percentiles_of_a_map_that_is_nearly_all_zero_are_its_smallest_and_largest_value():
    values = np.zeros((20, 30), np.float32)
    values[3, 4] = 2
    assert find_own_range(values, padded_grid(), percentiles=(1, 99)) == (0, 2)


def test_values_that_are_not_finite_are_no_part_of_percentiles_and_border():
    values = outlier_map()
    expected = find_own_range(values, padded_grid(), border=2)
    values[0, 3], values[1, 5], values[19, 29] = np.nan, np.inf, -np.inf
    assert find_own_range(values, padded_grid(), border=2) == expected
    kept = values[:18, :28]
    expected = np.percentile(kept[np.isfinite(kept)].astype(np.float64), (5, 95))
    assert find_own_range(values, padded_grid(), percentiles=(5, 95)) == pytest.approx(tuple(expected), rel=1e-12)
    nothing = np.full((20, 30), np.nan, np.float32)
    assert find_own_range(nothing, padded_grid(), border=2, percentiles=(1, 99)) is None
