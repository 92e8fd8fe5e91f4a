import warnings

import cv2
import numpy as np
import pytest
from conftest import noise

from mmdet_featviz.boxes import Boxes, draw_boxes
from mmdet_featviz.rendering import (
    GAP,
    MIN_PITCH,
    TILE_SIZE,
    finite_range,
    get_colormap,
    overlay,
    panel,
    quantise,
    to_unit,
)


def test_grey_is_the_range_stretched_and_cut():
    values = np.array([-1.0, 0.0, 0.5, 1.0, 3.0], np.float32)
    np.testing.assert_allclose(to_unit(values, (0, 1)), [0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(quantise(to_unit(values, (0, 1))), [0, 0, 127, 255, 255])


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
        grey = quantise(to_unit(values, finite_range(values)))
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
    photo, heat = noise(seed=1), noise(seed=2)
    photo_part = photo.astype(float) * (0.7 if blend == 'alpha' else 1)
    expected = np.clip(photo_part + 0.3 * heat.astype(float), 0, 255)
    assert np.abs(overlay(photo, heat, 0.3, blend) - expected).max() <= 0.5 + 1e-6


def test_colour_maps_of_opencv_come_first_then_matplotlibs():
    grey = np.arange(256, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(get_colormap('jet'), cv2.applyColorMap(grey, cv2.COLORMAP_JET))
    np.testing.assert_array_equal(get_colormap('TURBO'), cv2.applyColorMap(grey, cv2.COLORMAP_TURBO))
    np.testing.assert_array_equal(get_colormap('gray')[:, 0], np.repeat(grey, 3, 1))
    assert get_colormap('Reds')[255, 0].tolist() == [13, 0, 103]  # BGR of the darkest red of ColorBrewer


def test_unknown_colour_map_names_the_closest():
    with pytest.raises(ValueError, match="unknown colour map 'virdis': .*viridis"):
        get_colormap('virdis')


def test_boxes_are_drawn_where_they_are_and_the_picture_is_not_changed():
    picture = np.full((200, 300, 3), 128, np.uint8)
    boxes = Boxes(np.array([[100.0, 60.0, 180.0, 150.0]]), ['cat 0.93'], [(0, 255, 0)])
    drawn = draw_boxes(picture, boxes)
    assert (picture == 128).all()
    assert drawn[100, 100].tolist() == [0, 255, 0]
    assert drawn[150, 140].tolist() == [0, 255, 0]
    assert (drawn[70:140, 110:170] == 128).all()
    assert (drawn[:40] == 128).all()
    assert (drawn[42:60, 100:150] > 200).all(-1).any()  # the caption above the box
    np.testing.assert_array_equal(draw_boxes(picture, Boxes(np.zeros((0, 4)), [], [])), picture)


def test_captions_of_boxes_at_the_edge_stay_inside():
    picture = np.full((120, 160, 3), 128, np.uint8)
    drawn = draw_boxes(picture, Boxes(np.array([[150.0, -5, 170, 20]]), ['a long caption 0.50'], [(255, 0, 0)]))
    assert (drawn == 255).all(-1).any()
    assert drawn.shape == picture.shape


@pytest.mark.parametrize('shape', [(480, 640), (640, 160), (20, 30)])
def test_panel_puts_the_tiles_in_rows_and_keeps_their_proportions(shape):
    def tile(value):
        return np.full((*shape, 3), (value, 255 - value, 77), np.uint8)

    rows = [[('photo', tile(10)), ('a_0', tile(20))], [('b_0', tile(30)), ('b_1', tile(40)), ('b_2', tile(50))]]
    sheet = panel(rows)
    scale = TILE_SIZE / max(shape)
    for value, row, column in [(10, 0, 0), (20, 0, 1), (30, 1, 0), (40, 1, 1), (50, 1, 2)]:
        y, x = np.nonzero((sheet == (value, 255 - value, 77)).all(-1))
        assert np.abs(np.subtract((np.ptp(y) + 1, np.ptp(x) + 1), np.array(shape) * scale)).max() <= 1
        assert x.min() // max(round(shape[1] * scale), MIN_PITCH) == column
        assert y.min() // (shape[0] * scale) == row
    assert (sheet[0] == 255).all()
    assert (sheet[6:30] < 100).any()  # captions above the first row


def test_a_long_row_of_a_panel_goes_on_below():
    tile = np.zeros((60, 80, 3), np.uint8)
    one, six, seven = (panel([[('x', tile)] * count]).shape for count in (1, 6, 7))
    assert seven == (2 * one[0] - GAP, *six[1:])
