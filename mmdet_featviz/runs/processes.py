"""Processes: copies of this process that draw, where threads would wait for Python's lock."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import threading
import warnings
from itertools import islice
from typing import Any, Callable, Iterable, Iterator

import torch
from mmengine.logging import print_log
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mmdet_featviz.runs.workers import do_in_threads, mark_worker
from mmdet_featviz.utils.messages import one_line


def can_copy() -> bool:
    """Whether this process can be copied: on Linux, in the thread that receives the signals.

    Elsewhere processes begin without the detector's modules, and importing these takes longer than most drawing.
    Daemons, such as the processes of a pool, cannot have processes of their own.
    """
    is_main = threading.current_thread() is threading.main_thread()
    return sys.platform == 'linux' and is_main and not multiprocessing.current_process().daemon


def do_in_processes(
    task: Callable[[Any], Any], items: Iterable[Any], receive: Callable[[Any], None], count: int
) -> None:
    """Call ``receive(task(item))`` for all items, in their order: the tasks in processes, the rest in this one.

    If processes are killed or cannot be made, this one does what is left, and a warning says so. Tasks of which the
    results were not received are then done once more.

    Args:
        task: As for :func:`map_in_processes`.
        items: Each process iterates over them, and takes its share.
        receive: Takes a result.
        count: Number of processes.
    """
    received = 0
    try:
        for result in map_in_processes(task, items, count):
            receive(result)
            received += 1
    except (RuntimeError, OSError) as error:
        reason = one_line(error).rstrip('.')
        message = (
            f'a process that draws has ended early, perhaps because memory is short ({reason}): the images left are '
            'drawn without it'
        )
        print_log(message, 'current', logging.WARNING)
        do_in_threads(task, islice(items, received, None), receive, 0)


def map_in_processes(task: Callable[[Any], Any], items: Iterable[Any], count: int) -> Iterator[Any]:
    """Iterate over ``task(item)`` of all items, in their order, computed in copies of this process.

    torch's data loader does it: its processes use one thread, pass on errors, and end with this process.

    Args:
        task: What it changes in memory is lost. Its result must be possible to pickle.
        items: Each process iterates over them, and takes its share.
        count: Number of processes.

    Raises:
        RuntimeError: If a process was killed.
        OSError: If no process can be made.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'This DataLoader will create')  # more processes than cores, as asked for
        loader = DataLoader(
            _Results(task, items),
            batch_size=None,
            num_workers=count,
            collate_fn=_unchanged,
            worker_init_fn=mark_worker,
            multiprocessing_context='fork',
            generator=torch.Generator(),  # the global one may be the detector's
        )
        results = iter(loader)
    yield from results


class _Results(IterableDataset):
    def __init__(self, task: Callable[[Any], Any], items: Iterable[Any]) -> None:
        self._task = task
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        process = get_worker_info()
        return map(self._task, islice(self._items, process.id, None, process.num_workers))


def _unchanged(result: Any) -> Any:
    return result
