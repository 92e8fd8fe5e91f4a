"""Draw a figure for a paper from the saved maps of runs: images as rows, pictures of them as columns.

What it shows is in a YAML file, or in --runs, --images and --show.
"""

from __future__ import annotations

import argparse
import os.path as osp
from dataclasses import replace

from mmdet_featviz.apis.figure import draw_figure
from mmdet_featviz.apis.figure_spec import FigureSpec, figure_of_options, parse_figure
from mmdet_featviz.utils.arguments import check_choice
from mmdet_featviz.visualization.figure_layout import SHARES
from mmdet_featviz.visualization.images import ImageError

FORMATS = 'pdf', 'svg', 'png'
USAGE = '(SPEC | --runs RUN ... --images KEY ... --show WHAT ...) --out FILE ... [options]'
EXAMPLES = """
examples:
  featviz figure figure.yaml --out figure.pdf figure.png
  featviz figure --runs before after --images street/0001 --show image gt neck_0 --out figure.pdf
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('spec', nargs='?', metavar='SPEC', help='YAML file that describes the figure.')
    parser.add_argument('--out', required=True, nargs='+', metavar='FILE', help='Files to write: .pdf, .svg or .png.')
    parser.add_argument('--overwrite', action='store_true', help='Replace files that exist.')
    contents = parser.add_argument_group('what it shows, without a SPEC')
    contents.add_argument('--runs', nargs='+', metavar='RUN', help='Folders of runs that saved maps (--save maps).')
    contents.add_argument('--images', nargs='+', metavar='KEY', help='Image keys: one row each.')
    contents.add_argument(
        '--show',
        nargs='+',
        metavar='WHAT',
        help='Columns: image, gt, pred, both, explain, or names of levels such as neck_0; maps once for each run.',
    )
    look = parser.add_argument_group('how it looks; these come before the entries of a SPEC')
    look.add_argument('--width', type=float, metavar='MM', help='Width in mm. Default: 180.')
    look.add_argument('--dpi', type=int, metavar='N', help='Resolution of the pictures. Default: 300.')
    look.add_argument(
        '--share',
        choices=('auto', *SHARES),
        help='Which pictures share a range of values and a color bar. Default: auto, the row where maps can be '
        'compared, else the column.',
    )
    look.add_argument('--colormap', metavar='NAME', help='Color map of OpenCV or matplotlib. Default: jet.')


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    contents = args.runs, args.images, args.show
    if (args.spec is None) != all(contents) or (args.spec is not None and any(contents)):
        parser.error('name a SPEC, or all of --runs, --images and --show')
    try:
        for path in args.out:
            _check_target(path, args.overwrite)
        figure = draw_figure(_spec(args))
        for path in args.out:
            figure.savefig(path)
    except (OSError, TypeError, ValueError, ImageError) as error:
        raise SystemExit(str(error)) from error
    width, height = figure.get_size_inches() * 25.4
    print(f'a figure of {width:.0f} x {height:.0f} mm: {", ".join(args.out)}')


def _spec(args: argparse.Namespace) -> FigureSpec:
    """The figure, with the options of the command line."""
    spec = parse_figure(args.spec) if args.spec else figure_of_options(args.runs, args.images, args.show)
    given = {name: getattr(args, name) for name in ('width', 'dpi', 'share') if getattr(args, name) is not None}
    style = dict(spec.style, **({'colormap': args.colormap} if args.colormap else {}))
    return replace(spec, style=style, **given)


def _check_target(path: str, overwrite: bool) -> None:
    """Raise ValueError or OSError for a file that cannot be written."""
    check_choice('the ending of --out', osp.splitext(path)[1][1:].lower(), FORMATS)
    if osp.exists(path) and not overwrite:
        raise FileExistsError(f'{path} exists: choose another name, or add --overwrite')
    if not osp.isdir(osp.dirname(path) or '.'):
        raise FileNotFoundError(f'{osp.dirname(path)} is no folder: make it first, or choose another for {path}')
