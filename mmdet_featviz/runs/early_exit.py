"""Early exit: finishes and sums up the runs that are still open when the process ends, also after an error."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import weakref
from typing import Any, Callable, Iterator

from mmengine.logging import print_log

_open_runs: weakref.WeakSet = weakref.WeakSet()
_unfinished: list[tuple[weakref.ref, Callable[[], None], int]] = []  # run, what finishes it, process


def watch(run: Any) -> None:
    """Call ``run.stop_early()`` when the process ends, unless :func:`release` is called first."""
    _open_runs.add(run)


def release(run: Any) -> None:
    """No longer watch a run, because it was closed."""
    _open_runs.discard(run)


def stop(run: Any) -> None:
    """Call ``run.stop_early()`` now, if the run is watched."""
    if run in _open_runs:
        _open_runs.discard(run)
        run.stop_early()


@contextlib.contextmanager
def stopping(run: Any) -> Iterator[None]:
    """Within the context, an error or an interruption also stops the run, if it is watched."""
    try:
        yield
    except BaseException:
        stop(run)
        raise


def finish_later(run: Any, finish: Callable[[], None]) -> None:
    """Call ``finish()`` when the process ends, or in :func:`finish_abandoned`; it must not refer to the run."""
    _unfinished.append((weakref.ref(run), finish, os.getpid()))


def finish_abandoned(every: bool = False) -> None:
    """Finish the runs that no longer exist, because their detector was deleted; or with `every` all runs."""
    for entry in list(_unfinished):
        run, finish, process = entry
        if every or run() is None:
            _unfinished.remove(entry)
            if process == os.getpid():  # not in a fork, such as a process of a data loader
                finish()


@atexit.register
def _stop_open_runs() -> None:
    for run in list(_open_runs):
        stop(run)


@atexit.register
def _finish_runs() -> None:
    logging.raiseExceptions = False  # the streams of loggers may be closed by now
    try:
        finish_abandoned(every=True)
    except Exception as error:
        print_log(f'feature maps could not be finished: {error}', 'current', logging.ERROR)
