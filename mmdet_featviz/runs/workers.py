"""Workers: threads that draw and write while the detector continues."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from concurrent import futures
from typing import Any, Callable, Iterable

_started: weakref.WeakSet[Workers] = weakref.WeakSet()
_this_thread = threading.local()


class Workers:
    """Runs tasks in threads, and passes their results to a callback in the submitting thread.

    At most two tasks per thread are queued or running, so that memory stays constant; a further :meth:`submit` waits
    for the oldest task. OpenCV, NumPy and file writes release the GIL, so the detector continues meanwhile. When the
    interpreter exits, even after an error, `concurrent.futures` first completes the submitted tasks.

    Args:
        count: Number of threads; 0 runs each task at once, in the submitting thread.
        on_done: Called with the result of each task, in the order of submission, by the thread that submits or waits.
            If the task raised an error, that error is raised there instead.
    """

    def __init__(self, count: int, on_done: Callable[[Any], None]) -> None:
        self.count = count
        self.on_done = on_done
        self._pool: futures.ThreadPoolExecutor | None = None
        self._tasks: deque[futures.Future] = deque()

    def submit(self, task: Callable, *args: Any) -> None:
        """Run ``task(*args)``, in a thread or at once."""
        if not self.count:
            self.on_done(task(*args))
            return
        if self._pool is None:
            _started.add(self)
            self._pool = futures.ThreadPoolExecutor(self.count, 'featviz', mark_worker)
        if len(self._tasks) >= 2 * self.count:
            self._finish_oldest()
        try:
            self._tasks.append(self._pool.submit(task, *args))
        except RuntimeError:  # the interpreter ends, and starts no more threads
            while self._tasks:
                self._finish_oldest()
            self.on_done(task(*args))

    def wait(self) -> None:
        """Wait until all tasks are done, and end the threads."""
        try:
            self.drain()
        finally:
            if self._pool is not None and not self._tasks:
                self._pool.shutdown()
                self._pool = None

    def drain(self) -> None:
        """Wait until all tasks are done; the threads stay. The first error is raised when the others are done too."""
        try:
            while self._tasks:
                self._finish_oldest()
        except BaseException:
            with contextlib.suppress(Exception):
                self.drain()
            raise

    def _finish_oldest(self) -> None:
        self.on_done(self._tasks.popleft().result())


def do_in_threads(task: Callable[[Any], Any], items: Iterable[Any], receive: Callable[[Any], None], count: int) -> None:
    """Call ``receive(task(item))`` for all items: the tasks in threads (0: in this one), the rest in this thread."""
    workers = Workers(count, receive)
    try:
        for item in items:
            workers.submit(task, item)
    finally:
        workers.wait()


def is_worker() -> bool:
    """Whether the calling thread is one of those that draw."""
    return getattr(_this_thread, 'draws', False)


def mark_worker(number: int = 0) -> None:
    """Make the calling thread, or the process that it begins, one of those that draw.

    Args:
        number: Not used; data loaders pass the number of the process.
    """
    _this_thread.draws = True


def _wait_for_all() -> None:
    """Wait for the tasks of all workers before a fork, which data loaders do.

    A lock that a thread holds at that moment would stay locked in the child process forever. A drawing thread that
    forks does not wait: it would wait for its own task, or for a thread that waits for it.
    """
    if is_worker():
        return
    for workers in list(_started):
        futures.wait(workers._tasks)


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(before=_wait_for_all)
