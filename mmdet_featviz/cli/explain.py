"""Explain single detections in images: which parts of an image the score or the box of a detection rests on.

Writes one picture per detection, such as DIR/image/explain/000_dog_0.87.odam.jpg.
"""

from __future__ import annotations

import argparse

from mmengine.config import DictAction

from mmdet_featviz.apis.explain import explain_images, get_explainer
from mmdet_featviz.apis.inference import find_images
from mmdet_featviz.cli.loading import load_detector, run_info_of
from mmdet_featviz.cli.options import add_detector_options, add_drawing_options, drawing_options
from mmdet_featviz.cli.ranks import exit_on_sigterm
from mmdet_featviz.explanation.targets import PARTS
from mmdet_featviz.registry import EXPLAINERS
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.version import __version__
from mmdet_featviz.visualization.style import Style

USAGE = 'IMAGES CONFIG [CHECKPOINT] --out-dir DIR [options]'
EXAMPLES = """
examples:
  featviz explain image.jpg my_config.py my_checkpoint.pth --out-dir why
  featviz explain images/ my_config.py my_checkpoint.pth --out-dir why --targets 'class dog, top 3' --of both
  featviz explain image.jpg my_config.py my_checkpoint.pth --out-dir why --targets 'box 40 30 200 180 dog'
  featviz explain image.jpg my_config.py my_checkpoint.pth --out-dir why --method drise --method-options masks=500
"""
LOOK = ('normalize', 'colormap', 'alpha', 'blend', 'align', 'colorbar', 'image_format')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    EXPLAINERS.import_from_location()
    parser.add_argument('input', metavar='IMAGES', help='Image, folder (with subfolders), glob in quotes, or URL.')
    add_detector_options(parser)
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='Folder for the pictures.')
    parser.add_argument('--overwrite', action='store_true', help="Replace another run's pictures in DIR.")
    parser.add_argument(
        '--method',
        default='odam',
        metavar='NAME',
        help=f'How to explain: {", ".join(EXPLAINERS.module_dict)}. Default: odam.',
    )
    parser.add_argument(
        '--method-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='Arguments of the method, such as masks=500 of drise.',
    )
    parser.add_argument(
        '--targets',
        nargs='+',
        default=['top 5'],
        metavar='TARGET',
        help='What to explain, each in quotes: "top 5", "all", "score 0.3", "class dog", several with commas between; '
        '"box LEFT TOP RIGHT BOTTOM CLASS" in pixels of the image; or the number of a detection in order of score. '
        'Default: "top 5".',
    )
    parser.add_argument(
        '--of', choices=PARTS, default='score', metavar='PART', help=f'{", ".join(PARTS)}. Default: score.'
    )
    parser.add_argument(
        '--layers', nargs='+', metavar='LAYER', help='Layers to explain at: paths or globs. Default: the neck.'
    )
    parser.add_argument(
        '--each-level', action='store_true', help='Also write a picture of each level, if several have heat.'
    )
    add_drawing_options(parser, Style, only=LOOK, defaults=dict(normalize='max'))


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    exit_on_sigterm(launcher='none')
    images, root = find_images(args.input)
    style = drawing_options(args, Style)
    try:
        get_explainer(args.method)
        Style(**style)
    except (TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    overwrite, args.overwrite = args.overwrite, False
    _, model = load_detector(args)
    options = dict(method=args.method, targets=args.targets, layers=args.layers, of=args.of)
    info = dict(version=__version__, explanations=dict(options, **args.method_options), **run_info_of(args))
    try:
        folder = RunFolder(args.out_dir, overwrite)
        folder.take(info)
        print(explain_images(images, root, model, folder, args.each_level, **options, **style, **args.method_options))
    except (OSError, TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
