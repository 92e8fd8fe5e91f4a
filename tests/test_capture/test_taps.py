import gc
import logging
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import noise, pictures, pool_detector, resnet_detector, runner_config, write_dataset
from conftest import test_predictions as run_test
from mmdet.models import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.structures import BaseDataElement
from torch import nn

from mmdet_featviz import REDUCTIONS
from mmdet_featviz.capture.reductions import get_reduction
from mmdet_featviz.capture.taps import Taps

MAX = get_reduction('max')


def samples(count):
    return [DetDataSample() for _ in range(count)]


def hook_count(model):
    return sum(len(module._forward_hooks) for module in model.modules())


class Toy(nn.Module):
    """A small model with the special cases of real detectors: in-place ReLU, shared and bypassed modules, scores."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 2, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.shared = nn.Conv2d(4, 2, 2, stride=2)
        self.scores = nn.Linear(4, 3)
        self.parts = nn.ModuleList([nn.Conv2d(4, 4, 1)])
        self.bypassed = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
        self.data_preprocessor = nn.Identity()

    def forward(self, x):
        features = self.backbone(x)
        activated = self.relu(features)
        self.scores(activated.mean((2, 3)))
        self.parts[0](activated)
        self.bypassed[1](activated)
        return self.shared(activated), self.shared(activated[..., ::2, ::2])


def run(model, inputs, **options):
    taps = Taps(model, reduction=MAX, **options)
    with taps, torch.no_grad():
        taps.begin(inputs, samples(len(inputs)))
        model(inputs)
    return taps.take()[0].maps, taps


def test_values_are_captured_before_a_later_in_place_relu():
    model, inputs = Toy(), torch.randn(2, 3, 16, 24)
    maps, _ = run(model, inputs, layers=['backbone'])
    expected = model.backbone(inputs).amax(1)
    assert (expected < 0).any()
    torch.testing.assert_close(maps[0].values, expected)
    assert maps[0].channels == 4
    assert maps[0].stride == (2, 2)


def test_feature_maps_are_not_kept():
    model, seen = Toy(), []
    model.backbone.register_forward_hook(lambda module, args, output: seen.append(weakref.ref(output)))
    taps = Taps(model, ['backbone'], MAX)
    with taps, torch.no_grad():
        taps.begin(torch.randn(1, 3, 8, 8), samples(1))
        model(torch.randn(1, 3, 8, 8))
        gc.collect()
        assert seen[0]() is None


def test_each_call_of_a_shared_layer_is_a_new_level():
    maps, _ = run(Toy(), torch.randn(1, 3, 16, 16), layers=['shared'])
    assert [(m.name, m.stride[0], tuple(m.values.shape)) for m in maps] == [
        ('shared_0', 4, (1, 4, 4)),
        ('shared_1', 8, (1, 2, 2)),
    ]


@pytest.mark.parametrize('fails', [False, True])
def test_hooks_are_removed_also_after_an_exception(fails):
    model = Toy()
    taps = Taps(model, None, MAX)
    try:
        with taps:
            assert hook_count(model) > 0
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert hook_count(model) == 0
    taps.detach()


def test_attaching_twice_leaves_one_set_of_hooks():
    model = Toy()
    taps = Taps(model, ['backbone'], MAX)
    taps.attach()
    once = hook_count(model)
    taps.attach()
    assert hook_count(model) == once


def test_a_pass_begins_with_the_preprocessor_and_keeps_its_samples():
    model = MODELS.build(pool_detector()).eval()
    taps = Taps(DetTTAModel(module=model), None, MAX)
    sample = DetDataSample(metainfo=dict(img_shape=(40, 50), ori_shape=(40, 50), scale_factor=(1, 1)))
    with taps, torch.no_grad():
        for _ in range(2):  # as under test-time augmentation
            model.test_step(dict(inputs=[torch.zeros(3, 40, 50, dtype=torch.uint8)], data_samples=[sample]))
    passes = taps.take()
    assert [tuple(p.inputs.shape) for p in passes] == [(1, 3, 64, 64)] * 2
    assert [len(p.maps) for p in passes] == [6, 6]
    assert passes[0].samples[0].metainfo['ori_shape'] == (40, 50)
    assert taps.take() == []


def predict(model, name, value=0):
    """Let a detector predict on one image of a uniform value."""
    meta = dict(img_path=name, img_shape=(40, 50), ori_shape=(40, 50), scale_factor=(1, 1))
    image = torch.full((3, 40, 50), value, dtype=torch.uint8)
    with torch.no_grad():
        model.test_step(dict(inputs=[image], data_samples=[DetDataSample(metainfo=meta)]))


@pytest.mark.parametrize('wrap', [lambda model: model, lambda model: DetTTAModel(module=model)])
def test_passes_do_not_pile_up_in_taps_that_nobody_detached(wrap):
    """As after an error in a hook or an evaluator, which ends a test between two iterations."""
    model = MODELS.build(pool_detector()).eval()
    taps = Taps(nn.DataParallel(wrap(model)), None, MAX)
    taps.attach()
    inputs = []
    model.backbone.register_forward_pre_hook(lambda module, args: inputs.append(weakref.ref(args[0])))
    for number in range(20):
        predict(model, f'{number}.png', value=number)
    gc.collect()
    assert [number for number, kept in enumerate(inputs) if kept() is not None] == [19]
    (latest,) = taps.take()
    assert latest.samples[0].img_path == '19.png'
    assert latest.inputs.max() == 19
    assert len(latest.maps) == 6


def test_the_same_image_again_is_another_pass_only_under_test_time_augmentation():
    model = MODELS.build(pool_detector()).eval()
    for wrapped, kept in [(nn.DataParallel(model), [2]), (nn.DataParallel(DetTTAModel(module=model)), [1, 2])]:
        with Taps(wrapped, None, MAX) as taps:
            for value in (1, 2):
                predict(model, 'a.png', value)
            assert [int(pass_.inputs.max()) for pass_ in taps.take()] == kept
            assert taps.take() == []


def test_layer_that_never_fires_suggests_its_parts_that_do():
    with pytest.raises(ValueError, match=r"layer 'bypassed' never fires.*these do: bypassed\.1\."):
        run(Toy(), torch.randn(1, 3, 8, 8), layers=['backbone', 'bypassed'])


def test_output_that_is_not_a_feature_map_is_skipped_or_an_error():
    maps, taps = run(Toy(), torch.randn(2, 3, 8, 8), layers=['backbone', 'scores'])
    assert [m.layer for m in maps] == ['backbone']
    assert taps.not_maps == {'scores': 'scores, queries or similar, (2, 3)'}
    with pytest.raises(
        ValueError,
        match=r"the output of layer 'scores' is not a feature map .* but scores, queries or similar, \(2, 3\)",
    ):
        run(Toy(), torch.randn(2, 3, 8, 8), layers=['scores'], strict=True)


def test_a_pass_that_an_error_ended_is_not_kept_once_it_is_taken():
    model, inputs = Toy(), torch.rand(1, 3, 16, 16)
    model.shared.forward = lambda x: 1 / 0
    taps = Taps(model, ['backbone'], MAX)
    with pytest.raises(ZeroDivisionError), taps:
        taps.begin(inputs, samples(1))
        model(inputs)
    assert [activation.name for activation in taps.take()[0].maps] == ['backbone_0']
    kept = weakref.ref(inputs)
    del inputs
    gc.collect()
    assert kept() is None


def test_quiet_taps_skip_without_a_word(log):
    def fails(features):
        raise RuntimeError

    inputs = torch.rand(1, 3, 16, 16)
    run(Toy(), inputs, layers=['scores'], quiet=True)
    taps = Taps(Toy(), ['backbone'], fails, quiet=True)
    with taps:
        taps.begin(inputs, samples(1))
        taps.model(inputs)
    assert taps.take()[0].maps == []
    assert warnings_in(log) == []


def test_layers_that_are_computed_again_for_their_gradients_add_no_levels():
    """with_cp computes the blocks of the backbone a second time while the gradients are."""
    names, calls = {}, {}
    for with_cp in (False, True):
        cfg = resnet_detector()
        cfg['backbone'].update(with_cp=with_cp, frozen_stages=0)
        model = MODELS.build(cfg).train()
        calls[with_cp] = []
        model.backbone.layer3[0].conv1.register_forward_hook(lambda *args, key=with_cp: calls[key].append(1))
        taps = Taps(model, ['backbone', 'backbone.layer3.0.conv1', 'backbone.layer3.1'], MAX)
        with taps:
            data = model.data_preprocessor(demo_mm_inputs(1, [[3, 64, 64]], num_classes=2), True)
            losses = model(**data, mode='loss')
            sum(map(sum, losses.values())).backward()
        (pass_,) = taps.take()
        names[with_cp] = [activation.name for activation in pass_.maps]
        assert pass_.grids.keys() == {'backbone', 'neck'}
    assert calls == {False: [1], True: [1, 1]}
    assert names[True] == names[False]
    assert names[False].count('backbone.layer3.0.conv1_0') == 1


class Odd(nn.Module):
    """A detector of which one layer, `odd`, returns whatever it is made with; `backbone` and `neck` are ordinary."""

    def __init__(self, output):
        super().__init__()
        self.backbone, self.odd, self.neck = nn.AvgPool2d(2), nn.Identity(), nn.AvgPool2d(4)
        self.output = output
        self.odd.forward = lambda x: self.output

    def forward(self, x):
        self.backbone(x)
        self.odd(x)
        return self.neck(x)


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture
def log(caplog, monkeypatch):
    """Records of the logger that messages go to."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('test')
    monkeypatch.setattr(logger, 'propagate', True)
    logger.addHandler(caplog.handler)
    return caplog


