"""Snapshot builder: the passes of test-time augmentation and their mean, in a runner."""

import copy
import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import (
    FLIP_KEYS,
    keep_ratio_pipeline,
    manifest,
    noise,
    pictures,
    pool_detector,
    read,
    resnet_detector,
    runner_config,
    write_dataset,
)
from mmengine.config import ConfigDict
from mmengine.runner import Runner

from mmdet_featviz.apis.snapshot_builder import average_snapshots
from mmdet_featviz.cli.test import add_tta
from mmdet_featviz.runs.maps_file import dump_snapshot, parse_snapshot
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Views

SCALES = [(160, 120), (100, 100)]
FLIPS = [1.0, 0.0]


def run(data, folder, model, pipeline, tta_pipeline=None, tta=True, **options):
    """Run a test, and return the folder with its heatmaps."""
    hook = dict(out_dir=str(folder / 'out'), save=('heatmap',), colormap='gray', **options)
    cfg = runner_config(data, folder / 'work', model, pipeline, hook=hook)
    if tta:
        cfg.tta_model = dict(
            type='DetTTAModel', tta_cfg=ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
        )
        if tta_pipeline is not None:
            cfg.tta_pipeline = tta_pipeline
        add_tta(cfg)
    Runner.from_cfg(cfg).test()
    return folder / 'out'


@pytest.mark.filterwarnings('ignore:the config has no tta_pipeline')
@pytest.mark.parametrize('width', [120, 117])
def test_the_mean_of_passes_is_symmetric_for_a_symmetric_model_and_image(tmp_path, width):
    """A single pass is not symmetric: the input is padded on the right, so coarse cells do not end at the edge."""
    image = noise(90, width).astype(np.float32)
    image = np.round((image + image[:, ::-1]) / 2).astype(np.uint8)
    data = write_dataset(tmp_path / 'data', {'a.png': image})
    pipeline = keep_ratio_pipeline((100, 100))
    out = run(data, tmp_path, pool_detector(), pipeline, normalize=(0, 255), average_passes=True)
    assert len(pictures(out)) == 3 * 6
    for level in range(6):
        single, mean = (
            read(out / 'a' / f'backbone_{level}{suffix}.heatmap.png')[..., 0].astype(int) for suffix in ('', '.mean')
        )
        assert np.abs(mean - mean[:, ::-1]).max() <= 1
        if level in (3, 4):
            assert np.abs(single - single[:, ::-1]).max() > 5


def test_what_a_pass_cropped_away_does_not_count_in_the_mean():
    """One pass saw the left half, one the right half, and neither the last 8 columns; both saw columns 16 to 31."""

    def one_pass(left, value):
        placement = Placement(np.array([[1.0, 0, -left], [0, 1, 0], [0, 0, 1]]), (16, 56), (16, 32))
        return Snapshot('a', None, 0, placement, [Level('neck', 0, 4, (8, 8), np.full((2, 4), value, np.float32))])

    mean = average_snapshots([one_pass(0, 3), one_pass(16, 7)], 'center').levels[0].values
    expected = np.repeat(np.array([3, 5, 7, np.nan], np.float32), [16, 16, 16, 8])
    np.testing.assert_array_equal(mean, np.tile(expected, (16, 1)))


@pytest.mark.parametrize('nothing', [np.nan, np.inf])
def test_a_pass_without_a_finite_value_does_not_count_in_the_mean(nothing):
    placement = Placement(np.eye(3), (16, 32), (16, 32))
    passes = [
        Snapshot('a', None, 0, placement, [Level('neck', 0, 4, (8, 8), np.full((2, 4), value, np.float32))])
        for value in (nothing, 2, 4)
    ]
    for order in (passes, passes[::-1]):
        (level,) = average_snapshots(order, 'center').levels
        np.testing.assert_array_equal(level.values, np.full((16, 32), 3))
    (level,) = average_snapshots(passes[:1] * 2, 'center').levels
    assert not level.values.any()  # NaN is what no pass has seen


