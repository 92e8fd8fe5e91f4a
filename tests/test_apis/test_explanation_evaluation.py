"""Evaluating explanations over a data set: files, resuming, settings, and the metric beside others."""

import contextlib
import csv
import json
import math

import numpy as np
import pytest
import torch
from conftest import noise, resnet_detector, runner_config, same_files, write_dataset
from explained import state_of
from mmdet.apis import init_detector
from mmdet.registry import DATASETS
from mmengine.registry import METRICS
from mmengine.runner import Runner

from mmdet_featviz import EXPLAINERS, ExplanationMetric
from mmdet_featviz.apis import explanation_evaluation
from mmdet_featviz.apis.annotated_samples import annotated_dataset
from mmdet_featviz.apis.explanation_evaluation import evaluate_explanations
from mmdet_featviz.evaluation import explanation_scores
from mmdet_featviz.evaluation.explanation_scores import Protocol, score_explanations
from mmdet_featviz.explanation.detector_batch import DetectorBatch

SMALL = dict(methods=('odam', 'box'), targets='top 2', steps=3)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """Config of a test with ground truth where the detector predicts, and the detector."""
    folder = tmp_path_factory.mktemp('project')
    images = {f'{n}.png': noise(64, 96, seed=n) for n in range(4)}
    cfg = runner_config(write_dataset(folder / 'data', images), folder / 'work', resnet_detector())
    torch.manual_seed(1)
    model = init_detector(cfg, device='cpu')
    for name, weight in model.named_parameters():
        if 'head' in name and weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'weights.pth')
    cfg.load_from = str(folder / 'weights.pth')
    return cfg, model


def rows_of(folder):
    return list(csv.DictReader((folder / 'boxes.csv').read_text().splitlines()))


def without_time(rows):
    return [{name: value for name, value in row.items() if name != 'seconds'} for row in rows]


