"""The features of boxes in a test: against RoIAlign and the head itself, called by hand on what the hook saw."""

import numpy as np
import pytest
import torch
from conftest import (
    FLIP_KEYS,
    keep_ratio_pipeline,
    manifest,
    noise,
    resnet_detector,
    runner_config,
    test_predictions,
    write_dataset,
)
from mmcv.ops import RoIAlign
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.kept_features import KeptFeatures
from mmdet_featviz.capture.roi_features import box_features, input_boxes
from mmdet_featviz.runs.box_features_file import load_box_features
from mmdet_featviz.runs.maps_file import MapsError, load_snapshot
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.placement import Placement, identity_placement

SIZES = [(90, 120), (64, 200), (77, 77)]
STRIDES = (8, 16, 32, 64, 128)
TRUTH = {'0.png': [[10, 20, 40, 30], [70, 5, 30, 60]], '1.png': [[120, 10, 50, 40]], '2.png': []}


def config(folder, name, hook=None, **extra):
    data = folder / 'data'
    if not data.exists():
        write_dataset(data, {f'{n}.png': noise(*size, seed=n) for n, size in enumerate(SIZES)}, TRUTH)
    flip = dict(type='RandomFlip', prob=1.0)
    pipeline = keep_ratio_pipeline((160, 120), flip, meta_keys=FLIP_KEYS)
    own = None if hook is None else dict(out_dir=str(folder / name), score_thr=0.005, **hook)
    cfg = runner_config(data, folder / f'work of {name}', resnet_detector(), pipeline, batch_size=2, hook=own, **extra)
    cfg.model.test_cfg.score_thr = 0.0
    return cfg


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A test of flipped and scaled images with its maps; what the neck returned and its input; and a plain test."""
    folder = tmp_path_factory.mktemp('boxes')
    seen = []
    cfg = config(folder, 'run', dict(save=('maps', 'box_features')))
    runner = Runner.from_cfg(cfg)

    def keep(module, args, output):
        for number in range(len(output[0])):
            seen.append([level[number : number + 1].detach().clone() for level in output])

    handle = runner.model.neck.register_forward_hook(keep)
    runner.test()
    handle.remove()
    return folder, runner, seen


def test_features_are_those_of_roi_align_on_the_flipped_and_scaled_image(run):
    folder, _, seen = run
    opened = Run(str(folder / 'run'))
    assert [saved.key for saved in opened.box_features] == ['0', '1', '2']
    kinds = []
    # The passes that find the centers of receptive fields come first.
    for saved, maps_path, levels, (height, width) in zip(opened.box_features, opened.paths, seen[-3:], SIZES):
        features, boxes = load_box_features(saved.path), load_snapshot(maps_path).boxes
        np.testing.assert_array_equal(features.boxes.corners, boxes.corners[features.numbers])
        kept = np.isnan(boxes.scores) | (boxes.scores >= 0.005)
        np.testing.assert_array_equal(features.numbers, np.flatnonzero(kept))
        kinds += features.boxes.are_truth.tolist()
        scale = min(160 / max(height, width), 120 / min(height, width))
        resized = [int(side * scale + 0.5) for side in (height, width)]
        factors = np.tile([resized[1] / width, resized[0] / height], 2)
        left, top, right, bottom = (features.boxes.corners * factors).T
        flipped = np.stack([resized[1] - right, top, resized[1] - left, bottom], axis=1)
        rois = torch.tensor(np.insert(flipped, 0, 0, axis=1), dtype=torch.float32)
        assert list(features.vectors) == [f'neck_{number}' for number in range(5)]
        for number, (level, stride) in enumerate(zip(levels, STRIDES)):
            limits = torch.tensor([0, *[level.shape[3] * stride, level.shape[2] * stride] * 2])
            inside = torch.minimum(rois.clamp(min=0), limits)
            wanted = RoIAlign((7, 7), 1 / stride, 0, aligned=True)(level, inside).mean((2, 3)).numpy()
            np.testing.assert_allclose(features.vectors[f'neck_{number}'], wanted, rtol=1e-4, atol=1e-5)
    assert True in kinds and False in kinds


def test_the_result_is_that_of_a_plain_test_and_a_resumed_run_has_the_same_files(run):
    folder, runner, _ = run
    torch.save(dict(state_dict=runner.model.state_dict(), meta={}), folder / 'weights.pth')
    weights = dict(load_from=str(folder / 'weights.pth'))
    plain, plain_metrics, _ = test_predictions(config(folder, 'plain', **weights))
    own, metrics, _ = test_predictions(config(folder, 'stopped', dict(save='box_features'), **weights))
    assert metrics == plain_metrics
    for one, other in zip(plain, own):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    files = {key: (folder / 'stopped' / key / 'box_features.npz') for key in '012'}
    before = {key: file.read_bytes() for key, file in files.items()}
    entries = manifest(folder / 'stopped')
    assert [(entry['key'], entry['pass'], entry['files']) for entry in entries] == [
        (key, 0, [f'{key}/box_features.npz']) for key in '012'
    ]
    assert entries[0]['vectors'] == {f'neck_{number}': 16 for number in range(5)}
    assert sum(entry['boxes'] for entry in entries) == sum(len(load_box_features(str(f)).boxes) for f in files.values())
    files['1'].unlink()
    files['2'].write_bytes(b'kept')
    test_predictions(config(folder, 'stopped', dict(save='box_features', resume=True), **weights))
    assert files['1'].read_bytes() == before['1'] and files['2'].read_bytes() == b'kept'
    with pytest.raises(ValueError, match="holds box features only, no activation maps: add 'maps' to save"):
        Run(str(folder / 'stopped')).check_has_maps()


def kept_pass(features, inputs):
    return Pass(inputs, [DetDataSample()], features=features)


def boxes_at(*corners, score=np.nan):
    return Boxes(np.array(corners, float).reshape(-1, 4), np.zeros(len(corners), int), np.full(len(corners), score))


def test_a_two_stage_detector_has_the_vectors_of_its_own_head(tmp_path):
    """The input of the classifier is what its scores follow from; the head is called here with the boxes as regions."""
    model = MODELS.build(Config.fromfile('configs/demo/faster_rcnn_shapes.py').model).eval()
    inputs = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    corners = [[3.0, 5, 40, 30], [50, 10, 90, 60]]
    with torch.no_grad():
        levels = model.neck(model.backbone(inputs))
        regions = torch.tensor([[1, *corner] for corner in corners])
        scores = model.roi_head._bbox_forward(levels, regions)['cls_score'].numpy()
    passed = kept_pass(dict(backbone=KeptFeatures(inputs), neck=KeptFeatures(levels)), inputs)
    found = box_features(model, passed, 1, boxes_at(*corners), identity_placement((64, 96), (64, 96)), 0.3)
    own = found.vectors['roi_head.bbox_head']
    assert list(found.vectors) == [*(f'neck_{number}' for number in range(5)), 'roi_head.bbox_head']
    assert own.shape == (2, 96)
    classifier = model.roi_head.bbox_head.fc_cls
    expected = own.astype(np.float64) @ classifier.weight.detach().numpy().T + classifier.bias.detach().numpy()
    np.testing.assert_allclose(expected, scores, rtol=1e-4, atol=1e-5)
    assert not model.roi_head.bbox_head.fc_cls._forward_pre_hooks
    empty = box_features(model, passed, 1, boxes_at(), identity_placement((64, 96), (64, 96)), 0.3)
    assert {name: values.shape for name, values in empty.vectors.items()} == {
        **{f'neck_{number}': (0, 32) for number in range(5)},
        'roi_head.bbox_head': (0, 96),
    }


def test_a_cascade_has_the_vectors_of_its_last_head():
    """The head's two fully connected layers are computed here in float64, on RoIAlign of the level for the size."""
    cfg = Config.fromfile('configs/demo/faster_rcnn_shapes.py').model
    cfg.type, cfg.train_cfg = 'CascadeRCNN', None
    cfg.roi_head.update(type='CascadeRoIHead', num_stages=3, stage_loss_weights=[1, 0.5, 0.25])
    cfg.roi_head.bbox_head = [cfg.roi_head.bbox_head] * 3
    model = MODELS.build(cfg).eval()
    inputs = torch.rand(1, 3, 192, 256, generator=torch.Generator().manual_seed(0))
    corners = [[3.0, 5, 40, 30], [10.0, 10, 200, 180]]  # for strides 4 and 8
    with torch.no_grad():
        levels = model.neck(model.backbone(inputs))
    passed = kept_pass(dict(neck=KeptFeatures(levels)), inputs)
    found = box_features(model, passed, 0, boxes_at(*corners), identity_placement((192, 256), (192, 256)), 0.3)
    for own, corner, level, stride in zip(found.vectors['roi_head.bbox_head'], corners, levels, (4, 8)):
        vector = RoIAlign((7, 7), 1 / stride, 2)(level, torch.tensor([[0, *corner]])).flatten().numpy()
        for layer in model.roi_head.bbox_head[2].shared_fcs:
            weight, bias = (part.detach().numpy().astype(np.float64) for part in (layer.weight, layer.bias))
            vector = np.maximum(weight @ vector + bias, 0)
        np.testing.assert_allclose(own, vector, rtol=1e-4, atol=1e-6)
        assert vector.any()


