"""Round ticks: their values, their labels, their number."""

import numpy as np
import pytest

from mmdet_featviz.visualization.round_ticks import round_ticks


@pytest.mark.parametrize(
    ('limits', 'most', 'labels'),
    [
        ((0, 1), 5, ['0', '0.25', '0.5', '0.75', '1']),
        ((0, 1), 3, ['0', '0.5', '1']),
        ((-3.2, 11.7), 4, ['0', '5', '10']),
        ((-0.3, 0.3), 5, ['-0.2', '0', '0.2']),
        ((0, 65504), 4, ['0', '20000', '40000', '60000']),
        ((0, 1e-7), 4, ['0', '5e-08', '1e-07']),
        ((1000.001, 1000.002), 4, ['1000.001', '1000.0015', '1000.002']),
        ((-3e38, 3e38), 3, ['-2e+38', '0', '2e+38']),
        ((2.5, 2.5), 5, ['2.5']),
        ((0, 0), 5, ['0']),
    ],
)
def test_known_ranges(limits, most, labels):
    assert [label for _, label in round_ticks(*limits, most)] == labels


def test_any_range_has_at_least_two_and_at_most_one_more_than_fit():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        low = rng.normal() * 10.0 ** rng.integers(-6, 7)
        high = low + abs(rng.normal()) * 10.0 ** rng.integers(-6, 7) + 1e-9
        most = int(rng.integers(2, 8))
        ticks = round_ticks(low, high, most)
        values = np.array([value for value, _ in ticks])
        tolerance = 1e-9 * max(abs(low), abs(high)) + 1e-8 * (high - low)
        assert 2 <= len(ticks) <= most + 1
        assert low - tolerance <= values[0] and values[-1] <= high + tolerance
        np.testing.assert_allclose([float(label) for _, label in ticks], values, rtol=1e-9, atol=tolerance)
        assert len({label for _, label in ticks}) == len(ticks)
