"""Write the features of a run's boxes as tables and for TensorBoard's projector.

Also says how often the boxes with the most similar features are of the same class, by level.
"""

from __future__ import annotations

import argparse

from mmdet_featviz.apis.box_export import export_boxes

USAGE = 'RUN --out-dir DIR [options]'
EXAMPLES = """
examples:
  featviz export-boxes run_a --out-dir run_a_boxes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('run', metavar='RUN', help='Folder of a run with --save box_features.')
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='Folder for the files.')
    parser.add_argument('--overwrite', action='store_true', help='Replace an earlier export in DIR.')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    try:
        print(export_boxes(args.run, args.out_dir, args.overwrite))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
