"""The metric in runners: its values, its hooks, and its errors."""

import gc
import inspect
import json

import cv2
import numpy as np
import pytest
import torch
from conftest import (
    FLIP_KEYS,
    keep_ratio_pipeline,
    noise,
    pool_detector,
    resnet_detector,
    runner_config,
    teacher_and_student,
    test_predictions,
    test_project,
    train_config,
    write_dataset,
    write_project,
)
from focus_by_hand import focus_by_hand
from mmdet.registry import METRICS, MODELS
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.nn.modules import module as torch_module

from mmdet_featviz.capture.linear_skeleton import is_share
from mmdet_featviz.capture.reductions import reduce_feature_map
from mmdet_featviz.report.builder import write_report


def hooks_on(*models):
    """Number of hooks on the modules of these models, and of global hooks."""
    names = ('_forward_hooks', '_forward_pre_hooks')
    on_all = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
    on_these = [getattr(part, name) for model in models for part in model.modules() for name in names]
    return sum(map(len, [*on_all, *on_these]))


def with_focus(cfg, **options):
    metric = dict(type='FeatureFocusMetric', **options)
    cfg.test_evaluator = cfg.val_evaluator = [cfg.test_evaluator, metric]
    return cfg


def focus_in(metrics):
    return {name: value for name, value in metrics.items() if name.startswith('focus/')}


def image_with_spot(height, width, box, value=250):
    """A dark image with a bright box [x, y, w, h]."""
    image = np.full((height, width, 3), 10, np.uint8)
    x, y, w, h = box
    image[y : y + h, x : x + w] = value
    return image


@pytest.fixture
def spots(tmp_path):
    """A data set of three images, bright inside their one box: a small, a medium and a large one."""
    all_boxes = {'a.png': [16, 8, 24, 24], 'b.png': [40, 48, 64, 48], 'c.png': [24, 16, 120, 96]}
    images = {name: image_with_spot(128, 192, box) for name, box in all_boxes.items()}
    return write_dataset(tmp_path / 'data', images, {name: [box] for name, box in all_boxes.items()})


def edit_annotations(data, edit):
    path = data / 'annotations.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def run_focus(data, work_dir, model=None, scale=(192, 128), pipeline=None, **options):
    options = {'layers': ['backbone'], **options}
    cfg = runner_config(data, work_dir, model or pool_detector((4, 8)), pipeline or keep_ratio_pipeline(scale))
    cfg.experiment_name = work_dir.name
    return focus_in(Runner.from_cfg(with_focus(cfg, **options)).test())


