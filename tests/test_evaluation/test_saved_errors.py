"""Errors that are read back from their table."""

import numpy as np
import pytest
from made_errors import boxes

from mmdet_featviz.evaluation.detection_errors import find_errors
from mmdet_featviz.evaluation.error_records import ErrorRecord, MissedObject, errors_csv
from mmdet_featviz.evaluation.saved_errors import read_errors

NAMES = ['cat', 'dog, "big"', '=1+1\n']


def records():
    first = find_errors(
        boxes((0, 0, 10, 9, 0, 0.9), (200, 0, 300, 100, 1, 0.5), (0, 0, 9, 9, 2, 0.2)),
        boxes((0, 0, 10, 10, 0), (0, 200, 50, 250, 2), (90, 90, 99, 99, 7)),
        boxes(),
    )
    missed = {1: MissedObject('other_class', (0.0, 200, 50, 240), 1, 0.25, 0.8), 2: MissedObject('proposal')}
    second = find_errors(boxes((0, 0, 5, 5, 1, 0.25)), boxes(), boxes())
    return [
        ErrorRecord('a/ü\udcff,1.png', first, missed, {'neck_0': np.array([1.5, np.nan, -2])}),
        ErrorRecord('twice.png', second),
        ErrorRecord('twice.png', second),
    ]


def test_a_table_that_is_read_and_written_again_is_the_same():
    table = errors_csv(records(), NAMES, 0.1)
    found = read_errors(table, NAMES)
    assert errors_csv(found, NAMES, 0.0) == table
    assert [record.image for record in found] == ['a/ü\udcff,1.png', 'twice.png', 'twice.png']
    for one, other in zip(found, records()):
        np.testing.assert_array_equal(one.errors.types, other.errors.types)
        np.testing.assert_array_equal(one.errors.found_by, other.errors.found_by)
        np.testing.assert_allclose(one.errors.overlaps, other.errors.overlaps, rtol=1e-6)
        assert one.missed == other.missed
    assert read_errors(errors_csv([], NAMES, 0.1), NAMES) == []


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        (b'mechanism,', b'reason,', 'it has no columns mechanism'),
        (b',true,', b',<b>,', "'<b>' is no type of a prediction"),
        (b',found,', b',true,', "'true' is no type of a ground truth"),
        (b',other_class,', b',none,', "'none' is no mechanism"),
        (b',0,cat,', b',0,cow,', "unknown class 'cow'"),
        (b',0.9,0,0,10,9,', b',0.9,0,0,10,inf,', "'inf' is no finite number"),
        (b'prediction,0,cat', b'guess,0,cat', 'it is damaged'),
        (b'1.5\n', b'1.5\nx,prediction,0,cat\n', 'has not as many cells'),
        (b'true,0.9,0,', b'true,0.9,5,', 'a box is matched with one that is not there'),
    ],
)
def test_a_damaged_table_is_an_error(old, new, message):
    table = errors_csv(records(), NAMES, 0.1)
    assert old in table
    with pytest.raises(ValueError, match=message):
        read_errors(table.replace(old, new), NAMES)
