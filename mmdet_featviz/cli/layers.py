"""List the layers of a detector that can be drawn, as a tree with the shapes and strides of their feature maps.

A star marks the layers that are drawn by default.
"""

from __future__ import annotations

import argparse

import numpy as np

from mmdet_featviz.apis.inference import show_layers
from mmdet_featviz.capture.layer_tree import DEPTH
from mmdet_featviz.cli.loading import load_detector
from mmdet_featviz.cli.options import add_detector_options

USAGE = 'CONFIG [CHECKPOINT] [options]'
EXAMPLES = """
examples:
  featviz layers my_config.py
  featviz layers my_config.py my_checkpoint.pth --image image.jpg --depth 4
"""
SIZE = 480, 640  # of the gray image used without --image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_detector_options(parser)
    parser.add_argument(
        '--image', metavar='FILE', help='Image that the shapes are computed for. Default: a gray one of 640x480 pixels.'
    )
    parser.add_argument('--depth', type=int, default=DEPTH, metavar='N', help=f'Depth of the tree. Default: {DEPTH}.')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.depth < 1:
        parser.error('--depth must be at least 1')
    _, model = load_detector(args)
    image = np.full((*SIZE, 3), 128, np.uint8) if args.image is None else args.image
    try:
        print(show_layers(model, image, args.depth))
    except (
        FileNotFoundError,
        AttributeError,
    ) as error:  # AttributeError: mmcv got None for a file that is not an image
        raise SystemExit(f'{args.image} cannot be read as an image ({error})') from error
