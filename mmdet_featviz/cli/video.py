"""Draw the feature maps of a video: each frame and the heat of each level, side by side or one below the other.

Options that are not given are those of the hook in the config, if it has one.
"""

from __future__ import annotations

import argparse
import os.path as osp

from tqdm import tqdm

from mmdet_featviz.apis.video import CODECS, FrameDrawer, open_video, read_frames, write_video
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.cli.loading import load_detector
from mmdet_featviz.cli.options import add_detector_options, add_drawing_options
from mmdet_featviz.cli.ranks import exit_on_sigterm
from mmdet_featviz.utils.messages import count_noun
from mmdet_featviz.visualization.style import Style

USAGE = 'VIDEO CONFIG [CHECKPOINT] --out FILE [options]'
EXAMPLES = """
examples:
  featviz video street.mp4 my_config.py my_checkpoint.pth --out heat.mp4
  featviz video street.mp4 my_config.py my_checkpoint.pth --out heat.mp4 --levels neck_0 neck_2 --boxes pred
"""
DRAWING_OPTIONS = (  # a video has no run folder, so the others have no meaning
    'layers',
    'layer_type',
    'reduction',
    'normalize',
    'percentiles',
    'border',
    'colormap',
    'alpha',
    'blend',
    'interpolation',
    'align',
    'boxes',
    'score_thr',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('video', metavar='VIDEO', help='The video to read.')
    add_detector_options(parser)
    parser.add_argument('--out', required=True, metavar='FILE', help=f'The video to write: {", ".join(CODECS)}.')
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
        '--tile-size', type=int, default=640, metavar='N', help='Longer side of each picture in pixels. Default: 640.'
    )
    add_drawing_options(parser, FeatureVisualizer, Style, only=DRAWING_OPTIONS)


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if osp.splitext(args.out)[1].lower() not in CODECS:
        parser.error(f'--out must end with one of {", ".join(CODECS)}, but is {args.out}')
    if args.tile_size < 32:
        parser.error('--tile-size must be at least 32')
    if getattr(args, 'normalize', None) == 'run':
        parser.error('--normalize run is not possible for a video: give two numbers for one scale in all frames')
    try:
        reader, fps, expected = open_video(args.video)
    except OSError as error:
        raise SystemExit(str(error)) from error
    exit_on_sigterm(launcher='none')
    visualizer, model = load_detector(args)
    try:
        visualizer.taps = visualizer.make_taps(model)
        drawer = FrameDrawer(
            model, visualizer, args.levels, args.tile_size, args.direction, with_frame=not args.no_frame
        )
        frames = tqdm(read_frames(reader), total=max(expected, 0) or None, unit='frame')
        count = write_video(args.out, map(drawer.draw, frames), fps)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    if not count:
        raise SystemExit(f'no frame of {args.video} can be read')
    shortfall = f'; the video announces {count_noun(expected, "frame")}, but ended early' if count < expected else ''
    weights = f'; {args.weights}' if args.weights else ''
    print(f'{count_noun(count, "frame")} at {fps:g} fps in {args.out}{shortfall}{weights}')
