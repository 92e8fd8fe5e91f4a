"""Schedule: decides when the pictures of a run are drawn: beside the detector, at once, or after its loop."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Callable, Iterator

import torch
from mmengine.logging import print_log

from mmdet_featviz.utils.arguments import check_whole_number

AUTO = 'auto'
THREADS_BESIDE = 2
MOST_THREADS = 8  # more would wait for Python's lock
MEASURED_BATCHES = 3
SMALL_SHARE = 0.05


class Schedule:
    """Decides when the pictures of a run are drawn.

    With ``auto``: in threads beside the detector if it leaves processor cores idle, as on a GPU. Otherwise they would
    compete with it for the cores: torch's threads spin while they wait for each other. The pictures of the first
    batches are then drawn at once, and measured. If drawing takes a small share of the time, this continues. If not,
    the maps of all further images are saved during the loop, and drawn on all cores when it has ended.

    Args:
        workers: Number of threads beside the detector, 0 to draw at once, or ``auto``.
        device: Type of the detector's device, such as ``cuda`` or ``cpu``.
        has_end: Whether the end of the loop will be known.
        is_remote: Whether the files are written through a network.
        cores: Number of processor cores that this process may use.
        busy_cores: Number of cores that the detector uses.
        clock: Returns the time in seconds.

    Attributes:
        threads: Number of threads that draw during the loop; 0 draws at once.
        threads_at_end: Number of threads that draw after the loop.
        postpones: Whether maps are saved now, to be drawn after the loop.
    """

    def __init__(
        self,
        workers: int | str,
        device: str = 'cpu',
        has_end: bool = False,
        is_remote: bool = False,
        cores: int | None = None,
        busy_cores: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.postpones = False
        self._clock = clock
        self._cores = cores or _usable_cores()
        self._batches = 0  # that have been measured; the first one is not, as it fills caches
        self._measured_since = self._drawing = 0.0  # seconds
        self._is_measuring = False
        self.threads = self.threads_at_end = 0 if workers == AUTO else int(workers)
        if workers == AUTO and has_end:
            self._choose(device, is_remote, _cores_of_detector() if busy_cores is None else busy_cores)

    def _choose(self, device: str, is_remote: bool, busy_cores: int) -> None:
        """Make the choice that does not depend on a measurement, or begin to measure."""
        self.threads_at_end = min(self._cores, MOST_THREADS)
        idle = self._cores - busy_cores
        reason = None
        if device != 'cpu':
            reason = f'runs on the device {device}'
        elif idle > 0:
            reason = f'leaves {idle} of {self._cores} processor cores idle'
        elif is_remote:
            reason = 'would otherwise wait for the network'
        if reason is not None:
            self.threads = THREADS_BESIDE
            _log(f'in {THREADS_BESIDE} threads beside the detector, which {reason}')
        elif self._cores == 1:
            _log('at once: there is a single processor core')
        else:
            self._is_measuring = True

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Within the context, one batch is drawn."""
        if not self._is_measuring:
            yield
            return
        begin = self._clock()
        yield
        end = self._clock()
        if not self._batches:
            self._measured_since = end
        else:
            self._drawing += end - begin
        self._batches += 1
        if self._batches == MEASURED_BATCHES:
            self._is_measuring = False
            self._decide(self._drawing / max(end - self._measured_since, 1e-9))

    def _decide(self, share: float) -> None:
        """Decide after the measurement.

        Args:
            share: Part of the time that drawing took, 0 to 1.
        """
        measured = f'drawing took {share:.0%} of the time of the first batches'
        self.postpones = share > SMALL_SHARE
        if self.postpones:
            _log(
                f'after the loop, on {self.threads_at_end} processor cores, from maps saved during it: the detector '
                f'keeps the cores busy, and {measured}'
            )
        else:
            _log(f'at once: {measured}')


def check_workers(workers: int | str) -> int | str:
    """Check the option `workers`: a number of threads, or ``auto``."""
    if isinstance(workers, str) and workers != AUTO:
        raise ValueError(f'workers must be {AUTO!r} or a whole number of at least 0, but is {workers!r}')
    return workers if workers == AUTO else check_whole_number('workers', workers, least=0)


def _log(how: str) -> None:
    print_log(f"workers='auto': pictures are drawn {how}.", 'current')


def _usable_cores() -> int:
    has_affinity = hasattr(os, 'sched_getaffinity')  # not on Windows and macOS
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _cores_of_detector() -> int:
    """Number of cores that the detector keeps busy, on all ranks of this machine."""
    return torch.get_num_threads() * int(os.environ.get('LOCAL_WORLD_SIZE', 1))
