"""Timing: what a call takes, from clocks of known times."""

import os

import pytest

from mmdet_featviz.benchmarks import timing


@pytest.fixture
def clocks(monkeypatch):
    """Clocks that stand still: seconds elapsed, of this process, and of its ended processes (user, system)."""
    now = dict(elapsed=100.0, process=50.0, user=7.0, system=3.0)

    def times():
        # The first two are this process, which the finer clock measures; the last is the time of day.
        return os.times_result([1000.0, 1000.0, now['user'], now['system'], 1000.0])

    monkeypatch.setattr(timing.time, 'perf_counter', lambda: now['elapsed'])
    monkeypatch.setattr(timing.time, 'process_time', lambda: now['process'])
    monkeypatch.setattr(timing.os, 'times', times)
    return now


def test_processor_seconds_are_those_of_this_process_and_of_the_processes_that_ended(clocks):
    def work(factor):
        for clock, took in dict(elapsed=4, process=1, user=16, system=2).items():
            clocks[clock] += factor * took

    assert timing.seconds(work, 1) == (4, 19)
    assert timing.seconds(work, 0.5) == (2, 9.5)


def test_functions_take_turns_of_a_second_and_the_first_round_does_not_count(clocks):
    calls = []

    def call(name, elapsed, user):
        calls.append(name)
        warm = 10 if calls.count(name) == 1 else 1
        clocks['elapsed'] += warm * elapsed
        clocks['user'] += user

    functions = dict(fast=lambda: call('fast', 0.25, 3), slow=lambda: call('slow', 2, 0.5))
    assert timing.time_in_turns(functions, 1) == dict(fast=[0.25, 3], slow=[2, 0.5])
    # The first call is slow, and alone in its turn.
    assert calls == ['fast', 'slow', *4 * ['fast'], 'slow']


def test_medians_are_those_of_each_column():
    assert timing.medians([[1, 30], [5, 10], [2, 20]]) == [2, 20]
