"""Write the features of a run's boxes as tables and for TensorBoard's projector.

Also says how often the boxes with the most similar features are of the same class, by level.
"""

from __future__ import annotations

import argparse

from mmdet_featviz.apis.box_export import export_boxes
from mmdet_featviz.cli.exporting import add_export_arguments, print_export

USAGE = 'RUN --out-dir DIR [options]'
EXAMPLES = """
examples:
  featviz export-boxes run_a --out-dir run_a_boxes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_export_arguments(parser, 'Folder of a run with --save box_features.', 'Folder for the files.')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    print_export(export_boxes, args)
