"""DetectionErrorMetric in runners: counts, mechanisms, contrasts, files, ranks and faults."""

import csv
import io

import cv2
import numpy as np
import pytest
import torch
from conftest import (
    FLIP_KEYS,
    keep_ratio_pipeline,
    manifest,
    noise,
    pool_detector,
    read,
    resnet_detector,
    runner_config,
    test_project,
    train_config,
    write_dataset,
    write_project,
)
from mmdet.registry import METRICS, MODELS
from mmengine.config import ConfigDict
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmdet_featviz.evaluation.miss_mechanisms import MECHANISMS

FALSE = ('classification', 'localization', 'both', 'duplicate', 'background')
# Of each image: the object (x, y, w, h), and candidates (left, top, right, bottom, label, score, whether it is kept).
# Labels alternate, and anchors are squares of 16 and 32 pixels.
CASES = {
    'proposal': ([10, 10, 100, 6], [(10, 10, 110, 12, 0, 0.9, False)]),
    'regression': ([40, 40, 16, 16], [(40, 40, 46, 56, 1, 0.9, False)]),
    'other_class': ([40, 40, 16, 16], [(40, 40, 56, 56, 1, 0.8, True), (40, 40, 56, 55, 0, 0.2, False)]),
    'background': ([40, 40, 16, 16], [(40, 40, 56, 56, 1, 0.2, False), (40, 40, 56, 55, 0, 0.1, True)]),
    'suppressed': ([40, 40, 16, 16], [(34, 40, 50, 56, 0, 0.9, True), (40, 40, 56, 54, 0, 0.5, False)]),
    'found': ([40, 40, 16, 16], [(40, 40, 56, 56, 1, 0.9, True), (0, 0, 16, 16, 0, 0.4, True)]),
}


@MODELS.register_module()
class Scripted(MODELS.get('SingleStageDetector')):
    """Predicts the candidates of CASES: with suppression only those that are kept."""

    def predict(self, inputs, samples, **kwargs):
        samples = super().predict(inputs, samples, **kwargs)
        for sample in samples:
            rows = list(CASES.values())[sample.img_id - 1][1]
            suppresses = self.bbox_head.test_cfg.nms is not None
            table = torch.tensor([row[:6] for row in rows if row[6] or not suppresses], dtype=torch.float).reshape(
                -1, 6
            )
            sample.pred_instances = InstanceData(bboxes=table[:, :4], labels=table[:, 4].long(), scores=table[:, 5])
        return samples


@pytest.fixture
def cases(tmp_path):
    images = {f'{name}.png': noise(128, 192, seed=n) for n, name in enumerate(CASES)}
    return write_dataset(tmp_path / 'data', images, {f'{name}.png': [case[0]] for name, case in CASES.items()})


def scripted(data, work_dir, hook=None, batch_size=1, **options):
    model = {**pool_detector((4, 8)), 'type': 'Scripted'}
    cfg = runner_config(data, work_dir, model, keep_ratio_pipeline((192, 128)), hook=hook, batch_size=batch_size)
    cfg.experiment_name = work_dir.name
    return with_errors(cfg, **options)


def with_errors(cfg, **options):
    metric = dict(type='DetectionErrorMetric', **options)
    cfg.test_evaluator = cfg.val_evaluator = [cfg.test_evaluator, metric]
    return cfg


def errors_in(metrics):
    return {name: value for name, value in metrics.items() if name.startswith('errors/')}


def rows_of(path, **wanted):
    with open(path, encoding='utf-8', newline='') as file:
        return [row for row in csv.DictReader(file) if wanted.items() <= row.items()]


