"""featviz video: the heat follows the objects, at the frame rate of the video, and errors."""

import cv2
import numpy as np
import pytest
from commands import run

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
    assert done.stdout.strip().splitlines()[-1] == f'12 frames at 7.5 fps in {out}'
    assert [path.name for path in out.parent.iterdir()] == ['heat.avi']
    reader = cv2.VideoCapture(str(out))
    assert reader.get(cv2.CAP_PROP_FPS) == pytest.approx(7.5)
    for number in range(12):
        frame = reader.read()[1].astype(float).mean(2)
        right, below = (96, 24) if direction == 'horizontal' else (0, 88 + 24)
        for x, y in ((0, 24), (right, below)):  # the frame, and the heat
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


def test_levels_that_do_not_exist(pools_project, video, tmp_path):
    out = tmp_path / 'x.avi'
    done = run('video_demo.py', video, 'pools.py', 'pools.pth', '--out', out, '--levels', 'neck_*', cwd=pools_project)
    assert '--levels neck_* matches no level: choose from backbone_0, backbone_1' in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.mp4', 'pools.py', '--out', 'x.mp4'], 'there is no video none.mp4'),
        (['images/notes.txt', 'pools.py', '--out', 'x.mp4'], 'notes.txt cannot be read as a video'),
        (['none.mp4', 'pools.py', '--out', 'x.gif'], '--out must end with one of .mp4, .avi'),
    ],
)
def test_mistakes_end_with_a_message(pools_project, arguments, message):
    done = run('video_demo.py', *arguments, cwd=pools_project)
    assert done.returncode != 0
    assert message in done.stderr.strip().splitlines()[-1]
