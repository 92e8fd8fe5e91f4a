"""Score maps: the probability at the cell of a detection is the detector's own score of it."""

import copy

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from score_detectors import (
    HEADS,
    PREPROCESSOR,
    SEVERAL_ANCHORS,
    SIZE,
    STRIDES,
    TWO_ANCHORS,
    capture,
    make_batch,
    make_detector,
)
from torch import nn

from mmdet_featviz.capture.head_scores import ScoreLevel, find_heads, merge_levels, read_scores
from mmdet_featviz.capture.score_maps import name_parts, predicted_classes, true_classes


@pytest.mark.parametrize('name', [name for name in HEADS if name not in ('cornernet', 'yolact')])
def test_the_score_of_each_detection_is_that_of_a_cell(name):
    strides = (4,) if name == 'centernet' else STRIDES
    cfg = dict(topk=30, local_maximum_kernel=3) if name == 'centernet' else {}
    model, batch = make_detector(HEADS[name], strides, **cfg), make_batch(2)
    with torch.no_grad():
        plain = [sample.pred_instances.cpu() for sample in model.test_step(copy.deepcopy(batch))]
    seen, results, _ = capture(model, batch, strict=True)
    for maps, expected, result in zip(seen.scores, plain, results):
        found = result.pred_instances
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.bboxes, expected.bboxes)
        assert found.scores.std() > 0.003  # not all the same by chance
        cells = {label: [] for label in (0, 1)}
        for one in maps:
            if one.layer.startswith('bbox_head.scores.'):
                assert (('cat', 'dog')[one.label], 2) == (one.score_of, one.channels)
                cells[one.label].append(one.values.flatten())
        assert len(found) > 1
        seen_classes = set()
        for score, label in zip(found.scores, found.labels.tolist()):
            values = torch.cat(cells[label])
            # Of several anchors a cell shows the best, so the others' detections have lower scores than their cells.
            if label not in seen_classes or name not in SEVERAL_ANCHORS:
                assert (values - score).abs().min() <= 1e-6 * score
            assert score <= values.max() * (1 + 1e-6)
            seen_classes.add(label)
        best = max(one.values.max() for one in maps if one.layer == 'bbox_head.scores')
        assert best >= found.scores.max()


@pytest.mark.parametrize('name', ['retina', 'ssd', 'fcos', 'atss'])
def test_cells_are_where_their_anchors_or_points_are(name):
    model, batch = make_detector(HEADS[name]), make_batch()
    for path, part in model.bbox_head.named_modules():
        if isinstance(part, nn.Conv2d) and 'reg' in path and not list(part.children()):
            nn.init.zeros_(part.weight)  # all boxes are their anchors, or squares around their points
            nn.init.zeros_(part.bias)
    seen, (result,), _ = capture(model, batch)
    checked = 0
    for box, score, label in zip(*(result.pred_instances[key] for key in ('bboxes', 'scores', 'labels'))):
        if box.min() <= 0 or box[2] >= SIZE[1] or box[3] >= SIZE[0]:
            continue  # clipped
        x, y = ((box[:2] + box[2:]) / 2).tolist()
        places = [
            (one.offset[1] + column * one.stride[1], one.offset[0] + row * one.stride[0])
            for one in seen.scores[0]
            if one.layer == f'bbox_head.scores.{("cat", "dog")[label]}'
            for row, column in ((one.values[0] - score).abs() <= 1e-6 * score).nonzero().tolist()
        ]
        if places or name not in SEVERAL_ANCHORS:
            assert any(abs(u - x) < 1e-3 and abs(v - y) < 1e-3 for u, v in places), (places, x, y)
            checked += 1
    assert checked > 2