@pytest.mark.parametrize('batch_size', [1, 3])
def test_each_type_and_mechanism_in_a_run(tmp_path, cases, batch_size):
    run = tmp_path / 'run'
    hook = dict(out_dir=str(run), layers=['backbone'], save='maps')
    runner = Runner.from_cfg(scripted(cases, tmp_path / 'work', hook, batch_size))
    found = errors_in(runner.test())
    counts = dict(true=1, classification=1, localization=1, both=0, duplicate=0, background=1, found=1, missed=5)
    assert {name: found[f'errors/{name}'] for name in counts} == counts
    assert {name: found[f'errors/missed_{name}'] for name in MECHANISMS} == dict.fromkeys(MECHANISMS, 1)
    assert set(found) == {
        *(f'errors/{name}' for name in (*counts, 'AP50')),
        *(f'errors/missed_{name}' for name in MECHANISMS),
        *(f'errors/dAP_{name}' for name in (*FALSE, 'missed')),
    }
    for row in rows_of(run / 'errors.csv', kind='ground truth'):
        name = row['image'].rpartition('/')[2][:-4]
        case = CASES[name]
        x, y, w, h = case[0]
        assert [float(row[side]) for side in ('left', 'top', 'right', 'bottom')] == [x, y, x + w, y + h]
        assert (row['type'], row['mechanism']) == (('found', '') if name == 'found' else ('missed', name))
        # The candidate that tells: the first of each case but of the suppressed one.
        candidate = case[1][name == 'suppressed']
        shown = [float(row[f'candidate_{side}'] or -1) for side in ('left', 'top', 'right', 'bottom')]
        assert shown == ([-1] * 4 if name == 'found' else list(candidate[:4]))
    kinds = [row['type'] for row in rows_of(run / 'errors.csv', kind='prediction')]
    assert kinds == ['classification', 'localization', 'true', 'background']  # that of 0.1 does not count
    text = (run / 'errors.md').read_text()
    assert '| suppressed | 1 |' in text and '| missed | 5 |' in text
    assert read(run / 'errors.png').ndim == 3
    assert manifest(run)[-1] == dict(evaluation='test', files=['errors.csv', 'errors.md', 'errors.png'])


def test_contrasts_are_those_of_the_features_and_of_the_scores_of_the_class(tmp_path, cases):
    """With cells of 4 and 8 pixels, whose values are between the middles of their blocks."""
    out = tmp_path / 'out'
    cfg = runner_config(cases, tmp_path / 'work', pool_detector((4, 8)), keep_ratio_pipeline((192, 128)))
    runner = Runner.from_cfg(with_errors(cfg, out_dir=str(out), align='center', mechanisms=False))
    metrics = errors_in(runner.test())
    assert not any('missed_' in name for name in metrics)
    columns = {name for row in rows_of(out / 'errors.csv') for name in row if name.startswith('contrast ')}
    levels = ('backbone_0', 'backbone_1', 'bbox_head.scores_0', 'bbox_head.scores_1', 'bbox_head.merged_scores_0')
    assert columns == {f'contrast {level}' for level in levels}
    for number, row in enumerate(rows_of(out / 'errors.csv', kind='ground truth')):
        assert row['mechanism'] == ''
        image = cv2.imread(row['image'])
        x, y, w, h = CASES[row['image'].rpartition('/')[2][:-4]][0]
        with torch.no_grad():
            features = runner.model.backbone(torch.tensor(image).permute(2, 0, 1)[None].float())
            scores = [level[0].sigmoid()[number % 2].numpy() for level in runner.model.bbox_head(features)[0]]
        for level, stride in enumerate((4, 8)):
            heat = cv2.resize(features[level][0].amax(0).numpy(), (192, 128), interpolation=cv2.INTER_LINEAR)
            expected = inside_minus_ring(heat, x, y, w, h, stride) / heat.std()
            assert float(row[f'contrast backbone_{level}']) == pytest.approx(expected, rel=1e-3)
            heat = cv2.resize(scores[level], (192, 128), interpolation=cv2.INTER_LINEAR)
            expected = inside_minus_ring(heat, x, y, w, h, stride)
            assert float(row[f'contrast bbox_head.scores_{level}']) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def inside_minus_ring(heat, x, y, w, h, least):
    across, down = max(w // 2, least), max(h // 2, least)
    mask = np.zeros(heat.shape, bool)
    mask[max(y - down, 0) : y + h + down, max(x - across, 0) : x + w + across] = True
    mask[y : y + h, x : x + w] = False
    return heat[y : y + h, x : x + w].mean() - heat[mask].mean()


def test_other_metrics_and_the_hook_see_only_the_pass_of_the_test(tmp_path):
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(3)})
    results = {}
    for name in ('plain', 'errors'):
        hook = dict(out_dir=str(tmp_path / name), save='maps')
        cfg = runner_config(data, tmp_path / 'work', resnet_detector(), hook=hook)
        cfg.experiment_name = name
        focus = dict(type='FeatureFocusMetric', layers=['neck'])
        errors = dict(type='DetectionErrorMetric', score_thr=0.9)  # more than any has: all objects are missed
        cfg.test_evaluator = [cfg.test_evaluator, *([errors] if name == 'errors' else []), focus]
        predictions, metrics, _ = test_predictions_of(cfg)
        results[name] = predictions, metrics
    plain, errors = results.values()
    assert errors[1]['errors/missed'] == 3 and sum(errors[1][f'errors/missed_{one}'] for one in MECHANISMS) == 3
    assert {**plain[1], **errors_in(errors[1])} == errors[1]
    for one, other in zip(plain[0], errors[0]):
        for field in one:
            np.testing.assert_array_equal(one[field], other[field])
    entries = [entry for entry in manifest(tmp_path / 'errors') if 'evaluation' not in entry]
    assert entries == manifest(tmp_path / 'plain')


