"""Write a run as a data set that FiftyOne opens, with boxes, types of errors, and a heatmap per level.

FiftyOne need not be installed here.
"""

from __future__ import annotations

import argparse

from mmdet_featviz.apis.fiftyone_export import export_fiftyone

USAGE = 'RUN --out-dir DIR [options]'
EXAMPLES = """
examples:
  featviz export-fiftyone run_a --out-dir run_a_fiftyone
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('run', metavar='RUN', help='Folder of a run that saved maps (--save maps).')
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='Folder of the data set.')
    parser.add_argument('--overwrite', action='store_true', help='Replace an earlier export in DIR.')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    try:
        print(export_fiftyone(args.run, args.out_dir, args.overwrite))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
