"""Measure the time and memory that drawing takes, and compare it with other ways to draw and a lower bound.

Parts:
  draw    nine heatmaps of one image, compared with mmengine's Visualizer.draw_featmap, a recipe published in many
          blogs, and a lower bound: decode the image, read each feature map, encode and write nine pictures
  test    a whole test including its end, with each setting of workers, with embeddings, with principal components and
          without the hook, and a lower bound: decode each image, encode the same pictures, write them
  memory  the peak memory, and whether it grows with the number of images (Linux only)
  growth  how the time grows with levels, channels and image size
  explain ten boxes of ATSS-R50 at 800x1333 explained by odam, compared with a plain test step; the forward passes per
          second of D-RISE, compared with a plain loop over batches
  page    how fast the report page of a run opens, scrolls and turns in a headless Chromium, and the memory of its tab
          (needs selenium and chromedriver; Linux only)

The candidates of a comparison take turns in each round, and medians are printed. Run nothing else on the machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdet_featviz.benchmarks.suite import PARTS, run_benchmark
from mmdet_featviz.benchmarks.whole_test import DETECTORS
from mmdet_featviz.cli.options import whole_number_or_word
from mmdet_featviz.runs.schedule import AUTO

USAGE = '[PART ...] [options]'
EXAMPLES = """
examples:
  featviz benchmark draw
  featviz benchmark test memory --out results.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'Any of {", ".join(PARTS)}. Default: all.')
    parser.add_argument('--rounds', type=int, default=7, metavar='N', help='Rounds to take the median of. Default: 7.')
    parser.add_argument(
        '--threads',
        type=int,
        default=1,
        metavar='N',
        help='Threads of torch and OpenCV, in draw, growth and explain. Default: 1.',
    )
    parser.add_argument('--batches', type=int, default=8, metavar='N', help='Batches per round, in test. Default: 8.')
    parser.add_argument(
        '--memory-images',
        type=int,
        default=2000,
        metavar='N',
        help='Number of images, in memory and page. Default: 2000.',
    )
    parser.add_argument('--checkpoint', metavar='FILE', help='Weights of YOLOX-nano. Default: random ones.')
    parser.add_argument(
        '--detectors',
        nargs='+',
        choices=DETECTORS,
        default=list(DETECTORS),
        help='Detectors to draw, in test. Default: all.',
    )
    parser.add_argument(
        '--workers',
        type=whole_number_or_word,
        default=AUTO,
        metavar='N',
        help=f'When the hook draws, in memory: number of threads, or {AUTO}. Default: {AUTO}.',
    )
    parser.add_argument('--images', type=Path, metavar='DIR', help='Images for test. Default: generated ones.')
    parser.add_argument('--out', type=Path, metavar='FILE', help='JSON file for all results.')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='Image file for a plot, in growth.')
    parser.add_argument('--child', nargs=2, help=argparse.SUPPRESS)  # a process of the part `memory`


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    args.parts = args.parts or list(PARTS)
    if not set(args.parts) <= set(PARTS):
        unknown = [part for part in args.parts if part not in PARTS]
        parser.error(f'unknown part {unknown[0]!r}: choose from {", ".join(PARTS)}')
    run_benchmark(args)
