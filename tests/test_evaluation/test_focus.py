"""Focus on boxes of one heatmap, against a computation by hand."""

import numpy as np
import pytest
from focus_by_hand import focus_by_hand

from mmdet_featviz.evaluation.focus import BoxRegions, group_by_size
from mmdet_featviz.evaluation.heat_measures import energy_inside, inside_boxes

SIZE = (60, 80)


SEEN = np.ones(SIZE, bool)


NO_BOXES = np.zeros((0, 4))


RNG = np.random.default_rng(0)


def boxes(*corners):
    return np.array(corners, np.float64).reshape(-1, 4)


def focus_of(heat, corners, ignored=NO_BOXES, seen=SEEN, **options):
    return BoxRegions(dict(all=corners), ignored, seen).focus(np.asarray(heat, np.float32), **options)['all']


def test_focus_equals_that_by_hand():
    hits = set()
    for _ in range(40):
        heat = RNG.normal(300, 2, SIZE).astype(np.float32)
        starts = RNG.uniform(-10, 70, (5, 2))
        corners = np.concatenate([starts, starts + RNG.uniform(3, 30, (5, 2))], axis=1)
        corners, ignored = corners[:2], corners[2:]
        seen = np.ones(SIZE, bool)
        seen[:, :7] = False
        if not (inside_boxes(corners, SIZE) & seen).any():
            continue
        focus = focus_of(heat, corners, ignored, seen, tolerance=5)
        assert focus == pytest.approx(focus_by_hand(heat, corners, ignored, seen, 5), rel=1e-12)
        hits.add(focus.hit)
    assert hits == {0.0, 1.0}


def test_energy_equals_that_of_a_comparison():
    heat, corners = RNG.normal(size=SIZE).astype(np.float32), boxes([10, 10, 30, 40])
    expected = energy_inside(heat, inside_boxes(corners, SIZE))
    assert focus_of(heat, corners).energy == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('value', [0.0, -3.0, 1e6])
def test_uniform_heat_is_at_chance(value):
    focus = focus_of(np.full(SIZE, value), boxes([0, 0, 40, 30], [20, 10, 60, 30]), tolerance=0)
    share = (40 * 30 + 20 * 20) / (60 * 80)
    assert focus.energy == pytest.approx(share)
    assert focus.share == pytest.approx(share)
    assert focus.gain == pytest.approx(1)
    assert focus.hit == pytest.approx(share)


def test_heat_only_inside_or_only_outside_boxes():
    corners = boxes([20, 20, 40, 30])
    inside = inside_boxes(corners, SIZE)
    assert focus_of(inside * 5 + 2, corners).energy == 1.0
    assert focus_of(inside * 5 + 2, corners).gain == pytest.approx(SEEN.size / 200)
    assert focus_of(2 - inside, corners).energy == 0.0


@pytest.mark.parametrize(
    ('place', 'hit'), [((54, 25), 1), ((55, 25), 0), ((48, 41), 1), ((50, 41), 0), ((5, 25), 1), ((4, 25), 0)]
)
def test_a_maximum_within_15_pixels_of_a_box_is_a_hit(place, hit):
    """The box holds the centres of columns 20 to 39 and rows 20 to 29."""
    heat = np.zeros(SIZE)
    heat[place[1], place[0]] = 1
    assert focus_of(heat, boxes([20, 20, 40, 30])).hit == hit


def test_one_of_two_equal_maxima_is_half_a_hit():
    heat = np.zeros(SIZE)
    heat[[25, 55], [30, 70]] = 1
    assert focus_of(heat, boxes([20, 20, 40, 30])).hit == 0.5


def test_heat_in_ignored_boxes_changes_nothing():
    corners, ignored = boxes([10, 10, 30, 30]), boxes([20, 20, 70, 50])
    heat = RNG.random(SIZE)
    plain = focus_of(heat, corners, ignored)
    only_ignored = inside_boxes(ignored, SIZE) & ~inside_boxes(corners, SIZE)
    assert focus_of(heat + 100 * only_ignored, corners, ignored) == plain
    assert focus_of(heat - 100 * only_ignored, corners, ignored) == plain
    assert plain.share == pytest.approx(400 / (SEEN.size - only_ignored.sum()))


def test_sizes_are_those_of_coco():
    corners = boxes([0, 0, 31.9, 32], [5, 5, 37, 37], [0, 0, 95.9, 96], [0, 0, 96, 96], [0, 0, 900, 900])
    assert {name: len(group) for name, group in group_by_size(corners).items()} == dict(small=1, medium=2, large=2)


def test_boxes_without_a_pixel_are_left_out():
    groups = dict(beyond=boxes([90, 0, 120, 30]), thin=boxes([10.6, 0, 11.4, 30]), none=NO_BOXES)
    assert BoxRegions(groups, NO_BOXES, SEEN).focus(np.zeros(SIZE, np.float32)) == {}


def test_an_image_covered_by_a_crowd_has_no_focus():
    heat = RNG.random(SIZE).astype(np.float32)
    crowd = boxes([-1, -1, 90, 90])
    assert BoxRegions(dict(all=NO_BOXES), crowd, SEEN).focus(heat) == {}
    assert focus_of(heat, boxes([10, 10, 30, 30]), crowd).share == 1