def test_each_pass_is_drawn_like_a_plain_run_with_its_transforms(tmp_path):
    """Two scales, each flipped and unflipped, with a network whose response is not symmetric."""
    data = write_dataset(tmp_path / 'data', {'a.png': noise(90, 120)})
    plain = keep_ratio_pipeline(meta_keys=FLIP_KEYS)
    resize, pack = plain[1], plain[-1]
    load, flip = plain[0], dict(type='RandomFlip', prob=1.0)
    resizes = [{**resize, 'scale': scale} for scale in SCALES]
    flips = [{**flip, 'prob': prob} for prob in FLIPS]
    augmented = [load, dict(type='TestTimeAug', transforms=[resizes, flips, [pack]])]
    tta_run = run(data, tmp_path / 'tta', resnet_detector(), plain, copy.deepcopy(augmented))
    for number, (resize, flip) in enumerate(itertools.product(resizes, flips)):
        pipeline = [load, resize, flip, pack]
        plain_run = run(data, tmp_path / f'plain_{number}', resnet_detector(), copy.deepcopy(pipeline), tta=False)
        ours = [entry for entry in manifest(tta_run) if entry['augmentation'] == number]
        theirs = manifest(plain_run)
        assert len(ours) == len(theirs) == 9
        for one, other in zip(ours, theirs):
            for fact in ('layer', 'level', 'stride', 'shape', 'min', 'max'):
                assert one[fact] == other[fact], fact
            np.testing.assert_array_equal(read(tta_run / one['files'][0]), read(plain_run / other['files'][0]))


def test_the_mean_of_passes_has_the_mean_of_their_values():
    """Of three passes, the last one flipped; all cells are 4 pixels wide."""
    size, rng = (8, 16), np.random.default_rng(0)
    maps = rng.normal(size=(3, 2, 4)).astype(np.float32)
    mirror = np.array([[-1.0, 0, size[1]], [0, 1, 0], [0, 0, 1]])
    passes = [
        Snapshot('a', None, number, Placement(matrix, size, size), [Level('neck', 0, 8, (4.0, 4.0), values)])
        for number, (matrix, values) in enumerate(zip((np.eye(3), np.eye(3), mirror), maps))
    ]
    mean = average_snapshots(passes, 'center')
    assert (mean.augmentation, mean.levels[0].stride) == ('mean', (1.0, 1.0))
    upright = np.stack([maps[0], maps[1], maps[2][:, ::-1]]).astype(np.float64)
    heats = [cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR) for values in upright]
    np.testing.assert_allclose(mean.levels[0].values, sum(heats) / 3, atol=1e-5)


def test_pixels_that_no_pass_saw_are_hatched_in_the_mean(tmp_path):
    """The passes saw columns 16 to 47 and 24 to 63 of 96; also when drawn from saved maps."""
    image, values = noise(64, 96), np.arange(32, dtype=np.float32).reshape(8, 4)
    passes = [
        Snapshot('a', None, number, Placement(matrix, (64, 96), (64, width)), [Level('neck', 0, 4, (8.0, 8.0), values)])
        for number, (matrix, width) in enumerate([(shifted(-16), 32), (shifted(-24), 40)])
    ]
    mean = replace(average_snapshots(passes, 'center'), image=lambda: image, is_file=True)
    saved = replace(parse_snapshot(dump_snapshot(mean), 'a'), image=lambda: image)
    for snapshot in (mean, saved):
        views = Views(Style(save=('overlay', 'heatmap', 'panel')))
        overlay, heatmap, _ = (picture.pixels for picture in views.draw(snapshot, views.place(snapshot)))
        for picture, below in ((overlay, image), (heatmap, 255)):
            same = (picture == below).all(2)
            assert 0.6 < same[:, :16].mean() < 0.9
            assert 0.6 < same[:, 64:].mean() < 0.9
            assert same[:, 16:64].mean() < 0.1


def shifted(columns):
    return np.array([[1.0, 0, columns], [0, 1, 0], [0, 0, 1]])
