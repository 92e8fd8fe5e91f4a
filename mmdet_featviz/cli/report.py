"""Write the report page of a run from its saved maps: RUN/report/index.html, to be opened in a browser.

With --compare, several runs are side by side: RUN/report_compared/index.html.
"""

from __future__ import annotations

import argparse

from mmdet_featviz.report.builder import Report
from mmdet_featviz.report.page_data import IMAGE_SIZE
from mmdet_featviz.runs.reader import Run

USAGE = 'RUN [options]'
EXAMPLES = """
examples:
  featviz report run_a
  featviz report run_a --compare run_b run_c --names Baseline Ours "Ours, longer" --out-dir compared
  featviz report trained/epoch_1 --compare trained/epoch_3 trained/epoch_12
  featviz report run_a --image-size 4000
  featviz report run_a --single-file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'run', metavar='RUN', help='Folder of a run that saved maps (--save maps), or of an epoch in it: RUN/epoch_3.'
    )
    parser.add_argument('--compare', nargs='+', default=(), metavar='RUN', help='Runs shown beside the first.')
    parser.add_argument(
        '--names', nargs='+', metavar='NAME', help='Names of all runs, with --compare. Default: what they differ in.'
    )
    parser.add_argument(
        '--out-dir',
        metavar='DIR',
        help='Folder for the page. Default: RUN/report, with --compare RUN/report_compared.',
    )
    parser.add_argument('--max-images', type=int, metavar='N', help='Only the first N images. Default: all.')
    parser.add_argument(
        '--image-size',
        type=int,
        default=IMAGE_SIZE,
        metavar='PIXELS',
        help='Longest side of the images on the page, to zoom into. Default: %(default)s.',
    )
    parser.add_argument(
        '--single-file', action='store_true', help='Write one HTML file that has everything in it, for some 100 images.'
    )


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.max_images is not None and args.max_images < 1:
        parser.error('--max-images must be at least 1')
    if args.names and not args.compare:
        parser.error('--names are those of a comparison: name runs with --compare')
    if args.image_size < 1:
        parser.error('--image-size must be at least 1')
    try:
        others = [Run(folder) for folder in args.compare]
        report = Report(
            Run(args.run), others, args.max_images, args.image_size, args.out_dir, args.names, args.single_file
        )
        report.write()
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(report.summary())
