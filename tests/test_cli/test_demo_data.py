"""featviz demo-data: reproducible scenes with shapes of the documented sizes."""

import numpy as np
from commands import featviz
from conftest import read

from mmdet_featviz.benchmarks.demo_data import MAX_SIZE, MIN_SIZE, make_scene, make_split


def test_scenes_are_reproducible_and_of_the_documented_sizes(tmp_path):
    scene, objects = make_scene('val', 3)
    again, same = make_scene('val', 3)
    np.testing.assert_array_equal(scene, again)
    assert objects == same
    assert (make_scene('train', 3)[0] != scene).any()
    make_split(tmp_path, 'val', 4)
    assert np.abs(read(tmp_path / 'val' / 'scene_0003.jpg').astype(int) - scene).mean() < 6
    sizes = [max(box[2:]) for index in range(20) for _, box in make_scene('val', index)[1]]
    assert MIN_SIZE - 0.1 <= min(sizes) < 24
    assert 180 < max(sizes) <= MAX_SIZE + 0.1
    for _, (x, y, w, h) in objects:
        assert x >= 0
        assert y >= 0
        assert x + w <= 640
        assert y + h <= 480


def test_the_command_writes_the_splits_that_have_scenes(tmp_path):
    done = featviz('demo-data', '--out-dir', tmp_path / 'data', '--train', 0, '--val', 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f'2 scenes in {tmp_path / "data" / "val"}'
    assert sorted(path.name for path in (tmp_path / 'data').iterdir()) == ['val', 'val.json']