@dataclass
class Outputs:
    maps: tuple
    size: int = 3


def test_maps_in_dataclasses_and_data_elements_are_found_in_order():
    first, second, third = torch.rand(2, 4, 8, 8), torch.rand(2, 4, 4, 4), torch.rand(2, 4, 2, 2)
    element = BaseDataElement(
        metainfo=dict(not_drawn=torch.rand(2, 4, 8, 8)), p4=second, p5=BaseDataElement(data=third)
    )
    for output in (Outputs((first, second, third)), [first, element], dict(nested=Outputs((first, dict(b=element))))):
        maps, taps = run(Odd(output), torch.rand(2, 3, 16, 16), layers=['odd'], strict=True)
        assert [activation.name for activation in maps] == ['odd_0', 'odd_1', 'odd_2']
        for activation, expected in zip(maps, (first, second, third)):
            torch.testing.assert_close(activation.values, expected.amax(1))
        assert taps.skipped_layers() == []


class NestedTensor:
    """An object that holds tensors in a way nobody can know, like that of the original DETR."""

    def __init__(self):
        self.tensors = torch.rand(1, 4, 8, 8)


@pytest.mark.parametrize(
    ('output', 'name'), [(NestedTensor(), 'NestedTensor'), (None, 'NoneType'), ([], 'list'), (Outputs, 'type')]
)
def test_output_without_tensors_is_named_or_an_error(output, name, log):
    maps, taps = run(Odd(output), torch.rand(1, 3, 16, 16), layers=['backbone', 'odd'])
    assert [activation.name for activation in maps] == ['backbone_0']
    reason = f'an output of type {name} without tensors'
    assert taps.skipped_layers() == [f'layer odd, no spatial map ({reason})']
    (warning,) = warnings_in(log)
    assert f'but {reason}; it is skipped' in warning
    with pytest.raises(ValueError, match=f'but {reason}'):
        run(Odd(output), torch.rand(1, 3, 16, 16), layers=['odd'], strict=True)


