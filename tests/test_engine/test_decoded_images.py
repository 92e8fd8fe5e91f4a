"""The images that a data loader in this process has decoded are drawn on; all others are read again."""

import numpy as np
import pytest
from conftest import (
    STRIDES,
    keep_ratio_pipeline,
    noise,
    pictures,
    pool_detector,
    runner_config,
    same_files,
    write_dataset,
)
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmdet_featviz.engine import decoded_images as module
from mmdet_featviz.engine.decoded_images import decoded_images
from mmdet_featviz.visualization import images

LOAD, RESIZE, *LATER = keep_ratio_pipeline()
NAMES = ['0.jpg', '1.JPEG', '2.jpg', '3.jpg', '4.jpg']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('decoded')
    return write_dataset(folder, {name: noise(seed=number) for number, name in enumerate([*NAMES, '5.png'])})


@pytest.fixture
def reads(monkeypatch):
    """The number of images that are decoded for drawing."""
    decode, count = images._decode, []
    monkeypatch.setattr(images, '_decode', lambda *args: count.append(1) or decode(*args))
    return count


def run(data, out_dir, **options):
    hook = dict(out_dir=str(out_dir), **options)
    cfg = runner_config(data, out_dir.parent / 'work', pool_detector(), batch_size=2, hook=hook)
    cfg.experiment_name = f'{out_dir.parent.name}_{out_dir.name}'
    Runner.from_cfg(cfg).test()


def test_no_image_is_decoded_twice_and_the_pictures_are_the_same(data, tmp_path, reads, monkeypatch):
    run(data, tmp_path / 'decoded', save=('overlay', 'panel'))
    assert len(reads) == 1  # the PNG file
    monkeypatch.setattr(module, 'JPEG', ('none',))
    run(data, tmp_path / 'read', save=('overlay', 'panel'))
    assert len(reads) == 1 + 6
    assert len(pictures(tmp_path / 'read')) == 6 * (len(STRIDES) + 1)
    assert same_files(tmp_path / 'decoded', tmp_path / 'read')


def loader_of(data, pipeline=(LOAD, RESIZE, *LATER), **options):
    init_default_scope('mmdet')
    cfg = ConfigDict(runner_config(data, data / 'work', pool_detector(), pipeline=list(pipeline)).test_dataloader)
    cfg.update(options)
    return Runner.build_dataloader(cfg)


@pytest.mark.parametrize(
    ('pipeline', 'options'),
    [
        ((dict(LOAD, to_float32=True), RESIZE, *LATER), {}),
        ((dict(LOAD, color_type='unchanged'), RESIZE, *LATER), {}),
        ((dict(LOAD, imdecode_backend='pillow'), RESIZE, *LATER), {}),
        ((LOAD, dict(type='PhotoMetricDistortion'), RESIZE, *LATER), {}),  # writes into the image
        ((LOAD, RESIZE, *LATER), dict(num_workers=1)),
    ],
)
def test_images_that_differ_from_those_of_the_files_are_not_kept(data, pipeline, options):
    loader = loader_of(data, pipeline, **options)
    with decoded_images(loader) as kept:
        next(iter(loader))
        assert not kept
        assert 'transform' not in vars(loader.dataset.pipeline.transforms[0])


def test_the_images_of_the_last_batch_are_kept_unchanged_until_the_end(data):
    loader = loader_of(data, batch_size=2)
    transform = loader.dataset.pipeline.transforms[0]
    with pytest.raises(ZeroDivisionError), decoded_images(loader) as kept, decoded_images(loader) as second:
        for batch in loader:
            paths = {sample.img_path for sample in batch['data_samples']}
            assert {path for path in paths if not path.endswith('.png')} <= kept.keys()
            assert len(kept) == 2
            for path, image in kept.items():
                np.testing.assert_array_equal(image, images.read_image(path, (90, 120)))
        assert not second
        raise ZeroDivisionError
    assert not kept
    assert 'transform' not in vars(transform)
