"""Early exit: finishes and sums up the runs that are still open when the process ends, after an error or a signal."""

from __future__ import annotations

import atexit
import weakref
from typing import Any

_open_runs: weakref.WeakSet = weakref.WeakSet()


def watch(run: Any) -> None:
    """Call ``run.stop_early()`` when the process ends, unless :func:`release` is called first."""
    _open_runs.add(run)


def release(run: Any) -> None:
    """No longer watch a run, because it was closed."""
    _open_runs.discard(run)


@atexit.register
def _stop_open_runs() -> None:
    for run in list(_open_runs):
        run.stop_early()