def test_levels_are_merged_by_the_maximum_at_each_place():
    generator = torch.Generator().manual_seed(0)
    fine = ScoreLevel((6, 8), (8.0, 8.0), (4.0, 4.0), None)
    coarse = ScoreLevel((3, 4), (16.0, 16.0), (8.0, 8.0), None)
    maps = [torch.rand(2, *level.cells, generator=generator) for level in (coarse, fine)]
    merged, values = merge_levels([coarse, fine], maps)
    assert (merged.cells, merged.stride, merged.offset) == ((12, 16), (4.0, 4.0), (4.0, 4.0))

    def interpolated(level, values):
        rows, columns = (
            (np.arange(count) * 4.0 + 4.0 - offset) / stride
            for count, offset, stride in zip(merged.cells, level.offset, level.stride)
        )
        wide = np.stack([np.interp(columns, np.arange(values.shape[1]), row) for row in values.double().numpy()])
        return np.stack([np.interp(rows, np.arange(len(wide)), column) for column in wide.T]).T

    for row in (0, 1):
        expected = np.maximum(interpolated(coarse, maps[0][row]), interpolated(fine, maps[1][row]))
        assert np.abs(values[row].numpy() - expected).max() < 1e-6
    assert values.amax((1, 2)).tolist() == torch.stack([level.amax((1, 2)) for level in maps]).amax(0).tolist()


def test_a_level_that_is_not_a_number_does_not_hide_the_others():
    level = ScoreLevel((1, 2), (8.0, 8.0), (4.0, 4.0), None)
    _, values = merge_levels([level, level], [torch.full((1, 1, 2), np.nan), torch.tensor([[[0.25, 0.5]]])])
    assert values.max() == 0.5 and values.min() == 0.25


def test_classes_are_those_that_are_chosen():
    model, batch = make_detector(HEADS['fcos']), make_batch()
    seen, _, _ = capture(model, batch, choose=lambda sample, result: [1, 7])  # the head has no class 7
    layers = ['bbox_head.merged_scores', 'bbox_head.scores']
    expected = [*layers, *(f'{layer}.dog' for layer in layers)]
    assert list(dict.fromkeys(one.layer for one in seen.scores[0])) == expected
    assert [one.name for one in seen.scores[0][-2:]] == ['bbox_head.scores.dog_0', 'bbox_head.scores.dog_1']
    seen, _, _ = capture(model, batch, names=(), choose=lambda sample, result: [1])
    assert seen.scores[0][-1].layer == 'bbox_head.scores.class_1'
    assert seen.scores[0][-1].score_of == 'class 1'


def test_predicted_and_true_classes():
    sample = DetDataSample()
    sample.gt_instances = InstanceData(labels=torch.tensor([4, 1, 4]))
    result = DetDataSample()
    result.pred_instances = InstanceData(labels=torch.tensor([3, 2, 2]), scores=torch.tensor([0.3, 0.2, 0.9]))
    assert predicted_classes(0.3, sample, result) == [2, 3]
    assert predicted_classes(0.3, sample, None) == true_classes(sample) == [1, 4]  # in training
    assert predicted_classes(0.3, DetDataSample(), None) == []
    result.pred_panoptic_seg = PixelData(sem_seg=torch.tensor([[[5, 1002], [2002, 5]]]))
    assert predicted_classes(0.95, sample, result) == [2, 5]


def test_names_of_classes_become_distinct_parts_of_file_names():
    names = ['dog', 'a/b', 'a_b', 'Cat', 'cat', 'what?', 'x\ny', '猫']
    parts = name_parts(names)
    assert parts[0] == 'dog' and parts[-1] == '猫'
    assert len({part.casefold() for part in parts}) == len(names)
    assert not any(character in part for part in parts for character in '/?\n')


def test_a_head_that_computes_other_scores_is_named(monkeypatch):
    model, batch = make_detector(HEADS['fcos']), make_batch()
    predict = type(model.bbox_head)._bbox_post_process

    def halved(self, results, **kwargs):
        results.scores = results.scores * 0.5
        return predict(self, results, **kwargs)

    monkeypatch.setattr(type(model.bbox_head), '_bbox_post_process', halved)
    with pytest.raises(ValueError, match='FCOSHead computes its scores in a way that is not known'):
        capture(model, batch, strict=True)
    seen, _, taps = capture(model, batch, quiet=True)
    assert seen.scores == [[]]
    (skipped,) = taps.skipped_layers()
    assert skipped.startswith('layer bbox_head.scores, ScoreError: FCOSHead')


