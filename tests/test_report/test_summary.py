"""What evaluators told is kept, and read for the head of the report."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run as run_tool
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
from test_builder import HOSTILE, read_tables, snapshot, write_report, write_run

from mmdet_featviz.report.metric_history import MetricHistory, by_time, in_order
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.visualization.style import Style


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', {f'{n}.png': noise(seed=n) for n in range(2)})


def facts_in(folder):
    return json.loads((Path(folder) / 'run.json').read_text(encoding='utf-8'), parse_constant=pytest.fail)


def test_a_test_leaves_its_metrics_in_the_facts_of_the_run(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), save='maps')
    told = Runner.from_cfg(runner_config(data, tmp_path / 'work', pool_detector(), hook=hook)).test()
    assert 'coco/bbox_mAP' in told
    assert facts_in(tmp_path / 'out')['metrics'] == dict(test=told)


@pytest.mark.parametrize(
    ('loop', 'folders'),
    [
        (dict(type='EpochBasedTrainLoop', max_epochs=2), ['epoch_1', 'epoch_2']),
        (dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2), ['iter_2', 'iter_4']),
    ],
)
def test_each_validation_leaves_those_of_its_own(tmp_path, data, loop, folders):
    hook = dict(out_dir=str(tmp_path / 'out'), save='maps', stages=('val',), max_images=1)
    cfg = train_config(data, tmp_path / 'work', pool_detector(), hook=hook, loop=loop)
    cfg.val_evaluator = [cfg.val_evaluator, dict(type='CountsEvaluations')]
    Runner.from_cfg(cfg).train()
    metrics = facts_in(tmp_path / 'out')['metrics']
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


def test_validations_of_a_detector_that_draws_by_itself_leave_theirs_too(tmp_path, data):
    featviz = dict(out_dir=str(tmp_path / 'out'), save='maps', stages=('val',), max_images=1)
    model = resnet_detector('SingleStageDetectorHp', featviz=featviz)
    cfg = train_config(data, tmp_path / 'work', model)
    cfg.custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
    cfg.dump(str(tmp_path / 'train.py'))
    done = run_tool('train.py', 'train.py', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = facts_in(tmp_path / 'out')['metrics']
    assert list(metrics) == ['epoch_1', 'epoch_2']
    assert all('coco/bbox_mAP' in told for told in metrics.values())
    keys = {Path(path).parent.relative_to(tmp_path / 'out').as_posix() for path in Run(str(tmp_path / 'out')).paths}
    assert keys == {'epoch_1/0', 'epoch_2/0'}


def test_a_stage_that_is_not_drawn_leaves_none(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), stages=('train',))
    Runner.from_cfg(train_config(data, tmp_path / 'work', pool_detector(), hook=hook)).train()
    assert 'metrics' not in facts_in(tmp_path / 'out')


def writer(folder, **options):
    return RunWriter(RunFolder(str(folder), **options), Style(save='maps'), dict(layers=['neck'], reduction='max'))


def test_only_numbers_are_kept_and_what_is_not_finite_is_null(tmp_path):
    metrics = dict(
        a=1, b=np.float32(0.5), c=torch.tensor(2.0), d=float('nan'), e=np.inf, f=-1.0, g='words', h=[1], i=None
    )
    metrics['j'] = torch.zeros(2)
    writer(tmp_path).record_metrics(metrics)
    assert facts_in(tmp_path)['metrics'] == dict(test=dict(a=1, b=0.5, c=2, d=None, e=None, f=-1))


def test_a_run_that_is_gone_on_with_keeps_what_it_was_told(tmp_path):
    first = writer(tmp_path / 'run')
    first.write(snapshot('a', tmp_path / 'a.png'))
    first.record_metrics(dict(mAP=0.1), 'epoch_1')
    first.finish()
    second = writer(tmp_path / 'run', resume=True)
    assert facts_in(tmp_path / 'run')['metrics'] == dict(epoch_1=dict(mAP=0.1))
    second.record_metrics(dict(mAP=0.2), 'epoch_2')
    assert facts_in(tmp_path / 'run')['metrics'] == dict(epoch_1=dict(mAP=0.1), epoch_2=dict(mAP=0.2))


def test_metrics_that_cannot_be_written_are_told_of_and_stop_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')

    told, (lenient, strict) = [], (writer(tmp_path / name) for name in 'ab')
    strict.strict = True
    monkeypatch.setattr(RunFolder, 'write', full)
    monkeypatch.setattr('mmdet_featviz.runs.writer.print_log', lambda message, *args: told.append(message))
    lenient.record_metrics(dict(mAP=0.1))
    assert len(told) == 1
    assert 'run.json cannot be written' in told[0]
    assert 'No space left on device' in told[0]
    assert 'skipped' not in lenient.summary()  # no image lacks anything
    with pytest.raises(OSError, match='No space left'):
        strict.record_metrics(dict(mAP=0.1))


def test_two_ranks_and_a_detector_that_draws_by_itself_leave_what_one_process_with_a_hook_does(tmp_path):
    write_project(tmp_path, images=3)
    by_itself = '--cfg-options', 'model.type=SingleStageDetectorHp'
    for name, ranks, options in (('one', None, ()), ('two', 2, ()), ('hp', None, by_itself)):
        done = test_project(tmp_path, '--featviz-dir', name, '--save', 'maps', *options, ranks=ranks)
        assert done.returncode == 0, done.stderr
    one = facts_in(tmp_path / 'one')['metrics']
    assert 'coco/bbox_mAP' in one['test']
    assert facts_in(tmp_path / 'two')['metrics'] == facts_in(tmp_path / 'hp')['metrics'] == one


def test_rounds_come_in_the_order_of_time():
    assert by_time(['test', 'epoch_10', 'epoch_2', 'epoch_2']) == ['epoch_2', 'epoch_10', 'test']
    assert list(MetricHistory(dict(metrics=dict(iter_500=dict(a=1), iter_1000=dict(a=2)))).rounds) == [
        'iter 500',
        'iter 1000',
    ]


def test_the_mean_average_precision_comes_first():
    names = ['coco/cat_precision', 'coco/bbox_mAP_50', 'loss', 'coco/bbox_mAP', 'coco/segm_mAP', 'coco/bbox_mAP']
    assert in_order(names) == ['coco/bbox_mAP', 'coco/segm_mAP', 'coco/bbox_mAP_50', 'coco/cat_precision', 'loss']


def test_focus_is_told_apart_by_prefix_level_figure_and_size():
    metrics = {
        'coco/bbox_mAP': 0.5,
        'focus/images': 4.0,
        'focus/images_without_boxes': 1.0,
        'focus/bbox_head.cls_convs.0_1/gain_small': 2.0,
        'focus/bbox_head.cls_convs.0_1/gain': 1.5,
        'focus/bbox_head.cls_convs.0_1/gain_large': -1.0,
        'focus/bbox_head.cls_convs.0_1/hit': None,
        'focus/bbox_head.cls_convs.0_1/gain/traffic light': 9.0,
        'by predictions/neck_0/energy': 0.25,
    }
    results = MetricHistory(dict(metrics=dict(epoch_1=metrics, epoch_2={'coco/bbox_mAP': -1.0})))
    assert results.rounds == {'epoch 1': {'coco/bbox_mAP': 0.5}, 'epoch 2': {'coco/bbox_mAP': None}}
    assert results.focus_round == 'epoch 1'
    assert results.focus == {
        'focus': (4, {'bbox_head.cls_convs.0_1': {'gain': {'small': 2.0, 'all': 1.5}}}),
        'by predictions': (0, {'neck_0': {'energy': {'all': 0.25}}}),
    }


def report_of(folder, metrics, other=None):
    """The report of one image of which evaluators told this; of two runs with two."""
    runs = []
    for name, told in (('a', metrics), ('b', other)):
        run = write_run(folder / name, [snapshot('a', folder / 'a.png')])
        run.info['metrics'] = told or {}
        runs.append(run)
    return write_report(runs[0], runs[1] if other is not None else None)


def test_a_training_is_a_row_for_each_epoch_and_a_line(tmp_path):
    told = {f'epoch_{n}': {'coco/bbox_mAP_50': n / 10, 'coco/bbox_mAP': n / 20 if n > 1 else None} for n in (10, 1, 2)}
    report = report_of(tmp_path, told)
    (rows,) = (rows for caption, rows in read_tables(report).items() if caption.startswith('Results'))
    assert rows == [
        ['', 'coco/bbox_mAP', 'coco/bbox_mAP_50'],
        ['epoch 1', '–', '0.100'],
        ['epoch 2', '0.100', '0.200'],
        ['epoch 10', '0.500', '1.000'],
    ]
    page = Path(report.page).read_text(encoding='utf-8')
    assert 'coco/bbox_mAP after each validation. Highest: coco/bbox_mAP 0.5 at epoch 10.' in page
    assert 'coco/bbox_mAP 0.500' in page[: page.index('</summary>')]  # the latest


def test_a_line_is_of_validations_alone_and_of_two_at_least(tmp_path):
    one, two, test = (dict(mAP=value) for value in (0.1, 0.2, 0.9))
    for name, told, text in (
        ('a', dict(test=test, epoch_1=one), None),
        ('b', dict(test=test, epoch_1=one, epoch_2=two), 'mAP 0.2 at epoch 2'),
    ):
        report = report_of(tmp_path / name, told)
        (rows,) = (rows for caption, rows in read_tables(report).items() if caption.startswith('Results'))
        assert rows[-1] == ['test', '0.900']
        page = Path(report.page).read_text(encoding='utf-8')
        assert 'mAP 0.900' in page[: page.index('</summary>')]
        if text is None:
            assert 'after each validation' not in page
        else:
            assert f'mAP after each validation. Highest: {text}.' in page


def test_two_runs_stand_one_below_the_other(tmp_path):
    report = report_of(tmp_path, dict(test={'coco/bbox_mAP': 0.25}), dict(test={'mAP': 0.5, 'coco/bbox_mAP': 0.75}))
    (rows,) = (rows for caption, rows in read_tables(report).items() if caption.startswith('Results'))
    assert rows == [['', 'coco/bbox_mAP', 'mAP'], ['A test', '0.250', '–'], ['B test', '0.750', '0.500']]
    page = Path(report.page).read_text(encoding='utf-8')
    assert 'A coco/bbox_mAP 0.250, B coco/bbox_mAP 0.750' in page[: page.index('</summary>')]
    assert 'after each validation' not in page  # a point is no line


def test_two_trainings_share_one_axis_in_the_order_of_time(tmp_path):
    a, b = ({f'epoch_{n}': dict(mAP=n / 10) for n in epochs} for epochs in ((1, 3, 10), (2, 3, 4)))
    page = Path(report_of(tmp_path, a, b).page).read_text(encoding='utf-8')
    assert re.findall(r'rotate[^>]*>([^<]*)</text>', page)[:5] == [f'epoch {n}' for n in (1, 2, 3, 4, 10)]
    assert 'Highest: A 1 at epoch 10; B 0.4 at epoch 4.' in page


def test_figures_of_the_metric_stand_in_for_the_reports_own(tmp_path):
    metrics = {
        'focus/images': 7.0,
        'focus/neck_0/gain': 1.25,
        'focus/neck_0/energy_small': 0.5,
        'focus/neck_0/hit': -1.0,
    }
    tables = read_tables(report_of(tmp_path, dict(epoch_3=metrics)))
    assert len(tables) == 1
    caption, rows = tables.popitem()
    assert caption == 'Focus, epoch 3: 7 images of the data set'
    assert rows[2:] == [['neck_0', '–', '50.0 %', '–', '–', '1.25', *['–'] * 7]]
    # Of two runs each has its own; the second only what its metric told.
    tables = read_tables(report_of(tmp_path / 'two', {}, dict(test=metrics)))
    assert [caption.split(':')[0] for caption in tables] == ['Focus, A', 'Focus, B']
    tables = read_tables(report_of(tmp_path / 'one', dict(test=metrics), {}))
    assert [caption.split(':')[0] for caption in tables] == ['Focus, A']


def test_a_metric_of_other_settings_does_not_stand_in_for_what_is_drawn(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), save='maps', report=True, layers=['backbone'], reduction='mean')
    cfg = runner_config(data, tmp_path / 'work', pool_detector(), hook=hook)
    focus = dict(type='FeatureFocusMetric', layers=['backbone'])
    cfg.test_evaluator = [
        cfg.test_evaluator,
        dict(focus, prefix='same', reduction='mean'),
        dict(focus, prefix='other', reduction='max', boxes='pred'),
    ]
    Runner.from_cfg(cfg).test()
    assert facts_in(tmp_path / 'out')['focus'] == dict(
        same=dict(layers=['backbone'], reduction='mean', align='center', boxes='gt'),
        other=dict(layers=['backbone'], reduction='max', align='center', boxes='pred'),
    )
    run = Run(str(tmp_path / 'out'))
    tables = [name for name in read_tables(write_report(run)) if name.startswith('Focus')]
    same = 'Focus, same: 2 images of the data set (reduction mean, align center, boxes gt)'
    assert tables[0] == same
    assert tables[1].endswith('(reduction max, align center, boxes pred)')
    for metric in [name for name in run.info['metrics']['test'] if name.startswith('same/')]:
        del run.info['metrics']['test'][metric]
    tables = [name for name in read_tables(write_report(run)) if name.startswith('Focus')]
    assert tables[0] == 'Focus: 2 images of this page'
    assert tables[1].startswith('Focus, other: ')


def test_hostile_names_of_metrics_are_text(tmp_path):
    metrics = {**dict.fromkeys(HOSTILE, 0.5), f'focus/{HOSTILE[0]}_0/gain': 2.0}
    report = report_of(tmp_path, dict(epoch_1=metrics, epoch_2=metrics))
    (rows,) = (rows for caption, rows in read_tables(report).items() if caption.startswith('Results'))
    assert rows[0][1:] == sorted(HOSTILE, key=lambda name: 'AP' not in name)
    page = Path(report.page).read_text(encoding='utf-8')
    assert '<img' not in page
    assert page.count('<script ') == page.count('<script')
