"""Replacement: replaces an attribute for some time, such as a method of one module."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

# One thread at a time replaces parts of detectors, and predicts with them: several threads may share a detector.
one_thread = threading.RLock()


def replace(owner: Any, name: str, value: Any, undo: ExitStack) -> None:
    """Set an attribute until `undo` closes; what is inherited from the class is not the owner's own afterwards."""
    if name in vars(owner):
        undo.callback(setattr, owner, name, vars(owner)[name])
    else:
        undo.callback(delattr, owner, name)
    setattr(owner, name, value)
