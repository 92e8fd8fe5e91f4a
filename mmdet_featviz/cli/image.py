"""Draw the feature maps of images that belong to no data set: a file, a folder, a glob or a URL.

Options that are not given are those of the hook in the config, if it has one.
"""

from __future__ import annotations

import argparse
import os.path as osp
from typing import Sequence

from mmdet_featviz.apis.inference import draw_images, find_images, show_layers
from mmdet_featviz.apis.visualizer import DEFAULT_DIR, FeatureVisualizer
from mmdet_featviz.capture.layer_tree import DEPTH
from mmdet_featviz.cli.loading import load_detector, run_info_of
from mmdet_featviz.cli.options import add_detector_options, add_drawing_options
from mmdet_featviz.cli.ranks import exit_on_sigterm
from mmdet_featviz.runs.manifest import read_entries
from mmdet_featviz.runs.storage import get_storage, is_inside
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.visualization.style import Style

USAGE = 'IMAGES CONFIG [CHECKPOINT] [options]'
EXAMPLES = """
examples:
  featviz image image.jpg my_config.py my_checkpoint.pth --out-dir heatmaps
  featviz image images/ my_config.py my_checkpoint.pth --out-dir heatmaps --save overlay panel --boxes pred
  featviz image 'images/*.png' rtmdet_tiny_8xb32-300e_coco --out-dir heatmaps --layers neck
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('input', metavar='IMAGES', help='Image, folder (with subfolders), glob in quotes, or URL.')
    add_detector_options(parser)
    parser.add_argument(
        '--show-layers',
        nargs='?',
        type=int,
        const=DEPTH,
        metavar='DEPTH',
        help=f'Only list the layers that can be drawn, with their shapes for the first image. Default depth: {DEPTH}.',
    )
    add_drawing_options(parser, FeatureVisualizer, Style, without=('stages', 'average_passes'))


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    exit_on_sigterm(launcher='none')
    images, root = find_images(args.input)
    args.random_weights |= args.show_layers is not None
    defaults = {} if hasattr(args, 'image_root') else dict(image_root=root)
    visualizer, model = load_detector(args, **defaults)
    if args.show_layers is not None:
        print(show_layers(model, images[0], args.show_layers))
        return
    _check_not_drawn(images, visualizer.out_dir)
    try:
        visualizer.open(model, dataset_meta=getattr(model, 'dataset_meta', None), info=run_info_of(args))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    unreadable = draw_images(images, model, visualizer)
    print(visualizer.summary())
    if unreadable:
        message = f'skipped {count_noun(len(unreadable), "image")} that could not be read ({first_names(unreadable)})'
        if len(unreadable) == len(images):
            raise SystemExit(message)
        print(message)


def _check_not_drawn(images: Sequence[str], out_dir: str | None) -> None:
    """Raise SystemExit if an image is a picture of the run in the output folder."""
    store = get_storage(out_dir or DEFAULT_DIR)
    names = (name for entry in read_entries(store) for name in filter(is_inside, entry.get('files', ())))
    drawn = {osp.realpath(store.path(name)) for name in names}
    own = [image for image in images if osp.realpath(image) in drawn]
    if own:
        raise SystemExit(f'{own[0]} is a picture of the run in {store.folder}: choose an out_dir outside the images')