def expected_focus(data, stride):
    """Energy, share and hit of each image, from pools of its pixels: as in a run without scaling and padding."""
    content = json.loads((data / 'annotations.json').read_text())
    measured = []
    for entry in content['images']:
        image = cv2.imread(str(data / 'images' / entry['file_name'])).astype(np.float64).mean(2)
        rows, columns = image.shape[0] // stride, image.shape[1] // stride
        cells = image.reshape(rows, stride, columns, stride).mean((1, 3))
        heat = cv2.resize(cells, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
        corners = [
            [x, y, x + w, y + h]
            for x, y, w, h in (box['bbox'] for box in content['annotations'] if box['image_id'] == entry['id'])
        ]
        measured.append(focus_by_hand(heat, corners, [], np.ones(heat.shape, bool), 15))
    return np.array(measured)


def test_a_run_equals_focus_computed_from_the_images(tmp_path, spots):
    found = run_focus(spots, tmp_path / 'run')
    for level, stride in enumerate((4, 8)):
        expected = expected_focus(spots, stride)
        name = f'focus/backbone_{level}'
        assert found[f'{name}/energy'] == pytest.approx(expected[:, 0].mean(), rel=1e-5)
        assert found[f'{name}/gain'] == pytest.approx((expected[:, 0] / expected[:, 1]).mean(), rel=1e-5)
        assert found[f'{name}/hit'] == 1.0
        for index, size in enumerate(('small', 'medium', 'large')):
            assert found[f'{name}/energy_{size}'] == pytest.approx(expected[index, 0], rel=1e-5)
            assert found[f'{name}/gain_{size}'] == pytest.approx(expected[index, 0] / expected[index, 1], rel=1e-5)
            assert found[f'{name}/hit_{size}'] == 1.0
    assert found['focus/images'] == 3
    assert found['focus/images_without_boxes'] == 0
    assert len(found) == 2 + 2 * 12


@pytest.mark.parametrize(
    'after_resize',
    [
        [dict(type='RandomFlip', prob=1.0, direction='horizontal')],
        [dict(type='RandomFlip', prob=1.0, direction='diagonal')],
        [dict(type='Pad', size=(256, 256), pad_val=dict(img=(255, 255, 255)))],
        [dict(type='RandomFlip', prob=1.0), dict(type='Pad', size_divisor=160, pad_val=dict(img=(255, 255, 255)))],
        # As even as the rows of the images below their boxes.
        [dict(type='Pad', size=(192, 144)), dict(type='RandomFlip', prob=1.0, direction='vertical')],
    ],
)
def test_flips_and_padding_change_nothing(tmp_path, spots, after_resize):
    plain = run_focus(spots, tmp_path / 'plain')
    pipeline = keep_ratio_pipeline((192, 128), *after_resize, meta_keys=('pad_param',))
    changed = run_focus(spots, tmp_path / 'changed', pipeline=pipeline)
    assert changed == pytest.approx(plain, rel=1e-5)


def test_crowds_are_left_out_and_images_without_boxes_counted(tmp_path, spots):
    before = run_focus(spots, tmp_path / 'before')

    def edit(content):
        content['annotations'][1]['iscrowd'] = 1  # the only box of the medium image
        crowd = dict(content['annotations'][0], id=9, bbox=[100, 50, 60, 60], area=3600, iscrowd=1)
        content['annotations'].append(crowd)

    edit_annotations(spots, edit)
    after = run_focus(spots, tmp_path / 'after')
    assert (after['focus/images'], after['focus/images_without_boxes']) == (2, 1)
    for figure in ('energy', 'gain', 'hit'):
        assert after[f'focus/backbone_0/{figure}_medium'] == -1
        large = after[f'focus/backbone_0/{figure}_large']
        assert large == before[f'focus/backbone_0/{figure}_large']
        small = after[f'focus/backbone_0/{figure}_small']
        assert after[f'focus/backbone_0/{figure}'] == pytest.approx((small + large) / 2)
    # The image is as dark in the crowd as around it: the heat is the same, and the area smaller.
    assert after['focus/backbone_0/energy_small'] == before['focus/backbone_0/energy_small']
    part = 1 - 60 * 60 / (128 * 192)
    assert after['focus/backbone_0/gain_small'] == pytest.approx(part * before['focus/backbone_0/gain_small'])


def test_report_and_metric_agree(tmp_path, spots):
    """Also with a crowd over half of a box, at the bright spot of one image."""

    def edit(content):
        x, y, w, h = content['annotations'][2]['bbox']
        crowd = dict(content['annotations'][2], id=9, bbox=[x + w // 2, y, w, h], area=w * h, iscrowd=1)
        content['annotations'].append(crowd)

    edit_annotations(spots, edit)
    cfg = runner_config(spots, tmp_path / 'work', pool_detector((4, 8)), keep_ratio_pipeline((192, 128)))
    hook = dict(type='FeatVizHook', out_dir=str(tmp_path / 'run'), layers=['backbone'], save=('maps',))
    cfg.default_hooks.featviz = hook
    metrics = focus_in(Runner.from_cfg(with_focus(cfg, layers=['backbone'])).test())
    write_report(str(tmp_path / 'run'))
    index = (tmp_path / 'run' / 'report' / 'data' / 'index.js').read_text()
    images = json.loads(index[index.index('(') + 1 : index.rindex(')')])['images']
    for level in ('backbone_0', 'backbone_1'):
        energies = [image['energy'][level] for image in images]
        assert metrics[f'focus/{level}/energy'] == pytest.approx(np.mean(energies), rel=1e-4)
        gains = [image['energy'][level] / image['share'] for image in images]
        assert metrics[f'focus/{level}/gain'] == pytest.approx(np.mean(gains), rel=1e-4)


def test_classwise_values(tmp_path, spots):
    found = run_focus(spots, tmp_path / 'run', classwise=True, layers='backbone')
    cats = [found[f'focus/backbone_0/energy_{size}'] for size in ('small', 'large')]  # labels alternate
    assert found['focus/backbone_0/energy/cat'] == pytest.approx(np.mean(cats))
    assert found['focus/backbone_0/gain/dog'] == found['focus/backbone_0/gain_medium']


def test_class_scores_are_measured_in_the_boxes_of_their_class(tmp_path, spots):
    cfg = runner_config(spots, tmp_path / 'run', pool_detector((4, 8)), keep_ratio_pipeline((192, 128)))
    runner = Runner.from_cfg(with_focus(cfg, layers=[], scores=True, classwise=True))
    found = focus_in(runner.test())
    names = {name.split('/')[1] for name in found} - {'images', 'images_without_boxes'}
    assert names == {'bbox_head.merged_scores_0', 'bbox_head.scores_0', 'bbox_head.scores_1'}

    def measure(image, box, scores, stride):
        y, x = ((np.arange(size) + 0.5) / stride for size in image.shape[:2])  # in cells: anchors are at their corners
        wide = np.stack([np.interp(x, np.arange(scores.shape[1]), row) for row in scores])
        heat = np.stack([np.interp(y, np.arange(len(wide)), column) for column in wide.T]).T
        left, top, width, height = box['bbox']
        corners = [[left, top, left + width, top + height]]
        return focus_by_hand(heat, corners, [], np.ones(heat.shape, bool), 15)[0]

    energies = {'best': [], 'cat': [], 'dog': []}
    content = json.loads((spots / 'annotations.json').read_text())
    for entry, box in zip(content['images'], content['annotations']):
        image = cv2.imread(str(spots / 'images' / entry['file_name']))
        with torch.no_grad():
            features = runner.model.backbone(torch.tensor(image).permute(2, 0, 1)[None].float())
            scores = runner.model.bbox_head(features)[0][1][0].double().sigmoid().numpy()
        label = box['category_id'] - 1
        energies['best'].append(measure(image, box, scores.max(0), 8))
        energies[('cat', 'dog')[label]].append(measure(image, box, scores[label], 8))
    name = 'focus/bbox_head.scores_1/energy'
    assert found[name] == pytest.approx(np.mean(energies['best']), rel=1e-4)
    assert found[f'{name}/cat'] == pytest.approx(np.mean(energies['cat']), rel=1e-4)
    assert found[f'{name}/dog'] == pytest.approx(np.mean(energies['dog']), rel=1e-4)
    assert runner.test_evaluator.metrics[1].settings['scores']


def test_predictions_as_boxes(tmp_path, spots):
    """A detector that predicts the ground truth of a flipped image gets the same values as the ground truth."""

    @MODELS.register_module(force=True)
    class Oracle(MODELS.get('SingleStageDetector')):
        def predict(self, inputs, samples, **kwargs):
            super().predict(inputs, samples, **kwargs)
            for sample in samples:
                truth = sample.gt_instances.bboxes.clone()
                truth[:, [0, 2]] = sample.ori_shape[1] - truth[:, [2, 0]]
                wrong = torch.tensor([[0.0, 0.0, 50.0, 50.0]])
                predictions = type(sample.gt_instances)(
                    bboxes=torch.cat([truth, wrong]),
                    scores=torch.tensor([0.9] * len(truth) + [0.2]),
                    labels=torch.zeros(len(truth) + 1, dtype=torch.long),
                )
                sample.pred_instances = predictions
            return samples

    pipeline = keep_ratio_pipeline((192, 128), dict(type='RandomFlip', prob=1.0))
    model = {**pool_detector((4, 8)), 'type': 'Oracle'}
    by_truth = run_focus(spots, tmp_path / 'gt', model, pipeline=pipeline)
    assert run_focus(spots, tmp_path / 'pred', model, pipeline=pipeline, boxes='pred') == by_truth
    assert run_focus(spots, tmp_path / 'all', model, pipeline=pipeline, boxes='pred', score_thr=0.1) != by_truth


def test_without_annotations_an_error_says_what_to_add(tmp_path, spots):
    pipeline = [step for step in keep_ratio_pipeline() if step['type'] != 'LoadAnnotations']
    with pytest.raises(ValueError, match="add dict\\(type='LoadAnnotations', with_bbox=True\\) before PackDetInputs"):
        run_focus(spots, tmp_path / 'run', pipeline=pipeline)


@pytest.mark.parametrize('hook', [None, dict(save='maps')])
@pytest.mark.parametrize('batch_size', [1, 2])
def test_the_metric_does_not_change_predictions(tmp_path, batch_size, hook):
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(90 + n, 120 - 9 * n, seed=n) for n in range(5)})
    results = {}
    for name in ('plain', 'measured'):
        cfg = runner_config(data, tmp_path / name, resnet_detector(), batch_size=batch_size, hook=hook)
        cfg.experiment_name = name
        if name == 'measured':
            cfg.test_evaluator = [cfg.test_evaluator, dict(type='KeepPredictions'), dict(type='FeatureFocusMetric')]
            runner = Runner.from_cfg(cfg)
            metrics = runner.test()
            predictions = runner.test_evaluator.metrics[1].results
        else:
            predictions, metrics, _ = test_predictions(cfg)
        results[name] = predictions, metrics
    for plain, measured in zip(results['plain'][0], results['measured'][0]):
        assert len(plain['scores']) > 0
        for field in plain:
            np.testing.assert_array_equal(plain[field], measured[field])
    focus = focus_in(results['measured'][1])
    assert {**results['plain'][1], **focus} == results['measured'][1]
    assert focus['focus/images'] == 5
    assert {name.split('/')[1] for name in focus} > {f'neck_{n}' for n in range(5)} | {
        f'backbone_{n}' for n in range(4)
    }


def test_no_hook_is_left(tmp_path, spots):
    cfg = with_focus(runner_config(spots, tmp_path / 'run', pool_detector()))
    runner = Runner.from_cfg(cfg)
    model, before = runner.model, hooks_on(runner.model)
    assert runner.test() == runner.test()  # a runner can test again
    assert hooks_on(model) <= before + 1  # one waits for the next test
    runner.test_evaluator.metrics[1].close()
    assert hooks_on(model) == before
    del runner
    gc.collect()
    assert hooks_on(model) == before == 0


# Since torch 2.
RUNS_HOOKS_AFTER_ERRORS = 'always_call' in inspect.signature(torch.nn.Module.register_forward_hook).parameters


@pytest.mark.parametrize('place', ['data', 'backbone', 'head', 'metric'])
def test_no_hook_is_left_after_an_error(tmp_path, spots, place, monkeypatch):
    runner = Runner.from_cfg(with_focus(runner_config(spots, tmp_path / 'run', pool_detector())))
    model, loop = runner.model, runner.test_loop

    def fail(*args, **kwargs):
        raise KeyError('on purpose')

    owner, name = dict(
        data=(type(loop.dataloader.dataset), '__getitem__'),
        backbone=(model.backbone, 'forward'),
        head=(model.bbox_head, 'predict'),
        metric=(loop.evaluator.metrics[0], 'process'),
    )[place]
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(KeyError, match='on purpose'):
        runner.test()
    if place not in ('backbone', 'head') or RUNS_HOOKS_AFTER_ERRORS:  # otherwise the next pass removes them
        assert hooks_on(model) == (2 if place == 'data' else 1)  # hooks that wait for a detector, or for its next pass
    monkeypatch.undo()
    assert runner.test()['focus/images'] == 3
    assert hooks_on(model) == 1
    loop.evaluator.metrics[1].close()
    assert hooks_on(model) == 0


def test_hooks_are_removed_with_the_metric(tmp_path, spots):
    model = MODELS.build(pool_detector())
    metric = METRICS.build(dict(type='FeatureFocusMetric'))
    assert hooks_on(model) == 2
    del metric
    gc.collect()
    assert hooks_on(model) == 0


def test_an_unknown_layer_is_named(tmp_path, spots):
    cfg = with_focus(runner_config(spots, tmp_path / 'run', resnet_detector()), layers='nek')
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match="unknown layer 'nek'.*neck"):
        runner.test()
    assert hooks_on(runner.model) == 0


