"""Measures of explanations, compared with values worked out by hand."""

import csv
import io
import math

import numpy as np
import pytest
import torch
from black_box import OBJECTS, BlackBox, all_targets

from mmdet_featviz.evaluation.bootstrap import interval
from mmdet_featviz.evaluation.explanation_measures import (
    area,
    blank_scores,
    discrimination,
    energy_in_box,
    kept_score,
    perturbation_curves,
    pixel_order,
    pointing_game,
    rank_correlation,
)
from mmdet_featviz.evaluation.explanation_scores import content_of
from mmdet_featviz.evaluation.explanation_summary import mean_curves, summarize, summary_table, to_csv
from mmdet_featviz.explanation.detections import Detections
from mmdet_featviz.explanation.targets import Target
from mmdet_featviz.structures.placement import Placement

SIZE = 32, 64


def order_of(*boxes):
    """Pixels of some boxes, one after the other, then all others."""
    heat = np.zeros(SIZE)
    for number, (left, top, right, bottom) in enumerate(np.array(boxes, int)):
        heat[top:bottom, left:right] = len(boxes) - number
    return pixel_order(heat, np.ones(SIZE, bool), np.random.default_rng(0))


def expected_curve(shown):
    """Score over that in the whole image, if shares of the object's pixels are shown and the others are mean gray."""
    gray = round(255 * 512 / 2048) / 255  # two objects of 256 white pixels on black
    return np.array(shown) + (1 - np.array(shown)) * gray


@pytest.mark.parametrize('batch_size', [1, 3, 8])
def test_curves_of_a_score_that_is_the_share_of_visible_pixels(batch_size):
    box = BlackBox()
    own, other = all_targets(box)
    for target, first, second in ((own, *OBJECTS), (other, *OBJECTS.flip(0))):
        blank = blank_scores(box, 0, np.ones(SIZE, bool), [own, other])
        assert blank == pytest.approx(expected_curve([0, 0]).tolist())
        # Each step is half an object: first the own one, then the other one, then the background.
        order = order_of(first.tolist(), second.tolist())
        curves = perturbation_curves(box, target, order, 16, batch_size, blank[0])
        inserted = [0, 0.5] + [1] * 15
        np.testing.assert_allclose(curves.insertion, expected_curve(inserted), atol=0.06)  # half: which rows are random
        np.testing.assert_allclose(curves.insertion[2:], 1, atol=1e-6)
        np.testing.assert_allclose(curves.deletion[2:], expected_curve([0] * 15), atol=1e-6)
        assert curves.deletion[0] == 1
        # In the other order, the own object comes and goes one object later.
        late = perturbation_curves(box, target, order_of(second.tolist(), first.tolist()), 16, batch_size, blank[0])
        np.testing.assert_allclose(late.insertion[:3], expected_curve([0, 0, 0]), atol=1e-6)
        np.testing.assert_allclose(late.deletion[:3], 1, atol=1e-6)
        assert area(late.insertion) < area(curves.insertion)


def test_padding_is_neither_shown_nor_hidden():
    box = BlackBox()
    target = all_targets(box)[0]
    content = np.zeros(SIZE, bool)
    content[:, 32:] = True  # the object lies in what is padding here
    order = pixel_order(np.random.default_rng(0).random(SIZE), content, np.random.default_rng(1))
    (blank,) = blank_scores(box, 0, content, [target])
    assert sorted(order) == np.flatnonzero(content).tolist()
    curves = perturbation_curves(box, target, order, 4, 2, blank)
    assert curves.insertion.tolist() == curves.deletion.tolist() == [1] * 5


def test_area_is_the_integral_over_the_share_of_pixels():
    share = np.linspace(0, 1, 401)
    assert area([0, 1]) == 0.5
    assert area([1, 1, 0, 0]) == pytest.approx(1 / 2)
    assert area(share**2) == pytest.approx(1 / 3, abs=1e-5)


def test_the_kept_score_is_that_of_the_best_box_of_the_class_that_overlaps_by_more_than_half():
    bboxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 5.1], [0, 0, 10, 10], [0, 0, 10, 10]])
    scores, labels = torch.tensor([0.2, 0.9, 0.6, 0.8, math.nan]), torch.tensor([1, 1, 1, 0, 1])
    target = Target(0, 0, 0, 'detection', (0, 0, 10, 10), 1, 0.2)
    assert kept_score(target, Detections(bboxes, scores, labels)) == pytest.approx(0.6)  # half exactly is too little
    assert kept_score(target, Detections(bboxes[3:4], scores[3:4], labels[3:4])) == 0
    assert kept_score(target, Detections(bboxes[:0], scores[:0], labels[:0])) == 0


