"""The tiles of a frame of a video: explanations, color bars, boxes."""

import cv2
import numpy as np
import pytest
from conftest import keep_ratio_pipeline, noise
from explained import narrow_retinanet
from mmengine.config import Config

from mmdet_featviz import FeatureVisualizer, explain
from mmdet_featviz.apis.video import FrameDrawer

SIZE = 64, 96


@pytest.fixture(scope='module')
def model():
    model = narrow_retinanet()
    pipeline = [step for step in keep_ratio_pipeline(SIZE[::-1]) if 'Annotations' not in step['type']]
    model.cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    return model


def drawer(model, tile_size=96, direction='horizontal', with_frame=False, **options):
    visualizer = FeatureVisualizer(layers='backbone', **options)
    visualizer.taps = visualizer.make_taps(model)
    return FrameDrawer(model, visualizer, ['backbone_1'], tile_size, direction, with_frame)


def last_tile(picture):
    """The tile at the right, below lines of 19 pixels; the last row may be one that makes the height even."""
    bottom = len(picture) - (len(picture) - 64 - 4) % 19
    return picture[bottom - 64 : bottom, -96:]


def test_a_frame_shows_what_its_detections_rest_on(model):
    """The largest heat of both, each from zero to its maximum, with their boxes."""
    frame, request = noise(*SIZE), dict(targets=['0', '1'], layers=['neck'])
    picture = drawer(model, explain=request, labels='none', line_width=1).draw(frame)
    explanations = explain(model, frame, labels='none', line_width=1, **request)
    assert len(explanations) == 2
    heat = np.maximum(*(one.heatmap / one.heatmap.max() for one in explanations))
    colors = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_JET)
    expected = 0.6 * frame + 0.4 * colors
    shown = last_tile(picture).astype(float)
    same = np.abs(shown - expected).max(2) <= 3
    outlines = np.zeros(SIZE, np.uint8)
    for one in explanations:
        left, top, right, bottom = np.round(one.bbox).astype(int).tolist()
        cv2.rectangle(outlines, (left, top), (right, bottom), 1, 5)
    assert same[outlines == 0].all()
    assert outlines.any()
    assert not same[outlines == 1].all()


def test_without_detections_the_tile_is_cold(model):
    frame = noise(*SIZE)
    picture = drawer(model, explain=dict(targets='score 1.5'), colormap='gray', alpha=1.0).draw(frame)
    assert not last_tile(picture).any()


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_all_frames_have_one_size_whatever_the_numbers_at_their_bars(model, direction):
    draw = drawer(model, colorbar=True, direction=direction, with_frame=True).draw
    bright, dark = noise(*SIZE), noise(*SIZE) // 16
    pictures = [draw(frame) for frame in (bright, dark, np.zeros_like(bright))]
    assert len({picture.shape for picture in pictures}) == 1
    height, width = pictures[0].shape[:2]
    assert height % 2 == width % 2 == 0
    if direction == 'vertical':
        assert width < 200
    else:
        assert width == pytest.approx(243, abs=6)  # there is room for six characters at the bar
