"""Contrast of boxes with the rings around them, pixel by pixel."""

import numpy as np
import pytest

from mmdet_featviz.evaluation.contrast import measure_contrasts
from mmdet_featviz.structures.placement import Placement, identity_placement
from mmdet_featviz.structures.snapshot import Level

SIZE = 40, 60


def level_of(values, stride=(1.0, 1.0), **options):
    return Level('neck', 0, 8, stride, np.asarray(values, np.float32), **options)


def contrast_by_hand(heat, box, boxes, seen, least):
    """Mean of the pixels in the box minus mean of those in the ring that are in no box, in Python's own floats."""

    def holds(corners, x, y):
        return corners[0] <= x + 0.5 < corners[2] and corners[1] <= y + 0.5 < corners[3]

    across, down = max((box[2] - box[0]) / 2, least[0]), max((box[3] - box[1]) / 2, least[1])
    outer = box[0] - across, box[1] - down, box[2] + across, box[3] + down
    inside, ring = [], []
    for y in range(heat.shape[0]):
        for x in range(heat.shape[1]):
            if seen[y, x] and holds(box, x, y):
                inside.append(float(heat[y, x]))
            elif seen[y, x] and holds(outer, x, y) and not any(holds(other, x, y) for other in boxes):
                ring.append(float(heat[y, x]))
    return sum(inside) / len(inside) - sum(ring) / len(ring)


def test_contrast_by_hand():
    random = np.random.default_rng(0)
    values = random.normal(size=SIZE)
    boxes = np.array([[10, 10, 20.4, 15], [18, 12, 30, 30.6], [50, 0, 60, 10], [30, 30, 32, 32]])
    crowds = np.array([[40.0, 20, 60, 40]])
    found = measure_contrasts([level_of(values)], identity_placement(SIZE, SIZE), 'center', boxes, crowds)['neck_0']
    heat, seen = values.astype(np.float32), np.ones(SIZE, bool)
    expected = [contrast_by_hand(heat, box, [*boxes, *crowds], seen, (1, 1)) for box in boxes]
    np.testing.assert_allclose(found, np.array(expected) / heat.std(dtype=float), rtol=1e-6)


def test_class_scores_keep_their_unit():
    values = np.zeros(SIZE)
    values[10:20, 10:20] = 0.75
    box = np.array([[10.0, 10, 20, 20]])
    for options, expected in ((dict(score_of='cat', label=0), 0.75), ({}, 0.75 / values.std())):
        level = level_of(values, **options)
        found = measure_contrasts([level], identity_placement(SIZE, SIZE), 'center', box)['neck_0']
        assert found == pytest.approx([expected])


def test_a_ring_is_at_least_a_cell_wide():
    """In an image of twice the input's size, a cell of 8 pixels of the input is 16 pixels of the image wide."""
    random = np.random.default_rng(1)
    values, size, stride = random.normal(size=(4, 6)), (64, 96), (8.0, 8.0)
    placement = Placement(np.diag([0.5, 0.5, 1.0]), size, (32, 48))
    heat = np.kron(values, np.ones((16, 16)))
    grown = level_of(values, stride)
    box = np.array([[32.0, 32, 48, 48]])
    found = measure_contrasts([grown], placement, 'center', box)['neck_0']

    def at(x, y):  # bilinear between the middles of the cells
        columns, rows = (
            np.clip((np.arange(count) + 0.5) / 16 - 0.5, 0, cells - 1) for count, cells in ((96, 6), (64, 4))
        )
        across = np.stack([np.interp(columns, np.arange(6), row) for row in values])
        return np.stack([np.interp(rows, np.arange(4), column) for column in across.T]).T

    heat = at(None, None)
    expected = contrast_by_hand(heat, box[0], box, np.ones(size, bool), (16, 16)) / heat.std()
    assert found == pytest.approx([expected], rel=1e-5)


def test_pixels_that_the_network_did_not_see_do_not_count():
    random = np.random.default_rng(2)
    values = random.normal(size=(40, 45))
    placement = identity_placement(SIZE, (40, 45))  # the right quarter was cropped
    box = np.array([[35.0, 10, 50, 25]])
    found = measure_contrasts([level_of(values)], placement, 'center', box)['neck_0']
    heat = np.zeros(SIZE)
    heat[:, :45] = values
    expected = contrast_by_hand(heat, box[0], box, placement.seen, (1, 1)) / values.std()
    assert found == pytest.approx([expected], rel=1e-5)


def test_constant_heat_and_boxes_without_ring_or_inside():
    placement = identity_placement(SIZE, SIZE)
    box = np.array([[10.0, 10, 20, 20]])
    assert measure_contrasts([level_of(np.full(SIZE, 1e7))], placement, 'center', box)['neck_0'].tolist() == [0]
    values = np.random.default_rng(3).normal(size=SIZE)
    without = np.array([[0.0, 0, 60, 40], [10.6, 10, 11.4, 20]])  # the whole image; no middle of a pixel
    assert np.isnan(measure_contrasts([level_of(values)], placement, 'center', without)['neck_0']).all()
    assert measure_contrasts([level_of(values)], placement, 'center', without[:0])['neck_0'].shape == (0,)
