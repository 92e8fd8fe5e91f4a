"""Video files: H.264 in a browser, MPEG-4 where its encoder is missing, the rates of GIFs."""

import base64
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet_featviz.apis import video_file
from mmdet_featviz.apis.video_file import Video, encoding_of, write_video
from mmdet_featviz.cli.video import _describe

COLORS = (200, 60, 40), (40, 180, 60), (60, 50, 190), (230, 230, 230)  # BGR, of the quarters of a picture
OPEN_VIDEO = """
const [bytes, time] = arguments;
const data = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
window.video = document.createElement('video');
video.onloadeddata = () => { video.currentTime = time; };
video.src = URL.createObjectURL(new Blob([data], { type: 'video/mp4' }));
"""
DRAW_FRAME = """
const canvas = document.createElement('canvas');
[canvas.width, canvas.height] = [96, 64];
const context = canvas.getContext('2d');
context.drawImage(video, 0, 0);
return {
  error: video.error && video.error.message,
  size: [video.videoWidth, video.videoHeight],
  duration: video.duration,
  pixels: [...context.getImageData(0, 0, 96, 64).data],
};
"""


def quarters(number):
    """A picture of four colors, which move on by a quarter with each frame."""
    turned = COLORS[number % 4 :] + COLORS[: number % 4]
    picture = np.empty((64, 96, 3), np.uint8)
    for quarter, color in enumerate(turned):
        row, column = 32 * (quarter // 2), 48 * (quarter % 2)
        picture[row : row + 32, column : column + 48] = color
    return picture


def test_a_browser_plays_h264_with_the_right_colors(browser, tmp_path):
    pytest.importorskip('av', reason='PyAV, the encoder of H.264, is not installed')
    path = tmp_path / 'a.mp4'
    assert write_video(str(path), map(quarters, range(8)), 29.97) == 8
    assert encoding_of(str(path)) == _describe(str(path)) == 'H.264'
    browser.get('about:blank')  # not under the policy of a report page
    browser.execute_script(OPEN_VIDEO, base64.b64encode(path.read_bytes()).decode(), 5.5 / 29.97)
    end = time.monotonic() + 20
    while True:  # a frame can be drawn some time after the browser says that it has found it
        shown = browser.execute_script(DRAW_FRAME)
        difference = _largest_difference(np.array(shown['pixels'], int).reshape(64, 96, 4), quarters(5))
        if difference <= 10 or shown['error'] or time.monotonic() > end:
            break
    assert (shown['error'], shown['size']) == (None, [96, 64])
    assert shown['duration'] == pytest.approx(8 / 29.97, abs=0.01)
    assert difference <= 10  # 20 with the colors of BT.601


def _largest_difference(shown, expected):
    """Of RGBA pixels from a BGR picture, away from the edges of its quarters, where colors are mixed."""
    differences = np.abs(shown[..., 2::-1] - expected.astype(int)).reshape(2, 32, 2, 48, 3)
    return differences[:, 8:24, :, 8:40].max()


def test_without_the_encoder_it_is_mpeg4_and_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, '_has_h264', lambda: False)
    path = str(tmp_path / 'a.mp4')
    assert write_video(path, map(quarters, range(3)), 10) == 3
    assert cv2.VideoCapture(path).read()[0]
    assert _describe(path) == 'MPEG-4 Part 2, which browsers do not play: for H.264, pip install av'


def test_nothing_is_written_without_frames(tmp_path):
    assert write_video(str(tmp_path / 'a.gif'), [], 10) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('fps', [24, 30, Fraction(30000, 1001), 7.5])
def test_a_gif_keeps_the_rate_although_its_durations_are_hundredths_of_seconds(tmp_path, fps):
    path = str(tmp_path / 'a.gif')
    write_video(path, map(quarters, range(21)), float(fps))
    with Image.open(path) as gif:
        total = 0
        for number in range(gif.n_frames):
            gif.seek(number)
            total += gif.info['duration']
            colors = np.asarray(gif.convert('RGB'))[..., ::-1].astype(int)
            assert np.abs(colors - quarters(number)).max() <= 4
    assert total == pytest.approx(21_000 / fps, abs=5)


@pytest.mark.parametrize(
    ('span', 'numbers'),
    [
        ((0, np.inf, 1), range(10)),
        ((0, np.inf, 3), [0, 3, 6, 9]),
        ((0.3, 0.6, 1), [3, 4, 5]),
        ((0.21, 0.79, 2), [3, 5, 7]),
        ((2, np.inf, 1), []),
    ],
)
def test_the_frames_of_a_part_of_a_video(tmp_path, span, numbers):
    path = str(tmp_path / 'a.avi')
    write_video(path, (np.full((32, 32, 3), 20 * number, np.uint8) for number in range(10)), 10)
    video = Video(path)
    assert (video.fps, video.count, list(video.numbers(*span))) == (10, 10, list(numbers))
    assert [round(frame.mean() / 20) for frame in video.frames(*span)] == list(numbers)