def test_boxes_of_any_placement_and_boxes_that_the_network_did_not_see():
    turned = np.array([[0, -0.5, 40], [0.5, 0, 0], [0, 0, 1]])  # a quarter turn, halved: x becomes y
    corners = np.array([[10.0, 20, 30, 60], [10, -90, 30, -80], [-1000, 20, 1000, 60]])
    boxes, are_seen = input_boxes(corners, Placement(turned, (80, 80), (40, 40)))
    np.testing.assert_allclose(boxes, [[10, 5, 30, 15], [0, 0, 0, 0], [10, 0, 30, 40]])
    assert are_seen.tolist() == [True, False, True]
    horizon = np.array([[1, 0, 0], [0, 1, 0], [-0.02, 0, 1]])  # x above 50 is behind the horizon
    boxes, are_seen = input_boxes(np.array([[10.0, 10, 20, 20]]), Placement(horizon, (80, 80), (40, 40)))
    assert are_seen.tolist() == [True]
    np.testing.assert_allclose(boxes, [[10 / 0.8, 10 / 0.8, 20 / 0.6, 20 / 0.6]])
    _, are_seen = input_boxes(np.array([[10.0, 10, 70, 20]]), Placement(horizon, (80, 80), (40, 40)))
    assert are_seen.tolist() == [False]


