"""Workers: order of results, bounded queue, and errors."""

import os
import threading

import pytest
from conftest import ROOT, python

from mmdet_featviz.runs.workers import Workers


@pytest.mark.parametrize('count', [0, 1, 3])
def test_results_arrive_in_order_in_the_submitting_thread(count):
    done, before = [], threading.active_count()
    workers = Workers(count, lambda result: done.append((result, threading.current_thread())))
    for number in range(20):
        workers.submit(lambda number=number: number)
    workers.wait()
    assert done == [(number, threading.main_thread()) for number in range(20)]
    assert threading.active_count() == before


def test_submitting_more_than_two_tasks_per_thread_waits_for_the_oldest():
    started, may_continue, done = [], threading.Event(), []

    def task(number):
        started.append(number)
        assert may_continue.wait(60)
        return number

    def submit_all():
        for number in range(5):
            workers.submit(task, number)
            submitted.append(number)
            if number == 3:
                four_submitted.set()
        workers.wait()

    submitted, four_submitted = [], threading.Event()
    workers = Workers(2, done.append)
    submitter = threading.Thread(target=submit_all)
    submitter.start()
    try:
        assert four_submitted.wait(60)
        assert submitted == [0, 1, 2, 3]
        assert set(started) <= {0, 1}
        assert done == []
    finally:
        may_continue.set()
        submitter.join()
    assert done == [0, 1, 2, 3, 4]


def test_an_error_is_raised_in_wait_and_later_tasks_still_run():
    done = []
    workers = Workers(1, done.append)
    workers.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        workers.wait()
    workers.submit(lambda: 1)
    workers.wait()
    assert done == [1]


@pytest.mark.parametrize('end', ['raise KeyboardInterrupt', 'raise ValueError("the first error")', 'sys.exit(3)'])
def test_submitted_tasks_complete_before_the_interpreter_ends(tmp_path, end):
    code = (
        'import sys\n'
        'from pathlib import Path\n'
        'from mmdet_featviz.runs.workers import Workers\n'
        'def work(number):\n'
        '    sum(range(10**6))\n'
        f'    Path({str(tmp_path)!r}, str(number)).touch()\n'
        'workers = Workers(1, print)\n'
        'workers.submit(work, 0)\n'
        'workers.submit(work, 1)\n'
        f'{end}'
    )
    result = python(code, ROOT)
    assert result.returncode != 0
    assert end.split()[-1].strip(')').strip('"') in result.stderr or 'exit' in end
    assert sorted(path.name for path in tmp_path.iterdir()) == ['0', '1']


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_drawing_thread_can_fork():
    code = (
        'import os\n'
        'from mmdet_featviz.runs.workers import Workers\n'
        'def fork():\n'
        '    child = os.fork()\n'
        '    if not child:\n'
        '        os._exit(7)\n'
        '    return os.WEXITSTATUS(os.waitpid(child, 0)[1])\n'
        'workers = Workers(2, print)\n'
        'for _ in range(4):\n'
        '    workers.submit(fork)\n'
        'workers.wait()'
    )
    assert python(code, ROOT, timeout=60).stdout.split() == ['7'] * 4


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_fork_waits_until_no_drawing_thread_holds_a_lock():
    """A lock that is held at the fork stays locked in the child process."""
    code = (
        'import os, threading\n'
        'from mmdet_featviz.runs.workers import Workers\n'
        'lock, started, forking = threading.Lock(), threading.Event(), threading.Event()\n'
        'def hold():\n'
        '    with lock:\n'
        '        started.set()\n'
        '        forking.wait()\n'
        '        for _ in range(10**6):\n'
        '            pass\n'
        'workers = Workers(1, lambda result: None)\n'
        'workers.submit(hold)\n'
        'started.wait()\n'
        'os.register_at_fork(before=forking.set)\n'  # the last one registered comes first
        'child = os.fork()\n'
        'if not child:\n'
        '    os._exit(7 if lock.acquire(blocking=False) else 1)\n'
        'print(os.WEXITSTATUS(os.waitpid(child, 0)[1]))\n'
        'workers.wait()'
    )
    assert python(code, ROOT, timeout=60).stdout.split() == ['7']


def test_tasks_submitted_when_the_interpreter_ends_run_at_once():
    code = (
        'import atexit\n'
        'from mmdet_featviz.runs.workers import Workers\n'
        'def draw():\n'
        '    workers = Workers(2, print)\n'
        '    for number in range(3):\n'
        '        workers.submit(str, number)\n'
        '    workers.wait()\n'
        'atexit.register(draw)\n'
    )
    result = python(code, ROOT, timeout=60)
    assert result.stdout.split() == ['0', '1', '2'], result.stderr
