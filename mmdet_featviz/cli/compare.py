"""Compare the heatmaps of runs, of epochs of a training, or of two detectors on the same images.

Draws the runs and their differences to the first one, A, side by side, and writes tables of how much they differ.
"""

from __future__ import annotations

import argparse
import os.path as osp
from typing import Sequence

from mmdet_featviz.apis.inference import draw_images, find_images
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.cli.loading import check_checkpoint, load_detector, run_info_of
from mmdet_featviz.cli.options import add_drawing_options, add_random_weights
from mmdet_featviz.evaluation.run_comparison import RunComparison
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder, check_apart
from mmdet_featviz.structures.grid import ALIGNMENTS
from mmdet_featviz.visualization.style import BOX_OPTIONS, Style

USAGE = '(RUN RUN [RUN ...] | --config-a CONFIG --images IMAGE ...) --out-dir DIR [options]'
EXAMPLES = """
examples:
  featviz compare run_a run_b --out-dir compared
  featviz compare run_a run_b run_c --names Baseline Ours "Ours, longer" --levels 'neck_*' --out-dir compared
  featviz compare trained/epoch_1 trained/epoch_3 trained/epoch_12 --boxes both --original --out-dir compared
  featviz compare --config-a my_config.py --checkpoint-a before.pth --checkpoint-b after.pth \\
      --images images/ --out-dir compared
"""
LOOK_OPTIONS = ('colormap', 'alpha', 'blend', *BOX_OPTIONS, 'image_format')
CAPTURE_OPTIONS = ('layers', 'layer_type', 'reduction', 'interval', 'max_images')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'runs',
        nargs='*',
        metavar='RUN',
        help='Folders of runs that saved maps (--save maps), or of epochs in them, such as RUN/epoch_3. First is A.',
    )
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='Folder for pictures and tables.')
    parser.add_argument(
        '--names', nargs='+', metavar='NAME', help='Names of the runs in pictures and tables. Default: A, B and so on.'
    )
    parser.add_argument(
        '--levels',
        nargs='+',
        metavar='LEVEL',
        help='Only these levels of A and what they are compared with, such as neck_0 or backbone_*; explanations are '
        'called explain. Default: all.',
    )
    parser.add_argument('--original', action='store_true', help='Add a column with the original image.')
    parser.add_argument('--overwrite', action='store_true', help="Replace another run's pictures in DIR.")
    parser.add_argument(
        '--range',
        choices=('common', 'own'),
        help='Draw all runs in one common range of values, or each in its own. Default: common if all have the same '
        'config and reduction, otherwise own.',
    )
    add_drawing_options(parser, Style, only=LOOK_OPTIONS)

    models = parser.add_argument_group('two detectors', 'Both are run first; their maps are saved in DIR/a and DIR/b.')
    models.add_argument('--config-a', metavar='CONFIG', help='Config file of A, or name of a model of the zoo.')
    models.add_argument('--config-b', metavar='CONFIG', help='Config file of B. Default: that of A.')
    models.add_argument(
        '--checkpoint-a',
        metavar='FILE',
        help="Default: load_from of A's config, or the zoo's weights.",
    )
    models.add_argument('--checkpoint-b', metavar='FILE', help='Default: the same for B.')
    add_random_weights(models)
    models.add_argument('--images', nargs='+', metavar='IMAGE', help='Images, folders, or globs in quotes.')
    models.add_argument(
        '--align',
        choices=ALIGNMENTS,
        default='auto',
        help='Where the value of a cell is: auto, at the center of its receptive field; or in its block of pixels, at '
        'the center or the top left corner. Default: auto.',
    )
    models.add_argument('--device', default='cpu', help='Such as cuda:0. Default: cpu.')
    add_drawing_options(parser, FeatureVisualizer, only=CAPTURE_OPTIONS)


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if bool(args.runs) == bool(args.config_a) or len(args.runs) == 1:
        parser.error('name the folders of two or more runs, or --config-a and --images')
    if args.config_a and not args.images:
        parser.error('--config-a needs --images: name images or folders to compare the detectors on')
    share_range = None if args.range is None else args.range == 'common'
    try:
        given = [Run(folder) for folder in args.runs]
        check_apart(args.out_dir, *(run.root for run in given))
        comparison = RunComparison(
            given or _run_both(args),
            args.out_dir,
            Style(**{name: value for name, value in vars(args).items() if name in LOOK_OPTIONS}),
            args.overwrite,
            share_range,
            args.names,
            args.levels,
            args.original,
        )
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    comparison.run()
    print(f'Feature maps: {comparison.summary()}')


def _run_both(args: argparse.Namespace) -> list[Run]:
    """Run both detectors on the images, and return their runs."""
    folders = [osp.join(args.out_dir, name) for name in 'ab']
    for folder in (args.out_dir, *folders):  # fails on another run's folder now, not after the detectors have run
        RunFolder(folder, args.overwrite)
    for checkpoint in filter(None, (args.checkpoint_a, args.checkpoint_b)):
        check_checkpoint(checkpoint)
    return [
        _run_detector(args.config_a, args.checkpoint_a, folders[0], args),
        _run_detector(args.config_b or args.config_a, args.checkpoint_b, folders[1], args),
    ]


def _run_detector(config: str, checkpoint: str | None, out_dir: str, args: argparse.Namespace) -> Run:
    """Run one detector on the images, save its maps, and return the run."""
    images, root = _find_all(args.images)
    own_args = dict(config=config, checkpoint=checkpoint, cfg_options=None, out_dir=out_dir, save='maps')
    detector_args = argparse.Namespace(**{**vars(args), **own_args})
    visualizer, model = load_detector(detector_args, image_root=root)
    info = run_info_of(detector_args)
    info['checkpoint'] = info['checkpoint'] or info.get('weights')  # a name for the pictures
    visualizer.open(model, dataset_meta=model.dataset_meta, info=info)
    for image in draw_images(images, model, visualizer):
        print(f'skipped: {image} is no readable image')
    print(visualizer.summary())
    return Run(out_dir)


def _find_all(sources: Sequence[str]) -> tuple[list[str], str]:
    """Return the paths of all images, and the folder that their keys are relative to."""
    images = list(dict.fromkeys(osp.abspath(path) for source in sources for path in find_images(source)[0]))
    return images, osp.commonpath([osp.dirname(image) for image in images])
