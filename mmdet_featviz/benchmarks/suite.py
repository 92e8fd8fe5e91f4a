"""Benchmark suite: runs the parts of the benchmark, prints their tables and writes a JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
from typing import Any

import cv2
import mmcv
import mmdet
import mmengine
import numpy as np
import torch
from mmdet.utils import register_all_modules

from mmdet_featviz.benchmarks.drawing import measure_drawing
from mmdet_featviz.benchmarks.explaining import measure_explaining
from mmdet_featviz.benchmarks.growth import measure_growth
from mmdet_featviz.benchmarks.memory import measure_memory, run_child
from mmdet_featviz.benchmarks.report_page import measure_page
from mmdet_featviz.benchmarks.tables import print_results, print_table
from mmdet_featviz.benchmarks.whole_test import measure_test
from mmdet_featviz.version import __version__

PARTS = dict(
    draw=measure_drawing,
    test=measure_test,
    memory=measure_memory,
    growth=measure_growth,
    explain=measure_explaining,
    page=measure_page,
)


def run_benchmark(args: argparse.Namespace) -> None:
    """Run the benchmark.

    Args:
        args: Options of the command ``featviz benchmark``.
    """
    register_all_modules()
    if args.child:
        run_child(args)
        return
    results: dict[str, Any] = dict(circumstances=describe_environment(args))
    print_table('environment', results['circumstances'].items())
    for part in args.parts:
        results[part] = PARTS[part](args)
        print_results(part, results[part])
        if args.out is not None:  # after each part, so that a run that is stopped keeps its results
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(results, indent=1))


def describe_environment(args: argparse.Namespace) -> dict[str, Any]:
    """Versions, processor cores, threads and load."""
    return dict(
        mmdet_featviz=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        mmdet=mmdet.__version__,
        mmcv=mmcv.__version__,
        mmengine=mmengine.__version__,
        opencv=cv2.__version__,
        numpy=np.__version__,
        cores=os.cpu_count(),
        threads_of_draw=args.threads,
        threads_of_test=os.environ.get('OMP_NUM_THREADS', torch.get_num_threads()),
        workers=args.workers,
        load=os.getloadavg() if hasattr(os, 'getloadavg') else None,
    )
