"""Correlation and energy against independent formulas, and heatmaps on images."""

import math

import numpy as np
import pytest
from comparison_samples import SIZE, make_level

from mmdet_featviz.evaluation.heat_measures import correlation, energy_inside, heat_on_image, inside_boxes
from mmdet_featviz.structures.placement import Placement, identity_placement


def test_measures_equal_independent_formulas():
    rng = np.random.default_rng(1)
    for offset in (0, 300):
        a, b = (rng.normal(offset, 2, size=(37, 53)).astype(np.float32) for _ in range(2))
        b += a / 2
        inside = rng.random((37, 53)) < 0.3
        assert correlation(a, b) == pytest.approx(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])
        lowest = min(float(value) for value in a.flat)
        shares = [(float(value) - lowest) * at for value, at in zip(a.flat, inside.flat)]
        assert energy_inside(a, inside) == pytest.approx(sum(shares) / sum(float(value) - lowest for value in a.flat))


def test_measures_of_known_cases():
    heat = np.zeros(SIZE, np.float32)
    inside = inside_boxes(np.array([[10.0, 20.0, 40.0, 50.0]]), SIZE)
    heat[inside] = 3
    heat[30, 30] = 7
    assert correlation(heat, heat) == pytest.approx(1, abs=1e-12)
    assert correlation(heat, 2 * heat + 5) == pytest.approx(1, abs=1e-6)
    assert correlation(heat, -heat) == pytest.approx(-1, abs=1e-12)
    assert energy_inside(heat, inside) == 1.0
    assert energy_inside(heat - 9, inside) == 1.0  # energy is counted from the smallest value
    assert energy_inside(heat.max() - heat, inside) < inside.mean()


@pytest.mark.parametrize('constant', [0.0, 0.1, -3e7])
def test_constant_heat_has_no_measures(constant):
    # Not quite constant, as after interpolation.
    heat = np.full((40, 40), constant, np.float32) * (1 + 1e-7 * np.arange(40, dtype=np.float32) / 40)
    assert math.isnan(correlation(heat, np.arange(1600.0).reshape(40, 40)))
    assert math.isnan(energy_inside(heat, np.ones((40, 40), bool)))


def test_pixels_are_inside_a_box_by_their_center():
    """Overlaps count once, and boxes beyond the image do not count."""
    corners = np.array([[1.6, 0.0, 3.6, 2.0], [-9.0, 1.0, 1.0, 99.0], [0.0, 1.0, 1.0, 2.0], [-5.0, -5.0, -1.0, -1.0]])
    x, y = np.meshgrid(np.arange(6) + 0.5, np.arange(4) + 0.5)
    expected = np.zeros((4, 6), bool)
    for left, top, right, bottom in corners:
        expected |= (left <= x) & (x < right) & (top <= y) & (y < bottom)
    np.testing.assert_array_equal(inside_boxes(corners, (4, 6)), expected)
    assert expected.sum() == 7


def test_values_not_finite_and_pixels_not_seen_get_the_smallest_value():
    values = np.full((8, 12), 5.0)
    values[2, 3], values[4, 5] = 4.0, np.inf
    shifted = Placement(np.array([[1, 0, -32], [0, 1, 0], [0, 0, 1.0]]), SIZE, SIZE)  # the left 32 columns were cropped
    whole = identity_placement(SIZE, SIZE)
    heat = heat_on_image(make_level(values=values), whole, 'center')
    assert whole.seen.all()
    assert 4 < heat.min() == heat[36, 44] < 4.2  # half a pixel from the center of the cell that is not finite
    assert heat.max() == 5
    heat = heat_on_image(make_level(values=values), shifted, 'center')
    np.testing.assert_array_equal(shifted.seen, np.broadcast_to(np.arange(96) >= 32, SIZE))
    assert (heat[:, :32] == 4).all()
    assert heat[0, 40] == 5