def test_what_is_written_and_resumed(project, tmp_path, monkeypatch):
    _, model = project
    dataset, state = annotated_dataset(model), state_of(model)
    summary = evaluate_explanations(model, dataset, tmp_path / 'whole', Protocol(**SMALL), max_boxes=5)
    rows = rows_of(tmp_path / 'whole')
    assert len(rows) == 10  # of two methods
    assert {row['method'] for row in rows} == {'odam', 'box'}
    assert len({row['image'] for row in rows}) == 3
    for measure in ('insertion', 'deletion'):
        values = [float(row[measure]) for row in rows if row['method'] == 'odam']
        (one,) = (one for one in summary if (one['method'], one['size'], one['measure']) == ('odam', 'all', measure))
        assert one['mean'] == pytest.approx(np.mean(values))
    written = json.loads((tmp_path / 'whole' / 'summary.json').read_text())
    assert written['summary'] == summary
    assert (written['boxes'], written['images']) == (5, 3)
    assert '| odam |' in (tmp_path / 'whole' / 'summary.md').read_text()
    assert (tmp_path / 'whole' / 'curves.png').read_bytes().startswith(b'\x89PNG')
    assert state_of(model) == state

    calls, score = [], explanation_evaluation._score

    def stop_at_the_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(*args)

    monkeypatch.setattr(explanation_evaluation, '_score', stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        evaluate_explanations(model, dataset, tmp_path / 'part', Protocol(**SMALL), max_boxes=5)
    with pytest.raises(FileExistsError, match='resume'):
        evaluate_explanations(model, dataset, tmp_path / 'part', Protocol(**SMALL), max_boxes=5)
    with pytest.raises(ValueError, match=r'other settings \(seed was 0 and is 1 now\): set'):
        evaluate_explanations(model, dataset, tmp_path / 'part', Protocol(**SMALL, seed=1), max_boxes=5, resume=True)
    bias = model.bbox_head.retina_cls.bias.data.clone()
    model.bbox_head.retina_cls.bias.data += 1  # as a checkpoint of the same name that was written anew
    with pytest.raises(ValueError, match=r'other settings \(weights_crc32 was'):
        evaluate_explanations(model, dataset, tmp_path / 'part', Protocol(**SMALL), max_boxes=5, resume=True)
    model.bbox_head.retina_cls.bias.data.copy_(bias)
    with open(tmp_path / 'part' / 'manifest.jsonl', 'a') as lines:
        lines.write('{"position": 3, "evalua')  # it was killed while it wrote
    evaluate_explanations(model, dataset, tmp_path / 'part', Protocol(**SMALL), max_boxes=5, resume=True)
    assert len(calls) == 4  # the first image is not measured again
    assert without_time(rows_of(tmp_path / 'part')) == without_time(rows)
    evaluate_explanations(model, dataset, tmp_path / 'part', Protocol(**SMALL), max_boxes=1, overwrite=True)
    assert len(rows_of(tmp_path / 'part')) == 2


def test_the_seed_decides_which_images_come_first(project, tmp_path):
    _, model = project
    dataset, first = annotated_dataset(model), set()
    for seed in range(4):
        protocol = Protocol(**{**SMALL, 'methods': 'box', 'seed': seed})
        evaluate_explanations(model, dataset, tmp_path / str(seed), protocol, max_boxes=1)
        first |= {row['image'] for row in rows_of(tmp_path / str(seed))}
    assert len(first) > 1


def sample_with_truth(model, position, **truth):
    """A batch of one image whose ground truth is the highest of its detections, and one box besides."""
    sample = annotated_dataset(model)[position]
    batch = {key: [value] for key, value in sample.items()}
    found = DetectorBatch(model, batch).detections[0]
    best = int(found.scores.argmax())
    instances = sample['data_samples'].gt_instances
    instances = instances.new(
        bboxes=torch.stack([found.bboxes[best] + 0.5, torch.tensor([0.0, 0, 9, 9])]),
        labels=torch.tensor([int(found.labels[best]), 0]),
    )
    sample['data_samples'].gt_instances = instances
    return DetectorBatch(model, batch), instances


def test_measures_on_objects_are_those_of_the_heatmap_and_the_found_box(project):
    _, model = project
    batch, truth = sample_with_truth(model, 0)
    ((row,),) = score_explanations(batch, ('cat', 'dog'), Protocol('gradcam', 'top 1', steps=2))
    from mmdet_featviz import explain

    sample = dict(inputs=batch.data['inputs'][0], data_samples=batch.data['data_samples'][0])
    (one,) = explain(model, sample, 'gradcam', 'top 1')
    heat = one.heatmap.astype(np.float64)
    rows, columns = np.mgrid[: heat.shape[0], : heat.shape[1]] + 0.5
    masks = [
        (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
        for left, top, right, bottom in truth.bboxes.tolist()
    ]
    assert row['energy'] == pytest.approx(heat[masks[0]].sum() / heat.sum(), abs=1e-6)
    others = masks[1] & ~masks[0]
    assert row['odi'] == pytest.approx(heat[others].sum() / heat[masks[0] | masks[1]].sum(), abs=1e-6)
    assert row['pointing'] == masks[0][np.unravel_index(heat.argmax(), heat.shape)]
    assert (row['class'], row['score']) == (('cat', 'dog')[one.label], one.score)
    assert row['size'] == ('small' if np.prod(one.bbox[2:] - one.bbox[:2]) < 32**2 else 'medium')
    batch.data['data_samples'][0].gt_instances = truth[1:]  # the detection has found nothing
    ((row,),) = score_explanations(batch, ('cat', 'dog'), Protocol('odam', 'top 1', steps=2))
    assert (row['pointing'], row['energy'], row['odi']) == (None, None, None)


def test_a_map_survives_weights_that_are_the_same_and_not_others(project, monkeypatch):
    _, model = project
    protocol = Protocol(('odam', 'random'), 'top 2', steps=2, randomise=True)
    batch, _ = sample_with_truth(model, 1)
    (rows,) = score_explanations(batch, (), protocol)
    names = [f'survives_{part}' for part in ('head', 'neck', 'backbone')]
    assert all(row[name] < 0.9 for row in rows for name in names if row['method'] == 'odam')
    assert all(row[name] == pytest.approx(1) for row in rows for name in names if row['method'] == 'random')
    monkeypatch.setattr(explanation_scores, 'shuffled_weights', lambda *args: contextlib.nullcontext())
    (rows,) = score_explanations(batch, (), protocol)
    assert all(row[name] == pytest.approx(1) for row in rows for name in names)


def test_at_most_so_many_boxes(project):
    _, model = project
    dataset = annotated_dataset(model)
    samples = [dataset[position] for position in range(2)]
    batch = DetectorBatch(model, {key: [sample[key] for sample in samples] for key in samples[0]})
    found = list(score_explanations(batch, (), Protocol('box', 'top 2', steps=2), 3))
    assert [len(rows) for rows in found] == [2, 1]
    # Each image of a batch has the results that it has alone.
    alone = DetectorBatch(model, {key: [samples[1][key]] for key in samples[1]})
    ((row,),) = score_explanations(alone, (), Protocol('box', 'top 1', steps=2))
    same = {name: value for name, value in row.items() if name not in ('seconds', 'curves', 'bbox')}
    for name, value in same.items():
        expected = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
        assert found[1][0][name] == expected, name


def test_the_metric_changes_nothing_beside_it(project, tmp_path):
    cfg, model = project
    options = dict(out_dir=str(tmp_path / 'plain'), image_format='png', save=('overlay', 'maps'))
    focus = dict(type='FeatureFocusMetric', layers=['neck'])

    def tested(name, *metrics):
        own = cfg.copy()
        own.work_dir = str(tmp_path / f'work of {name}')
        own.default_hooks.featviz = dict(type='FeatVizHook', **{**options, 'out_dir': str(tmp_path / name)})
        own.test_evaluator = [cfg.test_evaluator, dict(type='KeepPredictions'), *metrics, focus]
        runner = Runner.from_cfg(own)
        found = runner.test()
        return runner.test_evaluator.metrics[1].results, found

    mine = dict(type='ExplanationMetric', methods=['odam', 'box'], targets='top 2', max_boxes=3, steps=2)
    (plain, plain_metrics), (found, metrics) = tested('plain'), tested('measured', mine)
    assert [str(sample) for sample in found] == [str(sample) for sample in plain]
    same_files(tmp_path / 'plain', tmp_path / 'measured')
    own = {name: metrics.pop(name) for name in list(metrics) if name.startswith('explanation/')}
    assert metrics == plain_metrics
    dataset, rows = DATASETS.build(cfg.test_dataloader.dataset), []
    for sample in (dataset[0], dataset[1]):
        batch = DetectorBatch(model, {key: [value] for key, value in sample.items()})
        rows += next(score_explanations(batch, (), Protocol(('odam', 'box'), 'top 2', steps=2), 3 - len(rows) // 2))
    assert own['explanation/boxes'] == 3
    for method in ('odam', 'box'):
        mean = np.mean([row['insertion'] for row in rows if row['method'] == method])
        assert own[f'explanation/{method}/insertion'] == pytest.approx(mean, rel=1e-5)


def test_the_metric_needs_a_detector_that_runs():
    metric = METRICS.build(dict(type='ExplanationMetric'))
    with pytest.raises(RuntimeError, match='predictions from a file'):
        metric.process({}, [{}])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(methods=['odem']), 'odam'),
        (dict(methods=[]), 'methods is empty'),
        (dict(targets='gt'), 'only detections'),
        (dict(targets='box 1 2 3 4'), 'only detections'),
        (dict(steps=1), 'steps must be a whole number of at least 2'),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    for kind in (Protocol, ExplanationMetric):
        with pytest.raises((TypeError, ValueError), match=message):
            kind(**arguments)


def test_without_a_detection_there_is_nothing_to_measure(project, tmp_path):
    _, model = project
    protocol = Protocol(targets='score 1.0', steps=2)
    with pytest.raises(ValueError, match="no detection in 4 images fits the targets 'score 1.0'"):
        evaluate_explanations(model, annotated_dataset(model), tmp_path / 'run', protocol)
    assert not (tmp_path / 'run' / 'boxes.csv').exists()


def test_a_method_that_cannot_explain_the_detector_says_so(project, tmp_path):
    _, model = project
    with pytest.raises(ValueError, match='attention'):
        evaluate_explanations(model, annotated_dataset(model), tmp_path / 'run', Protocol('attention'), 1)


def test_heat_that_is_not_finite_or_empty_is_measured_as_none(project):
    _, model = project

    @EXPLAINERS.register_module(name='nothing', force=True)
    def nothing(batch, targets):
        from mmdet_featviz.structures.snapshot import Level

        return [[Level('input', 0, 3, (1.0, 1.0), np.zeros((64, 96), np.float32))] for _ in targets]

    try:
        batch, _ = sample_with_truth(model, 0)
        ((row,),) = score_explanations(batch, (), Protocol('nothing', 'top 1', steps=2))
        assert (row['energy'], row['odi']) == (None, None)
        assert math.isfinite(row['insertion'])
    finally:
        EXPLAINERS.module_dict.pop('nothing')


def test_a_folder_of_another_kind_of_run_is_not_resumed(project, tmp_path):
    _, model = project
    (tmp_path / 'run.json').write_text('{"style": {}}')
    (tmp_path / 'manifest.jsonl').write_text('')
    with pytest.raises(ValueError, match='holds a run that evaluates no explanations: choose another folder'):
        evaluate_explanations(model, annotated_dataset(model), tmp_path, Protocol(**SMALL), resume=True)


def test_boxes_without_area_are_left_out(project):
    """Nothing overlaps them, so that no curve starts anywhere."""
    _, model = project
    batch, _ = sample_with_truth(model, 0)
    boxes = batch.detections[0].bboxes
    boxes[batch.detections[0].scores.argsort(descending=True)[[0, 2]], 2:] = 0
    (rows,) = score_explanations(batch, (), Protocol('box', 'all', steps=2))
    assert [row['box'] for row in rows] == [1, *range(3, len(boxes))]
    assert all(math.isfinite(row['insertion']) for row in rows)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('hello', r"cannot be read as a file in COCO's format \(JSONDecodeError: "),
        ('{}', r"cannot be read as a file in COCO's format \(KeyError: 'categories'\)"),
        ('[]', "cannot be read as a file in COCO's format"),
        (
            '{"images": [{"id": 1, "file_name": "0.png", "height": 64, "width": 96}], "annotations": [], '
            '"categories": [{"id": 1, "name": "unicorn"}]}',
            'have none of the classes of the detector: person, bicycle, car, ...',
        ),
    ],
)
def test_annotations_that_are_none(project, tmp_path, content, message):
    (tmp_path / 'boxes.json').write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        annotated_dataset(project[1], str(tmp_path / 'boxes.json'))
    assert '\n' not in str(raised.value)
    assert 'boxes.json' in str(raised.value)
