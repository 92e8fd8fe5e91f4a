"""Receptive fields against formulas, and against an independent computation in float64."""

import copy
import math

import cv2
import numpy as np
import pytest
import torch
from conftest import noise
from explained import narrow_retinanet, state_of, write_image
from mmdet.models.backbones import ResNet
from mmdet.models.necks import FPN
from torch import nn

from mmdet_featviz import receptive_fields
from mmdet_featviz.capture.activation_map import ActivationMap, Pass
from mmdet_featviz.explanation.field_measurement import _Sum
from mmdet_featviz.explanation.receptive_field import CellField, effective_size, theoretical_fields
from mmdet_featviz.visualization.images import ImageError


class Chain(nn.Module):
    """A detector of one layer, without a head."""

    def __init__(self, backbone, neck=None):
        super().__init__()
        self.backbone = backbone
        self.neck = neck or nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.neck(self.backbone(inputs))


def sizes(*parts, layers=('backbone', 'neck')):
    pass_ = Pass(torch.zeros(1, 3, 64, 64), [None])
    fields = theoretical_fields(Chain(*parts), list(layers), pass_)
    return {name: (field.width, field.height) for name, field in fields.items()}


def by_formula(layers):
    """Araujo et al. 2019: the field of a chain of (kernel, stride, dilation)."""
    size, jump = 1, 1
    for kernel, stride, dilation in layers:
        size += (kernel - 1) * dilation * jump
        jump *= stride
    return size


def bottlenecks(number, stride, dilation=1):
    return [(3, stride, dilation)] + [(3, 1, dilation)] * (number - 1)


STEM = [(7, 2, 1), (3, 2, 1)]
RESNET50 = [bottlenecks(3, 1), bottlenecks(4, 2), bottlenecks(6, 2), bottlenecks(3, 2)]