@pytest.mark.filterwarnings('ignore:The PyTorch API of nested tensors')
@pytest.mark.parametrize(
    ('convert', 'reason'),
    [
        (lambda x: x.to_sparse(), 'a tensor of the layout torch.sparse_coo, (2, 4, 8, 8)'),
        (lambda x: x.to_mkldnn(), 'a tensor of the layout torch._mkldnn, (2, 4, 8, 8)'),
        (lambda x: torch.nested.nested_tensor(list(x)), 'a nested tensor'),
    ],
)
def test_output_without_ordinary_memory_costs_its_layer(convert, reason, log):
    model, inputs = Odd(convert(torch.rand(2, 4, 8, 8))), torch.rand(2, 3, 16, 16)
    taps = Taps(model, ['backbone', 'odd', 'neck'], MAX, attention=True)
    with taps, torch.no_grad():
        for _ in range(2):
            taps.begin(inputs, samples(2))
            model(inputs)
    for pass_ in taps.take():
        assert [activation.name for activation in pass_.maps] == ['backbone_0', 'neck_0']
    assert taps.skipped_layers() == [f'layer odd, no spatial map ({reason})']
    (warning,) = warnings_in(log)
    assert "layer 'odd'" in warning and reason in warning
    with pytest.raises(ValueError, match="the output of layer 'odd' is not a feature map"):
        run(model, inputs, layers=['odd'], strict=True)


