"""Runs that nobody closed are finished when the process ends, in the process that began them."""

import os

import pytest

from mmdet_featviz.runs import early_exit


class SomeRun:
    """Stands for a visualizer."""

    def stop_early(self):
        self.stopped = True


@pytest.fixture(autouse=True)
def unfinished(monkeypatch):
    """Only the runs of this test."""
    monkeypatch.setattr(early_exit, '_unfinished', [])
    return early_exit._unfinished


def test_a_fork_finishes_no_run_of_its_parent(monkeypatch, unfinished):
    finished, own, process = [], SomeRun(), os.getpid()
    early_exit.finish_later(own, lambda: finished.append('parent'))
    monkeypatch.setattr('os.getpid', lambda: process + 1)
    early_exit.finish_later(own, lambda: finished.append('fork'))
    early_exit.finish_abandoned(every=True)
    assert finished == ['fork']
    assert not unfinished


def test_runs_that_no_longer_exist_are_finished_once():
    finished, kept, deleted = [], SomeRun(), SomeRun()
    early_exit.finish_later(kept, lambda: finished.append('kept'))
    early_exit.finish_later(deleted, lambda: finished.append('deleted'))
    early_exit.finish_abandoned()
    assert finished == []
    del deleted
    for _ in range(2):
        early_exit.finish_abandoned()
        assert finished == ['deleted']
    early_exit.finish_abandoned(every=True)
    assert finished == ['deleted', 'kept']


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_an_error_stops_a_run_that_is_watched(error):
    watched, released = SomeRun(), SomeRun()
    for run in (watched, released):
        early_exit.watch(run)
    early_exit.release(released)
    for run in (watched, released):
        with pytest.raises(error), early_exit.stopping(run):
            raise error
    assert watched.stopped
    assert not hasattr(released, 'stopped')
