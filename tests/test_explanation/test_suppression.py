"""Candidates before suppression, and the objects that a detector misses."""

import copy

import numpy as np
import pytest
import torch
from explained import narrow_retinanet, state_of, write_image
from mmdet.models.dense_heads import yolact_head
from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from score_detectors import HEADS, make_batch, make_detector

from mmdet_featviz import explain
from mmdet_featviz.apis.inference import build_pipeline
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.suppression import boxes_only, without_suppression


@pytest.fixture
def model():
    return narrow_retinanet()


@pytest.fixture
def sample(model, tmp_path):
    """A sample of a data set, without ground truth so far."""
    return build_pipeline(model)(dict(img_path=write_image(tmp_path), img_id=0))


def batch_of(sample):
    return {key: [value] for key, value in sample.items()}


def test_every_candidate_is_predicted(model, sample):
    before = state_of(model)
    (found,) = DetectorBatch(model, batch_of(sample), suppressed=False).detections
    (kept,) = DetectorBatch(model, batch_of(sample)).detections
    assert state_of(model) == before
    cells = sum(-(-64 // stride) * -(-96 // stride) for stride in (8, 16, 32, 64, 128))
    assert len(found) == cells * 2  # one anchor per cell, two classes
    candidates = {tuple(row) for row in torch.cat([found.bboxes, found.scores[:, None]], 1).tolist()}
    assert {tuple(row) for row in torch.cat([kept.bboxes, kept.scores[:, None]], 1).tolist()} <= candidates


def test_each_ground_truth_is_explained_whether_found_or_missed(model, sample):
    (kept,) = DetectorBatch(model, batch_of(sample)).detections
    (candidates,) = DetectorBatch(model, batch_of(sample), suppressed=False).detections
    lost = next(
        row
        for row in candidates.scores.argsort().tolist()
        if (candidates.bboxes[row] % torch.tensor([96, 64, 96, 64]) > 1).all()
    )
    boxes = torch.stack([kept.bboxes[0], candidates.bboxes[lost]])
    labels = torch.stack([kept.labels[0], candidates.labels[lost]])
    sample['data_samples'].gt_instances = InstanceData(bboxes=boxes, labels=labels)
    found, missed = explain(model, sample, targets='gt')
    np.testing.assert_array_equal(found.bbox, kept.bboxes[0])
    assert (found.target.overlap, found.score) == (1.0, float(kept.scores[0]))
    assert (found.target.found, missed.target.found) == (True, False)
    assert (found.target.number, missed.target.number) == (0, 1)
    assert missed.label == int(labels[1])
    fit = missed.target.overlap * missed.score
    assert fit >= float(candidates.scores[lost]) * (1 - 1e-5)
    assert missed.heatmap.max() > 0
    assert str(missed.target) == 'score of ground truth 1, missed'
    assert len(missed.snapshot.boxes) == 2
    np.testing.assert_array_equal(missed.snapshot.boxes.corners[0], boxes[1].numpy())
    assert missed.snapshot.boxes.are_truth.tolist() == [True, False]


def test_an_error_inside_restores_the_config(model):
    before = state_of(model)
    with pytest.raises(ZeroDivisionError), without_suppression(model):
        assert model.bbox_head.test_cfg.nms is None
        raise ZeroDivisionError
    assert state_of(model) == before


def test_region_proposals_stay_as_they_are():
    model = torch.nn.Module()
    model.rpn_head, model.roi_head = torch.nn.Module(), torch.nn.Module()
    model.rpn_head.test_cfg = ConfigDict(nms_pre=1000, nms=dict(iou_threshold=0.7), max_per_img=1000)
    model.roi_head.test_cfg = ConfigDict(score_thr=0.05, nms=dict(iou_threshold=0.5), max_per_img=100)
    with without_suppression(model):
        assert model.rpn_head.test_cfg.nms.iou_threshold == 0.7
        assert (model.roi_head.test_cfg.nms, model.roi_head.test_cfg.score_thr) == (None, 0)
    assert model.roi_head.test_cfg.nms.iou_threshold == 0.5


def test_masks_are_not_predicted_and_the_head_comes_back():
    class Head(BaseRoIHead):
        init_assigner_sampler = init_bbox_head = init_mask_head = loss = predict = None

    model = torch.nn.Module()
    model.roi_head = Head.__new__(Head)
    torch.nn.Module.__init__(model.roi_head)
    model.roi_head.mask_head = mask_head = torch.nn.Conv2d(1, 1, 1)
    with pytest.raises(ZeroDivisionError), boxes_only(model):
        assert not model.roi_head.with_mask
        raise ZeroDivisionError
    assert model.roi_head.mask_head is mask_head
    assert 'roi_head.mask_head' in dict(model.named_modules())


def test_a_panoptic_detector_keeps_its_masks():
    """It makes its only result of them, which has no boxes: that is said, instead of an error of its fusion."""
    config = get_config('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py').model
    model = MODELS.build(dict(config, backbone=dict(config.backbone, init_cfg=None)))
    with boxes_only(model):
        assert model.roi_head.with_mask


def test_an_explanation_predicts_no_masks(tmp_path):
    config = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    config.backbone.update(depth=18, init_cfg=None)
    config.neck.in_channels, config.test_cfg.rcnn.score_thr = [64, 128, 256, 512], 0.0
    torch.manual_seed(0)
    detector = MODELS.build(config).eval()
    made = []
    detector.roi_head.mask_head.register_forward_hook(lambda *call: made.append(call))
    data = batch_of(build_pipeline(narrow_retinanet())(dict(img_path=write_image(tmp_path), img_id=0)))
    with torch.no_grad():
        (plain,) = detector.test_step(copy.deepcopy(data))
    assert made
    made.clear()
    batch = DetectorBatch(detector, data)
    torch.testing.assert_close(batch.detections[0].bboxes, plain.pred_instances.bboxes, rtol=0, atol=0)
    batch.predict(data['inputs'], data['data_samples'])
    with batch.tapped_pass():
        pass
    assert not made


def test_candidates_of_the_lowest_scores_are_left_out_unless_all_are_wanted(model, sample, monkeypatch):
    monkeypatch.setattr('mmdet_featviz.explanation.suppression.CANDIDATES_OF_LEVEL', 10)
    monkeypatch.setattr('mmdet_featviz.explanation.suppression.CANDIDATES', 20)
    data = batch_of(sample)
    (few,), (every,) = (
        DetectorBatch(model, data, suppressed=False, limited=limited).detections for limited in (True, False)
    )
    assert len(few) == 20
    assert len(every) == 2 * sum(-(-64 // stride) * -(-96 // stride) for stride in (8, 16, 32, 64, 128))


def candidates_of(model, batch):
    (found,) = DetectorBatch(model, batch, suppressed=False).detections
    return found


def test_candidates_of_fast_nms():
    """Each pair of an anchor and a class, with the softmax that the head's own output gives."""
    model, batch = make_detector(HEADS['yolact'], top_k=5, iou_thr=0.1), make_batch()
    found = candidates_of(model, batch)
    assert yolact_head.fast_nms.__module__ == 'mmdet.models.layers.bbox_nms'
    with torch.no_grad():
        logits = model.bbox_head(model.extract_feat(model.data_preprocessor(batch)['inputs']))[0]
    pairs = [level.permute(0, 2, 3, 1).reshape(-1, 3).softmax(1)[:, :2].flatten() for level in logits]
    expected = torch.cat(pairs).sort(descending=True).values
    torch.testing.assert_close(found.scores, expected)
    assert sorted(set(found.labels.tolist())) == [0, 1]
    (kept,) = DetectorBatch(model, batch).detections
    assert 0 < len(kept) < len(found)
    rows = {(*box, score, label) for *box, score, label in rows_of(found)}
    assert {(*box, score, label) for *box, score, label in rows_of(kept)} <= rows


def rows_of(found):
    return torch.cat([found.bboxes, found.scores[:, None], found.labels[:, None].float()], 1).tolist()


def test_candidates_of_centernet_need_not_be_local_maxima():
    model, batch = make_detector(HEADS['centernet'], strides=(8,), topk=4, local_maximum_kernel=3), make_batch()
    assert len(DetectorBatch(model, batch).detections[0]) == 4
    found = candidates_of(model, batch)
    with torch.no_grad():
        (scores,) = model.bbox_head(model.extract_feat(model.data_preprocessor(batch)['inputs']))[0]
    torch.testing.assert_close(found.scores, scores.flatten().sort(descending=True).values)
