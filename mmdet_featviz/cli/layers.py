"""List the layers of a detector that can be drawn, as a tree with the shapes and strides of their feature maps.

A star marks the layers that are drawn by default. With --receptive-field, lists how much of the image one cell of each
level depends on, in pixels of the network's input: the theoretical field, width x height, and the effective one, the
side of a square as large as the smallest area that holds 95.45 % of the gradient. An object larger than its effective
field is not seen as a whole by a cell. With --statistics, lists range, mean, share of channels that never fire,
effective rank of the channels, energy in the outermost cells and values that are not finite, and says what is unusual.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Sequence

import numpy as np

from mmdet_featviz.apis.inference import find_images, show_layers
from mmdet_featviz.apis.level_statistics import level_statistics
from mmdet_featviz.apis.receptive_field import receptive_fields
from mmdet_featviz.capture.layer_tree import DEPTH
from mmdet_featviz.cli.loading import load_detector, run_info_of
from mmdet_featviz.cli.options import add_detector_options
from mmdet_featviz.evaluation.level_statistics import statistics_table
from mmdet_featviz.explanation.field_measurement import ReceptiveField
from mmdet_featviz.runs.field_files import field_entry, field_facts, field_picture, field_table
from mmdet_featviz.runs.image_keys import ImageKeys
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.utils.messages import count_noun
from mmdet_featviz.version import __version__
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.style import Style

USAGE = 'CONFIG [CHECKPOINT] [options]'
EXAMPLES = """
examples:
  featviz layers my_config.py
  featviz layers my_config.py my_checkpoint.pth --image image.jpg --depth 4
  featviz layers my_config.py my_checkpoint.pth --statistics --image images/
  featviz layers my_config.py my_checkpoint.pth --receptive-field --image images/ --out-dir fields
"""
SIZE = 480, 640  # of the gray image used without --image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_detector_options(parser, random_weights=True)
    parser.add_argument(
        '--image', metavar='FILE', help='Image that the shapes are computed for. Default: a gray one of 640x480 pixels.'
    )
    parser.add_argument(
        '--receptive-field',
        action='store_true',
        help='List receptive fields instead. --image may then be a folder or a glob in quotes: effective fields are '
        'means over its images, ten or more for a field that does not depend on the image.',
    )
    parser.add_argument(
        '--statistics',
        action='store_true',
        help='List figures of each level over the images instead, and what is unusual. --image may then be a folder or '
        'a glob in quotes.',
    )
    parser.add_argument(
        '--layers',
        nargs='+',
        metavar='LAYER',
        help='Levels of these layers. With --receptive-field or --statistics.',
    )
    parser.add_argument(
        '--at',
        nargs=2,
        type=float,
        metavar=('X', 'Y'),
        help='Pixel whose nearest cells are taken. Default: the middle of each image. With --receptive-field.',
    )
    parser.add_argument(
        '--out-dir', metavar='DIR', help='Folder for pictures of the fields on the first image. With --receptive-field.'
    )
    parser.add_argument('--overwrite', action='store_true', help="Replace another run's pictures in DIR.")
    parser.add_argument('--depth', type=int, default=DEPTH, metavar='N', help=f'Depth of the tree. Default: {DEPTH}.')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.depth < 1:
        parser.error('--depth must be at least 1')
    if not args.receptive_field and (args.at or args.out_dir or args.overwrite):
        parser.error('--at, --out-dir and --overwrite need --receptive-field')
    if args.layers and not (args.receptive_field or args.statistics):
        parser.error('--layers needs --receptive-field or --statistics')
    if args.receptive_field and args.statistics:
        parser.error('--receptive-field and --statistics are two tables: choose one')
    if args.statistics:
        _list_statistics(args, parser)
    elif args.receptive_field:
        _list_fields(args, parser)
    else:
        _list_layers(args)


def _list_fields(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.image is None:
        parser.error('--receptive-field needs --image: the gradients depend on what the network sees')
    images, root = find_images(args.image)
    out_dir, layers, overwrite = args.out_dir, args.layers, args.overwrite
    del args.out_dir, args.layers, args.overwrite  # options of the drawing otherwise
    try:
        folder = None if out_dir is None else RunFolder(out_dir, overwrite)
    except (OSError, ValueError) as error:  # before anything is measured
        raise SystemExit(str(error)) from error
    _, model = load_detector(args)
    try:
        fields = receptive_fields(model, images, layers, args.at)
        print(field_table(field_facts(fields, len(images))))
        note = f'mean over {count_noun(len(images), "image")}; pixels of the input'
        print(f'{args.weights}: {note}' if args.weights else note)
        if folder is not None:
            folder.take(
                dict(version=__version__, receptive_fields=dict(images=images, at=args.at), **run_info_of(args))
            )
            _write_fields(fields, ImageKeys(root).key_of(images[0]), folder)
            print(f'{count_noun(len(fields), "picture")} in {out_dir}')
    except (ImageError, OSError, TypeError, ValueError, AttributeError) as error:
        raise SystemExit(str(error)) from error


def _write_fields(fields: Sequence[ReceptiveField], key: str, folder: RunFolder) -> None:
    """Write a picture of each field, with an entry in the manifest; the key is that of the first image."""
    for field in fields:
        field = replace(field, snapshot=replace(field.snapshot, key=key))
        picture = field_picture(field, Style())
        file = f'{key}/{picture.name}'
        folder.write(file, encode_picture(picture.pixels, file))
        folder.record([field_entry(field, [file])])
    folder.flush()
    folder.release()


def _list_statistics(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.image is None:
        parser.error('--statistics needs --image: figures of features depend on what the network sees')
    images, _ = find_images(args.image)
    layers = args.layers
    del args.out_dir, args.layers, args.overwrite
    _, model = load_detector(args)
    try:
        print(statistics_table(level_statistics(model, images, layers)))
    except (ImageError, OSError, TypeError, ValueError, AttributeError) as error:
        raise SystemExit(str(error)) from error
    note = f'{count_noun(len(images), "image")}, without padding'
    print(f'\n{args.weights}: {note}' if args.weights else f'\n{note}')


def _list_layers(args: argparse.Namespace) -> None:
    del args.out_dir, args.layers, args.overwrite
    _, model = load_detector(args)
    image = np.full((*SIZE, 3), 128, np.uint8) if args.image is None else args.image
    try:
        print(show_layers(model, image, args.depth))
    except (
        FileNotFoundError,
        AttributeError,
    ) as error:  # AttributeError: mmcv got None for a file that is not an image
        raise SystemExit(f'{args.image} cannot be read as an image ({error})') from error
