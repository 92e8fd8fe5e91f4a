"""Nested passes: passes that only an explanation needs, made while others observe the detector."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Iterator

_nested: ContextVar[bool] = ContextVar('nested', default=False)


@contextlib.contextmanager
def nested_passes() -> Iterator[None]:
    """Within the context, taps and metrics that were there before do not see the passes of the detector."""
    token = _nested.set(True)
    try:
        yield
    finally:
        _nested.reset(token)


def are_nested() -> bool:
    """Whether passes that begin now are nested ones, in this thread."""
    return _nested.get()
