"""Plots place marks and ticks at their values."""

import pytest

from mmdet_featviz.report.plots import BOTTOM, LEFT, RIGHT, TOP, plot

CATEGORIES = ['neck_0', 'neck_1', 'neck_2', 'neck_3']


def value_of(drawn, y):
    """The value at a y position, from the first and the last tick."""
    first, last = drawn.y_ticks[0], drawn.y_ticks[-1]
    share = (y - first.position) / (last.position - first.position)
    return float(first.label) + share * (float(last.label) - float(first.label))


def test_marks_are_at_their_categories_and_values():
    lines = dict(all=dict(neck_0=0.5, neck_1=3.7, neck_2=2.0), small=dict(neck_1=0.0, neck_3=1.0), large={})
    drawn = plot('Focus', 'gain', 'level', CATEGORIES, lines, 1.0)
    assert list(drawn.lines) == ['all', 'small']
    assert [tick.label for tick in drawn.x_ticks] == CATEGORIES
    positions = {tick.label: tick.position for tick in drawn.x_ticks}
    steps = {round(b - a, 2) for a, b in zip(list(positions.values()), list(positions.values())[1:])}
    assert steps == {(RIGHT - LEFT) / 4}
    assert sum(positions.values()) / 4 == pytest.approx((LEFT + RIGHT) / 2)
    for name, values in drawn.lines.items():
        assert [mark.x for mark in values] == [positions[category] for category in lines[name]]
        assert [value_of(drawn, mark.y) for mark in values] == pytest.approx(list(lines[name].values()), abs=0.02)
    assert value_of(drawn, drawn.reference) == pytest.approx(1, abs=0.02)
    assert drawn.y_ticks[0].position == BOTTOM
    assert drawn.y_ticks[-1].position == TOP
    assert drawn.lines['all'][1].text == 'all, neck_1: 3.7'
    assert drawn.description == 'Focus. Highest: all 3.7 at neck_1; small 1 at neck_3.'


@pytest.mark.parametrize(
    ('values', 'ticks'),
    [
        ([0.43], ['0', '0.1', '0.2', '0.3', '0.4', '0.5']),
        ([1.0], ['0', '0.2', '0.4', '0.6', '0.8', '1']),
        ([0.0], ['0', '0.2']),
        ([3.0, 9.1], ['0', '2', '4', '6', '8', '10']),
        ([-0.5, 1.2], ['-0.5', '0', '0.5', '1', '1.5']),
        ([1e-7], ['0', '2e-08', '4e-08', '6e-08', '8e-08', '1e-07']),
        ([2500.0], ['0', '500', '1000', '1500', '2000', '2500']),
    ],
)
def test_ticks_are_round_numbers_around_zero_and_all_values(values, ticks):
    categories = [str(number) for number in range(len(values))]
    drawn = plot('', '', '', categories, dict(all=dict(zip(categories, values))))
    assert [tick.label for tick in drawn.y_ticks] == ticks
    assert (drawn.y_ticks[0].position, drawn.y_ticks[-1].position) == (BOTTOM, TOP)
    height = float(ticks[-1]) - float(ticks[0])
    found = [value_of(drawn, mark.y) for mark in drawn.lines['all']]
    assert found == pytest.approx(values, abs=height / 1000)
    assert drawn.reference is None


def test_the_reference_is_always_inside_the_plot():
    drawn = plot('', '', '', ['a'], dict(all=dict(a=0.1)), 1.0)
    assert TOP <= drawn.reference <= BOTTOM
    assert drawn.lines['all'][0].x == (LEFT + RIGHT) / 2  # a single category is in the middle


def test_without_values_there_is_no_plot():
    assert plot('', '', '', CATEGORIES, dict(all={}, small={})) is None
    assert plot('', '', '', [], {}) is None


def test_many_or_long_labels_are_thinned_and_shortened():
    categories = [f'epoch {number}' for number in range(100)]
    drawn = plot('', '', '', categories, dict(mAP=dict.fromkeys(categories, 0.1)))
    assert [tick.label for tick in drawn.x_ticks] == categories[::5]
    assert len(drawn.lines['mAP']) == 100
    drawn = plot('', '', '', ['backbone.layer3.0.conv2_0', 'x' * 16], dict(all={'x' * 16: 1.0}))
    assert [tick.label for tick in drawn.x_ticks] == ['…ayer3.0.conv2_0', 'x' * 16]


def test_a_value_that_is_none_is_a_gap():
    lines = dict(all=dict(neck_0=1.0, neck_1=None, neck_2=2.0, neck_3=3.0), other=dict(neck_0=1.0, neck_2=2.0))
    drawn = plot('', '', '', CATEGORIES, dict(lines, none=dict(neck_0=None)))
    assert {name: [mark.is_joined for mark in marks] for name, marks in drawn.lines.items()} == dict(
        all=[False, False, True], other=[False, True]
    )
