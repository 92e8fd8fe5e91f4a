"""Gradient methods, against formulas written with loops in float64, and against captum where it is installed."""

import copy

import numpy as np
import pytest
import torch
from explained import by_hand, narrow_retinanet, write_image

from mmdet_featviz import EXPLAINERS, explain, look


def odam(a, g):
    return np.maximum((a * g).sum(0), 0)


def layercam(a, g):
    return np.maximum((a * np.maximum(g, 0)).sum(0), 0)


def gradcam(a, g):
    return np.maximum(sum(a[c] * g[c].mean() for c in range(len(a))), 0)


def plus_plus_weights(a, g):
    weights = np.zeros(len(a))
    for c in range(len(a)):
        total = (a[c] * g[c] ** 3).sum()
        for gradient in g[c].ravel():
            divisor = 2 * gradient**2 + total
            weights[c] += max(gradient, 0) * (gradient**2 / divisor if divisor else 0)
    return weights


def gradcam_plus_plus(a, g):
    return np.maximum(sum(w * a[c] for c, w in enumerate(plus_plus_weights(a, g))), 0)


def ssgradcam_plus_plus(a, g):
    weights = plus_plus_weights(a, g)
    return np.maximum(sum(weights[c] * a[c] * np.abs(g[c]) / max(np.abs(g[c]).max(), 1e-300) for c in range(len(a))), 0)


FORMULAS = {
    'odam': odam,
    'layercam': layercam,
    'gradcam': gradcam,
    'gradcam++': gradcam_plus_plus,
    'ssgradcam++': ssgradcam_plus_plus,
}


@pytest.fixture(scope='module')
def model():
    return narrow_retinanet()


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    return write_image(tmp_path_factory.mktemp('images'))


@pytest.mark.parametrize('method', FORMULAS)
def test_a_map_is_that_of_the_formula(model, image, method):
    for one in explain(model, image, method, 'top 3'):
        features, gradient, level = by_hand(model, image, one)
        expected = FORMULAS[method](features, gradient)
        values = one.values(f'neck_{level}')
        np.testing.assert_allclose(values, expected, rtol=5e-3, atol=1e-3 * expected.max() + 1e-12)
        assert one.method == method


@pytest.mark.parametrize('method', ['odam', 'eigencam'])
def test_heat_is_at_the_centers_of_receptive_fields(model, image, method):
    explained = explain(model, image, method=method)[0].snapshot.levels
    drawn = look(model, image, layers='neck').snapshot.levels
    assert [(level.stride, level.offset) for level in explained] == [(level.stride, level.offset) for level in drawn]
    assert all(level.offset is not None for level in explained)


def test_each_side_of_the_box(model, image):
    """The gradient of a side, from the box that the head decodes, in float64."""
    inside = [one for one in explain(model, image, targets='all') if (one.bbox % (96, 64, 96, 64) > 0).all()]
    number = inside[0].target.number  # sides at the border of the image are clipped, and depend on nothing
    sides = {side: explain(model, image, targets=number, of=side)[0] for side in ('left', 'top', 'right', 'bottom')}
    (box,) = explain(model, image, targets=number, of='box')
    exact = copy.deepcopy(model).double()
    features, _, level = by_hand(model, image, box)
    outputs = [torch.from_numpy(features)[None].requires_grad_()]
    classes, deltas = exact.bbox_head(outputs)
    priors = exact.bbox_head.prior_generator.single_level_grid_priors(
        classes[0].shape[-2:], level, torch.float64, 'cpu'
    )
    place = int((classes[0].sigmoid().permute(0, 2, 3, 1).reshape(-1, 2)[:, box.label] - box.score).abs().argmin())
    decoded = exact.bbox_head.bbox_coder.decode(
        priors[place : place + 1], deltas[0].permute(0, 2, 3, 1).reshape(-1, 4)[place : place + 1], max_shape=(64, 96)
    )[0]
    np.testing.assert_allclose(decoded.detach(), box.bbox, atol=1e-2)
    expected = {}
    for number, (side, one) in enumerate(sides.items()):
        (gradient,) = torch.autograd.grad(decoded[number], outputs, retain_graph=True)
        expected[side] = odam(features, gradient[0].numpy())
        np.testing.assert_allclose(
            one.values(f'neck_{level}'), expected[side], rtol=5e-3, atol=1e-3 * expected[side].max()
        )
    merged = np.max([values / max(values.max(), 1e-300) for values in expected.values()], axis=0)
    np.testing.assert_allclose(box.values(f'neck_{level}'), merged, atol=5e-3)


def test_the_score_of_a_drawn_box_counts_its_overlap(model, image):
    """overlap * score grows with both: the gradient is that of the product."""
    (own,) = explain(model, image, targets='top 1')
    left, top, right, bottom = own.bbox
    (one,) = explain(model, image, targets=f'box {left} {top} {(left + right) / 2} {bottom} {own.class_name}')
    assert one.target.overlap < 1
    assert one.heatmap.max() > 0
    assert str(one.target) == 'score of drawn box 0'


def test_eigencam_is_the_first_principal_component_and_says_so(model, image, caplog):
    first, second = explain(model, image, 'eigencam', 'top 2')
    features, _, level = by_hand(model, image, first)
    _, _, directions = np.linalg.svd(features.reshape(len(features), -1).T, full_matrices=False)
    projected = (features.reshape(len(features), -1).T @ directions[0]).reshape(features.shape[1:])
    expected = np.maximum(projected * np.sign(projected.sum()), 0)
    np.testing.assert_allclose(first.values(f'neck_{level}'), expected, rtol=1e-3, atol=1e-3 * expected.max())
    np.testing.assert_array_equal(first.heatmap, second.heatmap)


def test_values_that_are_not_finite_become_zero():
    formula = EXPLAINERS.get('odam')
    assert formula.__doc__.startswith('ODAM')
    from mmdet_featviz.explanation.gradient_methods import finite_heat

    heat = finite_heat(torch.tensor([float('nan'), float('inf'), -1.0, 2.0]))
    assert heat.tolist() == [0, 0, 0, 2]


def test_captum_computes_the_same(model, image):
    attr = pytest.importorskip('captum.attr')
    (one,) = explain(model, image, targets='top 1')
    (mean,) = explain(model, image, 'gradcam', 'top 1')
    features, _, level = by_hand(model, image, one)

    class Scores(torch.nn.Module):
        """The scores of one level, from its features."""

        def __init__(self):
            super().__init__()
            self.features = torch.nn.Identity()
            self.head = model.bbox_head

        def forward(self, inputs):
            return self.head([self.features(inputs)])[0][0].sigmoid().flatten(1)

    scores, inputs = Scores(), torch.from_numpy(features)[None].float()
    index = int((scores(inputs)[0] - one.score).abs().argmin())
    product = attr.LayerGradientXActivation(scores, scores.features).attribute(inputs, target=index)
    expected = product[0].sum(0).clamp(min=0).detach().numpy()
    np.testing.assert_allclose(one.values(f'neck_{level}'), expected, rtol=1e-2, atol=1e-3 * expected.max())
    expected = attr.LayerGradCam(scores, scores.features).attribute(inputs, target=index, relu_attributions=True)
    expected = expected[0, 0].detach().numpy()
    np.testing.assert_allclose(mean.values(f'neck_{level}'), expected, rtol=1e-2, atol=1e-3 * expected.max() + 1e-12)
