import numpy as np
import pytest
import torch
from mmdet.models.layers import ChannelAttention, SELayer
from torch import nn

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.channel_attention import ChannelAttentionFinder
from mmdet_featviz.capture.channel_selection import DetailRecorder, parse_channel_choice, select_channels, top_channels
from mmdet_featviz.capture.taps import Taps

MEANS = torch.tensor([0.5, -1.0, 3.0, float('nan'), 2.0])


@pytest.mark.parametrize(
    ('choice', 'expected'),
    [
        ('first 2', [0, 1]),
        ('first 9', [0, 1, 2, 3, 4]),
        ('top 3', [2, 4, 0]),
        ('all', [0, 1, 2, 3, 4]),
        ([4, 1, 4], [4, 1, 4]),
        (3, [3]),
    ],
)
def test_choices(choice, expected):
    assert parse_channel_choice(choice)(MEANS).tolist() == expected


@pytest.mark.parametrize('bad', ['best 3', 'top', 'top 0', 'top -1', '', [], [1.5], [-1], [True], 'first x'])
def test_a_choice_that_is_none_says_what_is_possible(bad):
    with pytest.raises(ValueError, match='channels='):
        parse_channel_choice(bad)


def test_a_channel_that_no_layer_has_is_an_error_of_its_own():
    with pytest.raises(ValueError, match='channel 5 does not exist: a layer has 5 channels, 0-4'):
        parse_channel_choice([0, 5])(MEANS)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_picked_channels_are_the_largest_means_computed_otherwise(dtype):
    features = torch.randn(7, 6, 9).to(dtype)
    picked = select_channels(features, parse_channel_choice('top 3'))
    means = features.double().numpy().mean((1, 2))
    assert picked.indices.tolist() == np.argsort(-means)[:3].tolist()
    np.testing.assert_array_equal(picked.maps, features.float().numpy()[picked.indices])
    np.testing.assert_allclose(picked.weights, means, rtol=1e-5, atol=1e-6)


def test_what_is_kept_is_a_copy():
    """A later in-place ReLU changes the network's own tensor."""
    features = torch.randn(2, 3, 4, 5)
    before = features.clone().numpy()
    kept = DetailRecorder(parse_channel_choice('all'), 2, raw=True).keep(features)
    features.relu_()
    for image, details in zip(before, kept):
        np.testing.assert_array_equal(details['raw'], image)
        np.testing.assert_array_equal(details['picked'].maps, image)
        np.testing.assert_array_equal(details['pooled'].maps, image[np.argsort(-image.mean((1, 2)))[:2]])


class Attended(nn.Module):
    """A backbone with channel attention at its end, as EfficientNet (SELayer) and RTMDet (ChannelAttention) have it."""

    def __init__(self, attention):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), attention)
        self.neck = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.neck(self.backbone(x))


def weights_of(attention, features):
    """The weights, computed from the module's parts by their published formulas."""
    pooled = features.mean((2, 3), keepdim=True)
    if isinstance(attention, SELayer):
        return attention.conv2(attention.conv1(pooled)).flatten(1)
    return nn.functional.hardsigmoid(attention.fc(pooled)).flatten(1)


@pytest.mark.parametrize('kind', [lambda: SELayer(8, ratio=2), lambda: ChannelAttention(8)])
def test_the_weights_of_channel_attention_are_found(kind):
    model = Attended(kind()).eval()
    inputs = torch.randn(2, 3, 16, 24)
    taps = Taps(model, ['backbone'], lambda f: f.amax(1), keeper=DetailRecorder(pooled=3), attention=True)
    with taps, torch.no_grad():
        taps.begin(inputs, [None, None])
        model(inputs)
        features = model.backbone[0](inputs)
        expected = weights_of(model.backbone[1], features)
    (found,) = taps.take()[0].attention
    assert (found.layer, found.channels, found.stride) == ('backbone.1', 8, (2, 2))
    for image, details in enumerate(found.details):
        pooled = details['pooled']
        np.testing.assert_allclose(pooled.weights, expected[image], rtol=1e-5)
        order = expected[image].argsort(descending=True)[:3]
        assert pooled.indices.tolist() == order.tolist()
        np.testing.assert_allclose(
            pooled.maps, (features * expected[:, :, None, None])[image, order].detach(), rtol=1e-4, atol=1e-6
        )


def test_attention_outside_the_layers_is_not_looked_for():
    model = Attended(SELayer(8, ratio=2))
    found = []
    finder = ChannelAttentionFinder(model, ['neck'], lambda *args: found.append(args))
    handles = [module.register_forward_hook(hook) for module, hook in finder.hooks()]
    model(torch.randn(1, 3, 16, 16))
    assert not found
    # A layer that is itself what puts out the weights leads to the module around it.
    finder = ChannelAttentionFinder(model, ['backbone.1.conv2'], lambda *args: found.append(args))
    handles += [module.register_forward_hook(hook) for module, hook in finder.hooks()]
    model(torch.randn(1, 3, 16, 16))
    assert [name for name, *_ in found] == ['backbone.1']
    for handle in handles:
        handle.remove()


def test_plain_pooling_is_no_attention():
    model = nn.ModuleDict(dict(backbone=nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1))))
    taps = Taps(model, None, lambda f: f.amax(1), keeper=DetailRecorder(pooled=3), attention=True)
    inputs = torch.randn(1, 3, 16, 16)
    with taps:
        taps.begin(inputs, [None])
        model['backbone'](inputs)
    (pass_,) = taps.take()
    assert isinstance(pass_, Pass)
    assert not pass_.attention


def test_the_largest_come_first_and_what_is_not_finite_last():
    assert top_channels(5, torch.tensor([1.0, float('nan'), 5.0, 1.0, -2.0])).tolist() == [2, 0, 3, 4, 1]


def test_as_many_weights_as_channels_or_it_is_no_attention():
    """Dynamic ReLU makes four numbers for each channel."""

    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.numbers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 32, 1))

        def forward(self, x):
            return x * self.numbers(x)[:, :8]

    found = []
    model = nn.Sequential(Dynamic())
    finder = ChannelAttentionFinder(model, ['0'], lambda *args: found.append(args))
    for module, hook in finder.hooks():
        module.register_forward_hook(hook)
    model(torch.randn(1, 8, 6, 6))
    assert not found
