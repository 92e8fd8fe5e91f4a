"""explain(): heatmaps of single detections, through the detector's own prediction."""

import cv2
import numpy as np
import pytest
import torch
from explained import SIZE, by_hand, narrow_retinanet, state_of, write_image
from mmdet.apis import inference_detector

from mmdet_featviz import EXPLAINERS, explain, look
from mmdet_featviz.apis.explain import explain_batch
from mmdet_featviz.explanation.gradient_methods import from_gradients
from mmdet_featviz.structures.grid import Grid


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path)


@pytest.fixture
def model():
    return narrow_retinanet()


def close_to(values, expected):
    np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())
    return True


def test_the_explained_boxes_are_the_detectors_own(model, image):
    plain = inference_detector(model, image).pred_instances
    explanations = explain(model, image, targets='all')
    assert len(explanations) == len(plain) == 5
    order = plain.scores.argsort(descending=True)
    np.testing.assert_array_equal([one.bbox for one in explanations], plain.bboxes[order].numpy())
    np.testing.assert_array_equal(np.float32([one.score for one in explanations]), plain.scores[order].numpy())
    assert [one.label for one in explanations] == plain.labels[order].tolist()
    assert [one.class_name for one in explanations] == [('cat', 'dog')[label] for label in plain.labels[order]]


def test_odam_is_that_of_an_independent_computation(model, image):
    for one in explain(model, image, targets='all'):
        features, gradient, level = by_hand(model, image, one)
        expected = np.maximum((features * gradient).sum(0), 0)
        assert expected.max() > 0
        assert close_to(one.values(f'neck_{level}'), expected)
        assert one.levels == {f'neck_{number}': float(number == level) for number in range(5)}
        assert all(not one.values(f'neck_{other}').any() for other in range(5) if other != level)
        assert (one.method, str(one.target)) == ('odam', f'score of detection {one.target.number}')


def test_a_heatmap_has_the_size_of_the_image(model, image):
    pixels = cv2.resize(cv2.imread(image), (150, 100))  # the pipeline scales it to 96 x 64
    (one,) = explain(model, pixels, targets='top 1')
    assert one.heatmap.shape == (100, 150)
    assert one.heatmap.dtype == np.float32
    assert one.heatmap.min() >= 0
    name = max(one.levels, key=one.levels.get)
    np.testing.assert_array_equal(one.heatmap, one.level_heatmap(name))
    overlay = one.overlay()
    assert (overlay.shape, overlay.dtype) == ((100, 150, 3), np.uint8)
    np.testing.assert_array_equal(one.overlay(name), overlay)


def test_levels_are_merged_by_their_share(model, image):
    (one,) = explain(model, image, targets='top 1', layers='backbone')
    sums = {level.name: level.values.sum(dtype=np.float64) for level in one.snapshot.levels}
    assert sum(value > 0 for value in sums.values()) > 1
    for name, share in one.levels.items():
        assert share == pytest.approx(sums[name] / sum(sums.values()))
    expected = np.zeros(SIZE)
    for level in one.snapshot.levels:
        grid = Grid(level.values.shape, level.stride, one.snapshot.placement, 'auto', level.offset)
        expected += grid.heatmap(level.values).astype(np.float64) / level.stride[0] ** 2
    assert close_to(one.heatmap / one.heatmap.max(), expected / expected.max())


def test_cells_are_where_a_look_places_them(model, image):
    seen = look(model, image, layers=['backbone', 'neck'])
    (one,) = explain(model, image, targets='top 1', layers=['backbone', 'neck'])
    for level in one.snapshot.levels:
        expected = seen.level(level.name)
        assert (level.stride, level.offset) == (expected.stride, expected.offset)
    assert any(level.offset is not None for level in one.snapshot.levels)


def test_layers_count_the_same(model, image):
    (both,) = explain(model, image, targets='top 1', layers=['backbone', 'neck'])
    (neck,) = explain(model, image, targets='top 1')
    shares = {
        layer: sum(s for name, s in both.levels.items() if name.startswith(layer)) for layer in ('backbone', 'neck')
    }
    assert shares == pytest.approx(dict(backbone=0.5, neck=0.5))
    name = max(neck.levels, key=neck.levels.get)
    np.testing.assert_allclose(both.values(name), neck.values(name), rtol=1e-5)


