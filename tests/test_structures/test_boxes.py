import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_featviz.structures.boxes import collect_boxes


def test_ground_truth_comes_first_and_the_best_prediction_last():
    sample = DetDataSample(metainfo=dict(ori_shape=(40, 60)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[1.0, 2, 3, 4]]), labels=torch.tensor([0]))
    result = DetDataSample()
    result.pred_instances = InstanceData(
        bboxes=torch.tensor([[5.0, 6, 7, 8], [9, 10, 11, 12]]),
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.9, 0.1]),
    )
    boxes = collect_boxes(sample, result)
    np.testing.assert_array_equal(boxes.corners, [[1, 2, 3, 4], [9, 10, 11, 12], [5, 6, 7, 8]])
    np.testing.assert_array_equal(boxes.labels, [0, 0, 1])
    np.testing.assert_allclose(boxes.scores, [np.nan, 0.1, 0.9])


def test_predictions_on_a_flipped_input_are_flipped_back():
    sample = DetDataSample(metainfo=dict(ori_shape=(40, 60), flip=True, flip_direction='diagonal'))
    result = DetDataSample()
    result.pred_instances = InstanceData(
        bboxes=torch.tensor([[1.0, 2, 11, 22]]), labels=torch.tensor([0]), scores=torch.tensor([1.0])
    )
    np.testing.assert_array_equal(collect_boxes(sample, result, mirrored=True).corners, [[49, 18, 59, 38]])
    np.testing.assert_array_equal(collect_boxes(sample, result, mirrored=False).corners, [[1, 2, 11, 22]])
    assert len(collect_boxes(DetDataSample(), None)) == 0


def test_incomplete_boxes_are_left_out():
    sample = DetDataSample(metainfo=dict(ori_shape=(40, 60)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[1.0, 2, 3, 4]]))  # LoadAnnotations(with_label=False)
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[0.0, 0, float('inf'), 9], [5, 6, 7, 8], [float('nan'), 0, 9, 9]]),
        labels=torch.tensor([0, 1, 0]),
        scores=torch.tensor([0.9, 0.8, 0.7]),
    )
    boxes = collect_boxes(sample, sample)
    assert (boxes.corners.tolist(), boxes.labels.tolist()) == ([[5, 6, 7, 8]], [1])
    sample.pred_instances = InstanceData(bboxes=torch.tensor([[1.0, 2, 3, 4]]))
    assert len(collect_boxes(sample, sample)) == 0
