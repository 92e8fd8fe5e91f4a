"""Differentiable prediction: what is replaced while gradients are on, and the families that need it."""

import copy
import sys
import threading
import types

import cv2
import numpy as np
import pytest
import torch
from conftest import noise, resnet_detector
from explained import narrow_retinanet, small_detr, state_of, with_config, write_image
from mmdet.models import utils as mmdet_utils
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from mmdet_featviz import explain
from mmdet_featviz.apis.inference import batch_of_one, build_pipeline
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.differentiable import differentiable, gradients_of


def test_every_module_that_holds_the_function_gets_one_with_a_graph():
    other = types.ModuleType('heads_of_another_package')
    other.select_single_mlvl = mmdet_utils.select_single_mlvl
    sys.modules[other.__name__] = other
    original, level = mmdet_utils.select_single_mlvl, torch.ones(2, 3, requires_grad=True)
    try:
        with differentiable(torch.nn.Module()):
            (selected,) = other.select_single_mlvl([level], 1)
            with torch.enable_grad():
                assert other.select_single_mlvl([level * 2], 1)[0].requires_grad
            assert mmdet_utils.select_single_mlvl is not original
        assert other.select_single_mlvl is mmdet_utils.select_single_mlvl is original
        assert selected.shape == (3,)
    finally:
        del sys.modules[other.__name__]


def test_the_gradient_of_a_root_is_finite():
    values = torch.tensor([0.0, 4.0], requires_grad=True)
    with differentiable(torch.nn.Module()), torch.enable_grad():
        for root in (values.sqrt(), torch.sqrt(values)):
            assert root.tolist() == [0, 2]
            assert torch.autograd.grad(root.sum(), values)[0].tolist() == [0, 0.25]
    assert torch.autograd.grad(values.sqrt().sum(), values)[0].tolist() == [float('inf'), 0.25]


def test_paa_whose_gradient_would_be_nan(tmp_path):
    config = resnet_detector('PAA')
    config['bbox_head'].update(
        type='PAAHead', norm_cfg=None, loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True)
    )
    config['bbox_head']['loss_bbox'] = dict(type='GIoULoss')
    model, image = with_config(MODELS.build(config)), write_image(tmp_path)
    for one in explain(model, image, targets='top 3'):
        assert one.heatmap.max() > 0


def test_a_head_that_cuts_the_graph_itself(tmp_path):
    """SABL's head detaches its outputs before it predicts."""
    config, strides = resnet_detector('RetinaNet'), (8, 16, 32, 64, 128)
    config['bbox_head'] = dict(
        type='SABLRetinaHead',
        num_classes=2,
        in_channels=16,
        stacked_convs=1,
        feat_channels=16,
        approx_anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=strides
        ),
        square_anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], scales=[4], strides=strides),
        bbox_coder=dict(type='BucketingBBoxCoder', num_buckets=14, scale_factor=3.0),
    )
    model, image = with_config(MODELS.build(config)), write_image(tmp_path)
    with pytest.raises(ValueError, match="the score that RetinaNet predicts carries no gradient: method='drise' needs"):
        explain(model, image)
    assert explain(model, image, 'drise', 'top 1', masks=8)[0].heatmap.max() > 0


def test_a_copy_of_a_tensor_keeps_its_graph():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    with differentiable(torch.nn.Module()), torch.enable_grad():
        doubled = values * 2
        copied = copy.deepcopy(doubled)
        copied += 1
        assert doubled.tolist() == [2, 4]
        assert torch.autograd.grad(copied.sum(), values)[0].tolist() == [2, 2]
        assert copy.deepcopy(values).is_leaf  # as without a graph


