"""Generate the data set of the demo detectors: solid shapes on textured scenes.

Four shapes of 16 to 256 pixels on 640x480 scenes, annotated in COCO format. The same command always gives the same
scenes, and a longer split starts with the scenes of a shorter one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdet_featviz.benchmarks.demo_data import make_split

USAGE = '[options]'
EXAMPLES = """
examples:
  featviz demo-data
  featviz demo-data --train 0 --val 20 --out-dir data/few_scenes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--out-dir', type=Path, default=Path('data/demo'), metavar='DIR', help='Output folder. Default: data/demo.'
    )
    parser.add_argument(
        '--train', type=int, default=1000, metavar='N', help='Scenes to train on; 0 writes none. Default: 1000.'
    )
    parser.add_argument(
        '--val', type=int, default=100, metavar='N', help='Scenes to validate on; 0 writes none. Default: 100.'
    )


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    for split, count in (('train', args.train), ('val', args.val)):
        if count:  # 0 writes no split
            make_split(args.out_dir, split, count)
            print(f'{count} scenes in {args.out_dir / split}')