def test_predictions_of(cfg):
    cfg.test_evaluator = [*cfg.test_evaluator, dict(type='KeepPredictions')]
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()
    return runner.test_evaluator.metrics[-1].results, metrics, runner


test_predictions_of.__test__ = False


def test_a_detector_that_draws_by_itself_draws_each_image_once(tmp_path):
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(2)})
    run = tmp_path / 'run'
    model = resnet_detector('SingleStageDetectorHp', featviz=dict(out_dir=str(run), layers=['neck'], save='maps'))
    cfg = with_errors(runner_config(data, tmp_path / 'work', model), score_thr=0.9)
    cfg.custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
    Runner.from_cfg(cfg).test()
    drawn = [entry for entry in manifest(run) if 'layer' in entry]
    assert sorted((entry['key'][-1], entry['level']) for entry in drawn) == [(key, n) for key in '01' for n in range(5)]
    assert {entry['augmentation'] for entry in drawn} == {0}


def test_two_ranks_equal_one_process(tmp_path):
    write_project(tmp_path, images=7)  # the second rank of two gets the first image again
    with open(tmp_path / 'config.py', 'a') as config:
        config.write(
            "\ncustom_imports = dict(imports=['mmdet_featviz', 'trouble'], allow_failed_imports=False)\n"
            "test_evaluator = [test_evaluator, dict(type='DetectionErrorMetric', score_thr=0.01)]\n"
        )
    for name, ranks in (('one', None), ('two', 2)):
        done = test_project(tmp_path, '--featviz-dir', name, '--save', 'maps', ranks=ranks)
        assert done.returncode == 0, done.stderr
    table = (tmp_path / 'one' / 'errors.csv').read_text()
    assert table == (tmp_path / 'two' / 'errors.csv').read_text()
    assert len(rows_of(tmp_path / 'one' / 'errors.csv', kind='ground truth')) == 7
    assert (tmp_path / 'one' / 'errors.md').read_text() == (tmp_path / 'two' / 'errors.md').read_text()


