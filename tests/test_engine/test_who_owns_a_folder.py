"""Several tests, samples and hooks in one process: each picture is kept, and listed once."""

import json
import re

import pytest
from conftest import (
    FLIP_KEYS,
    keep_ratio_pipeline,
    manifest,
    noise,
    pictures,
    pool_detector,
    runner_config,
    train_config,
    write_dataset,
)
from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from mmdet_featviz.engine.run_setup import _image_paths, innermost
from mmdet_featviz.report.image_passes import passes_by_image
from mmdet_featviz.report.metric_history import MetricHistory
from mmdet_featviz.runs.reader import Run

HOOK = dict(save='heatmap', layers='backbone')


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', {f'{n}.png': noise(64, 96, seed=n) for n in range(3)})


def test_a_second_test_keeps_the_pictures_and_metrics_of_the_first(data, tmp_path):
    hook = dict(HOOK, out_dir=str(tmp_path / 'run'), report=True)
    runner = Runner.from_cfg(train_config(data, tmp_path / 'work', pool_detector((8, 16)), hook))
    runner.test()
    first = {name: (tmp_path / 'run' / name).read_bytes() for name in pictures(tmp_path / 'run') if 'heatmap' in name}
    assert len(first) == 3 * 2
    runner.train()
    runner.model.backbone.scale.data *= -1
    runner.test()
    second = [name for name in pictures(tmp_path / 'run') if name.startswith('test_2/') and 'heatmap' in name]
    assert second == [f'test_2/{name}' for name in first]
    for name, content in first.items():
        assert (tmp_path / 'run' / name).read_bytes() == content
        assert (tmp_path / 'run' / 'test_2' / name).read_bytes() != content
    assert len(manifest(tmp_path / 'run')) == 2 * 3 * 2
    info = json.loads((tmp_path / 'run' / 'run.json').read_text())
    assert list(info['metrics']) == ['test', 'test_2']


@pytest.mark.parametrize('kind', ['hook', 'detector'])
def test_a_validation_of_the_same_epoch_keeps_the_pictures_of_the_first(data, tmp_path, kind):
    options = dict(HOOK, out_dir=str(tmp_path / 'run'), stages='val', report=kind == 'hook')
    model, hook = pool_detector((8,)), options
    if kind == 'detector':
        featviz = dict(options, image_root=str(data / 'images'))
        model, hook = {**model, 'type': 'SingleStageDetectorHp', 'featviz': featviz}, None
    runner = Runner.from_cfg(train_config(data, tmp_path / 'work', model, hook))
    runner.val()
    first = {name: (tmp_path / 'run' / name).read_bytes() for name in pictures(tmp_path / 'run') if 'heatmap' in name}
    assert list(first) == [f'epoch_0/{number}/backbone_0.heatmap.png' for number in range(3)]
    runner.model.backbone.scale.data *= -1
    runner.val()
    for name, content in first.items():
        assert (tmp_path / 'run' / name).read_bytes() == content
        assert (tmp_path / 'run' / name.replace('epoch_0', 'epoch_0_2')).read_bytes() != content
    assert len(manifest(tmp_path / 'run')) == 2 * 3
    assert {entry['augmentation'] for entry in manifest(tmp_path / 'run')} == {0}
    if kind == 'hook':
        info = json.loads((tmp_path / 'run' / 'run.json').read_text())
        assert list(info['metrics']) == ['epoch_0', 'epoch_0_2']
        passes = passes_by_image(Run(str(tmp_path / 'run'))).values()
        assert [[one.label for one in each] for each in passes] == [['epoch 0', 'epoch 0, validation 2']] * 3
        assert list(MetricHistory(info).evaluations) == ['epoch 0', 'epoch 0, validation 2']


