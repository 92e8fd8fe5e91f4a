"""Draw the feature maps of a video: the heat of each level, side by side or one above the other."""

from __future__ import annotations

import argparse
import os.path as osp

from tqdm import tqdm

from mmdet_featviz.apis.video import CODECS, FrameDrawer, open_video, read_frames, write_video
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.cli.loading import load_detector
from mmdet_featviz.cli.options import add_detector_options, add_drawing_options
from mmdet_featviz.visualization.style import Style

EXAMPLES = """
examples:
  featviz video street.mp4 my_config.py my_checkpoint.pth --out heat.mp4
  featviz video street.mp4 my_config.py my_checkpoint.pth --out heat.mp4 --levels neck_0 neck_2 --boxes pred
"""
DRAWING_OPTIONS = (  # those that concern a video, which is no run
    'layers',
    'layer_type',
    'reduction',
    'normalize',
    'colormap',
    'alpha',
    'blend',
    'align',
    'boxes',
    'score_thr',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('video', help='the video')
    add_detector_options(parser)
    parser.add_argument('--out', required=True, help=f'the video to write: {", ".join(CODECS)}')
    parser.add_argument(
        '--levels', nargs='+', metavar='LEVEL', help='which levels, such as neck_0 or backbone_* (default: all)'
    )
    parser.add_argument('--direction', choices=['horizontal', 'vertical'], default='horizontal')
    parser.add_argument('--no-frame', action='store_true', help='without the frame itself beside the levels')
    parser.add_argument(
        '--tile-size', type=int, default=640, help='longer side of each picture in pixels (default: 640)'
    )
    add_drawing_options(parser, FeatureVisualizer, Style, only=DRAWING_OPTIONS)


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if osp.splitext(args.out)[1].lower() not in CODECS:
        parser.error(f'--out must end with {", ".join(CODECS)}, but is {args.out}')
    if args.tile_size < 32:
        parser.error('--tile-size must be at least 32')
    if getattr(args, 'normalize', None) == 'run':
        parser.error('--normalize run needs a run with saved maps; give two numbers for one scale in all frames')
    try:
        reader, fps, expected = open_video(args.video)
    except OSError as error:
        raise SystemExit(str(error)) from error
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
        raise SystemExit(f'{args.video} has no frame that can be read')
    early = f'; the video says it has {expected}, but ended early' if count < expected else ''
    print(f'{count} frames at {fps:g} a second in {args.out}{early}')
