"""Measure the time and memory that drawing takes, and compare it with other ways to draw.

Parts:
  draw    nine heatmaps of one image, compared with mmengine's Visualizer.draw_featmap, with a recipe published in many
          blogs, and with the floor: decode the image, read each feature map, encode and write nine pictures
  test    a whole test with the hook and without
  memory  the peak of memory, and whether memory grows with the number of images (Linux only)
  growth  how the time grows with levels, channels, image size and number of images

What is compared takes turns, round by round, and medians are printed. Run nothing else on the machine meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.benchmarks.suite import PARTS, run_benchmark
from mmdet_featviz.benchmarks.whole_test import DETECTORS

EXAMPLES = """
examples:
  featviz benchmark draw
  featviz benchmark test memory --out figures.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('parts', nargs='*', help=f'any of {", ".join(PARTS)} (default: all)')
    parser.add_argument('--rounds', type=int, default=7, help='rounds to take the median of (default: 7)')
    parser.add_argument(
        '--threads', type=int, default=1, help='threads of torch and OpenCV in `draw` and `growth` (default: 1)'
    )
    parser.add_argument('--batches', type=int, default=8, help='batches in each round of `test` (default: 8)')
    parser.add_argument(
        '--memory-images', type=int, default=2000, help='images for YOLOX-nano in `memory` (default: 2000)'
    )
    parser.add_argument('--checkpoint', help='weights of YOLOX-nano (default: random weights)')
    parser.add_argument(
        '--detectors', nargs='+', choices=DETECTORS, default=list(DETECTORS), help='of `test` and `memory`'
    )
    parser.add_argument('--workers', type=int, default=FeatureVisualizer().workers, help='drawing threads of the hook')
    parser.add_argument('--out', type=Path, help='JSON file for all results')
    parser.add_argument('--plot', type=Path, help='picture file for plots of `growth`')
    parser.add_argument('--child', nargs=2, help=argparse.SUPPRESS)  # one case of `memory`, in a process of its own


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    args.parts = args.parts or list(PARTS)
    if not set(args.parts) <= set(PARTS):
        unknown = [part for part in args.parts if part not in PARTS]
        parser.error(f'unknown part {unknown[0]!r}: choose from {", ".join(PARTS)}')
    run_benchmark(args)
