import numpy as np
import pytest
import torch
from mmdet.models.layers import ChannelAttention, SELayer
from torch import nn

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.channel_attention import ChannelAttentionFinder
from mmdet_featviz.capture.channel_selection import DetailRecorder
from mmdet_featviz.capture.taps import Taps


class AttentionNet(nn.Module):
    """A backbone that ends with channel attention, like EfficientNet (SELayer) and RTMDet (ChannelAttention)."""

    def __init__(self, attention):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), attention)
        self.neck = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.neck(self.backbone(x))


def weights_of(attention, features):
    """Expected weights, from the parts of the module by the published formula."""
    pooled = features.mean((2, 3), keepdim=True)
    if isinstance(attention, SELayer):
        return attention.conv2(attention.conv1(pooled)).flatten(1)
    return nn.functional.hardsigmoid(attention.fc(pooled)).flatten(1)


@pytest.mark.parametrize('kind', [lambda: SELayer(8, ratio=2), lambda: ChannelAttention(8)])
def test_channel_attention_weights_are_found(kind):
    model = AttentionNet(kind()).eval()
    inputs = torch.randn(2, 3, 16, 24)
    taps = Taps(model, ['backbone'], lambda f: f.amax(1), detail_recorder=DetailRecorder(pooled=3), attention=True)
    with taps, torch.no_grad():
        taps.begin(inputs, [None, None])
        model(inputs)
        features = model.backbone[0](inputs)
        expected = weights_of(model.backbone[1], features)
    (attention,) = taps.take()[0].attention
    assert (attention.layer, attention.channels, attention.stride) == ('backbone.1', 8, (2, 2))
    for image, details in enumerate(attention.details):
        pooled = details['pooled']
        np.testing.assert_allclose(pooled.weights, expected[image], rtol=1e-5)
        order = expected[image].argsort(descending=True)[:3]
        assert pooled.indices.tolist() == order.tolist()
        np.testing.assert_allclose(
            pooled.maps, (features * expected[:, :, None, None])[image, order].detach(), rtol=1e-4, atol=1e-6
        )


def test_an_error_costs_the_attention_only():
    class Recorder(DetailRecorder):
        def record(self, features, weights=None, level=''):
            if weights is not None:
                raise RuntimeError('no weights, please')
            return super().record(features, weights, level)

    model, inputs = AttentionNet(SELayer(8, ratio=2)), torch.rand(1, 3, 16, 16)
    options = dict(detail_recorder=Recorder(pooled=3), attention=True)
    taps = Taps(model, ['backbone', 'neck'], lambda f: f.amax(1), **options)
    with taps, torch.no_grad():
        taps.begin(inputs, [None])
        model(inputs)
    (pass_,) = taps.take()
    assert [activation.name for activation in pass_.maps] == ['backbone_0', 'neck_0']
    assert pass_.attention == []
    assert taps.skipped_layers() == ['layer backbone.1, RuntimeError: no weights, please (1 of 1 passes)']
    with pytest.raises(RuntimeError, match='no weights'):
        taps = Taps(model, ['backbone'], lambda f: f.amax(1), strict=True, **options)
        with taps:
            taps.begin(inputs, [None])
            model(inputs)


def test_attention_outside_the_layers_is_ignored():
    model = AttentionNet(SELayer(8, ratio=2))
    found = []
    finder = ChannelAttentionFinder(model, ['neck'], lambda *args: found.append(args))
    handles = [module.register_forward_hook(hook) for module, hook in finder.hooks()]
    model(torch.randn(1, 3, 16, 16))
    assert not found
    # If the layer is the child that computes the weights, the module around it is found.
    finder = ChannelAttentionFinder(model, ['backbone.1.conv2'], lambda *args: found.append(args))
    handles += [module.register_forward_hook(hook) for module, hook in finder.hooks()]
    model(torch.randn(1, 3, 16, 16))
    assert [name for name, *_ in found] == ['backbone.1']
    for handle in handles:
        handle.remove()


def test_plain_pooling_is_not_attention():
    model = nn.ModuleDict(dict(backbone=nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1))))
    taps = Taps(model, None, lambda f: f.amax(1), detail_recorder=DetailRecorder(pooled=3), attention=True)
    inputs = torch.randn(1, 3, 16, 16)
    with taps:
        taps.begin(inputs, [None])
        model['backbone'](inputs)
    (pass_,) = taps.take()
    assert isinstance(pass_, Pass)
    assert not pass_.attention


def test_attention_has_one_weight_per_channel():
    """Dynamic ReLU computes four numbers per channel, so they are not weights."""

    class DynamicReLU(nn.Module):
        def __init__(self):
            super().__init__()
            self.numbers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 32, 1))

        def forward(self, x):
            return x * self.numbers(x)[:, :8]

    found = []
    model = nn.Sequential(DynamicReLU())
    finder = ChannelAttentionFinder(model, ['0'], lambda *args: found.append(args))
    for module, hook in finder.hooks():
        module.register_forward_hook(hook)
    model(torch.randn(1, 8, 6, 6))
    assert not found
