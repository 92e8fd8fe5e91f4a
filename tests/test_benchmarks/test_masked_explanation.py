"""Whether a detector can be explained without gradients: each reason why not is made here on purpose."""

import copy

import pytest
import torch
from explained import narrow_retinanet, state_of, write_image
from mmengine.config import ConfigDict

from mmdet_featviz.apis.inference import batch_of_one, build_pipeline
from mmdet_featviz.benchmarks.masked_explanation import masked_explanation
from mmdet_featviz.benchmarks.zoo_coverage import same


@pytest.fixture
def model():
    return narrow_retinanet()


@pytest.fixture
def data(model, tmp_path):
    return batch_of_one(build_pipeline(model), write_image(tmp_path))


def change_predictions(model, change):
    """Let a function change what the detector predicts."""
    predict = model.test_step

    def test_step(data):
        samples = predict(data)
        for sample in samples:
            sample.pred_instances = change(sample.pred_instances)
        return samples

    model.test_step = test_step


def test_a_detection_is_explained_and_predictions_stay(model, data):
    predicted = []
    before = state_of(model)
    for explains in (False, True):
        if explains:
            assert masked_explanation(model, data) == 'detection'
        with torch.no_grad():
            predicted += model.test_step(copy.deepcopy(data))
    assert same(*predicted)
    assert state_of(model) == before


def test_without_a_detection_a_candidate_is_explained(model, data):
    model.bbox_head.test_cfg = ConfigDict(model.bbox_head.test_cfg, score_thr=2)
    assert masked_explanation(model, data) == 'candidate'


def test_reasons_why_there_is_no_explanation(model, data):
    change_predictions(model, lambda instances: instances[:0])
    with pytest.raises(ValueError, match='no candidate overlaps the box'):
        masked_explanation(model, data)


def test_boxes_without_area_are_no_explanation(model, data):
    def without_area(instances):
        instances.bboxes = torch.zeros_like(instances.bboxes)
        return instances

    change_predictions(model, without_area)
    with pytest.raises(ValueError, match='drise looks for detections that overlap a box, but .* have no area'):
        masked_explanation(model, data)
