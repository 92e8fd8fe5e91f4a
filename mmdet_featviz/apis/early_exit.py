"""Early exit: finishes and sums up the runs that are still open when the process ends, after an error or a signal."""

from __future__ import annotations

import atexit
import contextlib
import weakref
from typing import Any, Iterator

_open_runs: weakref.WeakSet = weakref.WeakSet()


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


@atexit.register
def _stop_open_runs() -> None:
    for run in list(_open_runs):
        stop(run)
