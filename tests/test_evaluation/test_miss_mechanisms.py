"""Why an object was missed: a made case for each mechanism."""

import numpy as np
import pytest
from made_errors import boxes

from mmdet_featviz.evaluation.miss_mechanisms import find_mechanism

OBJECT = np.array([0.0, 0, 100, 100])
NEAR, FAR = [0.0, 0, 100, 60], [0.0, 0, 100, 40]
POINT_INSIDE, POINT_OUTSIDE = [100.0, 50, 100, 50], [101.0, 50, 101, 50]
ON, OFF = (0, 0, 100, 80), (0, 0, 100, 45)


@pytest.mark.parametrize(
    ('mechanism', 'candidate', 'candidates', 'starts'),
    [
        ('proposal', -1, [], [FAR]),
        ('proposal', 1, [(500, 0, 600, 100, 0, 0.9), (*OFF, 0, 0.2)], [FAR, POINT_OUTSIDE]),
        ('regression', 0, [(*OFF, 0, 0.2)], [FAR, NEAR]),
        ('regression', 0, [(*OFF, 1, 0.9)], [POINT_INSIDE]),
        # Without starts, a candidate nearby stands for one.
        ('regression', 0, [(0, 0, 100, 10, 0, 0.2)], None),
        ('proposal', 0, [(0, 0, 100, 9, 0, 0.2)], None),
        ('other_class', 2, [(*ON, 0, 0.2), (*ON, 1, 0.3), (*ON, 2, 0.8), (*OFF, 0, 0.9)], [FAR]),
        ('background', 1, [(*ON, 0, 0.1), (*ON, 1, 0.29), (*OFF, 0, 0.9), (*OFF, 1, 0.9)], [NEAR]),
        ('suppressed', 1, [(*ON, 1, 0.9), (*ON, 0, 0.31), (*ON, 0, 0.3), (*OFF, 0, 0.9)], [NEAR]),
    ],
)
def test_each_mechanism(mechanism, candidate, candidates, starts):
    starts = None if starts is None else np.array(starts)
    miss = find_mechanism(OBJECT, 0, boxes(*candidates), starts, score=0.3)
    assert (miss.mechanism, miss.candidate) == (mechanism, candidate)
    if candidates:
        left, top, right, bottom = candidates[candidate][:4]
        assert miss.overlap == pytest.approx((right - left) * bottom / 100**2)
