"""The tables and plots at the top of the page."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import noise, pool_detector, runner_config, write_dataset
from mmengine.runner import Runner
from report_pages import HOSTILE_NAMES, make_snapshot, read_run_info, read_tables, write_report, write_run

from mmdet_featviz.report import summary
from mmdet_featviz.report.metric_history import metrics_by_class
from mmdet_featviz.runs.reader import Run


def write_report_of(folder, metrics, other=None):
    """The report of a run with these metrics; with `other`, of two runs."""
    runs = []
    for name, recorded in (('a', metrics), ('b', other)):
        run = write_run(folder / name, [make_snapshot('a', folder / 'a.png')])
        run.info['metrics'] = recorded or {}
        runs.append(run)
    return write_report(runs[0], runs[1:] if other is not None else [])


def test_results_of_a_training_are_a_table_and_a_plot(tmp_path):
    metrics = {
        f'epoch_{n}': {'coco/bbox_mAP_50': n / 10, 'coco/bbox_mAP': n / 20 if n > 1 else None} for n in (10, 1, 2)
    }
    report = write_report_of(tmp_path, metrics)
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


def test_the_plot_needs_two_validations_and_leaves_out_the_test(tmp_path):
    one, two, test = (dict(mAP=value) for value in (0.1, 0.2, 0.9))
    for name, metrics, text in (
        ('a', dict(test=test, epoch_1=one), None),
        ('b', dict(test=test, epoch_1=one, epoch_2=two), 'mAP 0.2 at epoch 2'),
    ):
        report = write_report_of(tmp_path / name, metrics)
        (rows,) = (rows for caption, rows in read_tables(report).items() if caption.startswith('Results'))
        assert rows[-1] == ['test', '0.900']
        page = Path(report.page).read_text(encoding='utf-8')
        assert 'mAP 0.900' in page[: page.index('</summary>')]
        if text is None:
            assert 'after each validation' not in page
        else:
            assert f'mAP after each validation. Highest: {text}.' in page


def test_results_of_two_runs_are_rows_of_one_table(tmp_path):
    report = write_report_of(
        tmp_path, dict(test={'coco/bbox_mAP': 0.25}), dict(test={'mAP': 0.5, 'coco/bbox_mAP': 0.75})
    )
    (rows,) = (rows for caption, rows in read_tables(report).items() if caption.startswith('Results'))
    assert rows == [['', 'coco/bbox_mAP', 'mAP'], ['A test', '0.250', '–'], ['B test', '0.750', '0.500']]
    page = Path(report.page).read_text(encoding='utf-8')
    assert 'A coco/bbox_mAP 0.250, B coco/bbox_mAP 0.750' in page[: page.index('</summary>')]
    assert 'after each validation' not in page  # one point is not a line


def test_two_trainings_share_one_plot(tmp_path):
    a, b = ({f'epoch_{n}': dict(mAP=n / 10) for n in epochs} for epochs in ((1, 3, 10), (2, 3, 4)))
    page = Path(write_report_of(tmp_path, a, b).page).read_text(encoding='utf-8')
    assert re.findall(r'rotate[^>]*>([^<]*)</text>', page)[:5] == [f'epoch {n}' for n in (1, 2, 3, 4, 10)]
    assert 'Highest: A 1 at epoch 10; B 0.4 at epoch 4.' in page


def test_recorded_focus_replaces_that_of_the_page(tmp_path):
    metrics = {
        'focus/images': 7.0,
        'focus/neck_0/gain': 1.25,
        'focus/neck_0/energy_small': 0.5,
        'focus/neck_0/hit': -1.0,
    }
    tables = read_tables(write_report_of(tmp_path, dict(epoch_3=metrics)))
    assert len(tables) == 1
    caption, rows = tables.popitem()
    assert caption == 'Focus, epoch 3: 7 images of the data set'
    assert rows[2:] == [['neck_0', '–', '50.0 %', '–', '–', '1.25', *['–'] * 7]]
    # Each of two runs has its own table; the second only with a recorded metric.
    tables = read_tables(write_report_of(tmp_path / 'two', {}, dict(test=metrics)))
    assert [caption.split(':')[0] for caption in tables] == ['Focus, A', 'Focus, B']
    tables = read_tables(write_report_of(tmp_path / 'one', dict(test=metrics), {}))
    assert [caption.split(':')[0] for caption in tables] == ['Focus, A']


def test_recorded_focus_with_other_settings_does_not_replace_it(tmp_path):
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(seed=n) for n in range(2)})
    hook = dict(out_dir=str(tmp_path / 'out'), save='maps', report=True, layers=['backbone'], reduction='mean')
    cfg = runner_config(data, tmp_path / 'work', pool_detector(), hook=hook)
    focus = dict(type='FeatureFocusMetric', layers=['backbone'])
    cfg.test_evaluator = [
        cfg.test_evaluator,
        dict(focus, prefix='same', reduction='mean'),
        dict(focus, prefix='other', reduction='max', boxes='pred'),
    ]
    Runner.from_cfg(cfg).test()
    assert read_run_info(tmp_path / 'out')['focus'] == dict(
        same=dict(layers=['backbone'], reduction='mean', align='auto', boxes='gt'),
        other=dict(layers=['backbone'], reduction='max', align='auto', boxes='pred'),
    )
    run = Run(str(tmp_path / 'out'))
    tables = [name for name in read_tables(write_report(run)) if name.startswith('Focus')]
    same = 'Focus, same: 2 images of the data set (reduction mean, align auto, boxes gt)'
    assert tables[0] == same
    assert tables[1].endswith('(reduction max, align auto, boxes pred)')
    for metric in [name for name in run.info['metrics']['test'] if name.startswith('same/')]:
        del run.info['metrics']['test'][metric]
    tables = [name for name in read_tables(write_report(run)) if name.startswith('Focus')]
    assert tables[0] == 'Focus: 2 images of this page'
    assert tables[1].startswith('Focus, other: ')


def test_the_page_explains_what_a_hit_is(tmp_path):
    report = write_report(write_run(tmp_path / 'run', [make_snapshot('a', tmp_path / 'a.png')]))
    text = 'Hit: how often the maximum is inside a box or at most 15 pixels from one. '
    assert text in Path(report.page).read_text(encoding='utf-8')


def test_hostile_names_of_metrics_are_text(tmp_path):
    metrics = {**dict.fromkeys(HOSTILE_NAMES, 0.5), f'focus/{HOSTILE_NAMES[0]}_0/gain': 2.0}
    report = write_report_of(tmp_path, dict(epoch_1=metrics, epoch_2=metrics))
    (rows,) = (rows for caption, rows in read_tables(report).items() if caption.startswith('Results'))
    assert rows[0][1:] == sorted(HOSTILE_NAMES, key=lambda name: 'AP' not in name)
    page = Path(report.page).read_text(encoding='utf-8')
    assert '<img' not in page
    assert page.count('<script ') == page.count('<script')


def lines_of(report):
    """Number of straight lines between marks, on the page."""
    return len(re.findall(r'<line class="line-', Path(report.page).read_text(encoding='utf-8')))


def test_a_validation_without_results_is_a_gap(tmp_path):
    """An epoch in which the metric is not defined, not one in which the run was not validated."""
    metrics = {f'epoch_{n}': dict(mAP=None if n == 5 else n / 10, other=0.5) for n in (1, 3, 5, 6, 7)}
    report = write_report_of(tmp_path, metrics)
    with_focus_plot = lines_of(write_report_of(tmp_path / 'plain', {}))
    assert lines_of(report) - with_focus_plot == 2  # from 1 to 3, and from 6 to 7


def test_metrics_of_classes_are_rows(tmp_path):
    """The classes are cat and <b>dog</b>."""
    values = {'coco/cat_precision': 0.25, 'coco/<b>dog</b>_precision': None, 'coco/bbox_mAP': 0.5, 'cat_found_AP': 0.75}
    report = write_report_of(tmp_path, dict(epoch_1=values, test={**values, 'coco/cat_precision': 1.0}))
    tables = read_tables(report)
    assert tables['Results'] == [['', 'coco/bbox_mAP'], ['epoch 1', '0.500'], ['test', '0.500']]
    assert tables['coco/precision by class'] == [
        ['class', 'epoch 1', 'test'],
        ['cat', '0.250', '1.000'],
        ['<b>dog</b>', '–', '–'],
    ]
    assert tables['found_AP by class'][1] == ['cat', '0.750', '0.750']
    assert 'coco/precision of each of 2 classes' in Path(report.page).read_text(encoding='utf-8')


def test_names_of_classes_may_have_underscores_and_slashes():
    metrics = ['coco/a_precision', 'coco/a_b_precision', 'coco/c/d_AP', 'coco/bbox_mAP_s', 'mAP']
    assert metrics_by_class(metrics, ['a_b', 'c/d', 'a']) == {
        'coco/precision': {'a_b': 'coco/a_b_precision', 'a': 'coco/a_precision'},
        'coco/AP': {'c/d': 'coco/c/d_AP'},
    }


@pytest.mark.parametrize(
    ('info', 'tables', 'content'),
    [
        (dict(statistics=dict(images=2, levels=5)), summary._statistics_tables, 'statistics'),
        (dict(statistics=dict(images=2, levels=[dict(name='neck_0')])), summary._statistics_tables, 'statistics'),
        (dict(receptive_fields=dict(test=5)), summary._field_tables, 'receptive fields'),
        (dict(receptive_fields=dict(test=dict(images=2, levels=[{}]))), summary._field_tables, 'receptive fields'),
    ],
)
def test_what_run_json_says_wrong_is_one_sentence(info, tables, content):
    run = SimpleNamespace(info=info, root='run')
    with pytest.raises(ValueError, match=f'^run/run.json holds no {content} of this package: .+'):
        list(tables([run], ['']))
