"""The check of placement must fail when something is placed wrong: each mistake is made here on purpose."""

import numpy as np
import pytest
import torch
from conftest import pool_detector
from mmdet.registry import MODELS
from torch import nn

from mmdet_featviz.benchmarks.patch_placement import level_placements
from mmdet_featviz.benchmarks.zoo_models import packed
from mmdet_featviz.capture import tokens
from mmdet_featviz.capture.linear_skeleton import is_share
from mmdet_featviz.structures import grid
from mmdet_featviz.structures import placement as placements


def make_pipeline(*transforms):
    keys = ('img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    return [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.Resize', scale=(256, 192), keep_ratio=True),
        *transforms,
        dict(type='mmdet.PackDetInputs', meta_keys=keys),
    ]


LAYERS = ['encoder', 'backbone']
FLIP = dict(type='mmdet.RandomFlip', prob=1.0)


class TokenPools(nn.Module):
    """BrightnessPools with an encoder that returns all levels as one sequence of tokens."""

    def __init__(self):
        super().__init__()
        detector = MODELS.build(pool_detector((8, 16, 32)))
        self.data_preprocessor, self.backbone = detector.data_preprocessor, detector.backbone
        self.encoder = nn.Identity()

    def test_step(self, data):
        levels = self.backbone(self.data_preprocessor(data, False)['inputs'])
        self.encoder(torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1))