def test_what_is_not_finite_not_seen_or_below_the_score():
    features = torch.ones(1, 2, 8, 8)
    features[0, 1, 0, 0] = torch.nan
    passed = kept_pass(dict(backbone=KeptFeatures((features,))), torch.zeros(1, 3, 64, 64))
    placement = identity_placement((64, 64), (64, 64))
    corners = [[0, 0, 20, 20], [32, 32, 60, 60], [70, 70, 80, 80], [1e30, 1e30, 2e30, 2e30], [0, 32, 1e30, 60]]
    found = box_features(torch.nn.Module(), passed, 0, boxes_at(*corners, score=0.5), placement, 0.5)
    np.testing.assert_array_equal(found.vectors['backbone_0'], [[1, np.nan], [1, 1], *[[np.nan] * 2] * 2, [1, 1]])
    assert not len(box_features(torch.nn.Module(), passed, 0, boxes_at(*corners, score=0.5), placement, 0.51).boxes)
    features[0, 1, 0, 0] = 0  # in place: nobody knows any more what the pass had
    with pytest.raises(ValueError, match='neither neck nor backbone returned feature maps'):
        box_features(torch.nn.Module(), passed, 0, boxes_at(*corners), placement, 0.5)


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        (dict(boxes=np.zeros((2, 5))), r'its boxes are float64 \(2, 5\)'),
        (dict(boxes=np.full((2, 6), np.nan)), 'a box has corners, a label or a score that is not finite'),
        (dict(neck_0=np.zeros((2, 0))), 'its vectors have no channels'),
        (dict(numbers=np.array([0.0, 1])), 'its numbers are float64'),
        (dict(neck_0=np.zeros((3, 2))), 'its vectors of neck_0 are'),
        (dict(neck_0=np.array([{}, {}], object)), 'holds no box features of this package'),
        (dict(meta=np.array('{}')), "lacks 'levels'"),
    ],
)
def test_files_from_outside(tmp_path, changes, problem):
    arrays = dict(boxes=np.zeros((2, 6)), numbers=np.arange(2), neck_0=np.zeros((2, 4), np.float32))
    arrays['meta'] = np.array('{"format": 1, "levels": ["neck_0"]}')
    np.savez(tmp_path / 'good.npz', **arrays)
    assert load_box_features(str(tmp_path / 'good.npz')).vectors['neck_0'].shape == (2, 4)
    np.savez(tmp_path / 'bad.npz', **{**arrays, **changes})
    with pytest.raises(MapsError, match=problem):
        load_box_features(str(tmp_path / 'bad.npz'))


def test_without_features_the_maps_are_saved_all_the_same(run):
    """A neck that is called twice in a pass: nobody knows which of its outputs the head used."""
    folder, _, _ = run
    cfg = config(folder, 'twice', dict(save=('maps', 'box_features')))
    runner = Runner.from_cfg(cfg)
    runner.model.extract_feat = lambda inputs: [runner.model.neck(runner.model.backbone(inputs)) for _ in range(2)][1]
    runner.test()
    summary = next(hook for hook in runner.hooks if type(hook).__name__ == 'FeatVizHook').visualizer.summary()
    assert '3 images, box features: ValueError while measuring boxes' in summary
    assert len(Run(str(folder / 'twice')).paths) == 3 and not Run(str(folder / 'twice')).box_features
