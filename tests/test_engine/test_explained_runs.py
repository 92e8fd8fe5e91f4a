"""Explanations in a test or validation, by FeatVizHook and by detectors that draw by themselves."""

import logging

import numpy as np
import pytest
import torch
from commands import featviz
from conftest import (
    keep_ratio_pipeline,
    manifest,
    noise,
    pictures,
    read,
    resnet_detector,
    runner_config,
    same_files,
    test_predictions,
    train_config,
    write_dataset,
)
from explained import state_of
from mmdet.apis import init_detector
from mmdet.registry import DATASETS
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdet_featviz import EXPLAINERS, FeatureVisualizer
from mmdet_featviz.apis.explain import explain_batch
from mmdet_featviz.runs.explanation_files import explanation_name

SIZES = [(90, 120), (64, 200), (77, 77)]


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', {f'{n}.png': noise(*size, seed=n) for n, size in enumerate(SIZES)})


def explained_config(data, tmp_path, name='run', type='SingleStageDetector', batch_size=1, options=None, **explain):
    """Config of a test that explains detections; the weights of the head are large enough for scores to differ."""
    own = dict(out_dir=str(tmp_path / name), image_format='png', explain=explain or None, **(options or {}))
    model, hook = resnet_detector(type), own
    if type.endswith('Hp'):
        model, hook = resnet_detector(type, featviz=own), None
    cfg = runner_config(data, tmp_path / f'work of {name}', model, batch_size=batch_size, hook=hook)
    cfg.load_from = str(tmp_path / 'weights.pth')
    if not (tmp_path / 'weights.pth').exists():
        torch.manual_seed(1)
        weights = init_detector(runner_config(data, tmp_path, resnet_detector()), device='cpu').state_dict()
        for weight_name, weight in weights.items():
            if 'head' in weight_name and weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3)
        torch.save(dict(state_dict=weights, meta={}), cfg.load_from)
    return cfg


def explained(out_dir):
    """Names of the files of explanations."""
    return [name for name in pictures(out_dir) if '/explain/' in name]


def batches(cfg):
    """The batches of a test, collated as its data loader does."""
    dataset, size = DATASETS.build(cfg.test_dataloader.dataset), cfg.test_dataloader.batch_size
    samples = [dataset[index] for index in range(len(dataset))]
    return [
        {key: [sample[key] for sample in samples[first : first + size]] for key in samples[0]}
        for first in range(0, len(samples), size)
    ]


@pytest.mark.parametrize('batch_size', [1, 2])
@pytest.mark.parametrize('type', ['SingleStageDetector', 'SingleStageDetectorHp'])
def test_explanations_beside_the_maps(tmp_path, data, batch_size, type):
    plain_cfg = explained_config(data, tmp_path, 'plain', batch_size=batch_size)
    cfg = explained_config(data, tmp_path, type=type, batch_size=batch_size, targets='top 2', method='layercam')
    (plain, metrics, runner), (found, own_metrics, own) = test_predictions(plain_cfg), test_predictions(cfg)
    if type.endswith('Hp'):
        own.model.featviz.close()
    for one, other in zip(plain, found):
        assert len(one['scores']) > 2
        for field in one:
            np.testing.assert_array_equal(one[field], other[field])
    assert metrics == own_metrics
    names = []
    for batch in batches(plain_cfg):
        explanations = explain_batch(
            runner.model, batch, 'layercam', 'top 2', dataset_meta=runner.visualizer.dataset_meta
        )
        for sample, of_image in zip(batch['data_samples'], explanations):
            key = sample.img_path.split('/')[-1][:-4]
            key = (
                key
                if not type.endswith('Hp')
                else [n for n in pictures(tmp_path / 'run') if f'{key}/neck_0.png' in n][0][:-11]
            )
            assert len(of_image) == 2
            for one in of_image:
                names.append(f'{key}/explain/{explanation_name(one)}.png')
                np.testing.assert_array_equal(read(tmp_path / 'run' / names[-1]), one.draw())
    assert explained(tmp_path / 'run') == sorted(names)
    assert len([name for name in pictures(tmp_path / 'run') if '/neck_' in name]) == 5 * 3
    entries = [entry for entry in manifest(tmp_path / 'run') if 'method' in entry]
    assert sorted(name for entry in entries for name in entry['files']) == sorted(names)
    for entry in entries:
        position, number = entry['position'], entry['number']
        order = plain[position]['scores'].argsort(kind='stable')[::-1]
        assert (entry['score'], entry['pass'], entry['folder']) == (
            float(plain[position]['scores'][order[number]]),
            0,
            '',
        )
        np.testing.assert_array_equal(np.float32(entry['bbox']), plain[position]['bboxes'][order[number]])