def test_predictions_from_a_file_are_refused():
    metric = METRICS.build(dict(type='FeatureFocusMetric'))
    with pytest.raises(RuntimeError, match='not with predictions from a file'):
        metric.process(None, [{}])


@pytest.mark.parametrize(
    ('options', 'message'),
    [(dict(boxes='both'), 'choose from gt, pred'), (dict(align='left'), 'align'), (dict(reduction='maxx'), 'maxx')],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises((ValueError, KeyError), match=message):
        METRICS.build(dict(type='FeatureFocusMetric', **options))


def test_the_last_pass_of_test_time_augmentation_counts(tmp_path, spots):
    pipeline = keep_ratio_pipeline((192, 128), meta_keys=FLIP_KEYS)
    resizes = [dict(type='Resize', scale=scale, keep_ratio=True) for scale in ((96, 64), (192, 128))]
    steps = [dict(type='RandomFlip', prob=0.0), *pipeline[2:]]
    pipeline[1:] = [dict(type='TestTimeAug', transforms=[resizes, *([step] for step in steps)])]
    model = dict(
        type='DetTTAModel',
        tta_cfg=ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10),
        module=pool_detector((4, 8)),
    )
    found = run_focus(spots, tmp_path / 'tta', model, pipeline=pipeline)
    assert found == run_focus(spots, tmp_path / 'plain')
    assert found != run_focus(spots, tmp_path / 'small', scale=(96, 64))


