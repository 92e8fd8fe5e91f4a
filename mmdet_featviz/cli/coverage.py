"""Try the package on the configs of mmdet's model zoo and write a table of the results.

Each config runs in a process of its own, with random weights, on one image: predictions with and without the package
are compared, every level is drawn, and a patch is moved over a plain image to see whether the heat follows it.
The exit code is 1 if any level is placed wrong or any prediction differs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdet_featviz.benchmarks.zoo_coverage import run_coverage

EXAMPLES = """
examples:
  featviz coverage retinanet swin dino --out coverage.md
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('families', nargs='*', help='folders of the model zoo (default: all folders of detectors)')
    parser.add_argument('--all', action='store_true', help='try every config of each folder, not only until one runs')
    parser.add_argument('--image', type=Path, help='image to predict on (default: a scene of the demo data)')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('zoo_coverage.md'),
        help='Markdown file for the table (default: zoo_coverage.md)',
    )
    parser.add_argument('--timeout', type=float, default=300, help='most seconds for each config (default: 300)')
    parser.add_argument('--jobs', type=int, default=1, help='number of processes at once (default: 1)')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    raise SystemExit(run_coverage(args))