def test_nothing_is_left_in_the_detector(tmp_path, data):
    states = []

    @HOOKS.register_module(force=True)
    class LookAtState(Hook):
        def before_test_iter(self, runner, batch_idx, data_batch=None):
            states.append(state_of(runner.model)[:2])  # the loop changes the others

        def after_test(self, runner):
            states.append(state_of(runner.model)[:2])

    cfg = explained_config(data, tmp_path, targets='top 1')
    cfg.custom_hooks = [dict(type='LookAtState', priority='VERY_HIGH')]
    Runner.from_cfg(cfg).test()
    assert len(states) == 4
    assert states[0] == states[1] == states[2] == states[3]


def test_max_images_and_one_forward_more_per_batch(tmp_path, data):
    calls = []

    @HOOKS.register_module(force=True)
    class CountForwards(Hook):
        def before_test(self, runner):
            runner.model.bbox_head.register_forward_hook(lambda *args: calls.append(torch.is_grad_enabled()))

    cfg = explained_config(data, tmp_path, batch_size=2, options=dict(max_images=1, layers='neck'), targets='all')
    cfg.custom_hooks = [dict(type='CountForwards')]
    Runner.from_cfg(cfg).test()
    assert {name.split('/')[0] for name in pictures(tmp_path / 'run')} == {'0'}
    assert len(explained(tmp_path / 'run')) == 5
    assert calls == [False, True, False]  # the boxes of the test itself are explained


