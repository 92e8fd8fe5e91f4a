import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_featviz.structures.boxes import Boxes, collect_boxes
from mmdet_featviz.visualization.box_drawing import BoxStyle
from mmdet_featviz.visualization.colors import get_colormap

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


@pytest.mark.parametrize('far', [2.0**31, 1e18, 1e300])
def test_coordinates_far_outside_are_drawn_as_those_just_outside(far):
    picture = np.full((200, 300, 3), 128, np.uint8)
    style = BoxStyle('pred', 0.3, META)
    for corners, near in (
        ([-far, 60, far, 150], [-50, 60, 350, 150]),
        ([100, -far, 180, 150], [100, -50, 180, 150]),
        ([100, 60, far, far], [100, 60, 350, 250]),
        ([-far, -far, -far, -far], [-50, -50, -50, -50]),
        ([far, far, far, far], [350, 250, 350, 250]),
    ):
        drawn = style.draw(picture, box(corners))
        outlines = drawn.copy(), style.draw(picture, box(near))
        for one in outlines:  # the caption of a box that begins outside stands at the edge
            one[:20] = 0
            one[-20:] = 0
        np.testing.assert_array_equal(*outlines)


@pytest.mark.parametrize('classes', [np.array(['cat', 'dog']), np.array([7, 8]), [7, 8]])
@pytest.mark.parametrize('palette', [np.array(PALETTE), PALETTE, 'coco', [1, 2, 3], [(1, 2), (3, 4)], None])
@pytest.mark.parametrize('score', [0.5, np.nan])
def test_class_names_and_colors_may_be_arrays_or_numbers(classes, palette, score):
    picture = np.full((200, 300, 3), 128, np.uint8)
    drawn = BoxStyle('both', 0.3, dict(classes=classes, palette=palette)).draw(
        picture, box([100, 60, 180, 150], 1, score)
    )
    as_text = dict(classes=[str(name) for name in classes], palette=PALETTE if np.size(palette) == 6 else None)
    expected = BoxStyle('both', 0.3, as_text).draw(picture, box([100, 60, 180, 150], 1, score))
    np.testing.assert_array_equal(drawn, expected)
    assert (drawn != picture).any()


def test_a_negative_label_has_no_name_and_no_color_of_the_palette():
    style = BoxStyle('pred', 0.3, META)
    assert style.color(-1, 0.5) not in [tuple(color[::-1]) for color in PALETTE]
    assert style.caption(-1, 0.5) == '-1 0.50'


@pytest.mark.parametrize('colormap', ['jet', 'turbo', 'viridis', 'inferno', 'magma'])
def test_colors_of_classes_without_a_palette_are_seen_on_heat(colormap):
    """By their distance to all its colors in CIELAB, whose lightness is 0 to 100; and against black outlines."""

    def in_lab(bgr):
        return cv2.cvtColor(np.float32(bgr).reshape(-1, 1, 3) / 255, cv2.COLOR_BGR2LAB)[:, 0]

    colors = [BoxStyle('pred', 0.3).color(label, 0.5) for label in range(80)]
    distances = np.linalg.norm(in_lab(colors)[:, None] - in_lab(get_colormap(colormap))[None], axis=-1)
    assert distances.min() > 20
    assert in_lab(colors)[:, 0].min() > 70
    neighbors = np.linalg.norm(np.diff(in_lab(colors[:10]), axis=0), axis=1)
    assert neighbors.min() > 15
