"""Which objects each run of a comparison found."""

import numpy as np
import pytest
from report_pages import make_snapshot, write_run

from mmdet_featviz.evaluation.detection_errors import find_errors
from mmdet_featviz.evaluation.error_records import ErrorRecord, errors_csv
from mmdet_featviz.report.found_objects import FoundObjects
from mmdet_featviz.structures.boxes import NO_BOXES, Boxes

CAT, DOG = [20.0, 10.0, 60.0, 50.0], [70.0, 30.0, 120.0, 80.0]
ELSEWHERE = [0.0, 60.0, 10.0, 80.0]
EMPTY = Boxes(NO_BOXES, np.zeros(0, int), np.zeros(0))


def boxes(*rows):
    """Boxes of (corners, label, score); the score of ground truth is NaN."""
    corners, labels, scores = zip(*rows)
    return Boxes(np.array(corners), np.array(labels), np.array(scores, float))


TRUTH = (CAT, 0, np.nan), (DOG, 1, np.nan), (CAT, 0, np.nan)  # two cats in one place
OF_A = boxes(*TRUTH, (CAT, 0, 0.9), (DOG, 1, 0.57), (CAT, 0, 0.3), (ELSEWHERE, 0, 0.99))
# B numbers the classes the other way round, takes a cat for a dog, and has no ground truth.
OF_B = boxes((DOG, 0, 0.4), (CAT, 0, 0.95), (CAT, 1, 0.2), (CAT, 2, 0.8))


def write(folder, made, classes):
    path = folder.parent / 'image.png'
    return write_run(folder, [make_snapshot('image', path, boxes=made)], classes)


def write_errors(run, made, names):
    """Write the errors.csv that a metric makes of boxes."""
    errors = find_errors(made[~made.are_truth], made[made.are_truth], EMPTY)
    path = next(run.snapshots()).path
    with open(f'{run.folder}/errors.csv', 'wb') as file:
        file.write(errors_csv([ErrorRecord(path, errors)], names, 0.35))


@pytest.fixture
def runs(tmp_path):
    return [write(tmp_path / 'a', OF_A, ('cat', 'dog')), write(tmp_path / 'b', OF_B, ('dog', 'cat', 'cow'))]


def test_saved_boxes_are_matched_by_the_names_of_classes(runs):
    shots = [next(run.snapshots()) for run in runs]
    found = FoundObjects(runs)
    # Of two equal boxes the last is taken first, as in pycocotools.
    assert found.rows(shots) == [['cat', 3000, 0], ['dog', 5700, 4000], ['cat', 9000, 2000]]
    assert found.rows([shots[0], None]) == [['cat', 3000, None], ['dog', 5700, None], ['cat', 9000, None]]
    assert found.rows([None, shots[1]]) == []
    assert found.rows(shots[:1]) == []


def test_errors_of_both_runs_are_used(runs):
    """They have no predictions below 0.35; B's evaluation had ground truth."""
    shots = [next(run.snapshots()) for run in runs]
    write_errors(runs[0], OF_A, ['cat', 'dog'])
    assert FoundObjects(runs).rows(shots)[0] == ['cat', 3000, 0]  # only A has a file
    truth = boxes((DOG, 0, np.nan), (CAT, 1, np.nan), (CAT, 1, np.nan))
    of_b = Boxes(*(np.concatenate(parts) for parts in zip(vars(truth).values(), vars(OF_B).values())))
    write_errors(runs[1], of_b, ['dog', 'cat', 'cow'])
    assert FoundObjects(runs).rows(shots) == [['cat', 0, 0], ['dog', 5700, 4000], ['cat', 9000, 0]]


@pytest.mark.parametrize('damage', [b'', b'kind,image\nprediction,x\n', b'\x00"'])
def test_a_damaged_table_leaves_the_saved_boxes(runs, damage):
    shots = [next(run.snapshots()) for run in runs]
    write_errors(runs[0], OF_A, ['cat', 'dog'])
    with open(f'{runs[1].folder}/errors.csv', 'wb') as file:
        file.write(damage)
    assert FoundObjects(runs).rows(shots)[0] == ['cat', 3000, 0]


def test_errors_of_the_epoch_are_used(tmp_path):
    shots = [
        make_snapshot(f'{epoch}/image', tmp_path / 'image.png', boxes=OF_A, folder=epoch)
        for epoch in ('epoch_1', 'epoch_2')
    ]
    run = write_run(tmp_path / 'run', shots, ('cat', 'dog'))
    errors = find_errors(EMPTY, OF_A[OF_A.are_truth], EMPTY)
    (tmp_path / 'run' / 'epoch_1' / 'errors.csv').write_bytes(
        errors_csv([ErrorRecord(shots[0].path, errors)], ['cat', 'dog'], 0.3)
    )
    found = FoundObjects([run, run])
    assert [row[1:] for row in found.rows([shots[0]] * 2)] == [[0, 0]] * 3
    assert [row[1:] for row in found.rows([shots[1]] * 2)] == [[3000] * 2, [5700] * 2, [9000] * 2]