def test_outputs_of_an_unknown_form_are_named():
    model, batch = make_detector(HEADS['fcos']), make_batch()
    model.bbox_head.cls_out_channels = 3
    with pytest.raises(ValueError, match='outputs of FCOSHead have no scores of a known form'):
        capture(model, batch, strict=True)


def test_detectors_without_scores_by_cell_are_refused_early():
    queries = nn.Module()
    queries.bbox_head = MODELS.build(
        dict(type='DETRHead', num_classes=2, embed_dims=8, loss_cls=dict(type='FocalLoss', use_sigmoid=True))
    )
    with pytest.raises(ValueError, match=r'bbox_head \(DETRHead\) scores queries, not cells'):
        find_heads(queries)
    regions = nn.Module()
    regions.roi_head = nn.Module()
    with pytest.raises(ValueError, match='no head that scores cells'):
        find_heads(regions)


def test_the_head_that_proposes_regions_knows_objects_only():
    proposing = MODELS.build(
        dict(
            type='RPN',
            data_preprocessor=PREPROCESSOR,
            backbone=dict(type='Pyramid'),
            neck=None,
            train_cfg=None,
            rpn_head=dict(type='RPNHead', in_channels=8, feat_channels=8, anchor_generator=TWO_ANCHORS),
            test_cfg=ConfigDict(
                rpn=dict(nms_pre=100, max_per_img=20, min_bbox_size=0, nms=dict(type='nms', iou_threshold=0.7))
            ),
        )
    ).eval()
    for weight in proposing.bbox_head.parameters():
        nn.init.normal_(weight, std=0.15)
    seen, (result,), _ = capture(proposing, make_batch(), strict=True)
    expected = ['bbox_head.merged_scores_0', 'bbox_head.scores_0', 'bbox_head.scores_1']
    assert [one.name for one in seen.scores[0]] == expected
    assert {one.score_of for one in seen.scores[0]} == {'an object'}
    cells, found = torch.cat([one.values.flatten() for one in seen.scores[0][1:]]), result.pred_instances.scores
    assert len(found) > 5 and abs(found.max() - cells.max()) <= 1e-6


def test_queries_of_mask_transformers_give_the_largest_product_of_class_and_mask():
    head = nn.Module()
    head.mask_embed = nn.Identity()
    generator = torch.Generator().manual_seed(0)
    classes, masks = torch.randn(2, 5, 4, generator=generator), torch.randn(2, 5, 6, 8, generator=generator)
    other = torch.zeros_like(classes), torch.zeros_like(masks)  # of an earlier decoder layer
    (level,) = read_scores(head, ([other[0], classes], [other[1], masks]), (24, 32))
    assert (level.cells, level.stride, level.offset) == ((6, 8), (4.0, 4.0), (2.0, 2.0))
    scores = level.scores(1, [2])
    exponent = np.exp(classes[1].double().numpy())
    chances = exponent / exponent.sum(1, keepdims=True)
    of_masks = 1 / (1 + np.exp(-masks[1].double().numpy()))
    for row, weight in ((0, chances[:, :3].max(1)), (1, chances[:, 2])):
        expected = (weight[:, None, None] * of_masks).max(0)
        assert np.abs(scores[row].numpy() - expected).max() < 1e-6


def test_grids_and_corners():
    grids = nn.Module()
    grids.num_grids = [4, 2]
    levels = read_scores(grids.eval(), (None, [torch.rand(1, 3, n, n) for n in (4, 2)]), (64, 96))
    assert [level.stride for level in levels] == [(16.0, 24.0), (32.0, 48.0)]
    assert levels[1].offset == (16.0, 24.0)
    corners = MODELS.build(dict(type='CornerHead', num_classes=2, in_channels=4, num_feat_levels=2))
    heatmaps = [[torch.randn(1, 2, 4, 6) for _ in range(2)] for _ in range(2)]
    first, second = read_scores(corners, (*heatmaps, None, None, None, None), (16, 24))
    torch.testing.assert_close(first.scores(0, [1])[1], heatmaps[0][1][0, 1].sigmoid())
    torch.testing.assert_close(second.scores(0, [1])[1], heatmaps[1][1][0, 1].sigmoid())
    assert first.stride == (4.0, 4.0)