def test_yolact_which_copies_its_boxes(tmp_path):
    config = resnet_detector('YOLACT')
    del config['bbox_head']['stacked_convs']
    config['bbox_head'].update(type='YOLACTHead', num_protos=4, loss_cls=dict(type='CrossEntropyLoss'))
    protos = dict(proto_channels=(8, None, 4), proto_kernel_sizes=(3, -2, 1), num_protos=4)
    config['mask_head'] = dict(type='YOLACTProtonet', num_classes=2, in_channels=16, with_seg_branch=False, **protos)
    config['test_cfg'] = ConfigDict(config['test_cfg'], iou_thr=0.5, top_k=20, mask_thr=0.5, mask_thr_binary=0.5)
    model, image = with_config(MODELS.build(config)), str(tmp_path / 'large.png')
    cv2.imwrite(image, noise(96, 131))  # of another size than the input: the mask head brings the boxes to the image
    with torch.no_grad():
        (sample,) = model.test_step(batch_of_one(build_pipeline(model), image))
    before, made = state_of(model), []
    model.mask_head.register_forward_hook(lambda *call: made.append(call))
    explained = explain(model, image, targets='top 3')
    model.mask_head._forward_hooks.clear()
    assert not made
    assert state_of(model) == before
    for one, box in zip(explained, sample.pred_instances.bboxes.numpy()):
        assert one.heatmap.max() > 0
        np.testing.assert_array_equal(one.bbox, box)


def test_threads_explain_one_after_the_other(tmp_path):
    image, maps = write_image(tmp_path), {}
    expected = explain(narrow_retinanet(), image, targets='top 1')[0].heatmap
    models = [narrow_retinanet() for _ in range(2)]

    def work(number):
        maps[number] = explain(models[number], image, targets='top 1')[0].heatmap

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((maps[number] == expected).all() for number in range(2))
    assert mmdet_utils.select_single_mlvl.__name__ == 'select_single_mlvl'


@pytest.mark.parametrize('layer', ['neck', 'backbone', 'encoder'])
def test_a_transformer_predicts_the_same_bits(tmp_path, layer):
    """Products of matrices are computed in another order for weights that require no gradient."""
    model = with_config(MODELS.build(small_detr()))
    before = state_of(model)
    for of in ('score', 'both'):
        for one in explain(model, write_image(tmp_path), targets='top 3', layers=layer, of=of):
            assert one.heatmap.max() > 0
            assert list(one.levels) == [f'{layer}_0']
    assert state_of(model) == before


def test_candidates_of_a_transformer(tmp_path):
    """Its head asks for the 8 best of 16 pairs of query and class; all 16 are candidates."""
    model = with_config(MODELS.build(small_detr()))
    data = {key: [value] for key, value in build_pipeline(model)(dict(img_path=write_image(tmp_path))).items()}
    before = state_of(model)
    assert len(DetectorBatch(model, data).detections[0]) == 8
    assert len(DetectorBatch(model, data, suppressed=False).detections[0]) == 16
    (one,) = explain(model, write_image(tmp_path), targets='box 10 10 80 60')
    assert one.heatmap.max() > 0
    assert state_of(model) == before


def test_gradients_of_half_precision_do_not_vanish():
    """1e-4 * 1e-4 is less than the smallest number of float16."""
    values = torch.tensor([2.0, 0.0], dtype=torch.float16, requires_grad=True)
    other = torch.zeros(1, requires_grad=True)
    number = (values * 1e-4 * 1e-4)[0]
    assert torch.autograd.grad(number, values, retain_graph=True)[0].tolist() == [0, 0]
    gradient, unused = gradients_of([number], [values, other])
    assert unused is None
    assert gradient.dtype == torch.float32
    assert gradient.tolist() == pytest.approx([1e-8, 0], rel=0.01)


def test_large_gradients_of_half_precision_do_not_overflow():
    """2^15 times 100 does not fit into float16, nor does 2^7 times 1000."""
    for slope in (100.0, 1000.0):
        values = torch.ones(1, dtype=torch.float16, requires_grad=True)
        assert gradients_of([(values * slope).sum()], [values])[0].tolist() == [slope]


def test_gradients_are_exact_in_single_precision():
    values = torch.randn(50, requires_grad=True)
    numbers = [(values.exp() * values).sum(), values[3]]
    (gradient,) = gradients_of(numbers, [values])
    assert torch.equal(gradient, torch.autograd.grad(sum(numbers), values)[0])
    (gradient,) = gradients_of([values.double().sum()], [values])
    assert gradient.dtype == torch.float32


def test_gradients_that_are_infinite_stay_so():
    values = torch.zeros(1, requires_grad=True)
    assert gradients_of([values.sqrt().sum()], [values])[0].tolist() == [float('inf')]
