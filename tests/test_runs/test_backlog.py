"""Backlog: nothing is lost or changed on the way, and what was not written to its end is left out."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import noise

from mmdet_featviz.runs import backlog as backlog_module
from mmdet_featviz.runs.backlog import Backlog, can_wait
from mmdet_featviz.runs.maps_file import parse_snapshot
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.channel_maps import ChannelMaps
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), noise(48, 64))
    return path


def snapshot(path, augmentation=0, cells=(6, 8), **changes):
    values = np.random.default_rng(augmentation).normal(size=cells).astype(np.float32)
    boxes = Boxes(np.array([[0.1, 1 / 3, 50, 40]]), np.array([3]), np.array([2 / 3]))
    placement = identity_placement((48, 64), (48, 64))
    level = Level('neck', 0, 16, (8.0, 8.0), values)
    return replace(Snapshot('key', str(path), augmentation, placement, [level], boxes=boxes), **changes)


def test_images_come_back_in_order_with_all_their_passes_and_unchanged(tmp_path, path):
    backlog = Backlog(str(tmp_path / 'backlog'))
    assert (len(backlog), list(backlog)) == (0, [])
    images = [[snapshot(path, 0), snapshot(path, 1)], [snapshot(path, 2)], [snapshot(path, 3), snapshot(path, 4)]]
    for image in images:
        backlog.add(image)
    assert len(backlog) == 3
    loaded = [[parse_snapshot(data, 'backlog') for data in image] for image in backlog]
    assert [[one.augmentation for one in image] for image in loaded] == [[0, 1], [2], [3, 4]]
    for before, after in zip(sum(images, []), sum(loaded, [])):
        np.testing.assert_array_equal(before.levels[0].values, after.levels[0].values)
        assert after.levels[0].values.dtype == np.float32
        for field in ('corners', 'labels', 'scores'):
            one, other = getattr(before.boxes, field), getattr(after.boxes, field)
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
    backlog.remove()
    backlog.remove()
    assert not (tmp_path / 'backlog').exists()


def test_nothing_is_written_through_a_link(tmp_path, path):
    """A run folder from elsewhere, which is resumed, may have links that lead out of it."""
    (tmp_path / 'theirs').write_bytes(b'theirs')
    (tmp_path / 'backlog').symlink_to(tmp_path / 'theirs')
    with pytest.raises(ValueError, match='is a link, and its target is no file of the run: remove the link'):
        Backlog(str(tmp_path / 'backlog')).add([snapshot(path)])
    assert (tmp_path / 'theirs').read_bytes() == b'theirs'


def test_what_a_killed_process_did_not_write_to_its_end_is_left_out(tmp_path, path):
    file = tmp_path / 'backlog'
    Backlog(str(file)).add([snapshot(path)])
    whole = file.read_bytes()
    for length in (*range(len(whole), len(whole) + 12), len(whole) + 100, 2 * len(whole) - 1):
        file.write_bytes((whole + whole)[:length])
        assert len(Backlog(str(file))) == len(list(Backlog(str(file)))) == 1


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, path, monkeypatch):
    backlog = Backlog(str(tmp_path / 'backlog'))
    backlog.add([snapshot(path)])
    before = (tmp_path / 'backlog').read_bytes()

    class FullDisk:
        def __init__(self, *args, **kwargs):
            self.file = open(*args, **kwargs)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            return self.file.write(data[:100])

    monkeypatch.setattr(backlog_module, 'open', FullDisk, raising=False)
    with pytest.raises(OSError, match='No space left on device'):
        backlog.add([snapshot(path)])
    assert (tmp_path / 'backlog').read_bytes() == before


def test_what_cannot_be_drawn_from_a_small_file_does_not_wait(tmp_path, path):
    fits = snapshot(path)
    assert can_wait(fits)
    assert not can_wait(replace(fits, is_file=False))
    assert not can_wait(replace(fits, path=str(tmp_path / 'missing.png')))
    assert not can_wait(snapshot(path, cells=(48, 64)))  # float32 maps of full size: 4 bytes per pixel, the image has 3
    raw = np.zeros((16, 6, 8), np.float32)
    assert not can_wait(replace(fits, levels=[replace(fits.levels[0], raw=raw)]))
    channels = ChannelMaps(np.arange(64), np.zeros((64, 6, 8), np.float32), np.zeros(64))  # 12 kB; the image has 9
    assert not can_wait(replace(fits, attention=[replace(fits.levels[0], pooled=channels)]))


def test_an_image_that_states_a_turn_does_not_wait(tmp_path):
    """Whether the pipeline turned it can only be seen in the network's input."""
    for orientation in (1, 3):
        exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0' + bytes([orientation]) + b'\0\0\0\0\0\0'
        jpg = cv2.imencode('.jpg', noise(48, 64))[1].tobytes()
        path = tmp_path / f'{orientation}.jpg'
        path.write_bytes(jpg[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + jpg[2:])
        assert can_wait(snapshot(path)) == (orientation == 1)
