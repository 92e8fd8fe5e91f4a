"""The files of an evaluation: the table of boxes, the tables and the plot."""

import csv
import io

import cv2
import numpy as np
import pytest
from made_errors import boxes

from mmdet_featviz.evaluation.detection_errors import COSTS, find_errors
from mmdet_featviz.evaluation.error_files import contrast_findings, error_files
from mmdet_featviz.evaluation.error_records import ErrorRecord, MissedObject
from mmdet_featviz.evaluation.missed_contrasts import compare_contrasts

METRICS = {**dict.fromkeys(('true', *COSTS, 'found'), 3.0), 'AP50': 0.5, **{f'dAP_{type_}': 0.25 for type_ in COSTS}}
MECHANISMS = {f'missed_{name}': 7.0 for name in ('proposal', 'regression', 'other_class', 'background', 'suppressed')}
SMALL, LARGE = 20, 100  # sides of objects


def record(image, contrasts, found, side=SMALL, name='neck_0'):
    """An image with one object for each contrast; `found` says which of them a prediction finds."""
    objects = [(300 * n, 0, 300 * n + side, side, 0) for n in range(len(contrasts))]
    predictions = [(*box, 0.9) for box, is_found in zip(objects, found) if is_found]
    errors = find_errors(boxes(*predictions), boxes(*objects), boxes())
    return ErrorRecord(image, errors, contrasts={name: np.array(contrasts, float)})


def many(found_mean, missed_mean, name='neck_0', side=SMALL, images=30, seed=0):
    random = np.random.default_rng(seed)
    return [
        record(
            str(n),
            [*random.normal(found_mean, 0.2, 3), *random.normal(missed_mean, 0.2, 2)],
            [1, 1, 1, 0, 0],
            side,
            name,
        )
        for n in range(images)
    ]


def read(content):
    return list(csv.DictReader(io.StringIO(content.decode('utf-8', 'surrogateescape'))))


def test_a_row_for_each_prediction_and_each_object():
    predictions = boxes((0, 0, 10, 9, 0, 0.9), (200, 0, 300, 100, 1, 0.5), (0, 0, 9, 9, 0, 0.2))
    truth = boxes((0, 0, 10, 10, 0), (0, 200, 50, 250, 2))
    missed = {1: MissedObject('background', (0.0, 200, 50, 240), 1, 0.25, 0.8)}
    one = ErrorRecord(
        'a/ü\udcff,1.png', find_errors(predictions, truth, boxes()), missed, {'neck_0': np.array([1.5, np.nan])}
    )
    files = error_files([one], ['cat', 'dog, "big"'], 0.3, METRICS)
    first, second, found, lost = read(files['errors.csv'])
    assert first.pop('image') == second['image'] == 'a/ü\udcff,1.png'
    shown = {name: value for name, value in first.items() if value}
    assert shown == dict(
        kind='prediction', number='0', score='0.9', left='0', top='0', right='10', bottom='9', size='small',
        type='true', iou='0.9', match='0', **{'class': 'cat'},
    )  # fmt: skip
    assert (second['class'], second['size'], second['type'], second['match']) == (
        'dog, "big"',
        'large',
        'background',
        '',
    )
    assert (found['kind'], found['number'], found['type'], found['match']) == ('ground truth', '0', 'found', '0')
    assert (found['iou'], found['mechanism'], found['contrast neck_0']) == ('0.9', '', '1.5')
    assert (lost['class'], lost['size'], lost['type'], lost['match'], lost['iou']) == ('2', 'medium', 'missed', '', '')
    candidate = {name.partition('_')[2]: value for name, value in lost.items() if name.startswith('candidate_')}
    assert candidate == {
        'class': 'dog, "big"', 'score': '0.25', 'left': '0', 'top': '200', 'right': '50', 'bottom': '240', 'iou': '0.8'
    }  # fmt: skip
    assert (lost['mechanism'], lost['contrast neck_0']) == ('background', '')


