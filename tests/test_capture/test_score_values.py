"""Score maps of special heads: each cell has what the head multiplies when it predicts, computed here in float64."""

import copy

import numpy as np
import pytest
import torch
from conftest import TEST_CFG
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from score_detectors import HEADS, PREPROCESSOR, SIZE, capture, make_batch, make_detector

from mmdet_featviz.capture.head_scores import ScoreLevel, merge_levels

CLASSES = 'cat', 'dog'


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def by_anchor(output, numbers):
    """(anchors * numbers, rows, columns) as (anchors, rows, columns, numbers)."""
    return np.moveaxis(output.reshape(-1, numbers, *output.shape[1:]), 1, -1)


def of_sabl(classes, sides):
    """The mean over the sides of a box of the probability of the best bucket, and of the next if they are neighbors."""
    buckets = softmax(by_anchor(sides, 7))  # (sides, rows, columns, buckets)
    order = buckets.argsort(-1)
    best, next_best = (np.take_along_axis(buckets, order[..., -n, None], -1)[..., 0] for n in (1, 2))
    sure = best + next_best * (abs(order[..., -1] - order[..., -2]) == 1)
    return sigmoid(by_anchor(classes, 2)) * sure.mean(0)[None, ..., None]


# Head: the modules whose outputs it multiplies, and the scores (anchors, rows, columns, classes) of these outputs.
FORMULAS = {
    'rtmdet': (['rtm_cls', 'rtm_obj'], lambda c, o: np.sqrt(sigmoid(by_anchor(c, 2)) * sigmoid(by_anchor(o, 1)))),
    'rtmdet apart': (['rtm_cls'], lambda classes: sigmoid(by_anchor(classes, 2))),
    'vfnet': (['vfnet_cls'], lambda classes: sigmoid(by_anchor(classes, 2))),
    # The logit of a product of probabilities is what YOLOF adds up.
    'yolof': (['cls_score', 'object_pred'], lambda c, o: sigmoid(by_anchor(c, 2)) * sigmoid(by_anchor(o, 1))),
    'sabl': (['retina_cls', 'retina_bbox_cls'], of_sabl),
    'yolact': (['conv_cls'], lambda classes: softmax(by_anchor(classes, 3))[..., :2]),
    'cornernet': (['tl_heat.1', 'br_heat.1'], None),
}


def make(name):
    """The detector of a head; that of YOLACT also predicts masks."""
    if name == 'cornernet':
        cfg = dict(corner_topk=50, local_maximum_kernel=3, distance_threshold=5.0)
        return make_detector(HEADS[name], (4, 4), **cfg)  # as the two stacked networks of an hourglass
    if name != 'yolact':
        return make_detector(HEADS[name])
    protos = dict(proto_channels=(8, None, 4), proto_kernel_sizes=(3, -2, 1), num_protos=4)
    model = MODELS.build(
        dict(
            type='YOLACT',
            data_preprocessor=PREPROCESSOR,
            backbone=dict(type='Pyramid'),
            neck=None,
            bbox_head=copy.deepcopy(HEADS[name]),
            mask_head=dict(type='YOLACTProtonet', num_classes=2, in_channels=8, with_seg_branch=False, **protos),
            test_cfg=ConfigDict(TEST_CFG, nms_pre=1000, iou_thr=0.5, top_k=20, mask_thr=0.5, mask_thr_binary=0.5),
        )
    )
    for weight in model.bbox_head.parameters():
        torch.nn.init.normal_(weight, std=0.15)
    return model.eval()


def record(model, names):
    """Outputs of modules of the head, in order of their calls: those of a list of modules, one for each level."""
    seen = {name: [] for name in names}
    for name, outputs in seen.items():
        found = [part for path, part in model.bbox_head.named_modules() if path == name]
        for part in found[0] if isinstance(found[0], torch.nn.ModuleList) else found:
            part.register_forward_hook(lambda module, args, output, to=outputs: to.append(output.detach()))
    return seen


def expected_levels(name, seen, image):
    """The scores (classes, rows, columns) of each level of an image, the best of its anchors."""
    parts, formula = FORMULAS[name]
    outputs = [[level[image].double().numpy() for level in seen[part]] for part in parts]
    if formula is None:  # corners: top left, then bottom right
        return [sigmoid(heat[0]) for heat in outputs]
    return [np.moveaxis(formula(*level).max(0), -1, 0) for level in zip(*outputs)]


def check_maps(maps, expected, tolerance):
    for number, level in enumerate(expected):
        named = {one.layer: one for one in maps if one.level == number}
        best = named['bbox_head.scores'].values[0].double().numpy()
        np.testing.assert_allclose(best, level.max(0), rtol=tolerance)
        for label, name in enumerate(CLASSES):
            one = named[f'bbox_head.scores.{name}']
            np.testing.assert_allclose(one.values[0].double().numpy(), level[label], rtol=tolerance)
            assert (one.label, one.score_of) == (label, name)
    assert 'bbox_head.merged_scores.dog' in {one.layer for one in maps}
    assert {one.level for one in maps if one.layer == 'bbox_head.scores'} == set(range(len(expected)))


@pytest.mark.parametrize('name', FORMULAS)
def test_values_are_what_the_head_multiplies(name):
    model = make(name)
    seen = record(model, FORMULAS[name][0])
    passed, results, _ = capture(model, make_batch(2), strict=True, choose=lambda sample, result: [0, 1])
    for image, maps in enumerate(passed.scores):
        expected = expected_levels(name, seen, image)
        assert len(expected) == 2
        assert max(level.std() for level in expected) > 0.005
        check_maps(maps, expected, 1e-5)
        assert len(results[image].pred_instances) > 0


# VFNet's deformable convolution has no half precision on the CPU; of two buckets that are as likely, SABL takes one.
@pytest.mark.parametrize('name', sorted(set(FORMULAS) - {'vfnet', 'sabl'}))
def test_half_precision(name):
    """Logits of half precision give the maps that they say."""
    model = make(name)
    seen = record(model, FORMULAS[name][0])
    head, batch = model.bbox_head, make_batch()
    with torch.autocast('cpu', torch.bfloat16):
        model.predict = lambda inputs, samples: (head(model.extract_feat(inputs)), [])[1]  # NMS on the CPU is float32
        passed, _, _ = capture(model, batch, strict=True, choose=lambda sample, result: [0, 1])
    assert seen[FORMULAS[name][0][0]][0].dtype == torch.bfloat16
    check_maps(passed.scores[0], expected_levels(name, seen, 0), 0.02)  # of bfloat16: the probability is rounded, too


def test_levels_are_merged_in_single_precision():
    generator = torch.Generator().manual_seed(0)
    levels = [ScoreLevel((4, 6), (16.0, 16.0), (8.0, 8.0), None), ScoreLevel((8, 12), (8.0, 8.0), (4.0, 4.0), None)]
    maps = [torch.rand(2, *level.cells, generator=generator) for level in levels]
    _, expected = merge_levels(levels, maps)
    with torch.autocast('cpu', torch.bfloat16):
        _, found = merge_levels(levels, maps)
    assert torch.equal(found, expected)


def test_corners_lie_on_the_cells_of_the_input():
    passed, _, _ = capture(make('cornernet'), make_batch(), strict=True)
    assert {one.stride for one in passed.scores[0] if 'merged' not in one.layer} == {(4.0, 4.0)}
    assert passed.scores[0][-1].values.shape == (1, SIZE[0] // 4, SIZE[1] // 4)
