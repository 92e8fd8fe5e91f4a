"""Timing: median seconds of calls that take turns."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any, Callable, Mapping, Sequence

import cv2
import torch

MIN_TURN = 1.0  # seconds


def set_threads(number: int) -> None:
    """Set the number of threads of torch and OpenCV."""
    torch.set_num_threads(number)
    cv2.setNumThreads(number)


def seconds(function: Callable[..., Any], *args: Any) -> tuple[float, float]:
    """Elapsed and processor seconds of a call, with those of the processes that it begins and ends."""
    elapsed, processor = time.perf_counter(), _processor_seconds()
    function(*args)
    return time.perf_counter() - elapsed, _processor_seconds() - processor


def _processor_seconds() -> float:
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def time_in_turns(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time functions that take turns, so that a slow phase of the machine affects all of them.

    In its turn a function is called for at least a second, as over a data set: the first call also pays for the caches
    and the free memory that the function before left behind. A first round does not count.

    Args:
        functions: Functions by name.
        rounds: Number of rounds.

    Returns:
        Median elapsed and processor seconds of a call, by name.
    """
    rounds_of: dict[str, list[list[float]]] = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            calls = [seconds(function)]
            while sum(elapsed for elapsed, _ in calls) < MIN_TURN:
                calls.append(seconds(function))
            if round_:
                rounds_of[name].append(medians(calls))
    return {name: medians(turns) for name, turns in rounds_of.items()}


def medians(rows: Sequence[Sequence[float]]) -> list[float]:
    """The median of each column."""
    return [statistics.median(column) for column in zip(*rows)]
