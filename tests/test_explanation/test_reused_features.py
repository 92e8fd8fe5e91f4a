"""Features of a pass are used again by further passes over the batch, up to the layers to explain at."""

import threading

import numpy as np
import pytest
import torch
from conftest import TEST_CFG
from explained import narrow_retinanet, small_detr, state_of, with_config, write_image
from mmdet.registry import MODELS

from mmdet_featviz import explain
from mmdet_featviz.apis.explain import explain_batch
from mmdet_featviz.apis.inference import build_pipeline
from mmdet_featviz.capture.kept_features import KeptCalls, KeptFeatures
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.explanation import reused_features
from mmdet_featviz.explanation.detector_batch import DetectorBatch


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path)


def batch_of(model, image):
    return {key: [value] for key, value in build_pipeline(model)(dict(img_path=image, img_id=0)).items()}


def calls_of(model, *paths):
    """Count how often the inside of modules runs: a module whose output is used again does not call its parts."""
    calls = dict.fromkeys(paths, 0)

    def counter(path):
        def count(*args):
            calls[path] += 1

        return count

    for path in paths:
        model.get_submodule(path).register_forward_hook(counter(path))
    return calls


@pytest.mark.parametrize(
    ('layers', 'targets', 'backbone', 'neck', 'head'),
    [
        (None, 'all', 1, 1, 2),
        (None, ['top 1', 'gt'], 1, 1, 4),  # detections and candidates, with gradients and without
        ('bbox_head.cls_convs.0', 'all', 1, 1, 2),
        ('backbone', 'all', 1, 2, 2),
        (['neck', 'backbone'], 'all', 1, 2, 2),
        ('neck.lateral_convs.0', 'all', 1, 2, 2),
        ('backbone.layer3', 'all', 2, 2, 2),
    ],
)
def test_what_lies_before_the_taps_runs_once(image, monkeypatch, layers, targets, backbone, neck, head):
    from mmengine.structures import InstanceData

    model = narrow_retinanet()
    data = batch_of(model, image)
    truth = InstanceData(bboxes=torch.tensor([[10.0, 10.0, 60.0, 50.0]]), labels=torch.tensor([0]))
    data['data_samples'][0].gt_instances = truth
    calls = calls_of(model, 'backbone.layer1', 'neck.fpn_convs.0', 'bbox_head')
    (found,) = explain_batch(model, data, targets=targets, layers=layers)
    assert list(calls.values()) == [backbone, neck, head]
    monkeypatch.setattr(KeptFeatures, 'are_intact', False)
    (expected,) = explain_batch(model, data, targets=targets, layers=layers)
    assert calls['backbone.layer1'] == backbone + head
    for one, other in zip(found, expected):
        assert one.heatmap.max() > 0
        np.testing.assert_array_equal(one.heatmap, other.heatmap)


def test_an_encoder_is_not_computed_again(image):
    model = with_config(MODELS.build(small_detr()))
    calls = calls_of(model, 'encoder.layers.0', 'decoder.layers.0')
    explain(model, image, 'attention', targets='top 1')
    assert calls == {'encoder.layers.0': 2, 'decoder.layers.0': 2}  # it comes after the neck, whose maps are wanted
    explain(model, image, targets='top 1', layers='encoder')
    assert calls == {'encoder.layers.0': 3, 'decoder.layers.0': 4}


def test_features_that_are_changed_in_place_are_not_used_again(image):
    model = narrow_retinanet()
    calls = calls_of(model, 'backbone.layer1', 'neck.fpn_convs.0')
    expected = explain(model, image, targets='top 1')[0].heatmap
    assert calls == {'backbone.layer1': 1, 'neck.fpn_convs.0': 1}
    forward = model.bbox_head.forward

    def adding(features):
        if not features[0].requires_grad:
            features[0].add_(0)
        return forward(features)

    model.bbox_head.forward = adding
    np.testing.assert_array_equal(explain(model, image, targets='top 1')[0].heatmap, expected)
    assert calls == {'backbone.layer1': 2, 'neck.fpn_convs.0': 3}


def test_a_module_that_is_called_twice_is_not_used_again(image):
    model = narrow_retinanet()
    extract = model.extract_feat
    model.extract_feat = lambda inputs: (model.neck(model.backbone(inputs)), extract(inputs))[1]
    data = batch_of(model, image)
    with torch.no_grad(), Taps(model, (), None, find_centers=False, keep_features=True) as taps:
        model.test_step(data)
    (pass_,) = taps.take()
    assert not pass_.features.keys() & {'backbone', 'neck'}


def normed_fcos():
    """Its convolutions have a norm behind them, so that no ReLU in place changes their output."""
    head = dict(type='FCOSHead', num_classes=2, in_channels=16, feat_channels=8, stacked_convs=2, center_sampling=True)
    model = narrow_retinanet()
    model.bbox_head = MODELS.build(
        dict(head, strides=[8, 16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=2), test_cfg=TEST_CFG)
    )
    return with_config(model)


