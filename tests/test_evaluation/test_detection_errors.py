"""Types of errors and what they cost, against made cases and pycocotools."""

import numpy as np
import pytest
from made_errors import boxes, evaluate, random_image

from mmdet_featviz.evaluation.detection_errors import COSTS, FALSE_TYPES, error_costs, find_errors, pairwise_overlaps
from mmdet_featviz.structures.boxes import Boxes

OBJECT = (0, 0, 100, 100, 0)


@pytest.mark.parametrize(
    ('type_', 'match', 'overlap', 'prediction', 'truth'),
    [
        ('true', 0, 0.9, (0, 0, 100, 90, 0, 0.5), [OBJECT]),
        ('true', 1, 0.9, (0, 0, 100, 90, 0, 0.5), [(0, 0, 100, 75, 0), OBJECT]),  # the one that it overlaps most
        ('true', 0, 0.5, (0, 0, 100, 50, 0, 0.5), [OBJECT]),
        ('localization', 0, 0.49, (0, 0, 100, 49, 0, 0.5), [OBJECT]),
        ('localization', 0, 0.1, (0, 0, 100, 10, 0, 0.5), [OBJECT]),
        # Also if it covers an object of another class.
        ('localization', 0, 0.4, (0, 0, 100, 40, 0, 0.5), [OBJECT, (0, 0, 100, 40, 1)]),
        ('classification', 0, 0.9, (0, 0, 100, 90, 1, 0.5), [OBJECT]),
        ('both', 0, 0.4, (0, 0, 100, 40, 1, 0.5), [OBJECT]),
        ('background', -1, 0.09, (0, 0, 100, 9, 0, 0.5), [OBJECT]),
        ('background', -1, 0.09, (0, 0, 100, 9, 1, 0.5), [OBJECT]),
        ('background', -1, 0.0, (0, 0, 100, 100, 0, 0.5), []),
    ],
)
def test_a_prediction_alone(type_, match, overlap, prediction, truth):
    errors = find_errors(boxes(prediction), boxes(*truth), boxes())
    assert (errors.types[0], errors.matches[0]) == (type_, match)
    assert errors.overlaps[0] == pytest.approx(overlap)
    found = [0 if type_ == 'true' and row == match else -1 for row in range(len(truth))]
    assert errors.found_by.tolist() == found


def test_the_better_of_two_predictions_is_true_and_the_other_a_duplicate():
    errors = find_errors(boxes((0, 0, 100, 100, 0, 0.4), (0, 0, 100, 80, 0, 0.6)), boxes(OBJECT), boxes())
    assert errors.predictions.scores.tolist() == [0.6, 0.4]
    assert errors.types.tolist() == ['true', 'duplicate']
    assert errors.matches.tolist() == [0, 0]
    assert errors.overlaps.tolist() == [0.8, 1.0]


def test_a_prediction_takes_the_free_one_of_two_objects():
    truth = boxes(OBJECT, (0, 0, 100, 80, 0))
    errors = find_errors(boxes((0, 0, 100, 100, 0, 0.6), (0, 0, 100, 99, 0, 0.4)), truth, boxes())
    assert errors.types.tolist() == ['true', 'true']
    assert errors.found_by.tolist() == [0, 1]


def test_predictions_in_a_crowd_of_their_class_are_ignored():
    crowd = boxes((200, 0, 1000, 1000, 0))
    predictions = boxes(
        (300, 0, 400, 100, 0, 0.9),
        (150, 0, 250, 100, 0, 0.8),  # by half
        (149, 0, 249, 100, 0, 0.7),
        (300, 0, 400, 100, 1, 0.6),  # of another class
        (0, 0, 100, 100, 0, 0.5),
    )
    errors = find_errors(predictions, boxes(OBJECT), crowd)
    assert errors.types.tolist() == ['ignored', 'ignored', 'background', 'background', 'true']


def test_a_threshold_leaves_the_types_of_what_is_above_it():
    random = np.random.default_rng(1)
    for _ in range(30):
        predictions, truth, crowds = random_image(random)
        above = find_errors(predictions, truth, crowds).above(0.5)
        alone = find_errors(predictions[predictions.scores >= 0.5], truth, crowds)
        assert above.types.tolist() == alone.types.tolist()
        assert above.matches.tolist() == alone.matches.tolist()
        assert above.found_by.tolist() == alone.found_by.tolist()