def test_pixels_come_by_heat_and_equal_ones_region_by_region_in_random_order():
    heat = np.zeros((96, 128), np.float32)
    heat[20, 30:33] = 3, 9, 5
    content = np.ones(heat.shape, bool)
    content[20, 31] = False
    orders = [pixel_order(heat, content, np.random.default_rng(seed)) for seed in range(20)]
    assert {tuple(order[:2]) for order in orders} == {(20 * 128 + 32, 20 * 128 + 30)}
    assert all(sorted(order) == np.flatnonzero(content).tolist() for order in orders)
    first_halves = np.zeros((20, *heat.shape))
    for half, order in zip(first_halves, orders):
        half.ravel()[order[: order.size // 2]] = 1
    # Regions: neighbors come in the same half. With pixels in any order half of them would not.
    assert (first_halves[:, :, 1:] != first_halves[:, :, :-1]).mean() < 0.1
    # Random: no place comes first in most orders.
    assert first_halves.std(0).mean() > 0.4
    assert len({tuple(order) for order in orders}) == 20


def test_the_pointing_game_counts_the_share_of_the_hottest_pixels():
    heat = np.zeros((4, 6))
    heat[1, 2] = 5
    assert pointing_game(heat, np.array([2, 1, 3, 2.0])) == 1
    assert pointing_game(heat, np.array([3, 1, 6, 4.0])) == 0
    heat[3, 5] = 5
    assert pointing_game(heat, np.array([2, 1, 3, 2.0])) == 0.5


def test_energy_and_odi_by_hand():
    heat = np.zeros((4, 6), np.float32)
    heat[0, 0], heat[1, 1], heat[3, 5], heat[2, 2] = 1, 2, 4, 3
    own, others = np.array([0, 0, 2, 2.0]), np.array([[1, 1, 3, 3.0], [5, 3, 6, 4]])
    assert energy_in_box(heat, own) == pytest.approx(3 / 10)
    # The pixel that both share counts as the own one.
    assert discrimination(heat, own, others) == pytest.approx((3 + 4) / (3 + 3 + 4))
    assert math.isnan(discrimination(heat, own, others[:0]))
    assert math.isnan(discrimination(heat * 0, own, others))
    assert math.isnan(energy_in_box(heat * 0, own))


def test_rank_correlation_of_small_maps_and_of_what_is_flat():
    heat, other = np.random.default_rng(0).random((2, 40, 60))
    ranks = [np.argsort(np.argsort(one.ravel())) for one in (heat, other)]
    assert rank_correlation(heat, other) == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-6)
    assert rank_correlation(heat, heat**3) == pytest.approx(1)
    assert rank_correlation(heat, 1 - heat) == pytest.approx(-1)
    assert rank_correlation(heat, np.zeros_like(heat)) == 0
    large = np.kron(heat, np.ones((8, 8)))  # as it is made smaller, its cells come out again
    assert rank_correlation(large, np.kron(heat**3, np.ones((8, 8)))) > 0.9


def test_the_content_is_where_the_image_lies_in_the_input():
    scaled_and_padded = Placement(np.array([[0.5, 0, 3], [0, 0.5, 2], [0, 0, 1]]), (20, 30), (16, 24))
    content = content_of(scaled_and_padded)
    rows, columns = np.nonzero(content)
    assert content.shape == (16, 24)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 11, 3, 17)
    assert content.sum() == 10 * 15
    flipped = Placement(np.array([[-0.5, 0, 18], [0, 0.5, 2], [0, 0, 1]]), (20, 30), (16, 24))
    np.testing.assert_array_equal(content_of(flipped), content)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution_for_many_boxes():
    values = np.random.default_rng(5).normal(3, 2, 900)
    low, high = interval(values, seed=0)
    half = 1.96 * values.std() / 30
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert interval(values, seed=0) == (low, high)


def row(method, size, insertion, odi, seconds, curve=(0.0, 1.0)):
    curves = dict(insertion=list(curve), deletion=list(curve[::-1]))
    facts = {'image': 'a, "b".jpg', 'class': 'cat', 'bbox': [1, 2, 3, 4.5]}
    return dict(facts, method=method, size=size, insertion=insertion, odi=odi, seconds=seconds, curves=curves)


ROWS = [
    row('odam', 'small', 0.5, None, 1.0),
    row('odam', 'large', 0.7, 0.2, 2.0, (0.5, 1.0)),
    row('odam', 'large', 0.9, 0.4, 9.0),
    row('box', 'large', 0.1, 0.0, 3.0),
]


def test_means_by_method_and_size():
    summary = {(one['method'], one['size'], one['measure']): one for one in summarize(ROWS)}
    assert summary['odam', 'all', 'insertion']['mean'] == pytest.approx(0.7)
    assert summary['odam', 'all', 'seconds']['mean'] == 2  # the median
    assert summary['odam', 'all', 'odi']['mean'] == pytest.approx(0.3)
    assert summary['odam', 'all', 'odi']['boxes'] == 2
    assert summary['odam', 'large', 'insertion']['mean'] == pytest.approx(0.8)
    assert ('odam', 'small', 'odi') not in summary
    assert ('odam', 'medium', 'insertion') not in summary
    one = summary['box', 'all', 'insertion']
    assert (one['low'], one['high']) == (pytest.approx(0.1), pytest.approx(0.1))
    low, high = summary['odam', 'all', 'insertion']['low'], summary['odam', 'all', 'insertion']['high']
    assert 0.5 <= low < 0.7 < high <= 0.9


def test_curves_are_averaged_over_boxes():
    curves = mean_curves(ROWS)
    np.testing.assert_allclose(curves['odam']['insertion']['mean'], [0.5 / 3, 1])
    np.testing.assert_allclose(curves['odam']['deletion']['mean'], [1, 0.5 / 3])
    assert curves['odam']['insertion']['high'][1] == 1


def test_the_table_and_the_csv_have_the_numbers():
    table = summary_table(summarize(ROWS), boxes=4, images=1)
    assert '| odam | 0.700 [' in table
    assert '## Large objects (2)' in table
    assert '0.300 [0.200, 0.400], 2 boxes' in table
    assert 'Medium' not in table
    rows = list(csv.DictReader(io.StringIO(to_csv(ROWS))))
    assert [one['insertion'] for one in rows] == ['0.5', '0.7', '0.9', '0.1']
    assert rows[0]['odi'] == ''
    assert rows[0]['image'] == 'a, "b".jpg'
    assert rows[0]['bbox'] == '1.00 2.00 3.00 4.50'
    assert 'curves' not in rows[0]
