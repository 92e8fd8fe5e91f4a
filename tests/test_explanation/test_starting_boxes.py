"""What a detector starts its boxes from: anchors, points, region proposals, or nothing that is known."""

import numpy as np
import torch
from conftest import keep_ratio_pipeline, noise, pool_detector
from explained import small_detr
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import Compose

from mmdet_featviz.explanation.starting_boxes import StartingBoxes

SIZE = 64, 96  # of the input; the images are twice as large


def batch(count=1):
    pipeline = Compose(
        [dict(type='LoadImageFromNDArray'), *keep_ratio_pipeline(SIZE[::-1])[1:2], *keep_ratio_pipeline()[3:]]
    )
    samples = [pipeline(dict(img=noise(128, 192, seed=n), img_id=n)) for n in range(count)]
    return {name: [sample[name] for sample in samples] for name in samples[0]}


def starts_of(model, count=1):
    with torch.no_grad(), StartingBoxes(model) as starts:
        model.test_step(batch(count))
    assert not [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]
    return [starts.of_image(index, (0.5, 0.5)) for index in range(count)]


def test_anchors():
    (found,) = starts_of(MODELS.build(pool_detector((8, 16))).eval())
    expected = [
        [x * stride - 2 * stride, y * stride - 2 * stride, x * stride + 2 * stride, y * stride + 2 * stride]
        for stride in (8, 16)
        for y in range(64 // stride)
        for x in range(96 // stride)
    ]
    np.testing.assert_allclose(found, 2 * np.array(expected, float))


def test_points():
    head = dict(type='FCOSHead', num_classes=2, in_channels=2, feat_channels=4, stacked_convs=1, strides=[8, 16])
    head.update(norm_cfg=None, regress_ranges=((-1, 64), (64, 1e8)))
    model = MODELS.build({**pool_detector((8, 16)), 'bbox_head': head})
    (found,) = starts_of(model.eval())
    expected = [
        [x, y, x, y] for step in (8, 16) for y in range(step, 128, 2 * step) for x in range(step, 192, 2 * step)
    ]
    np.testing.assert_allclose(found, expected)


def test_region_proposals_of_each_image():
    config = Config.fromfile('configs/demo/faster_rcnn_shapes.py').model
    torch.manual_seed(0)
    model = MODELS.build(config).eval()
    proposed = []
    predict = model.rpn_head.predict

    def recorded(*args, **kwargs):
        proposed.extend(predict(*args, **kwargs))
        return proposed

    model.rpn_head.predict = recorded
    found = starts_of(model, count=2)
    for boxes, proposals in zip(found, proposed):
        np.testing.assert_allclose(boxes, 2 * proposals.bboxes.numpy(), rtol=1e-6)
    assert len(found[0]) > 10 and not np.array_equal(found[0], found[1])


def test_queries_start_from_nothing_that_is_known():
    assert starts_of(MODELS.build(small_detr()).eval()) == [None]