def test_a_training_logs_the_focus_of_each_validation(tmp_path, spots):
    cfg = with_focus(train_config(spots, tmp_path / 'work', resnet_detector()), layers=['neck'])
    cfg.optim_wrapper.optimizer.lr = 1e-2
    runner = Runner.from_cfg(cfg)
    runner.train()
    log = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text()
    lines = [json.loads(line) for line in log.splitlines() if 'bbox_mAP' in line]
    assert [line['step'] for line in lines] == [1, 2]
    energies = [line['focus/neck_0/energy'] for line in lines]
    assert energies[0] != energies[1]
    # A test of the trained detector gives the values of its last validation.
    tested = focus_in(runner.test())
    assert tested == {name: lines[1][name] for name in tested}


# In real processes


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('project')
    write_project(folder, images=7)  # the second rank of two gets the first image again
    with open(folder / 'config.py', 'a') as config:
        config.write(
            "custom_imports = dict(imports=['mmdet_featviz', 'trouble'], allow_failed_imports=False)\n"
            "test_evaluator = [test_evaluator, dict(type='FeatureFocusMetric', classwise=True)]\n"
        )
    return folder


def metrics_of(project, name, **options):
    done = test_project(project, '--work-dir', name, **options)
    assert done.returncode == 0, done.stderr
    assert 'focus/neck_4/hit_large: ' in done.stdout + done.stderr
    return json.loads(next((project / name).glob('*/*.json')).read_text())