def counted_convolutions(head, monkeypatch):
    """A list of the modules of a head whose convolution is computed."""
    counted, convolve, own = [], torch.nn.Conv2d._conv_forward, set(head.modules())

    def count(module, *args):
        counted.extend([module] if module in own else [])
        return convolve(module, *args)

    monkeypatch.setattr(torch.nn.Conv2d, '_conv_forward', count)
    return counted


def test_convolutions_of_the_head_are_computed_once(image, monkeypatch):
    model, options = normed_fcos(), dict(targets='top 3', of='both')
    counted = counted_convolutions(model.bbox_head, monkeypatch)
    found = explain(model, image, **options)
    assert len(counted) == 5 * 7  # levels, and convolutions: two towers of two, classes, sides, centerness
    counted.clear()
    monkeypatch.setattr('mmdet_featviz.capture.taps.KEPT_BYTES', -1)
    expected = explain(model, image, **options)
    assert len(counted) == 2 * 5 * 7
    for one, other in zip(found, expected):
        assert one.heatmap.max() > 0
        np.testing.assert_array_equal(one.heatmap, other.heatmap)


def test_convolutions_of_another_input_are_computed(image):
    model = normed_fcos()
    batch = DetectorBatch(model, batch_of(model, image))
    kept, taps = batch.plain_pass.features, Taps(model, (), None, find_centers=False)
    assert set(kept) > {'bbox_head.cls_convs.0.conv', 'bbox_head.conv_cls', 'neck'}
    with torch.no_grad():
        others = [level.flip(1) for level in model.extract_feat(torch.ones(1, 3, 64, 96))]
        expected = model.bbox_head(others)
        with reused_features.reusing(model, kept, taps):
            found = model.bbox_head(others)
    for one, other in zip(found, expected):
        assert all(map(torch.equal, one, other))


def test_what_is_kept_of_calls():
    inputs = [torch.arange(4.0).reshape(1, 1, 2, 2) + number for number in range(3)]
    outputs = [one * 2 for one in inputs]
    kept = KeptCalls()
    assert [kept.add(one, other) for one, other in zip(inputs, outputs)] == [32] * 3
    for one, other in zip(inputs, outputs):
        assert torch.equal(kept.output(one.clone()), other)
    for unknown in (
        inputs[0] + 9,
        inputs[0].double(),
        inputs[0].reshape(1, 1, 1, 4),
        torch.full((1, 1, 2, 2), torch.nan),
    ):
        assert kept.output(unknown) is None
    outputs[0] += 1
    assert kept.output(inputs[0].clone()) is None
    again = inputs[1].clone()
    inputs[1] += 1
    assert kept.output(again) is None


def test_what_is_kept():
    features = torch.ones(2)
    kept = KeptFeatures((features, [features * 2]))
    first, (second,) = kept.output()
    assert type(kept.output()) is tuple
    assert first is not features
    assert first.data_ptr() == features.data_ptr()
    assert second.tolist() == [2, 2]
    first.requires_grad_()
    assert not kept.output()[0].requires_grad
    assert kept.are_intact
    features += 1
    assert not kept.are_intact
    for other in (None, dict(a=features), [features, 'text']):
        with pytest.raises(TypeError, match='cannot be kept'):
            KeptFeatures(other)
    with torch.inference_mode():
        inferred = torch.ones(2)
    with pytest.raises(TypeError, match='cannot be kept'):
        KeptFeatures(inferred)


def test_other_threads_compute_their_own(image):
    model = narrow_retinanet()
    before = state_of(model)
    batch = DetectorBatch(model, batch_of(model, image))
    (kept,) = batch.plain_pass.features['neck'].output()[:1]
    taps, found = Taps(model, (), None, find_centers=False), {}
    with reused_features.reusing(model, batch.plain_pass.features, taps):
        work = threading.Thread(target=lambda: found.update(other=model.extract_feat(torch.zeros(1, 3, 64, 96))[0]))
        work.start()
        work.join()
        own = model.extract_feat(torch.zeros(1, 3, 64, 96))[0]
    assert torch.equal(own, kept)
    assert not torch.equal(found['other'], kept)
    assert state_of(model) == before


def test_after_an_error_nothing_is_replaced(image):
    model = narrow_retinanet()
    before = state_of(model)
    batch = DetectorBatch(model, batch_of(model, image))
    features, taps = batch.plain_pass.features, Taps(model, (), None, find_centers=False)
    with pytest.raises(ZeroDivisionError), reused_features.reusing(model, features, taps):
        assert 'forward' in vars(model.neck)
        raise ZeroDivisionError
    assert state_of(model) == before
