"""Measure how well methods explain the detections in a data set.

Pixels are added and removed in order of heat (insertion, deletion); heat is compared with the ground truth (pointing
game, energy, ODI). random, centre and box are maps that know nothing of the detector: what does not beat them explains
nothing. Writes DIR/summary.md, summary.csv, summary.json, boxes.csv and curves.png.
"""

from __future__ import annotations

import argparse

from mmdet_featviz.apis.annotated_samples import annotated_dataset
from mmdet_featviz.apis.explanation_evaluation import evaluate_explanations
from mmdet_featviz.cli.loading import load_detector, run_info_of
from mmdet_featviz.cli.options import add_detector_options
from mmdet_featviz.cli.ranks import exit_on_sigterm
from mmdet_featviz.evaluation.explanation_scores import METHODS, TARGETS, Protocol
from mmdet_featviz.registry import EXPLAINERS
from mmdet_featviz.utils.arguments import check_whole_number

USAGE = 'CONFIG [CHECKPOINT] --out-dir DIR [options]'
EXAMPLES = """
examples:
  featviz evaluate-explanations my_config.py my_checkpoint.pth --out-dir proof
  featviz evaluate-explanations my_config.py my_checkpoint.pth --out-dir proof --methods odam drise --max-boxes 50
  featviz evaluate-explanations my_config.py my_checkpoint.pth --out-dir proof --randomise
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    EXPLAINERS.import_from_location()
    add_detector_options(parser)
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='Folder for the results.')
    parser.add_argument('--overwrite', action='store_true', help="Replace another run's files in DIR.")
    parser.add_argument('--resume', action='store_true', help='Continue a run in DIR that was stopped.')
    parser.add_argument(
        '--methods',
        nargs='+',
        default=METHODS,
        metavar='NAME',
        help=f'Any of {", ".join(EXPLAINERS.module_dict)}. Default: {" ".join(METHODS)}.',
    )
    parser.add_argument(
        '--targets',
        nargs='+',
        default=[TARGETS],
        metavar='TARGET',
        help=f'Which detections of each image are explained, as in featviz explain. Default: "{TARGETS}".',
    )
    parser.add_argument('--max-boxes', type=int, default=100, metavar='N', help='Number of boxes. Default: 100.')
    parser.add_argument(
        '--layers', nargs='+', metavar='LAYER', help='Layers to explain at: paths or globs. Default: the neck.'
    )
    parser.add_argument(
        '--annotations',
        metavar='FILE',
        help="Images and ground truth: a file in COCO's format. Default: the test data set of CONFIG.",
    )
    parser.add_argument(
        '--image-root', default='', metavar='DIR', help='Folder that the file names in --annotations are relative to.'
    )
    parser.add_argument(
        '--steps',
        type=int,
        default=Protocol.steps,
        metavar='N',
        help=f'Steps of insertion and of deletion, one prediction each. Default: {Protocol.steps}.',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=Protocol.batch_size,
        metavar='N',
        help=f'Images per prediction. Default: {Protocol.batch_size}.',
    )
    parser.add_argument(
        '--randomise',
        action='store_true',
        help="Also measure how much of each map survives when the head's, then the neck's, then the backbone's weights "
        'are shuffled.',
    )
    parser.add_argument(
        '--seed', type=int, default=0, metavar='N', help='Seed of images, pixels and weights. Default: 0.'
    )


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    exit_on_sigterm(launcher='none')
    try:
        check_whole_number('--max-boxes', args.max_boxes)
        protocol = Protocol(
            args.methods, args.targets, args.layers, args.steps, args.batch_size, args.seed, args.randomise
        )
    except (TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    out_dir, overwrite, resume, image_root = args.out_dir, args.overwrite, args.resume, args.image_root
    del args.out_dir, args.overwrite, args.resume, args.layers, args.image_root  # options of the drawing otherwise
    _, model = load_detector(args)
    try:
        dataset = annotated_dataset(model, args.annotations, image_root)
        evaluate_explanations(model, dataset, out_dir, protocol, args.max_boxes, overwrite, resume, run_info_of(args))
    except (OSError, TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    with open(f'{out_dir}/summary.md', encoding='utf-8') as table:
        print(table.read())
