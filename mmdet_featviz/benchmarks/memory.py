"""Memory benchmark: the peak of memory, and whether memory, threads or open files grow over a test."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any, Iterable

import cv2
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_featviz.benchmarks.drawing_case import REDUCTIONS, DrawingCase
from mmdet_featviz.benchmarks.timing import set_threads
from mmdet_featviz.benchmarks.whole_test import build_runner, write_scenes
from mmdet_featviz.engine.hooks.featviz_hook import FeatVizHook

MEGABYTE = 2**20


def measure_memory(args: argparse.Namespace) -> dict[str, dict]:
    """Measure each way to draw, and each detector with the hook and without, in a process of its own.

    Args:
        args: Options of the command line: `detectors`, and those that :func:`run_child` uses.

    Returns:
        ``megabytes``: peaks, growth over the test of YOLOX-nano, and differences with - without the hook;
        ``left``: threads and open files before and after each test.
    """
    cases = [('draw', way) for way in ('floor', 'ours', 'recipe', *REDUCTIONS)]
    cases += [(detector, way) for detector in args.detectors for way in ('without', 'with')]
    results: dict[str, dict[str, Any]] = {}
    for kind, way in cases:
        command = [sys.executable, '-m', 'mmdet_featviz', 'benchmark', '--child', kind, way]
        command += ['--batches', str(args.batches), '--memory-images', str(args.memory_images)]
        command += ['--threads', str(args.threads), '--workers', str(args.workers)]
        command += ['--checkpoint', args.checkpoint] if args.checkpoint else []
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, encoding='utf-8')
        results[f'{kind} {way}'] = json.loads(done.stdout.splitlines()[-1])
    megabytes = {name: round(memory['peak'] / MEGABYTE, 1) for name, memory in results.items()}
    for name, memory in results.items():
        if len(memory.get('held', ())) > 1:
            first, last = memory['held'].values()
            megabytes[f'{name}, growth'] = round((last['resident'] - first['resident']) / MEGABYTE, 1)
    for detector in args.detectors:
        difference = results[f'{detector} with']['peak'] - results[f'{detector} without']['peak']
        megabytes[f'{detector}: peak with - without'] = round(difference / MEGABYTE, 1)
    left = {
        name: {what: [memory[when][what] for when in ('before', 'after')] for what in ('threads', 'files')}
        for name, memory in results.items()
        if 'held' in memory
    }
    return dict(megabytes=megabytes, left=left)


def run_child(args: argparse.Namespace) -> None:
    """Run one case in this process, and print its memory as a line of JSON.

    Args:
        args: Options of the command line: `child` (kind and way), `batches`, `memory_images`, `threads`, `workers` and
            `checkpoint` are used.
    """
    kind, way = args.child
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if kind == 'draw':
            set_threads(args.threads)
            case = DrawingCase(folder)
            case.ours()
            case.drawn  # noqa: B018  the floor writes these pictures again
            before = resident_bytes()
            work = case.draw_featmap if way in REDUCTIONS else getattr(case, way)
            work(*[way] if way in REDUCTIONS else [])
            print(json.dumps(dict(peak=resident_bytes('VmHWM') - before)))
            return
        images = args.memory_images if kind == 'YOLOX-nano' else args.batches
        data = Path(folder) / 'data'
        write_scenes(data, images)
        hooks = [FeatVizHook(out_dir=f'{folder}/out', workers=args.workers)] if way == 'with' else []
        resources = ResourceHook({min(100, images), images})
        runner = build_runner(kind, data, Path(folder) / 'work', images, args.checkpoint, [*hooks, resources])
        before = held_resources()
        runner.test()
        check_pictures(Path(folder) / 'out', images if hooks else 0)
        after = held_resources()
        print(json.dumps(dict(peak=resident_bytes('VmHWM'), held=resources.held, before=before, after=after)))


class ResourceHook(Hook):
    """Records what the process holds after given numbers of test images.

    Args:
        at: The numbers of images.

    Attributes:
        held: ``{number of images: resources}``.
    """

    priority = 'VERY_LOW'

    def __init__(self, at: Iterable[int]) -> None:
        self.at = sorted(at)
        self.images = 0
        self.held: dict[int, dict[str, int]] = {}

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count the images of a batch, and record when a number is reached."""
        self.images += len(outputs)
        if self.at and self.images >= self.at[0]:
            self.held[self.at.pop(0)] = held_resources()


def held_resources() -> dict[str, int]:
    """Resident bytes, threads and open files of this process; Linux only."""
    return dict(resident=resident_bytes(), threads=threading.active_count(), files=len(os.listdir('/proc/self/fd')))


def resident_bytes(field: str = 'VmRSS') -> int:
    """Bytes of memory that this process holds; with ``VmHWM`` the most that it has ever held. Linux only.

    `getrusage` is not used: it reports the peak of the parent process if that was larger.
    """
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def check_pictures(folder: Path, images: int) -> None:
    """Check that the manifest has this number of images, and that all their pictures can be read."""
    manifest = folder / 'manifest.jsonl'
    entries = [json.loads(line) for line in manifest.read_text().splitlines()] if images else []
    assert len({entry['key'] for entry in entries}) == images
    assert all(cv2.imread(str(folder / name)) is not None for entry in entries for name in entry['files'])
