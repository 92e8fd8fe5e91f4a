"""Dots on pictures: where, how large, and none outside the image."""

import numpy as np

from mmdet_featviz.visualization.point_drawing import draw_points


def areas(picture, *boxes):
    return [int((picture[top:bottom, left:right] == 255).all(2).sum()) for left, top, right, bottom in boxes]


def test_areas_are_in_proportion_to_weights():
    gray = np.full((800, 1200, 3), 128, np.uint8)
    drawn = draw_points(gray, (800, 1200), [(300.0, 200.0, 0.4), (900.0, 200.0, 0.2), (300.0, 600.0, 0.1)])
    assert (gray == 128).all()
    one, half, quarter = areas(drawn, (200, 100, 400, 300), (800, 100, 1000, 300), (200, 500, 400, 700))
    assert 0.8 < half / one / 0.5 < 1.2
    assert 0.75 < quarter / one / 0.25 < 1.25
    rows, columns = np.nonzero((drawn[:400, :600] == 255).all(2))
    np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], (300, 200), atol=0.1)
    assert drawn.min() < 20  # the rim


def test_points_outside_the_image_are_left_out():
    gray = np.full((60, 90, 3), 128, np.uint8)
    points = [(-1.0, 20.0, 0.5), (20.0, 61.0, 0.5), (np.nan, np.nan, 0.5), (95.0, 30.0, 0.5)]
    assert (draw_points(gray, (60, 80), points) == 128).all()
    assert (draw_points(gray, (60, 80), []) == 128).all()
    beside = draw_points(gray, (60, 80), [(80.0, 30.0, 0.5)])  # on the edge: not on the color bar
    assert (beside[:, 80:] == 128).all()
    assert (beside[:, :80] != 128).any()
