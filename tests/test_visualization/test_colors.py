import warnings

import cv2
import numpy as np
import pytest
from conftest import noise

from mmdet_featviz.visualization.colors import get_colormap, overlay, quantize, to_unit
from mmdet_featviz.visualization.value_ranges import finite_range


def test_values_are_scaled_and_then_cut_to_gray():
    """Between the two they are interpolated, so that scaling must keep what is outside the range."""
    values = np.array([-1.0, 0.0, 0.5, 1.0, 3.0], np.float32)
    np.testing.assert_allclose(to_unit(values, (0, 2)), [-0.5, 0, 0.25, 0.5, 1.5])
    np.testing.assert_array_equal(quantize(to_unit(values, (0, 1))), [0, 0, 127, 255, 255])


@pytest.mark.parametrize(
    'values',
    [
        np.full((3, 4), 7.0),
        np.full((3, 4), np.nan),
        np.full((3, 4), np.inf),
        np.full((3, 4), -np.inf),
        np.zeros((0, 4)),
    ],
)
def test_constant_empty_and_not_finite_maps_become_zero_without_a_warning(values):
    values = values.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        gray = quantize(to_unit(values, finite_range(values)))
    assert gray.shape == values.shape
    assert not gray.any()


def test_cells_that_are_not_finite_become_zero_and_others_keep_their_range():
    values = np.array([1.0, np.nan, 2.0, np.inf, 3.0, -np.inf], np.float32)
    assert finite_range(values) == (1, 3)
    np.testing.assert_allclose(to_unit(values, (1, 3)), [0, 0, 0.5, 0, 1, 0])


def test_the_largest_floats_do_not_overflow():
    values = np.array([-3e38, 0, 3e38], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        np.testing.assert_allclose(to_unit(values, finite_range(values)), [0, 0.5, 1])
        for limits in ((0, 1), (0, 1e-300), (-1e308, 1e308)):
            unit = to_unit(values, limits)
            assert np.isfinite(unit).all()
            assert unit[0] <= unit[1] <= unit[2]


@pytest.mark.parametrize('blend', ['alpha', 'add'])
def test_overlay_equals_its_formula(blend):
    image, heat = noise(seed=1), noise(seed=2)
    image_part = image.astype(float) * (0.7 if blend == 'alpha' else 1)
    expected = np.clip(image_part + 0.3 * heat.astype(float), 0, 255)
    assert np.abs(overlay(image, heat, 0.3, blend) - expected).max() <= 0.5 + 1e-6


def test_faded_heat_is_as_opaque_as_it_is_hot():
    image, heat = noise(60, 80, seed=1), noise(60, 80, seed=2)
    gray = np.random.default_rng(0).integers(0, 256, (60, 80)).astype(np.uint8)
    gray[0] = 0
    gray[1] = 255
    weight = 0.7 * gray[..., None] / 255
    drawn = overlay(image, heat, 0.7, 'fade', gray=gray)
    assert np.abs(drawn - ((1 - weight) * image.astype(float) + weight * heat)).max() <= 0.51
    np.testing.assert_array_equal(drawn[0], image[0])
    full = overlay(image, heat, 1.0, 'fade', gray=gray)
    np.testing.assert_array_equal(full[1], heat[1])


def test_color_maps_come_from_opencv_then_matplotlib():
    gray = np.arange(256, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(get_colormap('jet'), cv2.applyColorMap(gray, cv2.COLORMAP_JET))
    np.testing.assert_array_equal(get_colormap('TURBO'), cv2.applyColorMap(gray, cv2.COLORMAP_TURBO))
    np.testing.assert_array_equal(get_colormap('gray')[:, 0], np.repeat(gray, 3, 1))
    assert get_colormap('Reds')[255, 0].tolist() == [13, 0, 103]  # BGR of the darkest red of ColorBrewer


def test_unknown_color_map_suggests_the_closest():
    with pytest.raises(ValueError, match="unknown color map 'virdis': .*viridis"):
        get_colormap('virdis')


@pytest.mark.parametrize('name', ['tab10', 'Set3', 'Reds', 'gist_ncar', 'twilight_r'])
def test_matplotlib_color_maps_span_all_values(name):
    """tab10 has 10 colors, twilight has 510; whole numbers would count them."""
    from matplotlib import colormaps

    table, colors = get_colormap(name)[:, 0, ::-1], colormaps[name].N
    for gray in range(256):
        index = min(gray * colors // 255, colors - 1)
        near = [colormaps[name](index)] + [colormaps[name](index - 1)] * (gray * colors % 255 == 0 < gray)  # rounding
        assert min(np.abs(table[gray] - np.multiply(color[:3], 255)).max() for color in near) <= 0.5 + 1e-6
    assert len(np.unique(table, axis=0)) >= min(colors, 200)
