"""Tests and validations record their metrics in run.json."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run as run_command
from conftest import (
    noise,
    pool_detector,
    resnet_detector,
    runner_config,
    test_project,
    train_config,
    write_dataset,
    write_project,
)
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from report_pages import make_snapshot, read_run_info

from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.visualization.style import Style


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', {f'{n}.png': noise(seed=n) for n in range(2)})


def test_a_test_records_its_metrics(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), save='maps')
    metrics = Runner.from_cfg(runner_config(data, tmp_path / 'work', pool_detector(), hook=hook)).test()
    assert 'coco/bbox_mAP' in metrics
    assert read_run_info(tmp_path / 'out')['metrics'] == dict(test=metrics)


@pytest.mark.parametrize(
    ('loop', 'folders'),
    [
        (dict(type='EpochBasedTrainLoop', max_epochs=2), ['epoch_1', 'epoch_2']),
        (dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2), ['iter_2', 'iter_4']),
    ],
)
def test_each_validation_records_its_own_metrics(tmp_path, data, loop, folders):
    hook = dict(out_dir=str(tmp_path / 'out'), save='maps', stages=('val',), max_images=1)
    cfg = train_config(data, tmp_path / 'work', pool_detector(), hook=hook, loop=loop)
    cfg.val_evaluator = [cfg.val_evaluator, dict(type='CountsEvaluations')]
    Runner.from_cfg(cfg).train()
    metrics = read_run_info(tmp_path / 'out')['metrics']
    assert list(metrics) == folders
    assert [metrics[folder]['evaluations'] for folder in folders] == [1, 2]
    assert all('coco/bbox_mAP' in metrics[folder] for folder in folders)
    keys = {Path(path).parent.relative_to(tmp_path / 'out').as_posix() for path in Run(str(tmp_path / 'out')).paths}
    assert keys == {f'{folder}/0' for folder in folders}


@METRICS.register_module()
class CountsEvaluations(BaseMetric):
    count = 0

    def process(self, data_batch, data_samples):
        self.results.append(None)

    def compute_metrics(self, results):
        self.count += 1
        return dict(evaluations=self.count)


def test_validations_of_a_drawing_detector_record_their_metrics(tmp_path, data):
    featviz = dict(out_dir=str(tmp_path / 'out'), save='maps', stages=('val',), max_images=1)
    model = resnet_detector('SingleStageDetectorHp', featviz=featviz)
    cfg = train_config(data, tmp_path / 'work', model)
    cfg.custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
    cfg.dump(str(tmp_path / 'train.py'))
    done = run_command('train.py', 'train.py', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = read_run_info(tmp_path / 'out')['metrics']
    assert list(metrics) == ['epoch_1', 'epoch_2']
    assert all('coco/bbox_mAP' in values for values in metrics.values())
    keys = {Path(path).parent.relative_to(tmp_path / 'out').as_posix() for path in Run(str(tmp_path / 'out')).paths}
    assert keys == {'epoch_1/0', 'epoch_2/0'}


def test_a_stage_that_is_not_drawn_records_no_metrics(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), stages=('train',))
    Runner.from_cfg(train_config(data, tmp_path / 'work', pool_detector(), hook=hook)).train()
    assert 'metrics' not in read_run_info(tmp_path / 'out')


def make_writer(folder, **options):
    return RunWriter(RunFolder(str(folder), **options), Style(save='maps'), dict(layers=['neck'], reduction='max'))


def test_only_numbers_are_recorded_and_null_if_not_finite(tmp_path):
    metrics = dict(
        a=1, b=np.float32(0.5), c=torch.tensor(2.0), d=float('nan'), e=np.inf, f=-1.0, g='words', h=[1], i=None
    )
    metrics['j'] = torch.zeros(2)
    make_writer(tmp_path).record_metrics(metrics)
    assert read_run_info(tmp_path)['metrics'] == dict(test=dict(a=1, b=0.5, c=2, d=None, e=None, f=-1))


def test_a_resumed_run_keeps_its_earlier_metrics(tmp_path):
    first = make_writer(tmp_path / 'run')
    first.write(make_snapshot('a', tmp_path / 'a.png'))
    first.record_metrics(dict(mAP=0.1), 'epoch_1')
    first.finish()
    second = make_writer(tmp_path / 'run', resume=True)
    assert read_run_info(tmp_path / 'run')['metrics'] == dict(epoch_1=dict(mAP=0.1))
    second.record_metrics(dict(mAP=0.2), 'epoch_2')
    assert read_run_info(tmp_path / 'run')['metrics'] == dict(epoch_1=dict(mAP=0.1), epoch_2=dict(mAP=0.2))


def test_metrics_that_cannot_be_written_only_warn(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')

    warnings, (lenient, strict) = [], (make_writer(tmp_path / name) for name in 'ab')
    strict.strict = True
    monkeypatch.setattr(RunFolder, 'write', full)
    monkeypatch.setattr('mmdet_featviz.runs.writer.print_log', lambda message, *args: warnings.append(message))
    lenient.record_metrics(dict(mAP=0.1))
    assert len(warnings) == 1
    assert 'run.json cannot be written' in warnings[0]
    assert 'No space left on device' in warnings[0]
    assert 'skipped' not in lenient.summary()  # no image lacks anything
    with pytest.raises(OSError, match='No space left'):
        strict.record_metrics(dict(mAP=0.1))


def test_two_ranks_and_a_drawing_detector_record_the_same_metrics(tmp_path):
    write_project(tmp_path, images=3)
    by_itself = '--cfg-options', 'model.type=SingleStageDetectorHp'
    for name, ranks, options in (('one', None, ()), ('two', 2, ()), ('hp', None, by_itself)):
        done = test_project(tmp_path, '--featviz-dir', name, '--save', 'maps', *options, ranks=ranks)
        assert done.returncode == 0, done.stderr
    one = read_run_info(tmp_path / 'one')['metrics']
    assert 'coco/bbox_mAP' in one['test']
    assert read_run_info(tmp_path / 'two')['metrics'] == read_run_info(tmp_path / 'hp')['metrics'] == one