def test_a_resumed_run_explains_what_is_missing(tmp_path, data):
    def cfg(name, **options):
        return explained_config(
            data, tmp_path, name, options=dict(save=('overlay', 'maps'), **options), targets='top 2'
        )

    @HOOKS.register_module(force=True)
    class StopAtSecondImage(Hook):
        def before_test_iter(self, runner, batch_idx, data_batch=None):
            if batch_idx == 2:
                raise KeyboardInterrupt

    @EXPLAINERS.register_module(force=True)
    def counted(batch, targets):
        calls.append(len(targets))
        return EXPLAINERS.get('odam')(batch, targets)

    calls = []
    whole, stopped, resumed = cfg('whole'), cfg('stopped'), cfg('stopped', resume=True)
    for one in (whole, stopped, resumed):
        one.default_hooks.featviz.explain.method = 'counted'
    stopped.custom_hooks = [dict(type='StopAtSecondImage', priority='VERY_LOW')]
    Runner.from_cfg(whole).test()
    with pytest.raises(KeyboardInterrupt):
        Runner.from_cfg(stopped).test()
    (tmp_path / 'stopped' / explained(tmp_path / 'stopped')[0]).unlink()  # of the first image
    calls.clear()
    Runner.from_cfg(resumed).test()
    EXPLAINERS.module_dict.pop('counted')
    assert calls == [2, 2]  # the first image and the last, not the one between
    assert pictures(tmp_path / 'stopped') == pictures(tmp_path / 'whole')
    for name in pictures(tmp_path / 'whole'):
        if not name.endswith('.npz'):
            assert (tmp_path / 'stopped' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()


def test_other_explanations_are_not_resumed(tmp_path, data):
    Runner.from_cfg(explained_config(data, tmp_path, targets='top 1')).test()
    cfg = explained_config(data, tmp_path, options=dict(resume=True), targets='top 2')
    with pytest.raises(ValueError, match=r"explanations\.targets was 'top 1' and is 'top 2' now"):
        Runner.from_cfg(cfg).test()


@pytest.mark.parametrize(
    ('explain', 'error', 'message'),
    [
        (dict(method='odan'), ValueError, "unknown method 'odan': did you mean 'odam'"),
        (dict(targets='best'), ValueError, "target 'best' is not understood"),
        (dict(of='size'), ValueError, "of='size' is not known"),
        (dict(masks=3), TypeError, "unknown option 'masks': odam takes no options"),
        (dict(method='drise', masks=0), ValueError, 'masks must be a whole number of at least 1, but is 0'),
        (dict(method='drise', visible=1.5), ValueError, 'visible must lie between 0 and 1, but is 1.5'),
        (dict(method='random', seed=-1), ValueError, 'seed must be a whole number of at least 0, but is -1'),
        (dict(method='ablationcam', batch_size=2.5), ValueError, 'batch_size must be a whole number'),
        (dict(colormap='jet'), TypeError, "explain has no 'colormap': explanations look as the other pictures"),
        ('odam', TypeError, r"explain must be a dict such as dict\(method='odam', targets='top 3'\), but is 'odam'"),
    ],
)
def test_mistakes_are_found_when_the_hook_is_built(explain, error, message):
    with pytest.raises(error, match=message):
        FeatureVisualizer(explain=explain)


@pytest.mark.parametrize(
    ('explain', 'message'),
    [
        (dict(targets='class cow'), "unknown class 'cow': the closest are cat, dog"),
        (dict(layers='nekc'), "unknown layer 'nekc'"),
    ],
)
def test_mistakes_are_found_before_the_first_iteration(tmp_path, data, explain, message):
    cfg = explained_config(data, tmp_path, **explain)
    runner = Runner.from_cfg(cfg)
    runner.model.forward = None  # nothing is predicted
    with pytest.raises(ValueError, match=message):
        runner.test()


def test_training_images_are_not_explained():
    with pytest.raises(ValueError, match="explain needs 'val' or 'test' among the stages, but they are train"):
        FeatureVisualizer(explain={}, stages='train')


def test_options_of_a_users_method_are_not_limited_by_their_names():
    @EXPLAINERS.register_module(force=True)
    def own(batch, targets, visible=10, seed='today'):
        return []

    options = dict(visible=12, seed='tomorrow')
    assert FeatureVisualizer(explain=dict(method='own', **options)).explanations.options == options
    EXPLAINERS.module_dict.pop('own')


def test_an_error_costs_the_explanations_and_one_message(tmp_path, data, caplog):
    @EXPLAINERS.register_module(force=True)
    def failing(batch, targets):
        raise ValueError(f'nothing known of {len(targets)} boxes')

    plain = test_predictions(explained_config(data, tmp_path, 'plain', options=dict(layers='neck')))
    cfg = explained_config(data, tmp_path, options=dict(layers='neck'), method='failing')
    cfg.log_level = 'WARNING'
    with caplog.at_level(logging.WARNING):
        predictions, metrics, runner = test_predictions(cfg)
    assert metrics == plain[1]
    same_files(tmp_path / 'plain', tmp_path / 'run')
    hook = next(hook for hook in runner.hooks if hasattr(hook, 'visualizer'))
    assert hook.visualizer.summary().endswith(
        'skipped: 3 images, explanations: ValueError while explaining (0.png, 1.png, 2.png)'
    )
    strict = explained_config(data, tmp_path, 'strict', options=dict(strict=True), method='failing')
    with pytest.raises(ValueError, match='nothing known of 5 boxes'):
        Runner.from_cfg(strict).test()
    EXPLAINERS.module_dict.pop('failing')


def test_images_without_a_target_are_counted_also_if_strict(tmp_path, data):
    cfg = explained_config(data, tmp_path, options=dict(strict=True), targets='score 0.99999')
    runner = Runner.from_cfg(cfg)
    runner.test()
    assert explained(tmp_path / 'run') == []
    hook = next(hook for hook in runner.hooks if hasattr(hook, 'visualizer'))
    assert hook.visualizer.summary().endswith('skipped: 3 images, nothing to explain (0.png, 1.png, 2.png)')


@pytest.mark.parametrize('type', ['SingleStageDetector', 'SingleStageDetectorHp'])
def test_the_plain_pass_of_test_time_augmentation(tmp_path, data, type):
    cfg = explained_config(data, tmp_path, type=type, options=dict(layers='neck'), targets='top 1')
    cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=5))
    load, resize, annotate, pack = keep_ratio_pipeline()
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    pack = {**pack, 'meta_keys': (*pack['meta_keys'], 'flip', 'flip_direction')}
    cfg.test_dataloader.dataset.pipeline = [
        load,
        dict(type='TestTimeAug', transforms=[[resize], flips, [annotate], [pack]]),
    ]
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    runner = Runner.from_cfg(cfg)
    runner.test()
    if type.endswith('Hp'):
        runner.model.module.featviz.close()
    names = explained(tmp_path / 'run')
    assert len(names) == 3
    assert all(name.endswith('.odam.pass_1.png') for name in names)
    plain_cfg = explained_config(data, tmp_path, 'plain')
    for batch, name in zip(batches(plain_cfg), sorted(names)):
        ((one,),) = explain_batch(runner.model, batch, targets='top 1', dataset_meta=runner.visualizer.dataset_meta)
        assert name.endswith(f'{explanation_name(one)}.pass_1.png')
        np.testing.assert_array_equal(read(tmp_path / 'run' / name), one.draw())


