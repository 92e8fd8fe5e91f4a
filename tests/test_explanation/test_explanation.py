"""An explanation: shares, heatmaps and pictures of its levels."""

import cv2
import numpy as np
from conftest import noise

from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style


def test_what_the_network_did_not_see_is_hatched():
    """It saw rows 16 to 63 and columns 24 to 95."""
    image, values = noise(64, 96), np.arange(54, dtype=np.float32).reshape(6, 9)
    placement = Placement(np.array([[1.0, 0, -24], [0, 1, -16], [0, 0, 1]]), (64, 96), (48, 72))
    snapshot = Snapshot('a', None, 0, placement, [Level('neck', 0, 4, (8.0, 8.0), values)], image=lambda: image)
    drawn = Explanation(None, 'odam', snapshot, Style(image_format='png')).draw()
    check_hatching(drawn, image)
    check_hatching(Explanation(None, 'odam', snapshot, Style(save='heatmap')).draw(), 255)


def check_hatching(drawn, below):
    same = (drawn == below).all(2)
    assert 0.6 < same[:16].mean() < 0.9
    assert 0.6 < same[:, :24].mean() < 0.9
    assert same[16:, 24:].mean() < 0.1


def test_a_notebook_shows_the_overlay():
    image, values = noise(64, 96), np.arange(96, dtype=np.float32).reshape(8, 12)
    placement = Placement(np.eye(3), (64, 96), (64, 96))
    snapshot = Snapshot('a', None, 0, placement, [Level('neck', 0, 4, (8.0, 8.0), values)], image=lambda: image)
    one = Explanation(None, 'odam', snapshot, Style())
    shown = cv2.imdecode(np.frombuffer(one._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown[..., ::-1], one.overlay())


def test_no_heat_at_all_is_zero():
    placement = Placement(np.eye(3), (64, 96), (64, 96))
    levels = [Level('neck', number, 4, (8.0, 8.0), np.zeros((8, 12), np.float32)) for number in range(2)]
    one = Explanation(None, 'odam', Snapshot('a', None, 0, placement, levels, image=lambda: noise(64, 96)), Style())
    assert one.levels == {'neck_0': 0.0, 'neck_1': 0.0}
    assert not one.heatmap.any()
    assert one.overlay().shape == (64, 96, 3)
