import numpy as np
import pytest
import torch

from mmdet_featviz import REDUCTIONS
from mmdet_featviz.capture.reductions import get_reduction, reduce_feature_map

FEATURES = np.random.default_rng(0).normal(size=(2, 5, 4, 3))
LARGEST = FEATURES.sum((2, 3)).argmax(1)
EXPECTED = {
    'max': FEATURES.max(1),
    'mean': FEATURES.mean(1),
    'sum': FEATURES.sum(1),
    'l2': np.sqrt((FEATURES**2).sum(1)),
    'select_max': np.stack([FEATURES[0, LARGEST[0]], FEATURES[1, LARGEST[1]]]),
}


@pytest.mark.parametrize('name', EXPECTED)
def test_reductions_equal_their_formula_in_float64(name):
    values = reduce_feature_map(torch.tensor(FEATURES, dtype=torch.float32), get_reduction(name))
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values.numpy(), EXPECTED[name], atol=1e-6)


def test_l2_is_computed_in_float32_bit_for_bit():
    features = torch.randn(1, 64, 32, 32)
    assert torch.equal(reduce_feature_map(features, get_reduction('l2')), torch.linalg.vector_norm(features, dim=1))


@pytest.mark.parametrize('name', EXPECTED)
def test_float64_and_negated_views_are_reduced_like_any_other(name):
    values = reduce_feature_map(torch.tensor(FEATURES), get_reduction(name))
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values.numpy(), EXPECTED[name], atol=1e-6)
    pair = torch.complex(torch.zeros(FEATURES.shape), torch.tensor(-FEATURES, dtype=torch.float32))
    negated = pair.conj().imag
    assert negated.is_neg()
    values = reduce_feature_map(negated, get_reduction(name))
    np.testing.assert_allclose(values.numpy(), EXPECTED[name], atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', ['sum', 'mean', 'l2', 'select_max'])
def test_half_precision_does_not_overflow(name, dtype):
    features = torch.full((1, 64, 2, 2), 30000.0, dtype=dtype)  # the sum is Inf in float16
    value = float(features[0, 0, 0, 0])
    expected = {'sum': 64 * value, 'mean': value, 'l2': 8 * value, 'select_max': value}[name]
    np.testing.assert_allclose(reduce_feature_map(features, get_reduction(name)).numpy(), expected, rtol=1e-3)


def test_select_max_ignores_channels_that_are_not_finite():
    features = torch.tensor(FEATURES, dtype=torch.float32)
    features[0, (LARGEST[0] + 1) % 5, 0, 0] = torch.nan
    values = reduce_feature_map(features, get_reduction('select_max'))
    np.testing.assert_allclose(values.numpy(), EXPECTED['select_max'], atol=1e-6)


def test_registered_function_is_found_and_its_view_is_copied():
    def first_channel(features):
        return features[:, 0]

    REDUCTIONS.register_module(name='first_channel_of_test', module=first_channel, force=True)
    features = torch.tensor(FEATURES, dtype=torch.float32)
    values = reduce_feature_map(features, get_reduction('first_channel_of_test'))
    features.zero_()  # like an in-place ReLU after the layer
    np.testing.assert_allclose(values.numpy(), FEATURES[:, 0], atol=1e-6)


def test_result_has_no_gradient():
    features = torch.ones(1, 2, 3, 3, requires_grad=True)
    assert not reduce_feature_map(features * 2, get_reduction('max')).requires_grad


def test_unknown_reduction_suggests_the_closest():
    with pytest.raises(ValueError, match=r"unknown reduction 'maxx': did you mean 'max'\?.*select_max"):
        get_reduction('maxx')


def test_reduction_with_a_wrong_shape_is_an_error():
    with pytest.raises(
        ValueError, match=r'\(2, 5\) for features of shape \(2, 5, 4, 3\): it must be a tensor \(N, H, W\)'
    ):
        reduce_feature_map(torch.tensor(FEATURES), lambda features: features.mean((2, 3)))


@pytest.mark.parametrize(('reduction', 'kind'), [(lambda _: None, 'NoneType'), (lambda f: f.numpy().max(1), 'ndarray')])
def test_reduction_that_returns_no_tensor_is_an_error(reduction, kind):
    with pytest.raises(ValueError, match=f'returned a {kind} for features .*: it must be a tensor'):
        reduce_feature_map(torch.tensor(FEATURES), reduction)