def test_validations_of_a_training(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'run'), layers='neck', stages=('train', 'val'), explain=dict(targets='top 1'))
    metrics = {}
    for name, options in (('plain', None), ('drawn', hook)):
        cfg = train_config(data, tmp_path / name, resnet_detector(), hook=options)
        runner = Runner.from_cfg(cfg)
        runner.train()
        metrics[name] = [parameter.detach().clone() for parameter in runner.model.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(metrics['plain'], metrics['drawn']))
    folders = {name.rpartition('/explain/')[0] for name in explained(tmp_path / 'run')}
    assert folders == {f'epoch_{epoch}/{image}' for epoch in (1, 2) for image in range(3)}


def test_half_precision_of_the_loop(tmp_path, data, monkeypatch):
    """The explained pass is in the precision of the test; mmcv's NMS on the CPU is for float32 only."""
    cfg = explained_config(data, tmp_path, options=dict(layers='neck'), targets='top 1')
    cfg.test_cfg.fp16 = True
    runner = Runner.from_cfg(cfg)
    head = runner.model.bbox_head
    forward = head.forward
    kinds = []

    def in_float32(feats):
        kinds.append(torch.is_autocast_cpu_enabled())
        return [[level.float() for level in levels] for levels in forward(feats)]

    monkeypatch.setattr(head, 'forward', in_float32)
    runner.test()
    assert len(explained(tmp_path / 'run')) == 3
    assert kinds == [True] * 6


def test_explanations_are_drawn_again_in_another_style(tmp_path, data):
    cfg = explained_config(data, tmp_path, options=dict(save=('overlay', 'maps')), targets=['top 1', 'gt'], of='both')
    Runner.from_cfg(cfg).test()
    cfg = explained_config(
        data, tmp_path, 'magma', options=dict(colormap='magma', alpha=0.7), targets=['top 1', 'gt'], of='both'
    )
    Runner.from_cfg(cfg).test()
    for name, options in dict(again=[], magma_again=['--colormap', 'magma', '--alpha', '0.7']).items():
        done = featviz('render', tmp_path / 'run', '--out-dir', tmp_path / name, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for drawn, first in dict(again='run', magma_again='magma').items():
        names = [name for name in explained(tmp_path / first) if name.endswith('.png')]
        assert explained(tmp_path / drawn) == names
        assert len(names) == 6
        for name in names:
            assert (tmp_path / drawn / name).read_bytes() == (tmp_path / first / name).read_bytes()
        entries, expected = (
            [dict(entry, files=None) for entry in manifest(tmp_path / folder) if 'method' in entry]
            for folder in (drawn, first)
        )
        assert entries == expected
    for options, kept in (['--levels', 'neck_*'], 0), (['--levels', 'explain', '--images', '1'], 2):
        done = featviz('render', tmp_path / 'run', '--out-dir', tmp_path / f'{kept}', *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(explained(tmp_path / f'{kept}')) == kept
    assert all('/explain/' in name for name in pictures(tmp_path / '2'))
