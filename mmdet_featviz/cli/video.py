"""Draw the feature maps of a video: each frame and the heat of each level, side by side or one below the other.

Options that are not given are those of the hook in the config, if it has one.
"""

from __future__ import annotations

import argparse
import math
import os.path as osp

from tqdm import tqdm

from mmdet_featviz.apis.video import TILE_SIZE, FrameDrawer
from mmdet_featviz.apis.video_file import FORMATS, GIF_FPS, Video, encoding_of, write_video
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.cli.loading import load_detector
from mmdet_featviz.cli.options import add_detector_options, add_drawing_options
from mmdet_featviz.cli.ranks import exit_on_sigterm
from mmdet_featviz.utils.messages import count_noun
from mmdet_featviz.visualization.style import BOX_OPTIONS, COLOR_OPTIONS, Style

USAGE = 'VIDEO CONFIG [CHECKPOINT] --out FILE [options]'
EXAMPLES = """
examples:
  featviz video street.mp4 my_config.py my_checkpoint.pth --out heat.mp4
  featviz video street.mp4 my_config.py my_checkpoint.pth --out heat.mp4 --levels neck_0 neck_2 --boxes pred
  featviz video street.mp4 my_config.py my_checkpoint.pth --out heat.gif --start 5 --end 8 --step 3
  featviz video street.mp4 my_config.py my_checkpoint.pth --out why.mp4 --explain targets='class dog'
"""
DRAWING_OPTIONS = (  # a video has no run folder, so the others have no meaning
    'layers',
    'layer_type',
    'reduction',
    *COLOR_OPTIONS,
    'align',
    *BOX_OPTIONS,
    'colorbar',
    'explain',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('video', metavar='VIDEO', help='The video to read.')
    add_detector_options(parser)
    parser.add_argument('--out', required=True, metavar='FILE', help=f'The video to write: {", ".join(FORMATS)}.')
    parser.add_argument('--overwrite', action='store_true', help='Replace FILE if it exists.')
    parser.add_argument('--start', type=float, default=0, metavar='SECONDS', help='Where to begin. Default: 0.')
    parser.add_argument(
        '--end', type=float, default=math.inf, metavar='SECONDS', help='Where to end. Default: the end of the video.'
    )
    parser.add_argument(
        '--step', type=int, default=1, metavar='N', help='Draw every n-th frame; the speed stays the same. Default: 1.'
    )
    parser.add_argument(
        '--levels', nargs='+', metavar='LEVEL', help='Levels to draw, such as neck_0 or backbone_*. Default: all.'
    )
    parser.add_argument(
        '--direction',
        choices=['horizontal', 'vertical'],
        default='horizontal',
        help='Side by side, or one below the other. Default: horizontal.',
    )
    parser.add_argument('--no-frame', action='store_true', help='Leave out the frame itself.')
    parser.add_argument(
        '--tile-size',
        type=int,
        default=TILE_SIZE,
        metavar='PIXELS',
        help=f'Longer side of each picture. Default: {TILE_SIZE}.',
    )
    add_drawing_options(parser, FeatureVisualizer, Style, only=DRAWING_OPTIONS)


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    _check(args, parser)
    try:
        video = Video(args.video)
    except OSError as error:
        raise SystemExit(str(error)) from error
    exit_on_sigterm(launcher='none')
    visualizer, model = load_detector(args)
    fps = video.fps / args.step
    if args.out.lower().endswith('.gif'):
        fps = min(fps, GIF_FPS)
    span = args.start, args.end, args.step
    expected = len(video.numbers(*span))
    try:
        visualizer.taps = visualizer.make_taps(model)
        drawer = FrameDrawer(
            model, visualizer, args.levels, args.tile_size, args.direction, with_frame=not args.no_frame
        )
        frames = tqdm(video.frames(*span), total=expected or None, unit='frame')
        count = write_video(args.out, map(drawer.draw, frames), fps)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    if not count:
        raise SystemExit(f'no frame of {args.video} can be read: it has {video.count} at {video.fps:g} fps')
    shortfall = f'; the video announces {count_noun(expected, "frame")}, but ended early' if count < expected else ''
    weights = f'; {args.weights}' if args.weights else ''
    print(f'{count_noun(count, "frame")} at {fps:g} fps in {args.out}, {_describe(args.out)}{shortfall}{weights}')


def _check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exit with a message if an option is wrong or the output exists."""
    if osp.splitext(args.out)[1].lower() not in FORMATS:
        parser.error(f'--out must end with one of {", ".join(FORMATS)}, but is {args.out}')
    if args.tile_size < 32:
        parser.error('--tile-size must be at least 32')
    if not 0 <= args.start < args.end:
        parser.error(f'--start must be at least 0 and before --end, but they are {args.start:g} and {args.end:g}')
    if args.step < 1:
        parser.error(f'--step must be at least 1, but is {args.step}')
    if getattr(args, 'normalize', None) == 'run':
        parser.error('--normalize run is not possible for a video: give two numbers for one scale in all frames')
    if 'each_level' in getattr(args, 'explain', {}):
        parser.error('each_level has no effect in a video: --levels chooses the levels')
    if osp.exists(args.out):
        if osp.exists(args.video) and osp.samefile(args.out, args.video):
            parser.error('--out is the video itself: choose another name')
        if not args.overwrite:
            parser.error(f'{args.out} exists: choose another name, or add --overwrite')


def _describe(path: str) -> str:
    """Name the encoding of a video, and what is to be known of it."""
    encoding = encoding_of(path)
    if encoding == 'MPEG-4 Part 2':
        return f'{encoding}, which browsers do not play: for H.264, pip install av'
    return encoding