def test_a_layer_whose_output_is_changed_in_place(model, image):
    """A ReLU overwrites the output of a norm; the map must be that of the norm, negative values included."""
    seen = {}

    @EXPLAINERS.register_module(name='negatives', force=True)
    @from_gradients
    def negatives(features, gradient):
        seen['lowest'] = float(features.min())
        return gradient.abs().sum(0)

    (one,) = explain(model, image, 'negatives', 'top 1', layers='backbone.layer2.0.bn1')
    assert seen['lowest'] < 0
    assert one.heatmap.max() > 0
    EXPLAINERS.module_dict.pop('negatives')


def test_nothing_is_left_behind(model, image, monkeypatch):
    model.backbone.layer1[0].with_cp = True
    model.backbone.conv1.weight.requires_grad_(False)  # as a frozen stage
    model.backbone.layer2.train()
    before = state_of(model)
    explain(model, image)
    explain(model, image, layers='backbone.layer1')
    assert state_of(model) == before
    monkeypatch.setattr(type(model.bbox_head), '_bbox_post_process', lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        explain(model, image)
    assert state_of(model) == before


def test_a_detector_that_predicts_otherwise_with_gradients_is_refused(model, image, monkeypatch):
    forward = model.bbox_head.forward

    def other(feats):
        classes, boxes = forward(feats)
        return [score + 1e-6 * torch.is_grad_enabled() for score in classes], boxes

    monkeypatch.setattr(model.bbox_head, 'forward', other)
    before = state_of(model)
    with pytest.raises(RuntimeError, match='SingleStageDetector predicts other boxes when it is observed'):
        explain(model, image)
    assert state_of(model) == before


@pytest.mark.parametrize('context', [torch.no_grad, torch.inference_mode])
def test_without_gradients_around(model, image, context):
    expected = explain(model, image, targets='top 1')[0].heatmap
    with context():
        found = explain(model, image, targets='top 1')[0].heatmap
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('precision', [torch.bfloat16, torch.float16])
def test_half_precision(model, image, precision):
    (expected,) = explain(model, image, targets='top 1')
    box = f'box {" ".join(map(str, expected.bbox))} {expected.class_name}'
    try:
        with torch.autocast('cpu', precision):  # mmcv's NMS on the CPU is for float32 only, so among candidates
            (one,) = explain(model, image, targets=box)
    except RuntimeError as error:
        pytest.skip(f'this torch has no {precision} on the CPU: {error}')
    assert one.score == pytest.approx(expected.score, abs=0.05)
    assert one.heatmap.dtype == np.float32
    assert 0 < one.heatmap.max() < np.inf


def test_gradients_of_half_precision_do_not_vanish(model, image, monkeypatch):
    """Logits are flat, and features between neck and head are large: the gradient there is too small for float16."""
    forward = model.bbox_head.forward

    def flat(feats):
        classes, boxes = forward(feats)
        return [logits / 2**10 for logits in classes], boxes

    monkeypatch.setattr(model.bbox_head, 'forward', flat)
    (expected,) = explain(model, image, targets='top 1')
    monkeypatch.setattr(
        model.bbox_head, 'forward', lambda feats: flat([(f * 2.0**12).half().float() / 2.0**12 for f in feats])
    )
    (one,) = explain(model, image, targets='top 1')
    np.testing.assert_allclose(one.heatmap, expected.heatmap, rtol=0, atol=0.02 * expected.heatmap.max())


def test_frozen_weights(model, image):
    expected = explain(model, image, targets='top 1', layers='backbone')[0].heatmap
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    np.testing.assert_array_equal(explain(model, image, targets='top 1', layers='backbone')[0].heatmap, expected)


def test_a_model_in_training_is_explained_in_evaluation_mode(model, image):
    expected = explain(model, image, targets='top 1')[0]
    model.train()
    before = state_of(model)
    found = explain(model, image, targets='top 1')[0]
    assert found.score == expected.score
    np.testing.assert_array_equal(found.heatmap, expected.heatmap)
    assert state_of(model) == before


def test_a_detector_that_draws_by_itself(image, tmp_path):
    plain = narrow_retinanet()
    drawing = narrow_retinanet('SingleStageDetectorHp', featviz=dict(out_dir=str(tmp_path / 'drawn')))
    drawing.load_state_dict(plain.state_dict())
    expected, found = (explain(model, image, targets='top 1')[0] for model in (plain, drawing))
    np.testing.assert_array_equal(found.heatmap, expected.heatmap)
    assert not list(tmp_path.rglob('drawn/*.jpg'))
    assert not list(tmp_path.rglob('drawn/*/*'))


def test_a_wrapped_detector(model, image):
    from mmdet.models import DetTTAModel

    from mmdet_featviz.apis.inference import build_pipeline

    data = {key: [value] for key, value in build_pipeline(model)(dict(img_path=image, img_id=0)).items()}
    wrapped = DetTTAModel(tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=5), module=model)
    (expected,), (found,) = explain_batch(model, data), explain_batch(wrapped, data)
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one.heatmap, other.heatmap)


