"""Two objects of one class side by side, on the demo detectors with their trained weights."""

import itertools

import cv2
import numpy as np
import pytest
from conftest import ROOT
from explained import energy_in
from mmdet.apis import init_detector

from mmdet_featviz import explain
from mmdet_featviz.benchmarks.demo_data import background, outline, paint


def two_stars(folder):
    """A scene with two stars side by side; its path, and their boxes."""
    rng = np.random.default_rng(5)
    scene, boxes = background(rng), []
    for left in (150.0, 310.0):
        corners = outline(rng, 'star', 130)
        paint(rng, scene, corners + (left, 170.0))
        boxes.append((left, 170.0, *(corners.max(0) + (left, 170.0))))
    cv2.imwrite(str(folder / 'stars.png'), np.clip(np.round(scene), 0, 255).astype(np.uint8))
    return str(folder / 'stars.png'), boxes


@pytest.mark.parametrize('detector', ['atss_shapes', 'faster_rcnn_shapes'])
@pytest.mark.parametrize('layers', [None, 'backbone'])
def test_each_object_has_a_map_of_its_own(tmp_path, detector, layers):
    image, boxes = two_stars(tmp_path)
    configs = ROOT / 'configs' / 'demo'
    model = init_detector(configs / f'{detector}.py', str(configs / f'{detector}.pth'), device='cpu')
    found = explain(model, image, targets='class star, score 0.5', layers=layers)
    assert len(found) == 2
    order = np.argsort([one.bbox[0] for one in found])
    for own, other in itertools.permutations(range(2)):
        one = found[order[own]]
        np.testing.assert_allclose(one.bbox, boxes[own], atol=12)
        in_own, in_other = energy_in(one.heatmap, boxes[own]), energy_in(one.heatmap, boxes[other])
        assert in_own > 0.8 * (in_own + in_other)
        assert in_own > 0.3
