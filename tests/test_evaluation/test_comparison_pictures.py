"""Pictures of a comparison, by their pixels."""

import cv2
import numpy as np
import pytest
from comparison_samples import RANDOM_MAP, SIZE, make_level
from conftest import noise

from mmdet_featviz import Style
from mmdet_featviz.evaluation.comparison_pictures import ComparisonLook, draw_difference, draw_group
from mmdet_featviz.evaluation.comparison_scores import ComparisonScores, HeatmapGroup
from mmdet_featviz.evaluation.heat_measures import heat_on_image
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.visualization.sheets import shrink_to_tile


def draw_lines(values, image=None, seen=None, one_scale=True, original=False, outlines=()):
    """The lines of tiles of maps, one of each run; None for a run without one."""
    seen = np.ones(SIZE, bool) if seen is None else seen
    placement = identity_placement(SIZE, SIZE)
    levels = [None if one is None else make_level(values=one) for one in values]
    heats = [None if level is None else heat_on_image(level, placement, 'center') for level in levels]
    captions = [
        ['-', 'none'] if level is None else [level.name, f'{level.channels} channels, stride {level.stride_text}']
        for level in levels
    ]
    inside = (0.25, 0.125, 0.5)[: len(values)]
    scores = ComparisonScores((0.5, 0.75)[: len(values) - 1], inside, 0.1)
    look = ComparisonLook(Style(colormap='gray', alpha=1.0), 'ABC'[: len(values)], original)
    return draw_group(captions, HeatmapGroup(heats, seen, one_scale), scores, image, look, outlines)


def draw_tiles(a, b, *args, **options):
    (line,) = draw_lines([a, b], *args, **options)
    return line


def test_a_and_b_share_one_scale():
    low, high = np.zeros((8, 12)), np.zeros((8, 12))
    low[:, 6:], high[:, 6:] = 1, 4
    (caption, a), (_, b), (difference_caption, difference) = draw_tiles(low, high)
    assert caption == ['A: neck_0', '16 channels, stride 8', '25.0% inside boxes (chance 10.0%)']
    assert difference_caption == ['B - A', 'correlation 0.500']
    assert abs(int(a[100, 300, 0]) - 255 / 4) <= 1
    assert b[100, 300, 0] == 255
    assert a[100, 10, 0] == b[100, 10, 0] == 0
    blue, _, red = difference[100, 300].astype(int)
    assert red > blue + 50
    assert np.ptp(difference[100, 10].astype(int)) <= 2  # white: zero


def test_without_one_scale_each_fills_its_own_range():
    """B is A, a thousand times as large: nothing differs but its unit."""
    values = np.random.default_rng(1).random((8, 12))
    (_, a), (_, b), (caption, difference) = draw_tiles(values, 1000 * values + 7, one_scale=False)
    assert np.abs(a[:, :320].astype(int) - b[:, :320]).max() <= 1
    assert caption[0] == 'B - A, each divided by its range'
    heats = [
        heat_on_image(make_level(values=heat), identity_placement(SIZE, SIZE), 'center').astype(np.float64)
        for heat in (values, values**2)
    ]
    units = [(heat - heat.min()) / (heat.max() - heat.min()) for heat in heats]
    pair = HeatmapGroup(heats, np.ones(SIZE, bool), one_scale=False)
    np.testing.assert_allclose(pair.difference(1), units[1] - units[0], atol=1e-6)


@pytest.mark.parametrize('image', [None, noise(*SIZE)])
def test_equal_heatmaps_have_no_difference(image):
    difference = draw_tiles(RANDOM_MAP, RANDOM_MAP, image)[2][1][:, :320].astype(int)
    assert np.ptp(difference, axis=2).max() <= 2
    assert difference.min() > 100


@pytest.mark.parametrize('image', [None, np.full((*SIZE, 3), 200, np.uint8)])
def test_pixels_that_one_network_did_not_see_are_hatched(image):
    """The right half; it would be the coldest heat in A, and equal in B - A."""
    seen = np.zeros(SIZE, bool)
    seen[:, :48] = True
    values = np.tile(np.arange(12), (8, 1))
    hatched, plain = draw_tiles(values, values + 1, image, seen), draw_tiles(values, values + 1, image)
    scale = 320 / SIZE[1]
    for (caption, tile), (_, whole) in zip(hatched, plain):
        np.testing.assert_array_equal(tile[:, : int(46 * scale)], whole[:, : int(46 * scale)])
        right = tile[:, int(50 * scale) : 318]
        between = np.abs(right.astype(int) - (255 if image is None else 200)).max(2) <= 2
        assert 0.4 < between.mean() < 0.9
        assert ('hatched: A or B did not see it' in caption) == (not caption[0].startswith('B -'))


def test_each_further_run_stands_above_its_difference_to_the_first():
    """Three runs and the image; the third run has no such level."""
    image = noise(*SIZE)
    values = np.tile(np.arange(12.0), (8, 1))

    def outline(tile):
        return cv2.rectangle(tile.copy(), (0, 0), (40, 40), (0, 0, 255), -1)

    top, below = draw_lines([values, 3 * values, None], image, original=True, outlines=[outline] * 3)
    assert [caption[0] for caption, _ in top] == ['image', 'A: neck_0', 'B: neck_0', 'C: -']
    assert [caption for caption, _ in below] == [[], [], ['B - A', 'correlation 0.500'], ['C - A', 'no difference']]
    np.testing.assert_array_equal(top[0][1], shrink_to_tile(image))
    np.testing.assert_array_equal(top[3][1], shrink_to_tile(image))
    assert [int(tile[100, 310, 0]) for _, tile in top[1:3]] == [85, 255]  # a third of the common range, and all of it
    assert [tile[20, 20].tolist() for _, tile in top[1:3]] == [[0, 0, 255]] * 2
    expected = draw_tiles(values, 3 * values, image)[2][1]
    np.testing.assert_array_equal(below[2][1], expected)


def test_negative_is_blue_and_positive_is_red():
    values = np.zeros((32, 64))
    values[:, :20], values[:, -20:] = -2, 2
    tile = draw_difference(values, np.ones(values.shape, bool), None).astype(int)
    less, zero, more = tile[80, 20], tile[80, 160], tile[80, 300]
    assert less[0] > less[2] + 50
    assert more[2] > more[0] + 50
    assert zero.min() > 240
