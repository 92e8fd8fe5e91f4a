import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_featviz.structures.boxes import Boxes, collect_boxes
from mmdet_featviz.visualization.box_drawing import BoxStyle

PALETTE = [(220, 20, 60), (0, 255, 0)]

META = dict(classes=('cat', '狗'), palette=PALETTE)


def box(corners, label=1, score=0.93):
    return Boxes(np.array([corners], np.float64), np.array([label]), np.array([score]))


def test_boxes_are_drawn_at_their_place_on_a_copy():
    picture = np.full((200, 300, 3), 128, np.uint8)
    style = BoxStyle('pred', 0.3, META)
    drawn = style.draw(picture, box([100.0, 60.0, 180.0, 150.0]))
    assert (picture == 128).all()
    assert drawn[100, 100].tolist() == [0, 255, 0]
    assert drawn[150, 140].tolist() == [0, 255, 0]
    assert (drawn[70:140, 110:170] == 128).all()
    assert (drawn[:40] == 128).all()
    assert (drawn[42:60, 100:150] > 200).all(-1).any()  # the caption above the box
    np.testing.assert_array_equal(style.draw(picture, box([100, 60, 180, 150], score=0.2)), picture)


def test_boxes_on_a_smaller_picture():
    drawn = BoxStyle('pred', 0.3, META).draw(np.full((100, 150, 3), 128, np.uint8), box([100, 60, 180, 150]), 0.5)
    assert drawn[50, 50].tolist() == [0, 255, 0]
    assert drawn[75, 70].tolist() == [0, 255, 0]


def test_captions_of_boxes_at_the_edge_stay_inside():
    picture = np.full((120, 160, 3), 128, np.uint8)
    drawn = BoxStyle('pred', 0, dict(classes=['a very long caption'])).draw(picture, box([150.0, -5, 170, 20], 0))
    assert (drawn == 255).all(-1).any()
    assert drawn.shape == picture.shape


@pytest.mark.parametrize(('kind', 'expected'), [('pred', [0.9]), ('gt', [np.nan]), ('both', [np.nan, 0.9])])
def test_selected_boxes(kind, expected):
    sample = DetDataSample(metainfo=dict(ori_shape=(40, 60)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[1.0, 2, 3, 4]]), labels=torch.tensor([0]))
    result = DetDataSample()
    result.pred_instances = InstanceData(
        bboxes=torch.tensor([[5.0, 6, 7, 8], [9, 10, 11, 12]]),
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.9, 0.1]),
    )
    boxes = collect_boxes(sample, result)
    np.testing.assert_allclose(BoxStyle(kind, 0.3).select(boxes).scores, expected)
