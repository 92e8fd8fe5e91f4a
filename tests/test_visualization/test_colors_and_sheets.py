import warnings

import cv2
import numpy as np
import pytest
from conftest import noise

from mmdet_featviz.visualization.colors import get_colormap, overlay, quantize, to_unit
from mmdet_featviz.visualization.sheets import GAP, MIN_PITCH, TILE_SIZE, add_colorbar, make_sheet, shrink_to_tile
from mmdet_featviz.visualization.text import text_width, wrap_lines
from mmdet_featviz.visualization.value_ranges import finite_range


def test_grey_is_the_range_stretched_and_cut():
    values = np.array([-1.0, 0.0, 0.5, 1.0, 3.0], np.float32)
    np.testing.assert_allclose(to_unit(values, (0, 1)), [0, 0, 0.5, 1, 1])
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
def test_constant_empty_and_not_finite_maps_are_zero_heat_without_a_warning(values):
    values = values.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        grey = quantize(to_unit(values, finite_range(values)))
    assert grey.shape == values.shape
    assert not grey.any()


def test_single_cells_that_are_not_finite_are_zero_heat_and_leave_the_others_alone():
    values = np.array([1.0, np.nan, 2.0, np.inf, 3.0, -np.inf], np.float32)
    assert finite_range(values) == (1, 3)
    np.testing.assert_allclose(to_unit(values, (1, 3)), [0, 0, 0.5, 0, 1, 0])


def test_the_largest_floats_do_not_overflow():
    values = np.array([-3e38, 0, 3e38], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        np.testing.assert_allclose(to_unit(values, finite_range(values)), [0, 0.5, 1])


@pytest.mark.parametrize('blend', ['alpha', 'add'])
def test_overlay_is_its_formula(blend):
    image, heat = noise(seed=1), noise(seed=2)
    image_part = image.astype(float) * (0.7 if blend == 'alpha' else 1)
    expected = np.clip(image_part + 0.3 * heat.astype(float), 0, 255)
    assert np.abs(overlay(image, heat, 0.3, blend) - expected).max() <= 0.5 + 1e-6


def test_color_maps_of_opencv_come_first_then_matplotlibs():
    grey = np.arange(256, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(get_colormap('jet'), cv2.applyColorMap(grey, cv2.COLORMAP_JET))
    np.testing.assert_array_equal(get_colormap('TURBO'), cv2.applyColorMap(grey, cv2.COLORMAP_TURBO))
    np.testing.assert_array_equal(get_colormap('gray')[:, 0], np.repeat(grey, 3, 1))
    assert get_colormap('Reds')[255, 0].tolist() == [13, 0, 103]  # BGR of the darkest red of ColorBrewer


def test_unknown_color_map_names_the_closest():
    with pytest.raises(ValueError, match="unknown color map 'virdis': .*viridis"):
        get_colormap('virdis')


@pytest.mark.parametrize('shape', [(480, 640), (640, 160), (20, 30)])
def test_a_sheet_puts_the_tiles_in_rows_and_keeps_their_proportions(shape):
    def tile(value):
        return shrink_to_tile(np.full((*shape, 3), (value, 255 - value, 77), np.uint8))

    rows = [
        [(['image'], tile(10)), (['a_0'], tile(20))],
        [(['b_0'], tile(30)), (['b_1'], tile(40)), (['b_2'], tile(50))],
    ]
    picture = make_sheet(rows)
    scale = TILE_SIZE / max(shape)
    for value, row, column in [(10, 0, 0), (20, 0, 1), (30, 1, 0), (40, 1, 1), (50, 1, 2)]:
        y, x = np.nonzero((picture == (value, 255 - value, 77)).all(-1))
        assert np.abs(np.subtract((np.ptp(y) + 1, np.ptp(x) + 1), np.array(shape) * scale)).max() <= 1
        assert x.min() // max(round(shape[1] * scale), MIN_PITCH) == column
        assert y.min() // (shape[0] * scale) == row
    assert (picture[0] == 255).all()
    assert (picture[6:30] < 100).any()  # captions above the first row


def test_a_long_row_of_a_sheet_goes_on_below():
    tile = np.zeros((60, 80, 3), np.uint8)
    one, six, seven = (make_sheet([[(['x'], tile)] * count]).shape for count in (1, 6, 7))
    assert seven == (2 * one[0] - GAP, *six[1:])


def test_captions_of_all_rows_stand_close_above_their_tiles():
    tile = np.full((20, 300, 3), (50, 100, 200), np.uint8)
    picture = make_sheet([[([f'row {number}'], tile)] for number in range(12)])
    ink = np.flatnonzero((picture < 100).all(-1).any(1))
    tops = np.flatnonzero((picture == (50, 100, 200)).all(-1).any(1))[::20]
    for top, above in zip(tops, [0, *tops]):
        inside = ink[(ink > above) & (ink < top)]
        assert 2 <= top - inside.max() <= 9
        assert 8 <= np.ptp(inside) <= 14


def test_long_captions_are_broken_at_a_dot_and_nothing_is_cut():
    line = 'backbone.stages.2.blocks.17.attention.window.projection_layer_of_a_very_long_name_0'
    broken = wrap_lines([line, 'short'], 200)
    assert ''.join(broken[:-1]) == line
    assert broken[-1] == 'short'
    assert len(broken) > 2
    assert all(text_width(part, 14) <= 200 for part in broken)
    assert all(part[-1] in '._' for part in broken[:-2])
    tile = np.full((60, 80, 3), (50, 100, 200), np.uint8)
    high, low = make_sheet([[([line], tile), (['a'], tile)]]), make_sheet([[(['a'], tile), (['a'], tile)]])
    assert high.shape[0] > low.shape[0]
    assert ((high == (50, 100, 200)).all(-1)).sum() == 2 * 60 * 80  # no letter lies on a tile


def test_a_title_stands_above_all_tiles_and_a_long_one_takes_more_lines():
    tile = np.full((60, 300, 3), (50, 100, 200), np.uint8)
    plain, titled, long = (make_sheet([[(['a'], tile)]], title) for title in ('', 'title', 'a long title ' * 6))
    assert plain.shape[0] < titled.shape[0] < long.shape[0]
    assert ((long == (50, 100, 200)).all(-1)).sum() == 60 * 300


def test_a_color_bar_leaves_the_picture_alone_and_goes_from_top_to_bottom():
    picture, table = noise(200, 300), get_colormap('gray')
    drawn = add_colorbar(picture, table, (-1.5, 2.25))
    np.testing.assert_array_equal(drawn[:, :300], picture)
    bar = drawn[:, 300 + GAP + 5, 0].astype(int)
    inside = bar[12:185]
    assert (np.diff(inside) <= 0).all()
    assert (inside[0], inside[-1]) == (pytest.approx(255, abs=8), pytest.approx(0, abs=8))