def test_true_and_ignored_predictions_and_ap_are_those_of_pycocotools():
    random = np.random.default_rng(0)
    images = [random_image(random) for _ in range(100)]
    precision, by_image = evaluate(images)
    errors = [find_errors(*image) for image in images]
    for image, states in zip(errors, by_image):
        assert [type_ == 'true' for type_ in image.types] == [is_true for is_true, _ in states]
        assert [type_ == 'ignored' for type_ in image.types] == [is_ignored for _, is_ignored in states]
    assert sum((image.types == 'ignored').sum() for image in errors) > 10
    assert error_costs(errors)['AP50'] == pytest.approx(precision, abs=1e-12)


def test_types_by_the_definitions_of_the_paper():
    """Each type, box by box in plain Python."""
    random = np.random.default_rng(2)
    seen = set()
    for _ in range(100):
        predictions, truth, _ = random_image(random, crowds=False)
        errors = find_errors(predictions, truth, boxes())
        for row, type_ in enumerate(errors.types):
            if type_ != 'true':
                box, label = errors.predictions.corners[row], errors.predictions.labels[row]
                overlaps = [
                    (overlap_by_hand(box, other), other_label)
                    for other, other_label in zip(truth.corners, truth.labels)
                ]
                same = max((overlap for overlap, other in overlaps if other == label), default=0)
                other = max((overlap for overlap, other in overlaps if other != label), default=0)
                expected = [
                    name
                    for name, holds in (
                        ('localization', 0.1 <= same < 0.5),
                        ('classification', other >= 0.5),
                        ('duplicate', same >= 0.5),
                        ('both', 0.1 < other < 0.5),
                        ('background', True),
                    )
                    if holds
                ][0]
                assert type_ == expected
                seen.add(type_)
    assert seen == set(FALSE_TYPES)


def overlap_by_hand(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@pytest.mark.parametrize('type_', COSTS)
def test_a_cost_is_the_gain_of_predictions_that_are_mended(type_):
    """With pycocotools on predictions and ground truth that are mended by hand."""
    random = np.random.default_rng(3)
    images = [random_image(random, crowds=False) for _ in range(60)]
    errors = [find_errors(*image) for image in images]
    before, after = evaluate(images)[0], evaluate([mend(image, type_) for image in errors])[0]
    assert after > before
    assert error_costs(errors)[type_] == pytest.approx(after - before, abs=1e-12)


def mend(errors, type_):
    best = {}  # object that could be found: the best prediction that would find it
    for row, (own, match) in enumerate(zip(errors.types, errors.matches)):
        if own in ('localization', 'classification') and errors.found_by[match] == -1:
            best.setdefault(match, row)
    predictions = []
    for row, own in enumerate(errors.types):
        box = [*errors.predictions.corners[row], errors.predictions.labels[row]]
        if own == type_:
            match = errors.matches[row]
            if best.get(match) != row:
                continue
            box = [*errors.truth.corners[match], errors.truth.labels[match]]
        predictions.append([*box, errors.predictions.scores[row]])
    lost = [row for row, found in enumerate(errors.found_by) if found == -1 and row not in best]
    kept = [row for row in range(len(errors.truth)) if not (type_ == 'missed' and row in lost)]
    return boxes(*predictions), errors.truth[kept], boxes()


def test_costs_without_predictions_and_without_ground_truth():
    nothing = find_errors(boxes(), boxes(OBJECT), boxes())
    assert error_costs([nothing]) == {'AP50': 0.0, **dict.fromkeys(COSTS, 0.0)}
    only_false = find_errors(boxes((0, 0, 9, 9, 0, 0.5)), boxes(), boxes())
    assert error_costs([only_false])['AP50'] == error_costs([])['AP50'] == -1
    # A predicted class without ground truth does not count.
    other = find_errors(boxes((*OBJECT, 0.5), (0, 0, 9, 9, 2, 0.9)), boxes(OBJECT), boxes())
    assert error_costs([other])['AP50'] == 1


def test_boxes_without_area_overlap_nothing():
    flat = np.array([[5.0, 5, 5, 5], [9, 0, 1, 10]])
    assert pairwise_overlaps(flat, flat).max() == 0
    errors = find_errors(Boxes(flat, np.zeros(2, int), np.ones(2)), boxes((5, 5, 5, 5, 0)), boxes((0, 0, 9, 9, 0)))
    assert errors.types.tolist() == ['background', 'background']
