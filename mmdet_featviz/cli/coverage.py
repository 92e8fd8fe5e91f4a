"""Try the package on the configs of mmdet's model zoo and write a table of the results.

Each config runs in its own process, with random weights, on one image: predictions with and without the package are
compared, every level is drawn, a patch is moved over a uniform image to check that the heat follows it, and the top
detection is explained. The exit code is 1 if any heat is misplaced or any prediction differs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdet_featviz.benchmarks.zoo_coverage import run_coverage

USAGE = '[FAMILY ...] [options]'
EXAMPLES = """
examples:
  featviz coverage retinanet swin dino --out coverage.md
  featviz coverage --results coverage_results --out coverage.md
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'families', nargs='*', metavar='FAMILY', help='Folders of the model zoo. Default: all that have detectors.'
    )
    parser.add_argument('--all', action='store_true', help='Try every config of each folder, not only one.')
    parser.add_argument(
        '--image', type=Path, metavar='FILE', help='Image to predict on. Default: a scene of the demo data.'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('zoo_coverage.md'),
        metavar='FILE',
        help='Markdown file for the table. Default: zoo_coverage.md.',
    )
    parser.add_argument(
        '--results',
        type=Path,
        metavar='DIR',
        help='Keep the result of each family here as JSON; families that have one are not tried again.',
    )
    parser.add_argument(
        '--timeout', type=float, default=300, metavar='SECONDS', help='Time limit for each config. Default: 300.'
    )
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='Processes that run at once. Default: 1.')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    raise SystemExit(run_coverage(args))
