"""Write the report page of a run from its saved maps: RUN/report/index.html, which a browser opens from disk."""

from __future__ import annotations

import argparse

from mmdet_featviz.report.builder import Report
from mmdet_featviz.runs.reader import Run

EXAMPLES = """
examples:
  featviz report run_a
  featviz report run_a --compare run_b
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('run', help="folder of a run with save=('maps',)")
    parser.add_argument('--compare', metavar='RUN_B', help='a second run, shown beside the first on one scale')
    parser.add_argument('--max-images', type=int, metavar='N', help='only the first N images')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.max_images is not None and args.max_images < 1:
        parser.error('--max-images: at least 1')
    try:
        other = Run(args.compare) if args.compare is not None else None
        report = Report(Run(args.run), other, args.max_images)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    report.write()
    print(report.summary())
