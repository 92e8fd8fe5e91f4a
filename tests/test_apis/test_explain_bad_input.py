"""explain(): what cannot be explained is an error that names the cause and the next step."""

import numpy as np
import pytest
import torch
from explained import narrow_retinanet, small_detr, state_of, with_config, write_image
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet_featviz import explain
from mmdet_featviz.apis.inference import build_pipeline
from mmdet_featviz.visualization.images import ImageError

WITH_GRADIENTS = 'odam', 'layercam', 'gradcam', 'gradcam++', 'ssgradcam++'
OTHERS = 'eigencam', 'ablationcam', 'drise', 'attention'


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path)


@pytest.fixture
def model():
    return narrow_retinanet()


def refused(model, image, message, *args, **options):
    """Check the message, and that nothing is left in the detector."""
    before = state_of(model)
    with pytest.raises(ValueError) as raised:
        explain(model, image, *args, **options)
    assert message in str(raised.value)
    assert '\n' not in str(raised.value)
    assert state_of(model) == before


@pytest.mark.parametrize('method', [*WITH_GRADIENTS, *OTHERS])
def test_no_detection_at_all(model, image, method):
    model.bbox_head.test_cfg = ConfigDict({**model.bbox_head.test_cfg, 'score_thr': 1.0})
    for targets in ('top 5', 0, 'class dog') if method == 'odam' else ('top 5',):
        refused(model, image, f'{image}: the detector predicts no box here', method, targets)


@pytest.mark.parametrize(
    ('targets', 'reason'),
    [
        ('score 0.99999', 'no detection scores 0.99999 or more: the best of 5 has 0.'),
        (9, 'there is no detection 9: 5 are predicted, numbered from 0'),
        ('top 1, class 1', 'none of the 1 detections is of the class 1: they are cat'),
        ('box 900 900 950 950', 'no candidate overlaps the box 900 900 950 950'),
        ('gt', 'there is no ground truth: give a sample of a data set that has its annotations'),
        (['score 0.99999', 9], 'the best of 5 has'),
    ],
)
@pytest.mark.parametrize('method', ['odam', 'drise'])
def test_a_target_that_no_detection_fits(model, image, method, targets, reason):
    if targets == 'top 1, class 1' and explain(model, image, targets=0)[0].label == 1:
        targets, reason = 'top 1, class 0', 'none of the 1 detections is of the class 0: they are dog'
    refused(model, image, reason, method, targets)


def test_ground_truth_that_no_candidate_overlaps(model, image):
    sample = build_pipeline(model)(dict(img_path=image, img_id=0))
    sample['data_samples'].gt_instances = InstanceData(
        bboxes=torch.tensor([[900.0, 900.0, 950.0, 950.0]]), labels=torch.tensor([0])
    )
    refused(model, sample, 'no candidate overlaps a ground-truth box of its class', targets='gt')


def test_a_sample_that_is_none(model):
    refused(model, dict(img='image.jpg'), "a sample must be one item of a data set, with 'inputs' and 'data_samples'")


@pytest.mark.parametrize('method', WITH_GRADIENTS)
def test_a_method_with_gradients_in_a_detector_that_has_none(model, image, monkeypatch, method):
    head = type(model.bbox_head)
    monkeypatch.setattr(head, '_predict_by_feat_single', torch.no_grad()(head._predict_by_feat_single))
    message = "the score that SingleStageDetector predicts carries no gradient: method='drise' needs none"
    refused(model, image, message, method)
    assert explain(model, image, 'drise', 'top 1', masks=4)[0].heatmap.shape == (64, 96)


def test_boxes_without_gradients(model, image, monkeypatch):
    decode = type(model.bbox_head.bbox_coder).decode
    monkeypatch.setattr(type(model.bbox_head.bbox_coder), 'decode', torch.no_grad()(decode))
    message = "the box that SingleStageDetector predicts carries no gradient: of='score' explains the score"
    refused(model, image, message, of='box')
    assert explain(model, image, targets='top 1')[0].heatmap.max() > 0


def test_gradients_that_are_not_finite(model, image, monkeypatch):
    forward = model.bbox_head.forward

    def infinite(features):
        classes, boxes = forward(features)
        for level in classes:
            if level.requires_grad:
                level.register_hook(lambda gradient: None if gradient is None else gradient * float('nan'))
        return classes, boxes

    monkeypatch.setattr(model.bbox_head, 'forward', infinite)
    with pytest.raises(ValueError, match="the gradient at layer 'neck' is not finite: method='drise' needs none"):
        explain(model, image)


