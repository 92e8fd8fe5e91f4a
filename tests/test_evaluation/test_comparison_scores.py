"""Scores of a pair of heatmaps, and the boxes that they are scored against."""

import math

import numpy as np
import pytest

from mmdet_featviz.evaluation.comparison_scores import HeatmapGroup, reference_boxes, score_group
from mmdet_featviz.structures.boxes import Boxes


def test_without_boxes_only_the_correlation_is_defined():
    heat = np.arange(12, dtype=np.float32).reshape(3, 4)
    scores = score_group(HeatmapGroup([heat, heat], np.ones((3, 4), bool)), None)
    assert scores.correlations == (pytest.approx(1),)
    assert all(map(math.isnan, (*scores.inside, scores.chance)))


def test_only_pixels_that_both_networks_saw_count():
    seen = np.zeros((4, 4), bool)
    seen[:2] = True
    a, b = np.arange(16, dtype=np.float32).reshape(4, 4), np.arange(16, dtype=np.float32).reshape(4, 4)
    b[2:] = -100
    inside = np.zeros((4, 4), bool)
    inside[:, 0] = inside[3] = True
    scores = score_group(HeatmapGroup([a, b], seen), inside)
    assert scores.correlations == (pytest.approx(1),)
    assert scores.inside == (4 / 28, 4 / 28)
    assert scores.chance == 2 / 8
    assert not HeatmapGroup([a, b], seen).difference(1).any()
    nothing = score_group(HeatmapGroup([a, b], np.zeros((4, 4), bool)), inside)
    assert all(map(math.isnan, nothing.named().values()))


def boxes(*scores):
    corners = np.arange(4 * len(scores), dtype=float).reshape(-1, 4)
    return Boxes(corners, np.zeros(len(scores), np.int64), np.array(scores, float))


@pytest.mark.parametrize(
    ('a', 'b', 'rows', 'source'),
    [
        (boxes(0.9, np.nan), boxes(np.nan), [1], 'ground truth'),
        (boxes(0.9, 0.8), boxes(np.nan, 0.9), [0], 'ground truth'),
        (boxes(0.2, 0.3), boxes(0.9), [1], 'predictions of A with a score of at least 0.3'),
        (boxes(0.2), boxes(0.9), [], 'none'),
        (None, boxes(0.9), [], 'none'),
    ],
)
def test_ground_truth_comes_before_predictions_of_a(a, b, rows, source):
    corners, description = reference_boxes([a, b], 0.3)
    assert description == source
    np.testing.assert_array_equal(corners, np.arange(8.0).reshape(2, 4)[rows])
