"""Video: reads frames, draws the heat of each level next to them, and writes a video."""

from __future__ import annotations

import os
import os.path as osp
from fnmatch import fnmatchcase
from typing import Iterable, Iterator, Sequence

import cv2
import numpy as np
from torch import nn

from mmdet_featviz.apis.inference import build_pipeline, take_snapshot
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.runs.component_fit import fit_components
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.sheets import shrink_to_tile
from mmdet_featviz.visualization.unseen_pixels import unseen_caption
from mmdet_featviz.visualization.views import PlacedLevel, Views

CODECS = {'.mp4': 'mp4v', '.avi': 'MJPG', '.mkv': 'mp4v', '.mov': 'mp4v'}
CAPTION_HEIGHT = 24


class FrameDrawer:
    """Draws one picture per frame: the frame itself, and the heat of each level over it, as tiles.

    With ``reduction='pca'``, the components are those of the first frame, for all frames.

    Args:
        model: The detector.
        visualizer: A visualizer with taps on the detector.
        levels: Names of the levels to draw; ``*`` matches any characters. None draws all.
        tile_size: Longer side of each tile, in pixels.
        direction: ``horizontal`` puts the tiles side by side, ``vertical`` one below the other.
        with_frame: Whether the first tile is the plain frame.
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
        self._pipeline = build_pipeline(model, of_arrays=True)
        self._views = Views(visualizer.style)

    def draw(self, frame: np.ndarray) -> np.ndarray:
        """Predict on a frame, and return its picture.

        Args:
            frame: (H, W, 3), BGR.

        Raises:
            ValueError: If `levels` match no level.
        """
        snapshot = take_snapshot(self.model, frame, self.visualizer, self._pipeline)
        if self._views.components is None:
            components = fit_components(lambda: [snapshot], self._views.style)
            self._views = Views(self._views.style, components=components)
        tiles = [('frame', self._tile(frame, snapshot))] if self.with_frame else []
        placed = self._views.place(snapshot)
        for shown in self._select_levels(placed):
            picture = self._views.overlay_level(frame, shown, placed)
            caption = f'{shown.level.name}, stride {shown.level.stride_text}'
            caption = ', '.join([caption, *unseen_caption(snapshot.placement.seen)])
            tiles.append((caption, self._tile(picture, snapshot)))
        return _join(tiles, self.direction)

    def _tile(self, picture: np.ndarray, snapshot: Snapshot) -> np.ndarray:
        """Scale a picture to a tile and draw boxes on it, with lines of the same width in every video."""
        tile = shrink_to_tile(picture, self.tile_size)
        return self._views.draw_boxes(tile, snapshot, len(tile) / len(picture))

    def _select_levels(self, placed: Sequence[PlacedLevel]) -> list[PlacedLevel]:
        names = [level.level.name for level in placed]
        selected = [
            level for level, name in zip(placed, names) if any(fnmatchcase(name, pattern) for pattern in self.levels)
        ]
        if not selected:
            raise ValueError(f'--levels {" ".join(self.levels)} matches no level: choose from {", ".join(names)}')
        return selected


def open_video(path: str) -> tuple[cv2.VideoCapture, float, int]:
    """Open a video.

    Returns:
        The reader, the frames per second, and the number of frames according to the header, which may be wrong.

    Raises:
        OSError: If the file does not exist or cannot be read as a video.
    """
    reader = cv2.VideoCapture(path)
    if not reader.isOpened():
        raise OSError(f'{path} cannot be read as a video' if osp.exists(path) else f'there is no video {path}')
    return reader, reader.get(cv2.CAP_PROP_FPS) or 25.0, int(reader.get(cv2.CAP_PROP_FRAME_COUNT))


def read_frames(reader: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """Iterate over the frames of a video: (H, W, 3), BGR."""
    while True:
        read, frame = reader.read()
        if not read:
            return
        yield frame


def write_video(path: str, pictures: Iterable[np.ndarray], fps: float) -> int:
    """Write pictures of equal size as a video, under a temporary name until it is complete.

    Args:
        path: The video; its extension is one of `CODECS`.
        pictures: (H, W, 3), BGR.
        fps: Frames per second.

    Returns:
        The number of frames written.

    Raises:
        OSError: If the format or the folder cannot be written.
    """
    stem, extension = osp.splitext(path)
    temporary, writer, count = f'{stem}.part{extension}', None, 0
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    try:
        for picture in pictures:
            if writer is None:
                codec = cv2.VideoWriter_fourcc(*CODECS[extension.lower()])
                writer = cv2.VideoWriter(temporary, codec, fps, picture.shape[1::-1])
                if not writer.isOpened():
                    raise OSError(f'{path} cannot be written as {extension}: try .avi, or another folder')
            writer.write(picture)
            count += 1
        if writer is not None:
            writer.release()
            os.replace(temporary, path)
    finally:
        if writer is not None:
            writer.release()
        if osp.exists(temporary):  # the video is not complete
            os.remove(temporary)
    return count


def _join(tiles: Sequence[tuple[str, np.ndarray]], direction: str) -> np.ndarray:
    """Join tiles and their captions into one picture of even height and width, as video codecs require."""
    captioned = []
    for caption, tile in tiles:
        label = np.full((CAPTION_HEIGHT, tile.shape[1], 3), 255, np.uint8)
        cv2.putText(label, caption, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
        captioned.append(np.concatenate([label, tile]))
    picture = np.concatenate(captioned, axis=1 if direction == 'horizontal' else 0)
    height, width = picture.shape[:2]
    return cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
