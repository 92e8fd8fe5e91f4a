"""Workers: order of results, bounded queue, and errors."""

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
