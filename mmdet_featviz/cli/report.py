"""Write the report page of a run from its saved maps: RUN/report/index.html, to be opened in a browser."""

from __future__ import annotations

import argparse

from mmdet_featviz.report.builder import Report
from mmdet_featviz.report.page_data import IMAGE_SIZE
from mmdet_featviz.runs.reader import Run

USAGE = 'RUN [options]'
EXAMPLES = """
examples:
  featviz report run_a
  featviz report run_a --compare run_b
  featviz report run_a --image-size 4000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('run', metavar='RUN', help='Folder of a run that saved maps (--save maps).')
    parser.add_argument('--compare', metavar='RUN_B', help='Second run, shown beside the first.')
    parser.add_argument('--max-images', type=int, metavar='N', help='Only the first N images. Default: all.')
    parser.add_argument(
        '--image-size',
        type=int,
        default=IMAGE_SIZE,
        metavar='PIXELS',
        help='Longest side of the images on the page, to zoom into. Default: %(default)s.',
    )


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.max_images is not None and args.max_images < 1:
        parser.error('--max-images must be at least 1')
    if args.image_size < 1:
        parser.error('--image-size must be at least 1')
    try:
        other = Run(args.compare) if args.compare is not None else None
        report = Report(Run(args.run), other, args.max_images, args.image_size)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    report.write()
    print(report.summary())