class WindowPools(TokenPools):
    """The same with an encoder that returns the first level as windows of tokens."""

    def __init__(self):
        super().__init__()
        self.encoder.window_size = 8  # as window attention has it

    def test_step(self, data):
        level = self.backbone(self.data_preprocessor(data, False)['inputs'])[0]  # 24 x 32 cells
        batch, channels, rows, columns = level.shape
        windows = level.reshape(batch, channels, rows // 8, 8, columns // 8, 8).permute(0, 2, 4, 3, 5, 1)
        self.encoder(windows.reshape(-1, 64, channels))


class QueriesFirst(TokenPools):
    """The same with an encoder of queries, as many as a level has cells, before the levels."""

    def __init__(self):
        super().__init__()
        self.backbone = self._modules.pop('backbone')  # the last layer

    def test_step(self, data):
        self(self.data_preprocessor(data, False)['inputs'])

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.encoder(torch.rand(1, 6 * 8, 3))
        return self.backbone(inputs)


def test_a_level_is_compared_with_itself_where_queries_are_left_out():
    levels = level_placements(QueriesFirst().eval(), lambda picture: packed(make_pipeline(), picture), LAYERS)
    assert [(level.layer, level.level, level.verdict) for level in levels] == [
        ('backbone', number, 'right') for number in range(3)
    ]


def find_verdicts(model, *transforms):
    levels = level_placements(model.eval(), lambda picture: packed(make_pipeline(*transforms), picture))
    assert levels
    return {level.verdict for level in levels}


@pytest.fixture
def pools():
    return MODELS.build(pool_detector((8, 16, 32))).eval()


def forward_only(model):
    """The check runs test_step; the head of the pools is left out."""
    model.test_step = lambda data: model(**model.data_preprocessor(data, False), mode='tensor')
    return model


@pytest.mark.parametrize('transforms', [(), (FLIP,)], ids=['plain', 'flipped'])
def test_correct_placement_passes(pools, transforms):
    assert find_verdicts(forward_only(pools), *transforms) == {'right'}
    assert find_verdicts(TokenPools(), *transforms) == {'right'}
    assert find_verdicts(WindowPools(), *transforms) == {'right'}


def test_a_swapped_axis_fails(pools, monkeypatch):
    heatmap = grid.Grid.heatmap

    def swapped(self, values):
        turned = np.ascontiguousarray(heatmap(self, values).T)
        return turned[np.ix_(*(np.linspace(0, n - 1, m).astype(int) for n, m in zip(turned.shape, turned.T.shape)))]

    monkeypatch.setattr(grid.Grid, 'heatmap', swapped)
    assert find_verdicts(forward_only(pools)) == {'wrong'}


def test_a_forgotten_flip_fails(pools, monkeypatch):
    monkeypatch.setattr(placements, 'flipped_axes', lambda meta: (False, False))
    assert find_verdicts(forward_only(pools), FLIP) == {'wrong'}


def test_a_wrong_token_order_fails(monkeypatch):
    monkeypatch.setattr(tokens, '_roughness', lambda maps: maps[0].shape[2])  # as if levels came coarse to fine
    assert find_verdicts(TokenPools()) == {'right', 'wrong'}  # the backbone and the encoder


def test_a_wrong_window_order_fails(monkeypatch):
    fold = tokens._fold_windows

    def columns_first(windows, batch, grids, shift):
        whole = windows.reshape(batch, 3, 4, 64, -1).transpose(1, 2)
        return fold(whole.reshape(windows.shape), batch, grids, shift)

    monkeypatch.setattr(tokens, '_fold_windows', columns_first)
    assert find_verdicts(WindowPools()) == {'right', 'wrong'}


def test_an_input_too_large_by_half_fails(pools, monkeypatch):
    """A common mistake: the padded map is stretched over the image."""
    placement_of = placements.placement_from_metas

    def stretched(meta, image):
        placement = placement_of(meta, image)
        height, width = placement.image_size
        scale = np.diag([1.3 * image.shape[2] / width, 1.3 * image.shape[1] / height, 1.0])
        return placements.Placement(scale, placement.image_size, placement.input_size)

    monkeypatch.setattr(placements, 'placement_from_metas', stretched)
    assert find_verdicts(forward_only(pools)) == {'wrong'}


@pytest.mark.parametrize('cells', [1.5, -1.5])
def test_a_constant_shift_fails(pools, monkeypatch, cells):
    """The change moves with the patch, so only the offset shows the shift."""
    placement_of = placements.placement_from_metas

    def shifted(meta, image):
        placement = placement_of(meta, image)
        matrix = placement.matrix.copy()
        matrix[0, 2] += 32 * cells
        return placements.Placement(matrix, placement.image_size, placement.input_size)

    monkeypatch.setattr(placements, 'placement_from_metas', shifted)
    assert find_verdicts(forward_only(pools)) == {'wrong'}


class AddCoarsest(nn.Module):
    """A neck like an FPN: the coarsest level is added to each level, cell by cell."""

    def forward(self, levels):
        coarsest = levels[-1]
        sizes = [level.shape[2:] for level in levels]
        return tuple(level + nn.functional.interpolate(coarsest, size=size) for level, size in zip(levels, sizes))


def test_levels_fed_by_coarser_ones_may_be_off_by_half_of_their_cells(pools):
    """As in an FPN. The backbone itself has no such allowance."""
    model = forward_only(pools)
    backbone = model.backbone.forward

    def corner(inputs):  # the coarsest level looks 12 pixels further left and up
        levels = backbone(inputs)
        moved = backbone(torch.roll(inputs, (12, 12), (2, 3)))[-1]
        return (*levels[:-1], moved)

    model.backbone.forward = corner
    model.neck = AddCoarsest()
    model.test_step = lambda data: model.neck(model.backbone(model.data_preprocessor(data, False)['inputs']))
    levels = level_placements(model, lambda picture: packed(make_pipeline(), picture))
    assert [level.allowed for level in levels] == [1, 1, 1, 2.5, 1.5, 1]
    assert {level.verdict for level in levels} == {'right'}


def test_only_levels_behind_modules_that_look_far_can_be_blurred(pools):
    """A level that is off by 1.5 cells of stride 8 is wrong in a backbone of convolutions."""
    model = forward_only(pools)
    backbone = model.backbone.forward

    def rolled(pixels):
        # Not where receptive fields are looked for: they would be found at their new place.
        return lambda inputs: backbone(inputs if is_share(inputs) else torch.roll(inputs, pixels, 3))[:1]

    model.backbone.forward = rolled(12)
    pack = lambda picture: packed(make_pipeline(), picture)  # noqa: E731
    assert [level.verdict for level in level_placements(model, pack)] == ['wrong']
    model.backbone.attention = nn.MultiheadAttention(2, 1)
    assert [level.verdict for level in level_placements(model, pack)] == ['blurred']
    model.backbone.forward = rolled(160)  # beyond BLUR
    assert [level.verdict for level in level_placements(model, pack)] == ['wrong']


def test_a_level_without_any_change_is_wrong(pools):
    model = forward_only(pools)
    backbone = model.backbone.forward
    model.backbone.forward = lambda inputs: [level * 0 for level in backbone(inputs)]
    assert {level.verdict for level in level_placements(model, lambda p: packed(make_pipeline(), p))} == {'wrong'}
