"""Draw what a detector responds to in a video: the heat of each level, side by side or one above the other."""

import argparse
import os
import os.path as osp

import cv2
import numpy as np
from cli import add_drawing_options, add_model_options, fits, visualizer_and_model
from mmcv.transforms import Compose
from mmdet.utils import get_test_pipeline_cfg
from tqdm import tqdm

from mmdet_featviz import FeatureVisualizer, Style
from mmdet_featviz.looks import take
from mmdet_featviz.rendering import shrink
from mmdet_featviz.views import Views

CODECS = {'.mp4': 'mp4v', '.avi': 'MJPG', '.mkv': 'mp4v', '.mov': 'mp4v'}
CAPTION_HEIGHT = 24
# What of drawing concerns a video, which is no run.
DRAWING = (
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


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('video', help='the video')
    add_model_options(parser)
    parser.add_argument('--out', required=True, help=f'the video to write: {", ".join(CODECS)}')
    parser.add_argument(
        '--levels', nargs='+', metavar='LEVEL', help='which levels, such as neck_0 or backbone_* (default: all)'
    )
    parser.add_argument('--direction', choices=['horizontal', 'vertical'], default='horizontal')
    parser.add_argument('--no-frame', action='store_true', help='without the frame itself beside the levels')
    parser.add_argument(
        '--tile-size', type=int, default=640, help='longer side of each picture in pixels (default: 640)'
    )
    drawing = parser.add_argument_group('heatmaps')
    add_drawing_options(drawing, FeatureVisualizer, Style, only=DRAWING)
    args = parser.parse_args()
    if osp.splitext(args.out)[1].lower() not in CODECS:
        parser.error(f'--out must end with {", ".join(CODECS)}, but is {args.out}')
    if args.tile_size < 32:
        parser.error('--tile-size must be at least 32')
    if getattr(args, 'normalize', None) == 'run':
        parser.error('--normalize run needs a run with saved maps; give two numbers for one scale in all frames')
    return args


def open_video(path):
    """The reader of a video, its frames a second, and how many frames it says it has."""
    reader = cv2.VideoCapture(path)
    if not reader.isOpened():
        raise SystemExit(f'{path} cannot be read as a video' if osp.exists(path) else f'there is no video {path}')
    return reader, reader.get(cv2.CAP_PROP_FPS) or 25.0, int(reader.get(cv2.CAP_PROP_FRAME_COUNT))


def frames_of(reader):
    while True:
        read, frame = reader.read()
        if not read:
            return
        yield frame


class FrameDrawer:
    """Makes one picture of a frame and the levels that a detector put out for it.

    Args:
        model: The detector.
        visualizer: Says what is tapped and how it looks.
        args: Of the command line.
    """

    def __init__(self, model, visualizer, args):
        self.model, self.visualizer, self.args = model, visualizer, args
        pipeline = get_test_pipeline_cfg(model.cfg.copy())
        pipeline[0].type = 'mmdet.LoadImageFromNDArray'
        self.pipeline = Compose(pipeline)
        self.views = Views(visualizer.style)

    def draw(self, frame):
        snapshot = take(self.model, frame, self.visualizer, self.pipeline)
        tiles = [] if self.args.no_frame else [('frame', self.tile(frame, snapshot))]
        placed = self.views.place(snapshot)
        for one in self.chosen(placed):
            picture = self.views.laid_over(frame, one, placed)
            tiles.append((f'{one.level.name}, stride {one.level.stride_text}', self.tile(picture, snapshot)))
        return joined(tiles, self.args.direction)

    def tile(self, picture, snapshot):
        """Scaled first, so that boxes and letters have the same size in every video."""
        tile = shrink(picture, self.args.tile_size)
        return self.views.with_boxes(tile, snapshot, len(tile) / len(picture))

    def chosen(self, placed):
        wanted = fits(self.args.levels)
        found = [one for one in placed if wanted(one.level.name)]
        if not found:
            names = ', '.join(one.level.name for one in placed)
            raise SystemExit(f'no level fits --levels {" ".join(self.args.levels or ["*"])}: there are {names}')
        return found


def joined(tiles, direction):
    """One picture of even height and width, which codecs want, with a caption above each tile."""
    captioned = []
    for caption, tile in tiles:
        label = np.full((CAPTION_HEIGHT, tile.shape[1], 3), 255, np.uint8)
        cv2.putText(label, caption, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
        captioned.append(np.concatenate([label, tile]))
    picture = np.concatenate(captioned, axis=1 if direction == 'horizontal' else 0)
    height, width = picture.shape[:2]
    return cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def write_video(path, pictures, fps):
    """Write pictures of one size; returns how many. Under another name first, so that no half video is left there."""
    stem, ending = osp.splitext(path)
    temporary, writer, count = f'{stem}.part{ending}', None, 0
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    try:
        for picture in pictures:
            if writer is None:
                codec = cv2.VideoWriter_fourcc(*CODECS[ending.lower()])
                writer = cv2.VideoWriter(temporary, codec, fps, picture.shape[1::-1])
                if not writer.isOpened():
                    raise SystemExit(f'{path} cannot be written as {ending}: try .avi, or another folder')
            writer.write(picture)
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if count:
        os.replace(temporary, path)
    return count


def main():
    args = parse_args()
    reader, fps, expected = open_video(args.video)
    visualizer, model = visualizer_and_model(args)
    try:
        visualizer.taps = visualizer.make_taps(model)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    drawer = FrameDrawer(model, visualizer, args)
    frames = tqdm(frames_of(reader), total=max(expected, 0) or None, unit='frame')
    count = write_video(args.out, map(drawer.draw, frames), fps)
    if not count:
        raise SystemExit(f'{args.video} has no frame that can be read')
    early = f'; the video says it has {expected}, but ended early' if count < expected else ''
    print(f'{count} frames at {fps:g} a second in {args.out}{early}')


if __name__ == '__main__':
    main()
