import colorsys
import math

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_featviz.structures.boxes import Boxes, collect_boxes
from mmdet_featviz.visualization import box_drawing
from mmdet_featviz.visualization.box_drawing import LABELS, BoxStyle
from mmdet_featviz.visualization.colors import get_colormap
from mmdet_featviz.visualization.text import Text, draw_texts, text_width

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
    label = drawn[46:58, 102:150]  # above the box, dark on its color
    assert (label == 0).all(-1).any()
    assert (label == (0, 255, 0)).all(-1).any()
    np.testing.assert_array_equal(style.draw(picture, box([100, 60, 180, 150], score=0.2)), picture)


def test_boxes_on_a_smaller_picture():
    drawn = BoxStyle('pred', 0.3, META).draw(np.full((100, 150, 3), 128, np.uint8), box([100, 60, 180, 150]), 0.5)
    assert drawn[50, 50].tolist() == [0, 255, 0]
    assert drawn[75, 70].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    ('width', 'shown'), [(160, 'a very long caption 0.93'), (130, 'a very long caption'), (90, '')]
)
def test_labels_at_the_edge_stay_inside_and_are_shortened_to_what_fits(width, shown):
    picture = np.full((120, width, 3), 128, np.uint8)
    style = BoxStyle('pred', 0, dict(classes=['a very long caption']))
    drawn = style.draw(picture, box([width - 10.0, -5, width + 10, 20], 0))
    expected = BoxStyle('pred', 0, labels='none').draw(picture, box([width - 10.0, -5, width + 10, 20], 0))
    if shown:
        place = width - text_width(shown, 11), 0
        expected = draw_texts(expected, [Text(shown, place, 11, (0, 0, 0), style.color(0, 0.93))])
    np.testing.assert_array_equal(drawn, expected)


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


def many_boxes(count=60, size=(300, 400)):
    random = np.random.default_rng(0)
    start = random.uniform(0, 1, (count, 2)) * [size[1] - 60, size[0] - 60]
    corners = np.concatenate([start, start + random.uniform(15, 60, (count, 2))], axis=1)
    return Boxes(corners, random.integers(0, 2, count), np.sort(random.uniform(0.3, 1, count)))


def test_no_label_covers_another_and_high_scores_come_first(monkeypatch):
    drawn = []

    def spy(picture, texts):
        drawn.extend(texts)
        return draw_texts(picture, texts)

    monkeypatch.setattr(box_drawing, 'draw_texts', spy)
    boxes = many_boxes()
    BoxStyle('pred', 0, dict(classes=('cat', 'hippopotamus'))).draw(np.zeros((300, 400, 3), np.uint8), boxes)
    covered = np.zeros((300, 400), int)
    for text in drawn:
        left, top = text.position
        covered[top : top + math.ceil(1.2 * text.size) + 2, left : left + text_width(text.text, text.size)] += 1
    assert covered.max() == 1
    scores = [float(text.text.split()[1]) for text in drawn if ' ' in text.text]
    assert len(scores) > 20
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(boxes.scores[-1], abs=0.005)


def test_text_at_boxes_is_full_short_or_none():
    picture, boxes = np.full((200, 300, 3), 128, np.uint8), box([100.0, 60.0, 180.0, 150.0], 0)
    drawn = {labels: BoxStyle('pred', 0, META, labels=labels).draw(picture, boxes) for labels in LABELS}
    color = BoxStyle('pred', 0, META).color(0, 0.93)
    for labels, text in (('full', 'cat 0.93'), ('class', 'cat')):
        place = 100, 60 - math.ceil(1.2 * 11) - 2
        expected = draw_texts(drawn['none'], [Text(text, place, 11, (0, 0, 0), color)])
        np.testing.assert_array_equal(drawn[labels], expected)
    assert (drawn['none'][:57] == 128).all()


def test_widths_and_font_sizes_are_those_of_the_image():
    """On a picture of half its size they are half as large; both grow with the picture if none is given."""
    style = BoxStyle('pred', 0, META, line_width=12, font_size=40)
    for scale in (1.0, 0.5):
        height, width = round(400 * scale), round(600 * scale)
        drawn = style.draw(np.full((height, width, 3), 128, np.uint8), box([200, 120, 360, 300]), scale)
        middle = round(210 * scale)
        assert (drawn[middle, : width // 2] == (0, 255, 0)).all(1).sum() == pytest.approx(12 * scale, abs=1)
        assert (drawn[middle, : width // 2] == 0).all(1).sum() >= 2  # a dark border on either side
        label = (drawn[: round(110 * scale)] == (0, 255, 0)).all(2).any(1)
        assert label.sum() == pytest.approx(50 * scale - 10 * scale, abs=4)
    widths = []
    for height in (480, 1080, 4000):
        drawn = BoxStyle('pred', 0, META).draw(
            np.full((height, height, 3), 128, np.uint8), box(np.array([0.3, 0.3, 0.6, 0.6]) * height)
        )
        widths.append((drawn[height // 2, : height // 2] == (0, 255, 0)).all(1).sum())
    np.testing.assert_allclose(widths, [2, 4, 16], atol=1)


def test_only_the_classes_that_are_named_are_drawn():
    boxes = many_boxes(9)
    for shown, label in ((['cat'], 0), (['1'], 1)):
        np.testing.assert_array_equal(np.unique(BoxStyle('pred', 0, META, shown).select(boxes).labels), [label])
    with pytest.raises(ValueError, match="unknown class 'cta': the closest are cat"):
        BoxStyle('pred', 0, META, ['cta'])


def test_colors_of_a_palette_become_light_and_keep_their_hue():
    """Light on a dark border is seen on any heat, and dark text on it."""
    palette = CocoDataset.METAINFO['palette']
    style = BoxStyle('pred', 0, dict(classes=CocoDataset.METAINFO['classes'], palette=palette))
    for label, rgb in enumerate(palette):
        drawn = style.color(label, 0.5)[::-1]
        lightness = cv2.cvtColor(np.float32([[drawn]]) / 255, cv2.COLOR_RGB2LAB)[0, 0, 0]
        assert lightness > 55
        (hue, saturation, _), (own_hue, *_) = colorsys.rgb_to_hsv(*rgb), colorsys.rgb_to_hsv(*drawn)
        assert not saturation or abs((hue - own_hue + 0.5) % 1 - 0.5) < 0.02
        if np.dot(rgb, (0.299, 0.587, 0.114)) >= 145:
            assert drawn == tuple(rgb)
    assert BoxStyle('pred', 0, dict(palette=[(70, 70, 70)])).color(0, 0.5) == (145, 145, 145)  # white is ground truth
    assert BoxStyle('pred', 0, dict(palette=[(0, 0, 0)])).color(0, 0.5) == (145, 145, 145)