def test_two_hooks_do_not_share_a_folder(data, tmp_path):
    for options in ({}, dict(overwrite=True), dict(resume=True)):
        cfg = runner_config(
            data, tmp_path / 'work', pool_detector((8, 16)), hook=dict(HOOK, out_dir=str(tmp_path / 'run'))
        )
        cfg.custom_hooks = [dict(type='FeatVizHook', **HOOK, out_dir=str(tmp_path / 'run'), **options)]
        cfg.default_hooks.featviz.overwrite = bool(options)
        with pytest.raises(FileExistsError, match='still writes to'):
            Runner.from_cfg(cfg).test()


def test_a_further_rank_of_a_training_names_its_images_apart(data, tmp_path, monkeypatch):
    monkeypatch.setattr('mmdet_featviz.runs.image_keys.get_dist_info', lambda: (1, 2))
    hook = dict(HOOK, out_dir=str(tmp_path / 'run'), stages=('train', 'val'))
    cfg = train_config(data, tmp_path / 'work', pool_detector((8,)), hook)
    cfg.train_cfg.max_epochs = 1
    Runner.from_cfg(cfg).train()
    keys = [entry['key'] for entry in manifest(tmp_path / 'run')]
    assert [key for key in keys if key.startswith('epoch')] == [f'epoch_1/{number}' for number in range(3)]
    trained = [key for key in keys if key.startswith('iter')]
    assert len(trained) == 3 and all(re.fullmatch(r'iter_[12]/\d~[0-9a-f]{8}', key) for key in trained)


def test_the_paths_of_a_repeated_data_set_are_those_of_all_its_samples(data):
    source = dict(data_root=str(data), ann_file='annotations.json', data_prefix=dict(img='images/'))
    part = dict(source, type='CocoDataset', pipeline=[])
    both = dict(type='ConcatDataset', datasets=[part, dict(type='RepeatDataset', times=2, dataset=part)])
    dataset = DATASETS.build(both)
    names = [path.rpartition('/')[2] for path in _image_paths(list(innermost(dataset)))]
    assert names == ['0.png', '1.png', '2.png'] * 3
    assert len(dataset) == 9


@DATASETS.register_module(force=True)
class Expressions(BaseDataset):
    """Two samples of each of two images, as of data sets of referring expressions."""

    def load_data_list(self):
        names = ['a.png', 'b.png', 'a.png', 'a.png']
        return [
            dict(img_path=f'{self.data_root}/images/{name}', img_id=number, instances=[], height=64, width=96)
            for number, name in enumerate(names)
        ]


def test_each_sample_of_an_image_has_its_own_passes_and_mean(tmp_path):
    data = write_dataset(tmp_path / 'data', {'a.png': noise(64, 96), 'b.png': noise(64, 96, seed=1)})
    hook = dict(HOOK, out_dir=str(tmp_path / 'run'), average_passes=True, image_root=str(data / 'images'))
    pipeline = keep_ratio_pipeline((96, 64), meta_keys=FLIP_KEYS)
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    pack = [dict(type='PackDetInputs', meta_keys=pipeline[-1]['meta_keys'])]
    pipeline[-2:] = [dict(type='TestTimeAug', transforms=[flips, pack])]
    tta_cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
    model = dict(type='DetTTAModel', tta_cfg=tta_cfg, module=pool_detector((8,)))
    cfg = runner_config(data, tmp_path / 'work', model, pipeline, hook=hook)
    cfg.test_dataloader.dataset = dict(type='Expressions', data_root=str(data), test_mode=True, pipeline=pipeline)
    cfg.test_evaluator = dict(type='KeepPredictions')
    Runner.from_cfg(cfg).test()
    names = [f'backbone_0{suffix}.heatmap.png' for suffix in ('', *(f'.pass_{number}' for number in range(1, 6)))]
    means = ['backbone_0.mean.heatmap.png', 'backbone_0.mean_2.heatmap.png', 'backbone_0.mean_4.heatmap.png']
    expected = [f'a/{name}' for name in (*names, *means)] + [f'b/{name}' for name in (*names[:2], means[0])]
    assert pictures(tmp_path / 'run') == sorted(expected)
    assert sorted(file for entry in manifest(tmp_path / 'run') for file in entry['files']) == sorted(expected)
