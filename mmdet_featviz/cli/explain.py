"""Explain single detections in images: which parts of an image the score or the box of a detection rests on.

Writes one picture per detection, such as DIR/image/explain/000_dog_0.87.odam.jpg.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import Any, Callable

from torch import nn

from mmdet_featviz.apis.annotated_samples import annotated_samples
from mmdet_featviz.apis.explain import explain_images
from mmdet_featviz.apis.inference import find_images
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.cli.loading import load_detector, run_info_of
from mmdet_featviz.cli.options import KeyValueAction, add_detector_options, add_drawing_options, drawing_options
from mmdet_featviz.cli.ranks import exit_on_sigterm
from mmdet_featviz.explanation.explanation import LOOK
from mmdet_featviz.explanation.request import ExplanationRequest
from mmdet_featviz.explanation.targets import PARTS
from mmdet_featviz.registry import EXPLAINERS
from mmdet_featviz.runs.image_keys import ImageKeys
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.run_info import jsonable_dataset_meta
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.boxes import class_names
from mmdet_featviz.utils.arguments import check_choice
from mmdet_featviz.visualization.style import Style

USAGE = 'IMAGES CONFIG [CHECKPOINT] --out-dir DIR [options]'
EXAMPLES = """
examples:
  featviz explain image.jpg my_config.py my_checkpoint.pth --out-dir why
  featviz explain images/ my_config.py my_checkpoint.pth --out-dir why --targets 'class dog, top 3' --of both
  featviz explain image.jpg my_config.py my_checkpoint.pth --out-dir why --targets 'box 40 30 200 180 dog'
  featviz explain data/val/ my_config.py my_checkpoint.pth --out-dir why --targets gt --annotations data/val.json
  featviz explain image.jpg my_config.py my_checkpoint.pth --out-dir why --method drise --method-options masks=500
  featviz explain image.jpg my_detr.py my_checkpoint.pth --out-dir why --method attention --layers decoder
"""
DRAWING_OPTIONS = (
    'save',
    'normalize',
    'percentiles',
    'colormap',
    'alpha',
    'blend',
    'align',
    'labels',
    'line_width',
    'font_size',
    'colorbar',
    'image_format',
)
SAVED = ('overlay', 'maps')


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
        action=KeyValueAction,
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
        '"gt", each ground-truth box, found or missed; "box LEFT TOP RIGHT BOTTOM CLASS" in pixels of the image; or '
        'the number of a detection in order of score. Default: "top 5".',
    )
    parser.add_argument(
        '--annotations',
        metavar='FILE',
        help="Ground truth for the target gt: a file in COCO's format, whose file names are relative to the folder "
        'IMAGES. Default: the test data set of CONFIG.',
    )
    parser.add_argument(
        '--of', choices=PARTS, default='score', metavar='PART', help=f'{", ".join(PARTS)}. Default: score.'
    )
    parser.add_argument(
        '--layers',
        nargs='+',
        metavar='LAYER',
        help='Layers to explain at: paths or globs. Default: the neck; of attention, the last layer of the decoder.',
    )
    parser.add_argument(
        '--each-level', action='store_true', help='Also write a picture of each level, if several have heat.'
    )
    add_drawing_options(parser, Style, only=DRAWING_OPTIONS, defaults=dict(normalize='max'))


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    exit_on_sigterm(launcher='none')
    images, root = find_images(args.input)
    options = dict(method=args.method, targets=args.targets, layers=args.layers, of=args.of)
    look = drawing_options(args, Style)
    try:
        ExplanationRequest(**options, options=args.method_options)
        style = Style(**{**LOOK, **look})
        for kind in style.save:
            check_choice('save', kind, SAVED)
    except (TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    for name in look:  # they are not those of load_detector()
        delattr(args, name)
    overwrite, args.overwrite = args.overwrite, False
    _, model = load_detector(args)
    try:
        load = _loader(args, model, root)
        writer = _writer(args, model, style, overwrite)
        explain_images(images, model, writer, ImageKeys(root), load, **options, **args.method_options)
    except (OSError, TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    if not len(writer.outcome.drawn):
        raise SystemExit('\n'.join(writer.outcome.messages.values()))
    print(writer.summary())


def _loader(args: argparse.Namespace, model: nn.Module, root: str) -> Callable[[str], Any]:
    """Return a function from the path of an image to what explain() takes: a sample, if ground truth is needed."""
    if args.annotations is None and 'gt' not in args.targets:
        return str
    return annotated_samples(model, args.annotations, root)


def _writer(args: argparse.Namespace, model: nn.Module, style: Style, overwrite: bool) -> RunWriter:
    """Return a writer for the output folder.

    Raises:
        OSError: If the folder cannot be written to, or holds another run's pictures.
        ValueError: If the detector lacks a layer or a class.
    """
    dataset_meta = jsonable_dataset_meta(getattr(model, 'dataset_meta', None))
    request = ExplanationRequest(args.method, args.targets, args.layers, args.of, args.method_options)
    request.check(unwrap_detector(model), class_names(dataset_meta))
    explanations = dict(asdict(request), each_level=args.each_level)
    info = dict(explanations=explanations, dataset_meta=dataset_meta, working_dir=os.getcwd(), **run_info_of(args))
    return RunWriter(RunFolder(args.out_dir, overwrite), style, info)
