"""Differentiable prediction: what is replaced while gradients are on, and the families that need it."""

import copy
import threading

import cv2
import numpy as np
import pytest
import torch
from conftest import noise, resnet_detector
from explained import narrow_retinanet, small_detr, state_of, with_config, write_image
from mmdet.models import utils as mmdet_utils
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from score_detectors import HEADS, make_batch, make_detector

from mmdet_featviz import explain
from mmdet_featviz.apis.inference import batch_of_one, build_pipeline
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.differentiable import differentiable, gradients_of
from mmdet_featviz.explanation.replacement import one_thread


class CuttingHead(torch.nn.Module):
    """Selects an output as mmdet's heads do, and cuts the graph outside of that, too."""

    def predict_by_feat(self, levels):
        return [mmdet_utils.select_single_mlvl(levels, 1)[0], levels[0][0].detach()]

    def forward(self, levels):
        return self.predict_by_feat([level * 2 for level in levels]), levels[0].detach()


def test_heads_select_outputs_without_cutting_the_graph():
    model, level = torch.nn.Sequential(CuttingHead()), torch.ones(2, 3, requires_grad=True)
    with differentiable(model), torch.enable_grad():
        selected, outside = model([level])
    assert [one.requires_grad for one in (*selected, outside)] == [True, True, False]
    (gradient,) = torch.autograd.grad(selected[0].sum(), level)
    assert gradient.tolist() == [[0, 0, 0], [2, 2, 2]]
    selected, _ = model([level])
    assert not any(one.requires_grad for one in selected)
    assert 'predict_by_feat' not in vars(model[0])


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


@pytest.mark.parametrize('suppressed', [True, False])
def test_threads_that_share_a_detector_wait(tmp_path, suppressed):
    """While one predicts, another must not: it would see the changes that only the first needs."""
    model, free = narrow_retinanet(), []
    batch = batch_of_one(build_pipeline(model), write_image(tmp_path))

    def note(*call):
        def work():
            free.append(one_thread.acquire(blocking=False))
            if free[-1]:
                one_thread.release()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    model.neck.register_forward_hook(note)
    own = DetectorBatch(model, batch, suppressed=suppressed)
    own.predict(batch['inputs'], batch['data_samples'])
    with own.tapped_pass():
        pass
    with own.tapped_pass(gradients=False):
        note()
    explain(model, next(iter(tmp_path.iterdir())), 'ablationcam', 'top 1', layers='neck')
    assert set(free) == {False}
    assert one_thread.acquire(blocking=False)
    one_thread.release()


def test_a_pass_of_another_thread_gets_no_gradients(tmp_path):
    """Whoever predicts with the detector at the same time gets plain tensors."""
    model, found = narrow_retinanet(), []
    own = DetectorBatch(model, batch_of_one(build_pipeline(model), write_image(tmp_path)))

    def work():
        with torch.no_grad():
            found.extend(model.bbox_head(model.neck(model.backbone(torch.zeros(1, 3, 64, 96))))[0])

    with own.tapped_pass():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(found) == 5
    assert not any(level.requires_grad for level in found)


def test_a_head_that_cuts_the_graph_itself():
    """SABL's head detaches its outputs before it selects boxes; here its graph is never cut, and in float64."""
    model, batch = make_detector(HEADS['sabl']), make_batch()
    own = DetectorBatch(model, batch, layers=['backbone'])
    with own.tapped_pass() as graph:
        score = graph.detections[0].scores.max()
        gradients = torch.autograd.grad(score, [one.tensor for one in graph.taps.tapped], allow_unused=True)
    exact = copy.deepcopy(model).double()
    pixels = model.data_preprocessor(copy.deepcopy(batch))['inputs']
    levels = [level.detach().requires_grad_() for level in exact.extract_feat(pixels.double())]
    head, meta = exact.bbox_head, batch['data_samples'][0].metainfo
    scores, boxes = head(levels)
    results = head._predict_by_feat_single(
        [level[0] for level in scores],
        [level[0][0] for level in boxes],
        [level[1][0] for level in boxes],
        head.get_anchors([level.shape[2:] for level in scores], [meta], device='cpu')[0],
        meta,
        head.test_cfg,
        rescale=False,
        with_nms=False,
    )
    found = results.scores[(results.scores - score.item()).abs().argmin()]
    assert found.item() == pytest.approx(score.item(), rel=1e-5)
    expected = torch.autograd.grad(found, levels, allow_unused=True)
    (level,) = (n for n, gradient in enumerate(expected) if gradient is not None and gradient.any())
    for number, gradient in enumerate(gradients):
        if number == level:
            torch.testing.assert_close(gradient.double(), expected[level], rtol=1e-3, atol=1e-6)
        else:
            assert gradient is None or not gradient.any()