def test_images_of_a_batch(model, tmp_path):
    from mmdet_featviz.apis.inference import build_pipeline

    packed = [build_pipeline(model)(dict(img_path=write_image(tmp_path, seed), img_id=seed)) for seed in (0, 1)]
    data = {key: [sample[key] for sample in packed] for key in packed[0]}
    batched = explain_batch(model, data, targets='top 2', layers=['neck', 'backbone'])
    for seed, of_image in enumerate(batched):
        alone = explain(model, write_image(tmp_path, seed), targets='top 2', layers=['neck', 'backbone'])
        assert len(of_image) == 2
        for one, other in zip(of_image, alone):
            np.testing.assert_allclose(one.bbox, other.bbox, rtol=1e-4)
            assert close_to(one.heatmap, other.heatmap)


def test_the_graph_begins_at_the_taps(model, image):
    """Nothing before the tapped layer keeps tensors for a backward pass."""
    needs = {}
    model.backbone.register_forward_hook(lambda module, args, output: needs.update(backbone=output[0].requires_grad))
    model.bbox_head.register_forward_hook(lambda module, args, output: needs.update(head=output[0][0].requires_grad))
    explain(model, image)
    assert needs == dict(backbone=False, head=True)


def test_one_pass_for_all_targets(model, image):
    calls = []
    model.bbox_head.register_forward_hook(lambda *args: calls.append(torch.is_grad_enabled()))
    assert len(explain(model, image, targets='all')) == 5
    assert calls == [False, True]


def test_bad_input(image):
    model = narrow_retinanet()
    with pytest.raises(ValueError, match="unknown method 'odan': did you mean 'odam'"):
        explain(model, image, 'odan')
    with pytest.raises(ValueError, match="unknown layer 'nekc'"):
        explain(model, image, layers='nekc')
    with pytest.raises(ValueError, match="of='scores' is not known: choose from score, left"):
        explain(model, image, of='scores')
    with pytest.raises(TypeError, match="unknown option 'colourmap': did you mean 'colormap'"):
        explain(model, image, colourmap='jet')
    with pytest.raises(ValueError, match="the score of the detections does not depend on layer 'bbox_head.reg_convs"):
        explain(model, image, layers=['neck', 'bbox_head.reg_convs.0'])
    with pytest.raises(TypeError, match=r'explain\(\) needs a detector'):
        explain('model', image)
    with pytest.raises(ValueError, match='image must be a path, or an array .* not None'):
        explain(model, None)
    with pytest.raises(KeyError, match="no level 'neck_7': choose from neck_0"):
        explain(model, image)[0].values('neck_7')


def test_a_detector_without_gradients(image, monkeypatch):
    model = narrow_retinanet()
    head = type(model.bbox_head)
    original = head._predict_by_feat_single
    monkeypatch.setattr(head, '_predict_by_feat_single', torch.no_grad()(original))
    with pytest.raises(ValueError, match="score that SingleStageDetector predicts carries no gradient: method='drise'"):
        explain(model, image)


def test_a_detector_that_finds_nothing(image):
    model = narrow_retinanet()
    model.bbox_head.test_cfg = {**model.bbox_head.test_cfg, 'score_thr': 1.0}
    from mmengine.config import ConfigDict

    model.bbox_head.test_cfg = ConfigDict(model.bbox_head.test_cfg)
    with pytest.raises(ValueError, match=f'{image}: the detector predicts no box here'):
        explain(model, image)
