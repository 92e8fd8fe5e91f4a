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
MOST_AT_END = 8  # more would wait for the disk or, as threads, for Python's lock
MEASURED_IMAGES = 8  # drawn at once
TRIED_IMAGES = 32  # drawn on all cores: enough for the time that processes take to begin not to matter
SMALL_SHARE = 0.05
WORTHWHILE = 0.9  # of the time that drawing at once takes
FIRST, AT_ONCE, LATER = 'first', 'at once', 'later'  # phases of the measurement


class Schedule:
    """Decides when the pictures of a run are drawn.

    With ``auto``: in threads beside the detector if it leaves processor cores idle, as on a GPU. Otherwise they would
    compete with it for the cores: torch's threads spin while they wait for each other. The pictures of the first images
    are then drawn at once, and measured. If this takes a small share of the time, it continues. If not, the maps of the
    next images are saved and then drawn on all cores, as it would be done after the loop. The faster way continues.

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
        workers_at_end: Number of processes or threads that draw after the loop.
        encodes_beside: Whether what is drawn at once is encoded and written in one thread beside.
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
        self._phase: str | None = None  # of the measurement, if there is one
        self.threads = self.workers_at_end = 0 if workers == AUTO else int(workers)
        if workers == AUTO and has_end:
            self._choose(device, is_remote, _cores_of_detector() if busy_cores is None else busy_cores)
        self.encodes_beside = self._phase is not None

    def _choose(self, device: str, is_remote: bool, busy_cores: int) -> None:
        """Make the choice that does not depend on a measurement, or begin to measure."""
        self.workers_at_end = min(max(self._cores // _ranks_here(), 1), MOST_AT_END)
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
        elif self.workers_at_end == 1:
            _log('at once: this process has a single processor core')
        else:
            self._phase = FIRST

    @contextlib.contextmanager
    def batch(self, images: int, draw_postponed: Callable[[], None]) -> Iterator[None]:
        """Within the context, the images of one batch are drawn, or their maps saved.

        Args:
            images: Number of images that are drawn.
            draw_postponed: Draws the images whose maps were saved.
        """
        if self._phase is None or not images:
            yield
            return
        begin = self._clock()
        yield
        if self._phase == FIRST:  # not measured, as it fills caches
            self._begin(AT_ONCE)
            return
        self._images += images
        least = MEASURED_IMAGES if self._phase == AT_ONCE else TRIED_IMAGES
        is_enough = self._images >= least
        if is_enough and self._phase == LATER:
            draw_postponed()
        self._drawing += self._clock() - begin
        if is_enough:
            self._decide(self._drawing / self._images)

    def _begin(self, phase: str) -> None:
        self._phase = phase
        self._images, self._drawing, self._since = 0, 0.0, self._clock()

    def _decide(self, seconds: float) -> None:
        """Decide after a phase of the measurement.

        Args:
            seconds: What an image took in this phase.
        """
        if self._phase == LATER:
            self._phase = None
            self.postpones = seconds < WORTHWHILE * self._at_once
            times = f'{1000 * self._at_once:.1f} ms per image at once, and {1000 * seconds:.1f} ms after the loop'
            on = f'after the loop, on {self.workers_at_end} processor cores, from maps saved during it'
            _log(f'{on if self.postpones else "at once"}: drawing takes {times}')
            return
        self._at_once = seconds
        share = self._drawing / max(self._clock() - self._since, 1e-9)
        self.postpones = share > SMALL_SHARE
        if self.postpones:
            self._begin(LATER)
        else:
            self._phase = None
            _log(f'at once: drawing took {share:.0%} of the time of the first images')


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
    return torch.get_num_threads() * _ranks_here()


def _ranks_here() -> int:
    """Number of ranks on this machine."""
    return int(os.environ.get('LOCAL_WORLD_SIZE', 1))