@pytest.mark.parametrize('method', WITH_GRADIENTS)
@pytest.mark.parametrize('layers', ['bbox_head.reg_convs.0', ['neck', 'bbox_head.retina_reg']])
def test_a_layer_behind_which_the_score_does_not_depend(model, image, method, layers):
    name = layers if isinstance(layers, str) else layers[1]
    message = f'the score of the detections does not depend on layer {name!r}: choose a layer that it is computed from'
    refused(model, image, message, method, layers=layers)


def test_a_layer_without_feature_maps(model, image):
    class Total(torch.nn.Module):
        def forward(self, features):
            return features.sum()

    model.total = Total()
    forward = model.bbox_head.forward
    model.bbox_head.forward = lambda features: (model.total(features[0]), forward(features))[1]
    before = state_of(model)
    for method in ('odam', 'eigencam', 'ablationcam'):
        with pytest.raises(ValueError, match='none of the layers total returns a feature map: choose others'):
            explain(model, image, method, layers='total')
    assert state_of(model) == before


def test_a_layer_that_never_fires(model, image):
    model.unused = torch.nn.Identity()
    refused(model, image, "layer 'unused' never fires: the detector does not call it", layers='unused')
    refused(model, image, 'none of the layers unused fires: the detector does not call them', layers='unus*')


@pytest.mark.parametrize(
    ('predicted', 'message'),
    [
        (dict(masks=torch.zeros(1, 4, 4)), 'the detector predicts no boxes with labels and scores'),
        (
            dict(bboxes=torch.zeros(2, 5), scores=torch.ones(2), labels=torch.zeros(2)),
            'only upright boxes can be explained, but the detector predicts (2, 5)',
        ),
    ],
)
@pytest.mark.parametrize('method', ['odam', 'drise'])
def test_detectors_without_upright_boxes(model, image, method, predicted, message):
    model.test_step = lambda data: [DetDataSample(pred_instances=InstanceData(**predicted))]
    with pytest.raises(ValueError) as raised:
        explain(model, image, method)
    assert message in str(raised.value)


def test_eigencam_says_that_it_knows_no_target(model, image, caplog, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmdet_featviz.explanation.gradient_methods.print_log', lambda message, *args: lines.append(message)
    )
    one, other = explain(model, image, 'eigencam', 'top 2')
    assert (one.heatmap == other.heatmap).all()
    (line,) = lines
    assert line.startswith('eigencam knows no target')


def test_parts_that_a_method_cannot_explain(image):
    model = with_config(MODELS.build(small_detr()))
    refused(model, image, 'a query, which predicts score and box together', 'attention', of='box')
    refused(narrow_retinanet(), image, "drise explains scores only: use of='score'", 'drise', of='left')


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (np.zeros((64, 96, 3), object), 'image must be an array of numbers, but has the type object'),
        (np.zeros((64, 96, 3), complex), 'image must be an array of numbers, but has the type complex128'),
        (np.zeros((9000, 1, 3), np.uint8), 'the test pipeline of the detector cannot use an image of 9000 x 1 pixels'),
    ],
)
def test_arrays_that_are_no_image(model, array, message):
    refused(model, array, message)


def test_a_file_without_content(model, tmp_path):
    (tmp_path / 'empty.jpg').write_bytes(b'')
    with pytest.raises(ImageError, match=r'/empty\.jpg cannot be read \(OpenCV[^\n]*\)$'):
        explain(model, str(tmp_path / 'empty.jpg'))


@pytest.mark.parametrize('image', [np.full((64, 96, 3), np.nan), np.zeros((1, 1, 3), np.uint8)])
def test_arrays_of_nothing(model, image):
    """Of a pixel there may be detections; of NaN there is none, and no map."""
    if np.isnan(image).any():
        refused(model, image, 'the detector predicts no box here')
    else:
        (one,) = explain(model, image, targets='top 1')
        assert one.heatmap.shape == (1, 1)
        assert one.overlay().shape == (1, 1, 3)


@pytest.mark.parametrize('method', ['', 'odam.', '.', 'mmdet.odam'])
def test_names_that_no_registry_has(model, image, method):
    refused(model, image, f'unknown method {method!r}', method)


@pytest.mark.parametrize('method', ['drise', 'ablationcam'])
def test_boxes_without_area(model, image, method):
    predict = model.test_step

    def test_step(data):
        samples = predict(data)
        for sample in samples:
            sample.pred_instances.bboxes = sample.pred_instances.bboxes[:, [0, 1, 0, 1]]
        return samples

    model.test_step = test_step
    message = f'{method} looks for detections that overlap a box, but the boxes that the detector predicts have no area'
    refused(model, image, message, method)
    assert explain(model, image, targets='top 1')[0].heatmap.max() > 0
