"""Workers: threads that draw and write while the detector continues."""

from __future__ import annotations

import os
import weakref
from collections import deque
from concurrent import futures
from typing import Any, Callable

_in_use: weakref.WeakSet[Workers] = weakref.WeakSet()


class Workers:
    """Does tasks in threads, and hands their results back to the thread that gave them.

    At most two tasks for each thread are in hand, so that memory stays flat: who gives another one waits until the
    oldest is done. OpenCV, NumPy and file writes let other threads run meanwhile. An interpreter that ends, for
    whatever reason, first does what it was given: such are the threads of `concurrent.futures`.

    Args:
        count: Number of threads; with none, a task is done at once.
        on_done: Called with the result of each task, in the order in which they were given, by the thread that gives
            tasks or waits for them. An error of a task is raised there instead.
    """

    def __init__(self, count: int, on_done: Callable[[Any], None]) -> None:
        self.count = count
        self.on_done = on_done
        self._pool: futures.ThreadPoolExecutor | None = None
        self._tasks: deque[futures.Future] = deque()

    def submit(self, task: Callable, *args: Any) -> None:
        """Have a task done, now or soon."""
        if not self.count:
            self.on_done(task(*args))
            return
        if self._pool is None:
            _in_use.add(self)
            self._pool = futures.ThreadPoolExecutor(self.count, 'featviz')
        if len(self._tasks) >= 2 * self.count:
            self._take_oldest()
        self._tasks.append(self._pool.submit(task, *args))

    def wait(self) -> None:
        """Return when all tasks are done; no thread is left then."""
        try:
            while self._tasks:
                self._take_oldest()
        finally:
            if self._pool is not None and not self._tasks:
                self._pool.shutdown()
                self._pool = None

    def _take_oldest(self) -> None:
        self.on_done(self._tasks.popleft().result())


def _wait_for_all() -> None:
    """A process that forks (as data loaders do) while threads hold locks hands down locks that nobody opens."""
    for workers in list(_in_use):
        futures.wait(workers._tasks)


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(before=_wait_for_all)
