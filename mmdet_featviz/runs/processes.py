"""Processes: copies of this process that draw, where threads would wait for Python's lock."""

from __future__ import annotations

import sys
import threading
from itertools import islice
from typing import Any, Callable, Iterable, Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mmdet_featviz.runs.workers import mark_worker


def can_copy() -> bool:
    """Whether this process can be copied: on Linux, in the thread that receives the signals.

    Elsewhere processes begin without the detector's modules, and importing these takes longer than most drawing.
    """
    return sys.platform == 'linux' and threading.current_thread() is threading.main_thread()


def map_in_processes(task: Callable[[Any], Any], items: Iterable[Any], count: int) -> Iterator[Any]:
    """Iterate over ``task(item)`` of all items, in their order, computed in copies of this process.

    torch's data loader does it: its processes use one thread, pass on errors, and end with this process.

    Args:
        task: What it changes in memory is lost. Its result must be possible to pickle.
        items: Each process iterates over them, and takes its share.
        count: Number of processes.

    Raises:
        RuntimeError: If a process was killed.
    """
    loader = DataLoader(
        _Results(task, items),
        batch_size=None,
        num_workers=count,
        collate_fn=_unchanged,
        worker_init_fn=mark_worker,
        multiprocessing_context='fork',
        generator=torch.Generator(),  # the global one may be the detector's
    )
    yield from loader


class _Results(IterableDataset):
    def __init__(self, task: Callable[[Any], Any], items: Iterable[Any]) -> None:
        self._task = task
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        process = get_worker_info()
        return map(self._task, islice(self._items, process.id, None, process.num_workers))


def _unchanged(result: Any) -> Any:
    return result