def test_a_chain_of_padded_convolutions_and_pools():
    parts = [(3, 1, 1), (5, 2, 1), (3, 2, 2), (3, 1, 4)]
    modules = [nn.Conv2d(3, 3, k, s, (k - 1) * d // 2, d) for k, s, d in parts]
    modules[1:1] = [nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    expected = by_formula([parts[0], (3, 2, 1), *parts[1:]])
    assert sizes(nn.Sequential(*modules)) == dict(backbone_0=(expected, expected), neck_0=(expected, expected))


def test_width_and_height_may_differ():
    assert sizes(nn.Conv2d(3, 2, (1, 7), padding=(0, 3)), layers=['backbone']) == dict(backbone_0=(7, 1))


def test_weights_do_not_count():
    layer = nn.Conv2d(3, 2, 9, padding=4)
    nn.init.zeros_(layer.weight)
    assert sizes(layer, layers=['backbone']) == dict(backbone_0=(9, 9))


def test_resnet50_and_its_pyramid():
    backbone = ResNet(depth=50, base_channels=8, norm_cfg=dict(type='BN'))
    found = sizes(backbone, FPN([32, 64, 128, 256], 8, 4))
    stages = [by_formula(STEM + sum(RESNET50[: n + 1], [])) for n in range(4)]
    assert stages == [35, 91, 267, 427]
    assert [found[f'backbone_{n}'] for n in range(4)] == [(size, size) for size in stages]
    # The 3x3 convolution of the coarsest level adds a cell of stride 32 on each side.
    assert found['neck_3'] == (427 + 64, 427 + 64)
    # Finer levels see what the coarsest one adds to them: here the cells of stride 32 under three neighboring cells.
    assert all(found[f'neck_{n}'][0] in (427, 427 + 32) for n in range(3))


def test_resnet50_with_strides_at_the_first_convolutions():
    found = sizes(ResNet(50, base_channels=8, style='caffe', norm_cfg=dict(type='BN')), layers=['backbone'])
    chain = STEM + [layer for stage in RESNET50 for layer in [(1, stage[0][1], 1)] + [(3, 1, 1)] * len(stage)]
    assert by_formula(chain) == 483  # as in Araujo et al.
    assert found['backbone_3'] == (483, 483)


def test_a_dilated_resnet():
    backbone = ResNet(50, base_channels=8, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), norm_cfg=dict(type='BN'))
    expected = by_formula(STEM + sum(RESNET50[:3], []) + [(3, 1, 2)] * 3)
    assert sizes(backbone, layers=['backbone'])['backbone_3'] == (expected, expected)


def test_attention_sees_the_whole_image():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.attention = nn.Conv2d(3, 8, 16, 16), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images):
            grid = self.patches(images)
            tokens = grid.flatten(2).transpose(1, 2)
            tokens = tokens + self.attention(tokens, tokens, tokens)[0]
            return tokens.transpose(1, 2).reshape(grid.shape)

    assert sizes(Attention(), layers=['backbone']) == dict(backbone_0=(math.inf, math.inf))


def test_the_size_of_a_gaussian():
    y, x = np.mgrid[-100:101, -100:101]
    sigma = 12.0
    gaussian = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    # The disk of radius r holds 1 - exp(-r**2 / (2 * sigma**2)).
    area = math.pi * -2 * sigma**2 * math.log(1 - 0.9545)
    assert effective_size(gaussian) == pytest.approx(math.sqrt(area), rel=0.01)
    assert effective_size(np.zeros((3, 3))) == 0


def test_the_gradient_is_that_of_an_independent_computation(tmp_path):
    model, image = narrow_retinanet(), write_image(tmp_path)
    exact = copy.deepcopy(model).double()
    pixels = torch.from_numpy(cv2.imread(image).transpose(2, 0, 1).copy())[None].double()
    inputs = ((pixels.flip(1) - model.data_preprocessor.mean) / model.data_preprocessor.std).requires_grad_()
    backbone = exact.backbone(inputs)
    features = dict(backbone=backbone, neck=exact.neck(backbone))
    fields = receptive_fields(model, image, at=(30, 40))
    assert [field.name for field in fields] == [f'backbone_{n}' for n in range(4)] + [f'neck_{n}' for n in range(5)]
    for field in fields:
        layer, level = field.name.split('_')
        number = features[layer][int(level)][0, :, field.cell[0], field.cell[1]].sum()
        (gradient,) = torch.autograd.grad(number, inputs, retain_graph=True)
        gradient = gradient[0].abs().sum(0).numpy()
        np.testing.assert_allclose(field.gradient, gradient, rtol=1e-3, atol=1e-4 * gradient.max())
        left, top, right, bottom = field.box
        y, x = np.nonzero(gradient)
        assert (x >= left).all() and (x + 1 <= right).all() and (y >= top).all() and (y + 1 <= bottom).all()
    # The cell of stride 4 whose center, at 0.5 + 4 n, is nearest to (30, 40).
    assert fields[0].cell == (10, 7)


class DeepBackbone(nn.Module):
    """A backbone behind 3x3 convolutions with equal weights."""

    def __init__(self, backbone, depth):
        super().__init__()
        self.deep = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(depth)))
        for layer in self.deep:
            nn.init.constant_(layer.weight, 1 / 27)
        self.backbone = backbone

    def forward(self, images):
        return self.backbone(self.deep(images))


def chain_detector(depth):
    model = narrow_retinanet()
    model.backbone = DeepBackbone(model.backbone, depth)
    return model


def test_effective_fields_grow_with_the_root_of_the_depth():
    image = noise(64, 96)
    effective = {}
    for depth in (5, 20):
        (field,) = receptive_fields(chain_detector(depth), image, layers='backbone.deep')
        assert field.theoretical_size == (2 * depth + 1, 2 * depth + 1)
        effective[depth] = field.effective_size
        # The gradient is a Gaussian of this variance on each axis; see the size of a Gaussian.
        variance = depth * 2 / 3
        expected = math.sqrt(math.pi * -2 * variance * math.log(1 - 0.9545))
        assert field.effective_size == pytest.approx(expected, rel=0.05)
    assert effective[20] / effective[5] == pytest.approx(2, rel=0.08)


