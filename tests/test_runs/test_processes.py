"""Processes: results come in order, errors come through, and this process stays as it was."""

import os
import signal
import sys
import threading
import warnings
from itertools import islice

import pytest
import torch

from mmdet_featviz.runs import processes as processes_module
from mmdet_featviz.runs.processes import can_copy, do_in_processes, map_in_processes
from mmdet_featviz.runs.workers import is_worker

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='processes are not copied here')


def test_results_come_in_the_order_of_the_items_from_several_processes():
    results = list(map_in_processes(lambda item: (item**2, os.getpid(), is_worker()), range(2, 13), 3))
    assert [square for square, _, _ in results] == [item**2 for item in range(2, 13)]
    processes = [process for _, process, _ in results]
    assert len(set(processes)) == 3 and os.getpid() not in processes
    assert processes[:3] == processes[3:6]  # each takes every third
    assert all(marked for _, _, marked in results) and not is_worker()


def test_no_items_and_fewer_items_than_processes():
    assert list(map_in_processes(abs, [], 2)) == []
    assert list(map_in_processes(abs, [-3], 2)) == [3]


def test_the_random_numbers_of_this_process_go_on_as_before():
    state = torch.get_rng_state()
    assert list(map_in_processes(lambda item: torch.rand(()).item(), range(3), 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_comes_through_after_the_results_before_it():
    def check(item):
        if item == 2:
            raise KeyError('no such item')
        return item

    results = map_in_processes(check, range(4), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match='no such item'):
        next(results)


def test_a_killed_process_is_an_error():
    results = map_in_processes(lambda item: os.kill(os.getpid(), signal.SIGKILL) if item else item, range(4), 2)
    with pytest.raises(RuntimeError, match='DataLoader worker'):
        list(results)


@pytest.mark.parametrize('error', [RuntimeError('one was killed'), OSError('no memory for another')])
def test_what_processes_leave_is_done_here_and_nothing_twice(monkeypatch, error):
    def broken(task, items, count):
        yield from map(task, islice(items, 2))
        raise error

    monkeypatch.setattr(processes_module, 'map_in_processes', broken)
    received = []
    do_in_processes(abs, range(-5, 0), received.append, 2)
    assert received == [5, 4, 3, 2, 1]


def test_more_processes_than_cores_cause_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        assert list(map_in_processes(abs, [-3], len(os.sched_getaffinity(0)) + 1)) == [3]


def test_only_the_main_thread_is_copied_and_no_daemon():
    assert list(map_in_processes(lambda item: can_copy(), [0], 1)) == [False]
    answers = [can_copy()]
    thread = threading.Thread(target=lambda: answers.append(can_copy()))
    thread.start()
    thread.join()
    assert answers == [True, False]
