"""Measure the time and memory that drawing takes, beside other ways to draw and beside a floor.

Parts:
  draw    nine heatmaps of one image, against mmengine's Visualizer.draw_featmap, against a recipe published in many
          blogs, and against the floor: decode the image, read each feature map, encode and write nine pictures
  test    a whole test with the hook and without
  memory  the peak of memory, and whether it grows with the number of images
  growth  how the time grows with levels, channels and image size

What is compared runs in turns, round by round, and medians are printed. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.benchmarks.speed import DETECTORS, PARTS, run_benchmark

EXAMPLES = """
examples:
  featviz benchmark draw
  featviz benchmark test memory --out figures.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('parts', nargs='*', help=f'any of {", ".join(PARTS)} (default: all)')
    parser.add_argument('--rounds', type=int, default=7, help='rounds of which the median is taken (default: 7)')
    parser.add_argument(
        '--threads', type=int, default=1, help='threads of torch and OpenCV in `draw` and `growth` (default: 1)'
    )
    parser.add_argument('--batches', type=int, default=8, help='batches of each round of `test` (default: 8)')
    parser.add_argument('--memory-images', type=int, default=2000, help='images of `memory` (default: 2000)')
    parser.add_argument('--checkpoint', help='weights of YOLOX-nano (default: random)')
    parser.add_argument('--detectors', nargs='+', choices=DETECTORS, default=list(DETECTORS), help='for `test`')
    parser.add_argument('--workers', type=int, default=FeatureVisualizer().workers, help='drawing threads of the hook')
    parser.add_argument('--out', type=Path, help='JSON file for all figures')
    parser.add_argument('--plot', type=Path, help='picture of `growth`')
    parser.add_argument('--child', nargs=2, help=argparse.SUPPRESS)  # one run of `memory`


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    args.parts = args.parts or list(PARTS)
    if not set(args.parts) <= set(PARTS):
        parser.error(f'parts are {", ".join(PARTS)}')
    run_benchmark(args)
