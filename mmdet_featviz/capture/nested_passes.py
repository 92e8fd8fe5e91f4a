"""Nested passes: passes that only their caller observes, whoever else observes the detector."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Iterator

_nested: ContextVar[bool] = ContextVar('nested', default=False)


@contextlib.contextmanager
def nested_passes() -> Iterator[None]:
    """Within the context, passes are seen only by taps that are attached in it, and detectors do not draw them."""
    token = _nested.set(True)
    try:
        yield
    finally:
        _nested.reset(token)


def are_nested() -> bool:
    """Whether passes that begin now are nested ones, in this thread."""
    return _nested.get()
