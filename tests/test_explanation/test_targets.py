"""Targets: which detections, candidates and numbers are explained."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_featviz.explanation.detections import Detections, overlaps
from mmdet_featviz.explanation.targets import PARTS, is_found, parse_targets

NAMES = ('cat', 'dog', 'traffic light')
FOUND = Detections(
    torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [21, 21, 41, 41], [0, 0, 5, 5], [60, 0, 80, 20]]),
    torch.tensor([0.5, 0.9, 0.3, float('nan'), 0.1]),
    torch.tensor([0, 1, 0, 1, 2]),
)  # by descending score: rows 1, 0, 2, 4; row 3 has no score
FLAT = Detections(torch.zeros(2, 4), torch.ones(2), torch.zeros(2, dtype=torch.long))
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))


def sample(*boxes, labels=()):
    data = DetDataSample()
    data.gt_instances = InstanceData(bboxes=torch.tensor(boxes).reshape(-1, 4).float(), labels=torch.tensor(labels))
    return data


def choose(targets, found=FOUND, data=None, of='score'):
    chosen, reasons = [], []
    for selection in parse_targets(targets, of, NAMES):
        new, reason = selection.choose(0, found, data)
        chosen += new
        reasons.append(reason)
    return chosen, reasons


@pytest.mark.parametrize(
    ('targets', 'rows'),
    [
        ('top 2', [1, 0]),
        ('top 9', [1, 0, 2, 4]),
        ('all', [1, 0, 2, 4]),
        ('score 0.3', [1, 0, 2]),
        ('class cat', [0, 2]),
        ('class traffic light', [4]),
        ('class 1', [1]),
        ('class cat, top 1', [0]),
        ('top 1, class dog', [1]),
        ('score 0.2,class cat', [0, 2]),
        (3, [4]),
        ('3', [4]),
        ([0, 2], [1, 2]),
        (['top 1', 'class dog'], [1, 1]),
    ],
)
def test_detections(targets, rows):
    chosen, _ = choose(targets)
    assert [target.index for target in chosen] == rows
    for target in chosen:
        assert target.bbox == tuple(FOUND.bboxes[target.index].tolist())
        assert (target.label, target.score) == (int(FOUND.labels[target.index]), float(FOUND.scores[target.index]))
        assert target.number == [1, 0, 2, 4].index(target.index)


@pytest.mark.parametrize(
    ('targets', 'found', 'reason'),
    [
        ('top 5', NOTHING, 'the detector predicts no box here'),
        ('score 0.95', FOUND, 'no detection scores 0.95 or more: the best of 4 has 0.9'),
        (
            'top 2, class traffic light',
            FOUND,
            'none of the 2 detections is of the class traffic light: they are dog, cat',
        ),
        (4, FOUND, 'there is no detection 4: 4 are predicted, numbered from 0'),
        ('box 100 100 120 120', FOUND, 'no candidate overlaps the box 100 100 120 120'),
        ('box 0 0 9 9 dog', FOUND, 'no candidate of the class dog overlaps the box 0 0 9 9'),
        ('gt', FOUND, 'there is no ground truth: give a sample of a data set that has its annotations'),
        ('box 0 0 9 9', FLAT, 'the boxes that the detector predicts have no area'),
    ],
)
def test_no_target(targets, found, reason):
    assert choose(targets, found) == ([], [reason])


@pytest.mark.parametrize(
    ('targets', 'error', 'message'),
    [
        ('best 5', ValueError, "target 'best 5' is not understood: give 'top 5', 'all', 'score 0.3', 'class dog'"),
        ('top 0', ValueError, "target 'top 0' is not understood"),
        ('top many', ValueError, "target 'top many' is not understood"),
        ('\u00b2', ValueError, "target '\u00b2' is not understood"),  # a superscript
        ('class \u00b2', ValueError, "unknown class '\u00b2'"),
        ('score', ValueError, "target 'score' is not understood"),
        ('', ValueError, "target '' is not understood"),
        ('class dgo', ValueError, "unknown class 'dgo': the closest are dog"),
        ('class 7', ValueError, "unknown class '7'"),
        ('box 1 2 3', ValueError, "a drawn box must be 'box LEFT TOP RIGHT BOTTOM CLASS', but is 'box 1 2 3'"),
        ('box 5 5 5 9', ValueError, 'box 5 5 5 9 has no area'),
        ('box 0 0 inf 9', ValueError, 'box 0 0 inf 9 has no area'),
        ([], ValueError, 'targets is empty'),
        ([1.5], TypeError, 'but one is 1.5'),
        (True, TypeError, 'but one is True'),
        (None, TypeError, 'but one is None'),
        (0.3, TypeError, 'but one is 0.3'),
    ],
)
def test_what_is_not_understood(targets, error, message):
    with pytest.raises(error) as raised:
        parse_targets(targets, 'score', NAMES)
    assert message in str(raised.value)


def test_a_drawn_box_gets_the_largest_product_of_overlap_and_score():
    """0.9 overlaps the box by a third, 0.3 fully: 0.3 wins over 0.9 / 4, but not over 0.9 / 2."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 40]])
    found = Detections(boxes, torch.tensor([0.3, 0.9]), torch.tensor([0, 0]))
    (target,), _ = choose('box 0 0 10 10', found)
    assert (target.index, target.overlap, target.wanted, target.kind) == (0, 1.0, (0, 0, 10, 10), 'drawn box')
    found = Detections(boxes * torch.tensor([1, 1, 1, 0.5]), torch.tensor([0.3, 0.9]), torch.tensor([0, 0]))
    (target,), _ = choose('box 0 0 10 10', found)
    assert (target.index, target.overlap) == (1, 0.5)


def test_each_ground_truth_gets_a_candidate_of_its_class():
    truth = sample([20, 20, 40, 40], [0, 0, 10, 10], [200, 200, 210, 210], labels=[0, 0, 0])
    chosen, _ = choose('gt', data=truth)
    assert [(target.number, target.index, target.kind) for target in chosen] == [
        (0, 2, 'ground truth'),  # the detection that fits best is a dog, so the candidate is the cat beside it
        (1, 0, 'ground truth'),
    ]
    own = Detections(FOUND.bboxes[:2], FOUND.scores[:2], FOUND.labels[:2])  # the cat at 21 was suppressed
    assert [is_found(target, own) for target in chosen] == [False, True]


def test_what_is_explained_is_named():
    (target,), _ = choose('top 1', of='both')
    assert target.parts == ('score', 'left', 'top', 'right', 'bottom')
    assert str(target) == 'both of detection 0'
    assert PARTS['top'] == ('top',)


def test_overlaps():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]])
    np.testing.assert_allclose(overlaps(boxes, boxes[0]), [1, 1 / 3, 0, 0], rtol=1e-6)