def test_two_ranks_equal_one_process(project):
    one, two = metrics_of(project, 'one'), metrics_of(project, 'two', ranks=2)
    assert one['focus/images'] == 7
    assert focus_in(one) == focus_in(two)
    assert 'focus/neck_0/energy/dog' in one


def test_chosen_measures_and_sizes(tmp_path, spots):
    every = run_focus(spots, tmp_path / 'all', classwise=True)
    chosen = run_focus(spots, tmp_path / 'some', classwise=True, measures=['hit', 'energy'], sizes='large')
    names = [f'{measure}{group}' for group in ('', '_large', '/cat', '/dog') for measure in ('energy', 'hit')]
    expected = ['focus/images', 'focus/images_without_boxes']
    expected += [f'focus/backbone_{level}/{name}' for level in (0, 1) for name in names]
    assert list(chosen) == expected
    assert chosen == {name: every[name] for name in expected}
    few = run_focus(spots, tmp_path / 'few', measures='gain', sizes=[])
    assert list(few) == [*expected[:2], 'focus/backbone_0/gain', 'focus/backbone_1/gain']


@pytest.mark.parametrize('options', [dict(measures='heat'), dict(sizes=['huge']), dict(measures=[])])
def test_measures_and_sizes_that_do_not_exist(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        METRICS.build(dict(type='FeatureFocusMetric', **options))


def test_a_test_without_the_metric_is_not_measured(tmp_path, spots, monkeypatch):
    """In a runner whose validations are, before the test and after it."""
    cfg = train_config(spots, tmp_path / 'work', pool_detector((8,)))
    cfg.val_evaluator = [cfg.val_evaluator, dict(type='FeatureFocusMetric', layers='backbone')]
    runner = Runner.from_cfg(cfg)
    reduced = []

    def recorded(features, *args):
        if not is_share(features):  # the search for receptive-field centers
            reduced.append(features)
        return reduce_feature_map(features, *args)

    monkeypatch.setattr('mmdet_featviz.capture.taps.reduce_feature_map', recorded)
    runner.test()
    assert not reduced
    first = runner.val()
    assert len(reduced) == 3
    runner.test()
    assert len(reduced) == 3
    assert runner.val() == first
    assert len(reduced) == 6
    assert hooks_on(runner.model) == 1


def test_teacher_and_student_are_both_measured(tmp_path, spots):
    model = teacher_and_student(pool_detector((8,)))
    cfg = with_focus(runner_config(spots, tmp_path / 'work', model, keep_ratio_pipeline((192, 128))), layers='backbone')
    cfg.val_cfg = dict(type='TeacherStudentValLoop')
    runner = Runner.from_cfg(cfg)
    runner.model.student.backbone.scale.data.fill_(-1)  # hot where the teacher is cold
    found = {}
    hook = Hook()
    hook.after_val_epoch = lambda runner, metrics: found.update(metrics)
    runner.register_hook(hook)
    runner.val()
    expected = run_focus(spots, tmp_path / 'plain', pool_detector((8,)))
    for measure in ('energy', 'gain', 'hit'):
        name = f'focus/{{}}backbone_0/{measure}'
        assert found[f'teacher/{name.format("teacher.")}'] == expected[name.format('')] > 0.5
        assert found[f'student/{name.format("student.")}'] < 0.5
    assert found['teacher/focus/images'] == found['student/focus/images'] == 3
