import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_featviz.structures.boxes import _note_kind, class_names, collect_boxes, ignored_boxes
from mmdet_featviz.structures.placement import Placement, placement_from_metas


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


@pytest.mark.parametrize('numbers', [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize('labels', [torch.float32, torch.int32, torch.uint8])
def test_numbers_of_any_type(numbers, labels):
    sample, result = DetDataSample(metainfo=dict(ori_shape=(40, 60))), DetDataSample()
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[1, 2, 3, 4]]), labels=torch.tensor([0]))
    result.pred_instances = InstanceData(
        bboxes=torch.tensor([[5, 6, 7, 8]], dtype=numbers),
        labels=torch.tensor([1], dtype=labels),
        scores=torch.tensor([0.5], dtype=numbers),
    )
    boxes = collect_boxes(sample, result)
    np.testing.assert_array_equal(boxes.corners, [[1, 2, 3, 4], [5, 6, 7, 8]])
    np.testing.assert_array_equal(boxes.labels, [0, 1])
    np.testing.assert_array_equal(boxes.scores, [np.nan, 0.5])
    assert boxes.labels.dtype == np.int64 and boxes.corners.dtype == boxes.scores.dtype == np.float64


def test_predictions_on_a_flipped_input_are_flipped_back():
    sample = DetDataSample(metainfo=dict(ori_shape=(40, 60), flip=True, flip_direction='diagonal'))
    result = DetDataSample()
    result.pred_instances = InstanceData(
        bboxes=torch.tensor([[1.0, 2, 11, 22]]), labels=torch.tensor([0]), scores=torch.tensor([1.0])
    )
    placement = placement_from_metas(sample.metainfo, torch.zeros(3, 40, 60))
    np.testing.assert_array_equal(collect_boxes(sample, result, placement).corners, [[49, 18, 59, 38]])
    np.testing.assert_array_equal(collect_boxes(sample, result).corners, [[1, 2, 11, 22]])
    assert len(collect_boxes(DetDataSample(), None)) == 0


@pytest.mark.parametrize('padding', ['none', 'letterbox', 'border'])
@pytest.mark.parametrize('steps', ['flip, pad', 'pad, flip'])
def test_padding_before_a_flip_is_not_in_the_boxes(steps, padding):
    """Boxes as mmdet's heads return them (without padding that the meta information names) and their true place."""
    scale, (width, height), (left, top), padded = (2.0, 0.5), (60, 40), (8, 4), (150, 60)
    content = width * scale[0], height * scale[1]
    box = np.array([10.0, 8, 30, 20])
    meta = dict(ori_shape=(40, 60), img_shape=padded[::-1], scale_factor=scale, flip=True, flip_direction='diagonal')
    if padding == 'none':
        left = top = 0
    elif padding == 'letterbox':
        meta['pad_param'] = (top, padded[1] - content[1] - top, left, padded[0] - content[0] - left)
    else:
        meta['border'] = (top, top + content[1], left, left + content[0])
    whole, before, after = (content, (0, 0), (left, top)) if steps == 'flip, pad' else (padded, (left, top), (0, 0))
    found = []
    for axis in range(2):
        low, high = (edge * scale[axis] + before[axis] for edge in box[[axis, axis + 2]])
        inside = np.array([whole[axis] - high, whole[axis] - low]) + after[axis]  # in the input
        found.append((inside - (left, top)[axis]) / scale[axis])
    inputs = torch.rand(3, padded[1], padded[0])
    matrix = np.diag([-scale[0], -scale[1], 1.0])
    matrix[:2, 2] = np.subtract(whole, before) + after
    placement = Placement(matrix, (40, 60), tuple(inputs.shape[1:]))
    sample = DetDataSample(metainfo=meta)
    corners = torch.tensor([[found[0][0], found[1][0], found[0][1], found[1][1]]])
    sample.pred_instances = InstanceData(bboxes=corners, labels=torch.tensor([0]), scores=torch.tensor([1.0]))
    np.testing.assert_allclose(collect_boxes(sample, sample, placement).corners, [box])


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


