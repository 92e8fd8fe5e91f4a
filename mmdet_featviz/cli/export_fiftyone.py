"""Write a run as a data set that FiftyOne opens, with boxes, types of errors, and a heatmap per level.

FiftyOne need not be installed here.
"""

from __future__ import annotations

import argparse

from mmdet_featviz.apis.fiftyone_export import export_fiftyone
from mmdet_featviz.cli.exporting import add_export_arguments, print_export

USAGE = 'RUN --out-dir DIR [options]'
EXAMPLES = """
examples:
  featviz export-fiftyone run_a --out-dir run_a_fiftyone
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_export_arguments(parser, 'Folder of a run that saved maps (--save maps).', 'Folder of the data set.')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    print_export(export_fiftyone, args)
