"""Rank agreement: lets the first rank that asks decide for all ranks, without a collective call."""

from __future__ import annotations

import builtins
import json
from datetime import timedelta
from typing import Any, Callable

import torch
from mmengine.dist import get_dist_info, is_main_process

LONGEST_WAIT = timedelta(minutes=30)  # for the first rank to remove or merge what is in a folder


def decide_once(topic: str, decide: Callable[[], Any]) -> tuple[Any, bool]:
    """Return what the first rank that asks for a topic decides; the others wait for it.

    The ranks need not all ask: a collective call would hang where one of them never draws. They agree through the
    key-value store of the default process group. A group without a store (MPI) leaves the decision to rank 0.

    Args:
        topic: Name of the decision, the same on all ranks and for no other decision.
        decide: Returns the decision, which JSON can hold.

    Returns:
        The decision, and whether this rank made it. Without a store, the decision is None on other ranks than 0.

    Raises:
        Exception: The error of `decide`, on all ranks that ask.
    """
    if get_dist_info()[1] == 1:
        return decide(), True
    store = _default_store()
    if store is None:
        return (decide(), True) if is_main_process() else (None, False)
    key = f'featviz/{topic}'
    if store.add(f'{key}/asked', 1) > 1:
        store.wait([key], LONGEST_WAIT)
        decision, error = json.loads(store.get(key))
        if error is not None:
            raise _error(*error)
        return decision, False
    try:
        decision = decide()
    except BaseException as error:  # also an interruption: the others would wait for long
        store.set(key, json.dumps([None, [type(error).__name__, str(error) or type(error).__name__]]))
        raise
    store.set(key, json.dumps([decision, None]))
    return decision, True


def _default_store() -> Any:
    try:
        return torch.distributed.distributed_c10d._get_default_store()
    except (AttributeError, RuntimeError, ValueError):  # private to torch, and absent with some backends
        return None


def _error(name: str, message: str) -> Exception:
    """Return the error of another rank; one whose type is not Python's own becomes a RuntimeError."""
    kind = getattr(builtins, name, None)
    return (
        kind(message) if isinstance(kind, type) and issubclass(kind, (OSError, ValueError)) else RuntimeError(message)
    )