def test_means_are_over_objects_and_only_those_that_are_defined():
    records = [record('a', [1, 2, np.nan, 5], [1, 1, 1, 0]), record('b', [6, 7], [1, 0], LARGE), record('c', [], [])]
    rows = {row.size: row for row in compare_contrasts(records, 0.3)}
    assert set(rows) == {'all', 'small', 'large'}
    assert (rows['all'].found.mean, rows['all'].found.objects) == (3, 3)
    assert (rows['all'].missed.mean, rows['all'].missed.objects) == (6, 2)
    assert (rows['small'].found.mean, rows['small'].missed.mean) == (1.5, 5)
    assert rows['large'].difference.mean == -1
    assert np.isnan(rows['all'].difference.low)  # too few images
    # With a higher threshold nothing is found.
    assert compare_contrasts(records, 0.95) == compare_contrasts([], 0.3) == []


def test_intervals_are_those_of_images_drawn_with_replacement():
    records = many(1.0, 0.7, images=20)
    (row,) = [row for row in compare_contrasts(records, 0.3) if row.size == 'small']
    random, found, missed, gaps = np.random.default_rng(5), [], [], []
    for _ in range(4000):
        drawn = [records[n].contrasts['neck_0'] for n in random.integers(0, 20, 20)]
        found.append(np.mean([values[:3] for values in drawn]))
        missed.append(np.mean([values[3:] for values in drawn]))
        gaps.append(found[-1] - missed[-1])
    for estimate, draws in ((row.found, found), (row.missed, missed), (row.difference, gaps)):
        width = estimate.high - estimate.low
        assert [estimate.low, estimate.high] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.1 * width)
    assert row.difference.low < row.found.mean - row.missed.mean == row.difference.mean < row.difference.high


def test_words_only_where_the_intervals_carry_them():
    def findings(*groups):
        return contrast_findings(compare_contrasts(joined(*groups), 0.3))

    equal, less, far = many(1, 1), many(1, 0.5, 'neck_1'), many(1, 0.2, 'neck_2')
    scores = many(0.6, 0.1, 'bbox_head.scores_1')
    assert findings(equal) == ['Missed small objects are at no level clearly less in contrast than found ones.']
    (sentence,) = findings(equal, less, far)
    assert sentence.startswith('Missed small objects fall behind found ones most at `neck_2` (contrast 0.')
    (sentence,) = findings(equal, less, scores)
    assert '`neck_1`' in sentence and ', and in the scores at `bbox_head.scores_1` (' in sentence
    (sentence,) = findings(equal, scores)
    assert sentence.startswith('Missed small objects are at no level of the features clearly less')
    assert 'most at `bbox_head.scores_1`' in sentence
    (sentence,) = findings(equal, scores, many(0.6, 0.3, 'bbox_head.merged_scores_0'))
    assert 'most at `bbox_head.merged_scores_0`' in sentence
    (sentence,) = findings(many(0.5, 1))  # hotter than found ones
    assert sentence.startswith('Missed small objects are at no level clearly less')
    assert findings(many(1, 0, images=4)) == []
    assert len(findings([*many(1, 0), *many(1, 0, side=LARGE)])) == 2


def joined(*groups):
    """The same images with the contrasts of all groups."""
    return [
        ErrorRecord(
            one[0].image,
            one[0].errors,
            contrasts={name: one_level for part in one for name, one_level in part.contrasts.items()},
        )
        for one in zip(*groups)
    ]


def test_a_difference_among_many_levels_must_be_larger():
    less = many(1, 0.93)
    others = [many(1, 1, f'neck_{n}', seed=n) for n in range(1, 40)]
    (alone,), (among,) = (
        contrast_findings(compare_contrasts(joined(*groups), 0.3)) for groups in ([less], [less, *others])
    )
    assert 'fall behind' in alone and 'at no level' in among


def test_tables_and_plot():
    records = many(1, 0.5)
    files = error_files(records, ['cat'], 0.3, {**METRICS, **MECHANISMS})
    text = files['errors.md'].decode()
    assert '| localization | 3 | 0.2500 |' in text and '| true | 3 |  |' in text
    assert '| background | 7 |' in text
    assert '(90) |' in text and '(60) |' in text  # found and missed objects
    picture = cv2.imdecode(np.frombuffer(files['errors.png'], np.uint8), cv2.IMREAD_COLOR)
    colors = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    assert {(178, 111, 31), (91, 73, 209)} <= colors  # of found and missed objects, BGR
    assert 'errors.png' not in error_files([record('a', [1], [1])], ['cat'], 0.3, METRICS)