def test_the_mean_over_images_is_at_the_cell_of_each(tmp_path):
    model = narrow_retinanet()
    one, other = noise(64, 96, seed=0), noise(64, 96, seed=1)
    each = [receptive_fields(model, image, layers='backbone')[0] for image in (one, other)]
    (both, *_) = receptive_fields(model, [one, other], layers='backbone')
    np.testing.assert_allclose(both.gradient, (each[0].gradient + each[1].gradient) / 2, rtol=1e-5, atol=1e-9)
    assert both.gradient.argmax() in (each[0].gradient.argmax(), each[1].gradient.argmax())
    # A wide and a tall image, whose middle cells are elsewhere.
    (mixed, *_) = receptive_fields(model, [one, np.ascontiguousarray(one.transpose(1, 0, 2))], layers='backbone')
    assert mixed.gradient.shape == each[0].gradient.shape
    assert mixed.effective_size > 0


def test_fields_in_images_of_several_sizes_are_laid_on_each_other():
    level = ActivationMap('neck', 0, 4, (8, 8), torch.zeros(1, 1, 1), offset=(2.5, 3.5))
    fields = [
        CellField(level, cell, np.random.default_rng(n).random(size, np.float32))
        for n, (cell, size) in enumerate([((3, 4), (50, 70)), ((5, 1), (64, 20)), ((1, 7), (30, 90))])
    ]
    one, brute_force = _Sum(fields[0]), {}
    for field in fields[1:]:
        one.add(field)
    for field in fields:
        row, column = (round(start + 8 * n) for start, n in zip((2.5, 3.5), field.cell))
        for (y, x), value in np.ndenumerate(field.gradient):
            brute_force[y - row, x - column] = brute_force.get((y - row, x - column), 0) + value
    assert one.images == 3
    np.testing.assert_allclose(np.sort(one.total[one.total > 0]), sorted(brute_force.values()), rtol=1e-5)
    row, column = round(2.5 + 8 * 3), round(3.5 + 8 * 4)
    for (y, x), value in np.ndenumerate(one.over_first_image()):
        assert value == pytest.approx(brute_force[y - row, x - column], rel=1e-5)


def test_nothing_of_the_detector_changes():
    model, image = narrow_retinanet(), noise(64, 96)
    model.backbone.conv1.requires_grad_(False)  # frozen
    before = state_of(model.train())
    found = receptive_fields(model, image, layers='neck')
    assert state_of(model) == before
    again = receptive_fields(model.eval(), image, layers='neck')  # batch norms have used their saved statistics
    assert [field.effective_size for field in found] == [field.effective_size for field in again]
    with pytest.raises(ValueError, match='at=.* is outside an image of 96 x 64 pixels'):
        receptive_fields(model.train(), image, at=(97, 10))
    assert state_of(model) == before


def test_bad_arguments_and_layers_without_gradients(tmp_path):
    model, image = narrow_retinanet(), noise(64, 96)
    (tmp_path / 'broken.jpg').write_text('no image')
    for name in ('broken.jpg', 'missing.jpg'):
        with pytest.raises(ImageError, match=f'{name} cannot be read'):
            receptive_fields(model, [image, tmp_path / name], layers='backbone.conv1')
    with pytest.raises(ValueError, match='at least one image'):
        receptive_fields(model, [])
    forward = model.neck.forward
    model.neck.forward = torch.no_grad()(forward)
    with pytest.raises(ValueError, match='no gradient reaches the image from neck_0'):
        receptive_fields(model, image, layers=['neck'])
    del model.neck.forward
    assert len(receptive_fields(model, image, layers=['neck'])) == 5


def test_the_picture_has_the_theoretical_field_as_a_rectangle(tmp_path):
    image = np.full((64, 96, 3), 128, np.uint8)
    (field, *_) = receptive_fields(narrow_retinanet(), image, layers='backbone', at=(48.5, 32.5))
    left, top, right, bottom = np.round(field.box).astype(int)
    picture = field.overlay()
    assert picture.shape == (64, 96, 3)
    assert (picture[(top + bottom) // 2, [left, right]] > 240).all()
    assert (picture[[top, bottom], (left + right) // 2] > 240).all()
    assert not (picture[(top + bottom) // 2, left + 4] > 240).all()
