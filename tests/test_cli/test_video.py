"""featviz video: the heat follows the objects, which frames are drawn, explanations, and errors."""

import cv2
import numpy as np
import pytest
from commands import run
from PIL import Image, ImageSequence

from mmdet_featviz.apis.video_file import write_video

SIZE = (64, 96)


@pytest.fixture(scope='module')
def video(pools_project):
    """A bright disc that moves 4 pixels to the right in each of 12 frames."""
    writer = cv2.VideoWriter(str(pools_project / 'in.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 7.5, SIZE[::-1])
    for number in range(12):
        frame = np.full((*SIZE, 3), 30, np.uint8)
        cv2.circle(frame, (20 + 4 * number, 32), 8, (240, 240, 240), -1)
        writer.write(frame)
    writer.release()
    return 'in.avi'


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_the_heat_is_on_the_object_in_each_frame(pools_project, video, tmp_path, direction):
    out = tmp_path / 'out' / 'heat.avi'
    options = ['--out', out, '--levels', 'backbone_0', '--direction', direction, '--tile-size', 96]
    done = run(
        'video_demo.py', video, 'pools.py', 'pools.pth', *options, '--alpha', 1, '--colormap', 'gray', cwd=pools_project
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == f'12 frames at 7.5 fps in {out}, Motion JPEG'
    assert [path.name for path in out.parent.iterdir()] == ['heat.avi']
    reader = cv2.VideoCapture(str(out))
    assert reader.get(cv2.CAP_PROP_FPS) == pytest.approx(7.5)
    for number in range(12):
        frame = reader.read()[1].astype(float).mean(2)
        one, two = 23, 42  # captions of one and of two lines of 14 pixels
        places = ((0, two), (96, two)) if direction == 'horizontal' else ((0, one), (0, one + 64 + two))
        for x, y in places:  # the frame, and the heat
            tile = np.clip(frame[y : y + 64, x : x + 96] - 60, 0, None)
            rows, columns = np.mgrid[:64, :96] + 0.5
            center = (tile * columns).sum() / tile.sum(), (tile * rows).sum() / tile.sum()
            assert np.hypot(center[0] - 20.5 - 4 * number, center[1] - 32.5) < 2
    assert not reader.read()[0]


def test_a_video_that_ends_early(pools_project, video, tmp_path):
    whole = (pools_project / video).read_bytes()
    (pools_project / 'torn.avi').write_bytes(whole[: len(whole) // 2])
    options = ['--out', tmp_path / 'x.avi', '--tile-size', 96]
    done = run('video_demo.py', 'torn.avi', 'pools.py', 'pools.pth', *options, cwd=pools_project)
    if done.returncode:  # some builds of OpenCV open no torn video at all
        assert 'cannot be read' in done.stderr.strip().splitlines()[-1]
        return
    last = done.stdout.strip().splitlines()[-1]
    count = int(last.split()[0])
    assert 0 < count < 12
    reader = cv2.VideoCapture(str(tmp_path / 'x.avi'))
    assert int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) == count


def test_a_single_frame_of_a_detector_without_a_checkpoint(pools_project, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'one.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5, SIZE[::-1])
    writer.write(np.full((*SIZE, 3), 30, np.uint8))
    writer.release()
    out = tmp_path / 'x.avi'
    command = [tmp_path / 'one.avi', 'pools.py', '--out', out]
    done = run('video_demo.py', *command, cwd=pools_project)
    assert 'set --random-weights' in done.stderr
    assert not out.exists()
    done = run('video_demo.py', *command, '--random-weights', cwd=pools_project)
    assert done.stdout.strip().splitlines()[-1] == f'1 frame at 5 fps in {out}, Motion JPEG; random weights'


def test_levels_that_do_not_exist(pools_project, video, tmp_path):
    out = tmp_path / 'x.avi'
    done = run('video_demo.py', video, 'pools.py', 'pools.pth', '--out', out, '--levels', 'neck_*', cwd=pools_project)
    assert '--levels neck_* matches no level: choose from backbone_0, backbone_1' in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_video_leaves_no_files(tmp_path, error):
    def pictures():
        yield np.zeros((32, 32, 3), np.uint8)
        raise error

    with pytest.raises(error):
        write_video(str(tmp_path / 'x.avi'), pictures(), 5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.mp4', 'pools.py', '--out', 'x.mp4'], 'there is no video none.mp4'),
        (['images/notes.txt', 'pools.py', '--out', 'x.mp4'], 'notes.txt cannot be read as a video'),
        (['none.mp4', 'pools.py', '--out', 'x.webm'], '--out must end with one of .mp4, .mov, .mkv, .avi, .gif'),
        (['in.avi', 'pools.py', '--out', 'in.avi', '--overwrite'], '--out is the video itself: choose another name'),
        (['in.avi', 'pools.py', '--out', 'images/a.gif', '--start', '2', '--end', '1'], 'before --end, but they are 2'),
        (['in.avi', 'pools.py', '--out', 'x.gif', '--step', '0'], '--step must be at least 1, but is 0'),
        (['in.avi', 'pools.py', '--out', 'x.gif', '--explain', 'each_level=1'], 'each_level has no effect in a video'),
        (['in.avi', 'pools.py', 'pools.pth', '--out', 'x.gif', '--start', '9'], 'it has 12 at 7.5 fps'),
        (
            ['in.avi', 'pools.py', 'pools.pth', '--out', 'x.gif', '--explain', 'targets=class yak'],
            "unknown class 'yak'",
        ),
    ],
)
def test_mistakes_end_with_a_message(pools_project, video, arguments, message):
    done = run('video_demo.py', *arguments, cwd=pools_project)
    assert done.returncode != 0
    assert message in done.stderr.strip().splitlines()[-1]


def test_a_part_of_a_video_as_gif_that_is_overwritten_only_if_asked(pools_project, video, tmp_path):
    """Frames 3, 5 and 7 of 12 at 7.5 fps; the disc moves by 8 pixels from one to the next."""
    out = tmp_path / 'heat.gif'
    command = [video, 'pools.py', 'pools.pth', '--out', out, '--tile-size', 96, '--levels', 'backbone_0']
    part = ['--start', 0.4, '--end', 1.06, '--step', 2, '--alpha', 1, '--colormap', 'gray']
    done = run('video_demo.py', *command, *part, cwd=pools_project)
    assert done.stdout.strip().splitlines()[-1] == f'3 frames at 3.75 fps in {out}, GIF'
    with Image.open(out) as gif:
        assert (gif.n_frames, gif.info['loop']) == (3, 0)
        durations = []
        for number, frame in enumerate(ImageSequence.Iterator(gif)):
            durations.append(frame.info['duration'])
            tile = np.clip(np.asarray(frame.convert('L'), float)[42:106, 96:] - 60, 0, None)
            center = (tile * (np.arange(96) + 0.5)).sum() / tile.sum()
            assert center == pytest.approx(20.5 + 4 * (3 + 2 * number), abs=2)
    assert durations == [270, 260, 270]  # 800 ms
    before = out.read_bytes()
    done = run('video_demo.py', *command, cwd=pools_project)
    assert f'{out} exists: choose another name, or add --overwrite' in done.stderr
    assert out.read_bytes() == before
    done = run('video_demo.py', *command, '--overwrite', '--end', 0.1, cwd=pools_project)
    assert done.stdout.strip().splitlines()[-1] == f'1 frame at 7.5 fps in {out}, GIF'