def predicted(bboxes, scores=None):
    count = len(bboxes)
    scores = torch.full((count,), 0.5) if scores is None else torch.tensor(scores)
    fields = dict(bboxes=torch.as_tensor(bboxes), labels=torch.arange(count), scores=scores)
    sample = DetDataSample(metainfo=dict(ori_shape=(400, 600), flip=True, flip_direction='horizontal'))
    sample.pred_instances = InstanceData(**fields)
    sample.ignored_instances = InstanceData(bboxes=fields['bboxes'])
    return sample


@pytest.fixture
def messages(monkeypatch):
    """What is logged, once for each kind of boxes."""
    logged = []
    _note_kind.cache_clear()
    monkeypatch.setattr('mmdet_featviz.structures.boxes.print_log', lambda text, *args: logged.append(text))
    yield logged
    _note_kind.cache_clear()


def test_rotated_boxes_become_the_upright_boxes_around_them(messages):
    rotated = np.array(
        [[100.0, 80, 60, 20, 0], [100, 80, 60, 20, np.pi / 2], [300, 200, 90, 40, 0.6], [50, 60, 30, 30, -2]]
    )
    sample = predicted(torch.tensor(rotated))
    found = collect_boxes(sample, sample)
    assert found.labels.tolist() == [0, 1, 2, 3]
    expected = []
    for x, y, width, height, angle in rotated:
        points = cv2.boxPoints(((x, y), (width, height), np.degrees(angle)))
        expected.append([*points.min(0), *points.max(0)])
    np.testing.assert_allclose(found.corners, expected, atol=1e-3)
    np.testing.assert_allclose(ignored_boxes(sample), expected, atol=1e-3)
    placement = placement_from_metas(sample.metainfo, torch.zeros(3, 400, 600))
    flipped = collect_boxes(sample, sample, placement).corners
    np.testing.assert_allclose(flipped[:, [0, 2]], 600 - np.array(expected)[:, [2, 0]], atol=1e-3)
    assert messages == ['rotated boxes are drawn and counted as the upright boxes around them']


def test_quadrilaterals_become_the_upright_boxes_around_them(messages):
    sample = predicted(torch.tensor([[10.0, 20, 50, 5, 70, 60, 30, 80]]))
    assert collect_boxes(sample, sample).corners.tolist() == [[10, 5, 70, 80]]
    assert messages == ['quadrilateral boxes are drawn and counted as the upright boxes around them']


@pytest.mark.parametrize('bboxes', [torch.ones(3, 7), torch.ones(3, 2, 2), torch.ones(3)])
def test_boxes_of_an_unknown_kind_are_left_out(messages, bboxes):
    sample = predicted(bboxes)
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[1.0, 2, 3, 4]]), labels=torch.tensor([1]))
    assert collect_boxes(sample, sample).corners.tolist() == [[1, 2, 3, 4]]
    assert len(ignored_boxes(sample)) == 0
    assert messages == ['boxes without 4, 5 or 8 numbers each are not drawn']


@pytest.mark.parametrize('columns', [4, 5, 8])
def test_no_boxes_are_no_boxes_of_any_kind(messages, columns):
    sample = predicted(torch.zeros(0, columns))
    assert collect_boxes(sample, sample).corners.shape == (0, 4)
    assert not messages


def test_a_prediction_without_a_finite_score_is_no_ground_truth():
    sample = predicted([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], [float('nan'), 0.5, float('inf')])
    found = collect_boxes(sample, sample)
    assert (found.corners.tolist(), found.scores.tolist()) == ([[5, 6, 7, 8]], [0.5])
    assert not found.are_truth.any()
    torch.testing.assert_close(sample.pred_instances.bboxes[0], torch.tensor([1.0, 2, 3, 4]))  # the evaluator's


def test_ignored_boxes_are_finite():
    sample = predicted([[1.0, 2, float('nan'), 4], [5, 6, 7, 8]])
    assert ignored_boxes(sample).tolist() == [[5, 6, 7, 8]]


@pytest.mark.parametrize(
    ('classes', 'names'),
    [
        (('cat', 'dog'), ['cat', 'dog']),
        (np.array(['cat', 'dog']), ['cat', 'dog']),
        (np.arange(2), ['0', '1']),
        ([7, 8], ['7', '8']),
        ('cat', ['cat']),
        (['', 'dog', ' '], ['0', 'dog', '2']),
        (None, []),
        (80, []),
    ],
)
def test_class_names_are_text(classes, names):
    assert class_names(dict(classes=classes)) == names
    assert class_names(None) == []