def test_a_resumed_run_has_a_complete_table(tmp_path, cases):
    hook = dict(out_dir=str(tmp_path / 'run'), layers=['backbone'], save='maps')
    Runner.from_cfg(scripted(cases, tmp_path / 'work', hook)).test()
    table = tmp_path / 'run' / 'errors.csv'
    before = table.read_bytes()
    table.write_bytes(b'')
    cfg = scripted(cases, tmp_path / 'again', {**hook, 'resume': True})
    Runner.from_cfg(cfg).test()
    assert table.read_bytes() == before


def test_validations_have_tables_of_their_own_and_another_run_replaces_all(tmp_path):
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(2)})
    run, hook = tmp_path / 'run', dict(layers=['neck'], save='maps', stages=['val'])
    cfg = with_errors(train_config(data, tmp_path / 'work', resnet_detector(), hook={**hook, 'out_dir': str(run)}))
    Runner.from_cfg(cfg).train()
    assert {path.relative_to(run).as_posix() for path in run.rglob('errors.csv')} == {
        'epoch_1/errors.csv', 'epoch_2/errors.csv'
    }  # fmt: skip
    hook = {**hook, 'out_dir': str(run), 'overwrite': True, 'stages': ['test']}
    cfg = runner_config(data, tmp_path / 'work', resnet_detector(), hook=hook)
    cfg.experiment_name = 'again'
    Runner.from_cfg(cfg).test()
    assert not list(run.rglob('errors.*'))


def test_a_table_that_cannot_be_written_costs_only_itself(tmp_path, cases, capsys):
    run = tmp_path / 'run'
    (run / 'errors.csv' / 'folder').mkdir(parents=True)
    blocked = tmp_path / 'file'
    blocked.write_text('')
    hook = dict(out_dir=str(run), layers=['backbone'], save='maps')
    cfg = scripted(cases, tmp_path / 'work', hook, out_dir=str(blocked / 'out'))
    cfg.log_level = 'WARNING'
    runner = Runner.from_cfg(cfg)
    assert runner.test()['errors/missed'] == 5
    log = ''.join(capsys.readouterr())
    assert 'errors.csv, errors.md, errors.png cannot be written' in log
    assert f'the errors cannot be written to {str(blocked / "out")!r}' in log
    cfg.default_hooks.featviz.update(strict=True, overwrite=True)
    cfg.experiment_name = 'strict'
    with pytest.raises(OSError):
        Runner.from_cfg(cfg).test()


def test_an_error_while_looking_for_mechanisms_costs_only_them(tmp_path, cases, capsys, monkeypatch):
    def fail(*args):
        raise RuntimeError('on purpose')

    monkeypatch.setattr('mmdet_featviz.evaluation.candidates.find_candidates', fail)
    cfg = scripted(cases, tmp_path / 'work', out_dir=str(tmp_path / 'out'))
    cfg.log_level = 'WARNING'
    runner = Runner.from_cfg(cfg)
    found, log = errors_in(runner.test()), ''.join(capsys.readouterr())
    assert found['errors/missed'] == 5 and not any('missed_' in name for name in found)
    assert log.count('why objects were missed cannot be found (RuntimeError: on purpose)') == 1
    assert rows_of(tmp_path / 'out' / 'errors.csv', type='missed', mechanism='')


def test_predictions_from_a_file_are_counted():
    sample = dict(
        img_path='a.png',
        gt_instances=dict(bboxes=torch.tensor([[0.0, 0, 9, 9], [20, 0, 29, 9]]), labels=torch.tensor([0, 0])),
        pred_instances=dict(
            bboxes=torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [0, 0, np.nan, 9]]),
            labels=torch.tensor([0, 0, 0]),
            scores=torch.tensor([0.9, 0.8, 0.7]),
        ),
        ignored_instances=dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0)),
    )
    metric = METRICS.build(dict(type='DetectionErrorMetric'))
    metric.dataset_meta = dict(classes=('cat',))
    metric.process(None, [sample])
    found = metric.evaluate(1)
    assert (found['errors/true'], found['errors/duplicate'], found['errors/missed']) == (1, 1, 1)
    assert found['errors/AP50'] == pytest.approx(51 / 101)
    table = list(csv.DictReader(io.StringIO(metric.files['errors.csv'].decode())))
    assert [row['class'] for row in table] == ['cat'] * 4
    assert set(metric.files) == {'errors.csv', 'errors.md'}  # there are no contrasts to plot
    metric.close()


