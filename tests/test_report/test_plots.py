"""Plots are measured out where their values are."""

import pytest

from mmdet_featviz.report.plots import BOTTOM, LEFT, RIGHT, TOP, plot

PLACES = ['neck_0', 'neck_1', 'neck_2', 'neck_3']


def value_of(drawn, y):
    """Read a place down back into a value, by the first and the last tick."""
    first, last = drawn.ticks[0], drawn.ticks[-1]
    share = (y - first.place) / (last.place - first.place)
    return float(first.name) + share * (float(last.name) - float(first.name))


def test_marks_lie_at_their_places_and_values():
    lines = dict(all=dict(neck_0=0.5, neck_1=3.7, neck_2=2.0), small=dict(neck_1=0.0, neck_3=1.0), large={})
    drawn = plot('Focus', 'gain', 'level', PLACES, lines, 1.0)
    assert list(drawn.lines) == ['all', 'small']
    assert [name.name for name in drawn.names] == PLACES
    places = {name.name: name.place for name in drawn.names}
    steps = {round(b - a, 2) for a, b in zip(list(places.values()), list(places.values())[1:])}
    assert steps == {(RIGHT - LEFT) / 4}
    assert sum(places.values()) / 4 == pytest.approx((LEFT + RIGHT) / 2)
    for name, values in drawn.lines.items():
        assert [mark.x for mark in values] == [places[place] for place in lines[name]]
        assert [value_of(drawn, mark.y) for mark in values] == pytest.approx(list(lines[name].values()), abs=0.02)
    assert value_of(drawn, drawn.level) == pytest.approx(1, abs=0.02)
    assert drawn.ticks[0].place == BOTTOM
    assert drawn.ticks[-1].place == TOP
    assert drawn.lines['all'][1].text == 'all, neck_1: 3.7'
    assert drawn.text == 'Focus. Highest: all 3.7 at neck_1; small 1 at neck_3.'


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
    places = [str(number) for number in range(len(values))]
    drawn = plot('', '', '', places, dict(all=dict(zip(places, values))))
    assert [tick.name for tick in drawn.ticks] == ticks
    assert (drawn.ticks[0].place, drawn.ticks[-1].place) == (BOTTOM, TOP)
    height = float(ticks[-1]) - float(ticks[0])
    found = [value_of(drawn, mark.y) for mark in drawn.lines['all']]
    assert found == pytest.approx(values, abs=height / 1000)
    assert drawn.level is None


def test_chance_is_in_the_picture_wherever_the_values_are():
    drawn = plot('', '', '', ['a'], dict(all=dict(a=0.1)), 1.0)
    assert TOP <= drawn.level <= BOTTOM
    assert drawn.lines['all'][0].x == (LEFT + RIGHT) / 2  # a single place stands in the middle


def test_without_values_there_is_no_plot():
    assert plot('', '', '', PLACES, dict(all={}, small={})) is None
    assert plot('', '', '', [], {}) is None


def test_of_many_or_long_names_some_are_shown_and_only_their_ends():
    places = [f'epoch {number}' for number in range(100)]
    drawn = plot('', '', '', places, dict(mAP=dict.fromkeys(places, 0.1)))
    assert [name.name for name in drawn.names] == places[::5]
    assert len(drawn.lines['mAP']) == 100
    drawn = plot('', '', '', ['backbone.layer3.0.conv2_0', 'x' * 16], dict(all={'x' * 16: 1.0}))
    assert [name.name for name in drawn.names] == ['…ayer3.0.conv2_0', 'x' * 16]
