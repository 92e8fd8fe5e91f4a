"""Generate the data set of the demo detectors: solid shapes on textured scenes.

Four shapes of 16 to 256 pixels on 640x480 scenes, annotated in COCO format. The same command always gives the same
scenes, and a longer split starts with the scenes of a shorter one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdet_featviz.benchmarks.demo_data import make_split

EXAMPLES = """
examples:
  featviz demo-data --train 0
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--out-dir', type=Path, default=Path('data/demo'), help='folder (default: data/demo)')
    parser.add_argument('--train', type=int, default=1000, help='scenes of the training split (default: 1000; 0: none)')
    parser.add_argument('--val', type=int, default=100, help='scenes of the held-out split (default: 100; 0: none)')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    for split, count in (('train', args.train), ('val', args.val)):
        if count:  # 0 leaves a split alone
            make_split(args.out_dir, split, count)
            print(f'{count} scenes in {args.out_dir / split}')
