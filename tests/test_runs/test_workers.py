import threading

import pytest
from conftest import ROOT, python

from mmdet_featviz.runs.workers import Workers


@pytest.mark.parametrize('count', [0, 1, 3])
def test_results_come_back_in_order_to_the_thread_that_gives_tasks(count):
    done, before = [], threading.active_count()
    workers = Workers(count, lambda result: done.append((result, threading.current_thread())))
    for number in range(20):
        workers.submit(lambda number=number: number)
    workers.wait()
    assert done == [(number, threading.main_thread()) for number in range(20)]
    assert threading.active_count() == before


def test_who_gives_more_than_two_tasks_a_thread_waits_for_the_oldest():
    started, go_on, done = [], threading.Event(), []

    def task(number):
        started.append(number)
        assert go_on.wait(60)
        return number

    def give_all():
        for number in range(5):
            workers.submit(task, number)
            given.append(number)
            if number == 3:
                four_given.set()
        workers.wait()

    given, four_given = [], threading.Event()
    workers = Workers(2, done.append)
    giver = threading.Thread(target=give_all)
    giver.start()
    try:
        assert four_given.wait(60)
        assert given == [0, 1, 2, 3]
        assert set(started) <= {0, 1}
        assert done == []
    finally:
        go_on.set()
        giver.join()
    assert done == [0, 1, 2, 3, 4]


def test_an_error_reaches_who_waits_and_the_rest_can_still_be_had():
    done = []
    workers = Workers(1, done.append)
    workers.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        workers.wait()
    workers.submit(lambda: 1)
    workers.wait()
    assert done == [1]


@pytest.mark.parametrize('end', ['raise KeyboardInterrupt', 'raise ValueError("the first error")', 'sys.exit(3)'])
def test_an_interpreter_that_ends_first_does_what_was_given(tmp_path, end):
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
