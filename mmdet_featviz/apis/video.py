"""Video: one picture per frame, with the heat of each level."""

from __future__ import annotations

import os
import os.path as osp
from fnmatch import fnmatchcase
from typing import Iterable, Iterator, Sequence

import cv2
import numpy as np
from mmcv.transforms import Compose
from mmdet.utils import get_test_pipeline_cfg
from torch import nn

from mmdet_featviz.apis.inference import take_snapshot
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.sheets import shrink_to_tile
from mmdet_featviz.visualization.views import PlacedLevel, Views

CODECS = {'.mp4': 'mp4v', '.avi': 'MJPG', '.mkv': 'mp4v', '.mov': 'mp4v'}
CAPTION_HEIGHT = 24


class FrameDrawer:
    """Makes one picture of a frame and of the levels that a detector computes for it.

    Args:
        model: The detector.
        visualizer: With taps on the detector.
        levels: Names of the levels to draw, with ``*`` for any part; None is all.
        tile_size: Longer side of each tile, in pixels.
        direction: ``horizontal`` puts the tiles side by side, ``vertical`` one above the other.
        with_frame: Whether the first tile is the frame itself.
    """

    def __init__(
        self,
        model: nn.Module,
        visualizer: FeatureVisualizer,
        levels: Sequence[str] | None = None,
        tile_size: int = 640,
        direction: str = 'horizontal',
        with_frame: bool = True,
    ) -> None:
        self.model = model
        self.visualizer = visualizer
        self.levels = levels or ('*',)
        self.tile_size = tile_size
        self.direction = direction
        self.with_frame = with_frame
        pipeline = get_test_pipeline_cfg(model.cfg.copy())
        pipeline[0].type = 'mmdet.LoadImageFromNDArray'
        self._pipeline = Compose(pipeline)
        self._views = Views(visualizer.style)

    def draw(self, frame: np.ndarray) -> np.ndarray:
        """The picture of a frame (H, W, 3), BGR.

        Raises:
            ValueError: If no level has one of the names.
        """
        snapshot = take_snapshot(self.model, frame, self.visualizer, self._pipeline)
        tiles = [('frame', self._tile(frame, snapshot))] if self.with_frame else []
        placed = self._views.place(snapshot)
        for one in self._chosen(placed):
            picture = self._views.overlay_level(frame, one, placed)
            tiles.append((f'{one.level.name}, stride {one.level.stride_text}', self._tile(picture, snapshot)))
        return _join(tiles, self.direction)

    def _tile(self, picture: np.ndarray, snapshot: Snapshot) -> np.ndarray:
        """Scaled first, so that boxes and letters have the same size in every video."""
        tile = shrink_to_tile(picture, self.tile_size)
        return self._views.draw_boxes(tile, snapshot, len(tile) / len(picture))

    def _chosen(self, placed: Sequence[PlacedLevel]) -> list[PlacedLevel]:
        found = [one for one in placed if any(fnmatchcase(one.level.name, name) for name in self.levels)]
        if not found:
            names = ', '.join(one.level.name for one in placed)
            raise ValueError(f'no level fits --levels {" ".join(self.levels)}: there are {names}')
        return found


def open_video(path: str) -> tuple[cv2.VideoCapture, float, int]:
    """The reader of a video, its frames per second, and how many frames its header announces.

    Raises:
        OSError: If there is no such file, or it is no video.
    """
    reader = cv2.VideoCapture(path)
    if not reader.isOpened():
        raise OSError(f'{path} cannot be read as a video' if osp.exists(path) else f'there is no video {path}')
    return reader, reader.get(cv2.CAP_PROP_FPS) or 25.0, int(reader.get(cv2.CAP_PROP_FRAME_COUNT))


def read_frames(reader: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames (H, W, 3), BGR."""
    while True:
        read, frame = reader.read()
        if not read:
            return
        yield frame


def write_video(path: str, pictures: Iterable[np.ndarray], fps: float) -> int:
    """Write pictures of one size as a video, under another name until it is complete.

    Returns:
        The number of frames.

    Raises:
        OSError: If the format or the folder cannot be written.
    """
    stem, ending = osp.splitext(path)
    temporary, writer, count = f'{stem}.part{ending}', None, 0
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    try:
        for picture in pictures:
            if writer is None:
                codec = cv2.VideoWriter_fourcc(*CODECS[ending.lower()])
                writer = cv2.VideoWriter(temporary, codec, fps, picture.shape[1::-1])
                if not writer.isOpened():
                    raise OSError(f'{path} cannot be written as {ending}: try .avi, or another folder')
            writer.write(picture)
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if count:
        os.replace(temporary, path)
    return count


def _join(tiles: Sequence[tuple[str, np.ndarray]], direction: str) -> np.ndarray:
    """One picture of even height and width, which codecs require, with a caption above each tile."""
    captioned = []
    for caption, tile in tiles:
        label = np.full((CAPTION_HEIGHT, tile.shape[1], 3), 255, np.uint8)
        cv2.putText(label, caption, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
        captioned.append(np.concatenate([label, tile]))
    picture = np.concatenate(captioned, axis=1 if direction == 'horizontal' else 0)
    height, width = picture.shape[:2]
    return cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