def test_a_reduction_that_raises_costs_its_layer_in_the_passes_where_it_does(log):
    """The layer has two levels, and its second is refused in every other pass: no level of it may get a wrong name."""
    model = Odd([torch.rand(1, 4, 8, 8), torch.rand(1, 5, 4, 4), torch.rand(1, 4, 2, 2)])
    inputs = torch.rand(1, 3, 16, 16)

    def no_five(features):
        if features.shape[1] == 5:
            raise LookupError('five\nlines')
        return features.amax(1)

    names = []
    for channels in (4, 5, 4, 5):
        model.output[1] = torch.rand(1, channels, 4, 4)
        if not names:
            taps = Taps(model, ['backbone', 'odd', 'neck'], no_five)
        with taps, torch.no_grad():
            taps.begin(inputs, samples(1))
            model(inputs)
        names.append([activation.name for activation in taps.take()[0].maps])
    whole = ['backbone_0', 'odd_0', 'odd_1', 'odd_2', 'neck_0']
    assert names == [whole, ['backbone_0', 'neck_0']] * 2
    assert taps.skipped_layers() == ['layer odd, LookupError: five (2 of 4 passes)']
    _, warning = warnings_in(log)  # the first one: constants have no receptive field
    assert warning.startswith("layer 'odd' is skipped, LookupError: five ") and 'strict=True' in warning
    model.output[1] = torch.rand(1, 5, 4, 4)
    with pytest.raises(LookupError, match='five'):
        taps = Taps(model, ['odd'], no_five, strict=True)
        with taps:
            taps.begin(inputs, samples(1))
            model(inputs)


def test_after_an_error_later_calls_of_a_shared_layer_add_no_levels_with_wrong_numbers():
    model, inputs = Toy(), torch.rand(1, 3, 16, 16)

    def no_large(features):
        assert features.shape[2] != 4, 'too large'
        return features.amax(1)

    taps = Taps(model, ['backbone', 'shared'], no_large)
    with taps, torch.no_grad():
        taps.begin(inputs, samples(1))
        model(inputs)  # `shared` is called with 4 x 4 cells, then with 2 x 2
    assert [activation.name for activation in taps.take()[0].maps] == ['backbone_0']


def test_an_evaluation_survives_a_reduction_that_raises_and_its_summary_names_the_layer(tmp_path):
    def no_neck(features):
        if features.shape[2] == 1:  # stride 128
            raise RuntimeError('a single row')
        return features.amax(1)

    REDUCTIONS.register_module(name='no_neck_of_test', module=no_neck, force=True)
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(seed=n) for n in range(2)})
    out = tmp_path / 'out'
    plain, _, _ = run_test(runner_config(data, tmp_path / 'plain', resnet_detector()))
    hook = dict(out_dir=str(out), reduction='no_neck_of_test', save=('overlay',), image_format='png')
    predictions, _, runner = run_test(runner_config(data, tmp_path / 'work', resnet_detector(), hook=hook))
    for before, after in zip(plain, predictions):
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])
    assert pictures(out) == [f'{n}/backbone_{level}.png' for n in range(2) for level in range(4)]
    (visualizer,) = (hook.visualizer for hook in runner.hooks if hasattr(hook, 'visualizer'))
    summary = visualizer.summary()
    assert '8 pictures of 2 images' in summary
    assert summary.endswith('; skipped: layer neck, RuntimeError: a single row (2 of 2 passes)')


def test_all_modules_of_a_class_inside_the_layers():
    model = MODELS.build(resnet_detector()).eval()
    convolutions = [name for name, part in model.backbone.named_modules() if type(part).__name__ == 'Conv2d']
    taps = Taps(model, ['backbone'], get_reduction('mean'), layer_type='Conv2d')
    assert list(taps.modules) == [f'backbone.{name}' for name in convolutions]
    assert len(convolutions) == 20
    seen = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda module, args, out, n=name: seen.append((n, out.clone())))
        for name in taps.modules
    ]
    inputs = torch.randn(1, 3, 64, 96)
    with taps, torch.no_grad():
        taps.begin(inputs, [None])
        model.extract_feat(inputs)
    (pass_,) = taps.take()
    assert [activation.layer for activation in pass_.maps] == [name for name, _ in seen]  # in forward order
    for activation, (_, output) in zip(pass_.maps, seen):
        torch.testing.assert_close(activation.values, output.mean(1))
    for handle in handles:
        handle.remove()
