"""Perturbation methods, on a black box whose score is known."""

import copy

import numpy as np
import pytest
import torch
from black_box import OBJECTS, BlackBox, all_targets
from explained import energy_in, features_by_hand, narrow_retinanet, state_of, write_image

from mmdet_featviz import explain
from mmdet_featviz.explanation.detections import overlaps
from mmdet_featviz.explanation.perturbation_methods import MaskMean, drise, hide, mean_color, random_masks


def test_drise_finds_each_of_two_objects():
    box = BlackBox()
    maps = drise(box, all_targets(box), masks=400, cells=8)
    assert box.calls[1:] == [8] * 50
    for own, other, ((level,),) in zip(OBJECTS, OBJECTS.flip(0), zip(maps)):
        assert (level.name, level.stride, level.values.shape) == ('input_0', (1.0, 1.0), (32, 64))
        assert level.values.dtype == np.float32
        assert level.values.min() == 0
        in_own, in_other = (energy_in(level.values, one.numpy()) for one in (own, other))
        assert in_own > 2 * in_other


def test_the_mean_over_masks_is_that_of_all_masks_at_once():
    rng = np.random.default_rng(0)
    masks, numbers = rng.random((7, 5, 6)).astype(np.float32), rng.random((7, 2))
    mean = MaskMean(2, (5, 6))
    for part in (slice(0, 3), slice(3, 7)):
        mean.add(masks[part], numbers[part])
    expected = np.einsum('nt,nhw->thw', numbers, masks.astype(np.float64)) / masks.sum(0)
    expected -= expected.min((1, 2), keepdims=True)
    np.testing.assert_allclose(mean.heat(), expected, atol=1e-6)


def test_xaitk_computes_the_same():
    scoring = pytest.importorskip('xaitk_saliency.impls.gen_detector_prop_sal.drise_scoring')
    box, rng = BlackBox(), np.random.default_rng(0)
    masks = random_masks(300, (32, 64), 8, 0.5, rng)
    pixels = box.data['inputs'][0]
    found = box.predict([hide(pixels, mask, mean_color(pixels)) for mask in masks], [None] * 300)
    scores = np.array([one.scores.numpy() for one in found])
    one_hot = np.eye(3)[[1, 1]]
    boxes = OBJECTS.numpy().astype(np.float64)
    perturbed = np.stack([np.concatenate([boxes, score[:, None], one_hot], 1) for score in scores])
    reference = np.concatenate([boxes, box.detections[0].scores.numpy()[:, None], one_hot], 1)
    theirs = scoring.DRISEScoring().generate(reference, perturbed, masks)
    mean = MaskMean(2, (32, 64))
    mean.add(masks, scores.astype(np.float64))
    for own, other in zip(mean.heat(), theirs):
        assert np.corrcoef(own.ravel(), other.ravel())[0, 1] >= 0.95


def test_masks_are_smooth_seeded_and_visible_as_often_as_asked():
    masks, again = (random_masks(200, (30, 50), 6, 0.3, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(masks, again)
    assert masks.shape == (200, 30, 50)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    assert masks.mean() == pytest.approx(0.3, abs=0.02)
    assert np.abs(np.diff(masks, axis=2)).max() <= 1 / 9 + 1e-6  # a cell is 9 columns wide


def test_what_is_hidden_gets_the_mean_color():
    pixels = torch.tensor([[[0, 100], [200, 100]]], dtype=torch.uint8)
    hidden = hide(pixels, np.float32([[1, 0], [0.5, 0]]), mean_color(pixels))
    assert hidden.dtype == torch.uint8
    assert hidden.tolist() == [[[0, 100], [150, 100]]]


def test_ablationcam_weighs_channels_by_the_score_that_is_lost(tmp_path):
    """Each channel of the level is removed by hand, in a head that is called on its own."""
    model, image = narrow_retinanet(), write_image(tmp_path)
    model.bbox_head.test_cfg = copy.deepcopy(model.bbox_head.test_cfg)
    model.bbox_head.test_cfg.nms.iou_threshold = 1.0  # the box itself remains, whatever the others do
    model.bbox_head.test_cfg.max_per_img = 1000
    model.bbox_head.test_cfg.nms_pre = 1000
    before = state_of(model)
    (one,) = explain(model, image, 'ablationcam', 'top 1', batch_size=16)
    assert state_of(model) == before
    (odam,) = explain(model, image, targets='top 1')
    name = max(odam.levels, key=odam.levels.get)
    number = int(name[-1])
    features = features_by_hand(model, image)
    head, box = copy.deepcopy(model.bbox_head).double(), torch.from_numpy(one.bbox)
    head.test_cfg.nms = None  # removes nothing either, and mmcv's is for float32 only

    def best(levels):
        with torch.no_grad():
            found = head.predict_by_feat(*head(levels), batch_img_metas=[dict(img_shape=(64, 96))], rescale=False)[0]
        return float((overlaps(found.bboxes, box) * found.scores * (found.labels == one.label)).max())

    whole = best(features)
    expected = torch.zeros(features[number].shape[2:], dtype=torch.float64)
    for channel in range(16):
        changed = [level.clone() for level in features]
        changed[number][:, channel] = 0
        expected += (whole - best(changed)) / whole * features[number][0, channel]
    expected = expected.clamp(min=0).numpy()
    assert expected.max() > 0
    np.testing.assert_allclose(one.values(name), expected, rtol=1e-2, atol=1e-2 * expected.max())


@pytest.mark.parametrize('method', ['drise', 'ablationcam'])
def test_only_scores_can_be_explained(tmp_path, method):
    with pytest.raises(ValueError, match=f"{method} explains scores only: use of='score'"):
        explain(narrow_retinanet(), write_image(tmp_path), method, of='box')


def test_options_of_drise(tmp_path):
    model, image = narrow_retinanet(), write_image(tmp_path)
    for options, message in (
        (dict(masks=0), 'masks must be a whole number'),
        (dict(visible=2), 'visible must lie between 0 and 1'),
        (dict(cells=1.5), 'cells must be a whole number'),
        (dict(seed=-1), 'seed must be a whole number of at least 0, but is -1'),
    ):
        with pytest.raises(ValueError, match=message):
            explain(model, image, 'drise', **options)
    with pytest.raises(TypeError, match="unknown option 'maks': did you mean 'masks'"):
        explain(model, image, 'drise', maks=7)


def test_drise_needs_no_gradients(tmp_path, monkeypatch):
    model, image = narrow_retinanet(), write_image(tmp_path)
    head = type(model.bbox_head)
    monkeypatch.setattr(head, '_predict_by_feat_single', torch.no_grad()(head._predict_by_feat_single))
    before = state_of(model)
    first, again = (explain(model, image, 'drise', 'top 2', masks=12, batch_size=5) for _ in range(2))
    assert state_of(model) == before
    for one, other in zip(first, again):
        assert one.heatmap.shape == (64, 96)
        assert one.heatmap.max() > 0
        np.testing.assert_array_equal(one.heatmap, other.heatmap)  # the masks are seeded