def test_two_metrics_write_files_of_their_own(tmp_path, cases):
    cfg = scripted(cases, tmp_path / 'work', dict(out_dir=str(tmp_path / 'run'), layers=['backbone'], save='maps'))
    metric = dict(type='DetectionErrorMetric', layers=(), mechanisms=False, out_dir=str(tmp_path / 'out'))
    cfg.test_evaluator = [metric, dict(metric, score_thr=0.05, prefix='at/0.05'), dict(metric, prefix='errors_2')]
    Runner.from_cfg(cfg).test()
    tables = [tmp_path / 'run' / f'{name}.csv' for name in ('errors', 'errors_at_0.05', 'errors_2')]
    rows = [len(rows_of(table)) for table in tables]
    assert rows[0] == rows[2] < rows[1]
    assert {table.name for table in tables} == {path.name for path in (tmp_path / 'out').glob('*.csv')}


def test_test_time_augmentation(tmp_path):
    """Candidates are those of the pass without a flip. Nothing else counts this further pass."""
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(2)})
    load, resize, annotate, pack = keep_ratio_pipeline(meta_keys=FLIP_KEYS)
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    pipeline = [load, dict(type='TestTimeAug', transforms=[[resize], flips, [annotate], [pack]])]
    tta_cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
    model = dict(type='DetTTAModel', tta_cfg=tta_cfg, module=resnet_detector())
    results = {}
    for name, metrics in (('plain', []), ('errors', [dict(type='DetectionErrorMetric', score_thr=0.9)])):
        hook = dict(out_dir=str(tmp_path / name), layers=['neck'], save='maps')
        cfg = runner_config(data, tmp_path / name, model, pipeline, hook=hook)
        cfg.experiment_name = name
        cfg.test_evaluator = [cfg.test_evaluator, *metrics, dict(type='FeatureFocusMetric', layers=['neck'])]
        results[name] = Runner.from_cfg(cfg).test()
    found = errors_in(results['errors'])
    assert found['errors/missed'] == 2 == sum(found[f'errors/missed_{name}'] for name in MECHANISMS)
    assert {**results['plain'], **found} == results['errors']
    entries = [entry for entry in manifest(tmp_path / 'errors') if 'evaluation' not in entry]
    assert entries == manifest(tmp_path / 'plain')
    assert {entry['augmentation'] for entry in entries} == {0, 1}


@pytest.mark.parametrize('missing', ['LoadAnnotations', 'scores'])
def test_samples_without_boxes_are_an_error_that_says_what_to_do(tmp_path, cases, missing, monkeypatch):
    cfg = scripted(cases, tmp_path / 'work')
    match = 'no ground-truth boxes to compare with: add'
    if missing == 'LoadAnnotations':
        pipeline = cfg.test_dataloader.dataset.pipeline
        cfg.test_dataloader.dataset.pipeline = [step for step in pipeline if step.type != 'LoadAnnotations']
        runner = Runner.from_cfg(cfg)
        with pytest.raises(ValueError, match=match):
            runner.test()
        return
    metric = METRICS.build(dict(type='DetectionErrorMetric'))
    truth = dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0))
    with pytest.raises(ValueError, match='predicts no boxes with labels and scores'):
        metric.process(None, [dict(gt_instances=truth, pred_instances={})])
    metric.close()


@pytest.mark.parametrize(
    'options',
    [dict(score_thr=1.5), dict(score_thr='high'), dict(align='left'), dict(reduction='best'), dict(out_dir=3)],
)
def test_arguments_that_do_not_exist(options):
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        METRICS.build(dict(type='DetectionErrorMetric', **options))
