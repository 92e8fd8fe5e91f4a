"""Input check: a pipeline that moves the image without saying so is found, and no other."""

import logging

import pytest
from conftest import FLIP_KEYS, keep_ratio_pipeline, noise, pool_detector, runner_config, write_dataset
from mmengine.config import ConfigDict
from mmengine.runner import Runner

KEYS = ('homography_matrix', 'pad_param', 'border')
ROTATE = dict(type='Rotate', prob=1.0, level=10, max_mag=20.0)
JITTER = dict(type='PhotoMetricDistortion')


def warnings_of(tmp_path, caplog, pipeline, images=None, model=None, **hook):
    """Messages of the check in a test with a pipeline."""
    images = images or {f'{n}.png': noise(90, 120, seed=n) for n in range(5)}
    data = write_dataset(tmp_path / 'data', images)
    hook = dict(out_dir=str(tmp_path / 'out'), layers='backbone', save='heatmap', **hook)
    cfg = runner_config(data, tmp_path / 'work', model or pool_detector((8,)), pipeline, hook=hook)
    cfg.test_evaluator = dict(type='KeepPredictions')
    runner = Runner.from_cfg(cfg)
    runner.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        runner.test()
    return [record.getMessage() for record in caplog.records if 'where the meta information' in record.getMessage()]


MOVED = {
    'turned': keep_ratio_pipeline((160, 120), ROTATE),
    'turned a little': keep_ratio_pipeline((160, 120), dict(ROTATE, min_mag=3.0, max_mag=3.0)),
    'sheared': keep_ratio_pipeline((160, 120), dict(type='ShearX', prob=1.0, level=10)),
    'cropped': keep_ratio_pipeline((160, 120), dict(type='RandomCrop', crop_size=(60, 80))),
    'resized twice': keep_ratio_pipeline((160, 120), dict(type='Resize', scale_factor=0.5)),
}


@pytest.mark.parametrize('name', MOVED)
def test_a_pipeline_that_moves_the_image_is_found_once(tmp_path, caplog, name):
    (message,) = warnings_of(tmp_path, caplog, MOVED[name])
    assert '0.png where the meta information places it (' in message
    assert "add 'homography_matrix' to meta_keys of PackDetInputs" in message


def tta(*transforms):
    pipeline = keep_ratio_pipeline((160, 120), meta_keys=(*FLIP_KEYS, *KEYS))
    return [pipeline[0], dict(type='TestTimeAug', transforms=[*transforms, [pipeline[-1]]])]


RESIZES = [dict(type='Resize', scale=scale, keep_ratio=True) for scale in ((160, 120), (80, 90))]
FLIPS = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
IN_PLACE = {
    'plain': keep_ratio_pipeline(),
    'turned, with homography': keep_ratio_pipeline((160, 120), ROTATE, meta_keys=KEYS),
    'flipped': keep_ratio_pipeline((90, 70), dict(type='RandomFlip', prob=1.0)),
    'jittered': keep_ratio_pipeline((160, 120), JITTER),
    'letterbox': keep_ratio_pipeline(
        (160, 120), dict(type='Pad', size=(200, 200), pad_val=dict(img=(114, 114, 114))), meta_keys=KEYS
    ),
    'flipped after Pad': keep_ratio_pipeline(
        (160, 120), dict(type='Pad', size=(200, 200)), dict(type='RandomFlip', prob=1.0)
    ),
    'solarized': keep_ratio_pipeline((160, 120), dict(type='Solarize', prob=1.0, level=5)),
    'gray': [dict(type='LoadImageFromFile', color_type='grayscale'), *keep_ratio_pipeline()[1:]],
    'scales and flips': tta(RESIZES, FLIPS),
}


@pytest.mark.parametrize('name', IN_PLACE)
def test_ordinary_pipelines_raise_no_alarm(tmp_path, caplog, name):
    model = pool_detector((8,))
    if name == 'scales and flips':
        tta_cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
        model = dict(type='DetTTAModel', tta_cfg=tta_cfg, module=model)
    images = {'0.png': noise(), '1.png': noise(seed=1) // 16, '2.png': noise(12, 10, seed=2)}
    assert warnings_of(tmp_path, caplog, IN_PLACE[name], images, model) == []


def test_a_missing_image_does_not_stop_the_check_of_others(tmp_path, caplog, monkeypatch):
    read = 'mmdet_featviz.apis.snapshot_builder.read_image'
    from mmdet_featviz.visualization.images import ImageError, read_image

    def read_others(path, *args):
        if path.endswith('0.png'):
            raise ImageError('gone')
        return read_image(path, *args)

    monkeypatch.setattr(read, read_others)
    (message,) = warnings_of(tmp_path, caplog, MOVED['turned'])
    assert '1.png where' in message
