"""Video files: reads the frames of a video, and writes pictures as H.264, GIF or what OpenCV can encode."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import os.path as osp
from fractions import Fraction
from typing import Iterable, Iterator

import cv2
import numpy as np

FORMATS = ('.mp4', '.mov', '.mkv', '.avi', '.gif')
FOURCC = {'.avi': 'MJPG'}  # of OpenCV's encoders; the others have the next one
MPEG4 = 'mp4v'
GIF_FPS = 50  # browsers show faster GIFs at 10 frames per second
H264_QUALITY = {'crf': '18', 'x264-params': 'colorprim=bt709:transfer=bt709:colormatrix=bt709'}


class Video:
    """A video to read.

    Args:
        path: The file.

    Attributes:
        fps: Frames per second.
        count: Number of frames according to the header, which may be wrong; 0 if it has none.

    Raises:
        OSError: If the file does not exist or cannot be read as a video.
    """

    def __init__(self, path: str) -> None:
        self._reader = cv2.VideoCapture(path)
        if not self._reader.isOpened():
            raise OSError(f'{path} cannot be read as a video' if osp.exists(path) else f'there is no video {path}')
        self.fps = self._reader.get(cv2.CAP_PROP_FPS) or 25.0
        self.count = max(int(self._reader.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def numbers(self, start: float = 0.0, end: float = math.inf, step: int = 1) -> range:
        """Numbers of the frames from `start` to before `end`, in seconds, as far as the header knows."""
        last = min(self.count, self._first(end) if math.isfinite(end) else self.count)
        return range(self._first(start), last, step)

    def frames(self, start: float = 0.0, end: float = math.inf, step: int = 1) -> Iterator[np.ndarray]:
        """Iterate once over every `step`-th frame (H, W, 3), BGR, from `start` to before `end`, in seconds.

        Frames before `start` are decoded, too: where a jump in a video leads is not exact.
        """
        first = self._first(start)
        for number in itertools.count():
            if number / self.fps >= end - 1e-9 or not self._reader.grab():
                return
            if number >= first and (number - first) % step == 0:
                read, frame = self._reader.retrieve()
                if not read:
                    return
                yield frame

    def _first(self, seconds: float) -> int:
        """The number of the first frame that is not before a time."""
        return math.ceil(seconds * self.fps - 1e-6)


def encoding_of(path: str) -> str:
    """Name the encoding that :func:`write_video` uses for a file."""
    extension = osp.splitext(path)[1].lower()
    if extension in ('.gif', '.avi'):
        return {'.gif': 'GIF', '.avi': 'Motion JPEG'}[extension]
    return 'H.264' if _has_h264() else 'MPEG-4 Part 2'


def write_video(path: str, pictures: Iterable[np.ndarray], fps: float) -> int:
    """Write pictures of equal size as a video, under a temporary name until it is complete.

    H.264, which browsers play, needs PyAV. Without it, OpenCV writes MPEG-4 Part 2. A GIF is kept in memory until it is
    complete, one byte for each pixel.

    Args:
        path: The video; its extension is one of `FORMATS`. A file of this name is replaced.
        pictures: (H, W, 3), BGR, of even height and width.
        fps: Frames per second; at most `GIF_FPS` for a GIF.

    Returns:
        The number of frames written; without any, there is no file.

    Raises:
        OSError: If the format or the folder cannot be written.
    """
    stem, extension = osp.splitext(path)
    temporary, count = f'{stem}.part{extension}', 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal count
        for picture in itertools.chain([first], pictures):
            count += 1
            yield picture

    pictures = iter(pictures)
    first = next(pictures, None)
    if first is None:
        return 0
    write = {'GIF': _write_gif, 'H.264': _write_h264}.get(encoding_of(path), _write_with_opencv)
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    try:
        write(temporary, counted(), fps, first.shape[:2])
        os.replace(temporary, path)
    finally:
        if osp.exists(temporary):  # the video is not complete
            os.remove(temporary)
    return count


def _has_h264() -> bool:
    return importlib.util.find_spec('av') is not None


def _write_h264(path: str, pictures: Iterable[np.ndarray], fps: float, size: tuple[int, int]) -> None:
    import av  # an extra

    is_mp4 = osp.splitext(path)[1].lower() in ('.mp4', '.mov')
    # The index at the beginning lets a browser play a video before it has all of it.
    with av.open(path, 'w', options=dict(movflags='faststart') if is_mp4 else {}) as container:
        stream = container.add_stream('libx264', rate=Fraction(fps).limit_denominator(1001), options=H264_QUALITY)
        stream.height, stream.width = size
        stream.pix_fmt = 'yuv420p'  # the one that every browser plays
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='bgr24')
            container.mux(stream.encode(frame.reformat(format='yuv420p', dst_colorspace='ITU709')))
        container.mux(stream.encode())


def _write_gif(path: str, pictures: Iterable[np.ndarray], fps: float, size: tuple[int, int]) -> None:
    from PIL import Image

    def images() -> Iterator[Image.Image]:
        for number, picture in enumerate(pictures):
            image = Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))
            image = image.quantize(palette=image.quantize())  # with a palette that is given, Pillow dithers
            # Durations are hundredths of a second: rounded times instead of durations keep the rate.
            image.info['duration'] = 10 * (round(100 * (number + 1) / fps) - round(100 * number / fps))
            yield image

    frames = images()
    next(frames).save(path, save_all=True, append_images=frames, loop=0)


def _write_with_opencv(path: str, pictures: Iterable[np.ndarray], fps: float, size: tuple[int, int]) -> None:
    extension = osp.splitext(path)[1].lower()
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*FOURCC.get(extension, MPEG4)), fps, size[::-1])
    try:
        if not writer.isOpened():
            raise OSError(f'{path} cannot be written as {extension}: try .avi, or another folder')
        for picture in pictures:
            writer.write(picture)
    finally:
        writer.release()
