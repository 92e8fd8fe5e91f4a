"""The coverage tool's own check must fail when something is placed wrong: each mistake is made here on purpose."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from conftest import pool_detector
from mmdet.registry import MODELS
from torch import nn

from mmdet_featviz.benchmarks import zoo_coverage
from mmdet_featviz.benchmarks.patch_placement import LevelPlacement, level_placements
from mmdet_featviz.benchmarks.zoo_models import packed
from mmdet_featviz.capture import tokens
from mmdet_featviz.structures import grid
from mmdet_featviz.structures import placement as placements


def pipeline(*transforms):
    keys = ('img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    return [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.Resize', scale=(256, 192), keep_ratio=True),
        *transforms,
        dict(type='mmdet.PackDetInputs', meta_keys=keys),
    ]


FLIP = dict(type='mmdet.RandomFlip', prob=1.0)


class TokenPools(nn.Module):
    """BrightnessPools whose encoder hands the levels on as tokens, and whose attention hands one on in windows."""

    def __init__(self):
        super().__init__()
        detector = MODELS.build(pool_detector((8, 16, 32)))
        self.data_preprocessor, self.backbone = detector.data_preprocessor, detector.backbone
        self.encoder = nn.Identity()

    def test_step(self, data):
        levels = self.backbone(self.data_preprocessor(data, False)['inputs'])
        self.encoder(torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1))


class WindowPools(TokenPools):
    def test_step(self, data):
        level = self.backbone(self.data_preprocessor(data, False)['inputs'])[0]  # 24 x 32 cells
        batch, channels, rows, columns = level.shape
        windows = level.reshape(batch, channels, rows // 8, 8, columns // 8, 8).permute(0, 2, 4, 3, 5, 1)
        self.encoder(windows.reshape(-1, 64, channels))


def verdicts(model, *transforms):
    levels = level_placements(model.eval(), lambda picture: packed(pipeline(*transforms), picture))
    assert levels
    return {level.verdict for level in levels}


@pytest.fixture
def pools():
    return MODELS.build(pool_detector((8, 16, 32))).eval()


def forward_only(model):
    """The tool runs test_step; the pools' head has nothing to say."""
    model.test_step = lambda data: model(**model.data_preprocessor(data, False), mode='tensor')
    return model


@pytest.mark.parametrize('transforms', [(), (FLIP,)], ids=['plain', 'flipped'])
def test_what_is_placed_right_passes(pools, transforms):
    assert verdicts(forward_only(pools), *transforms) == {'right'}
    assert verdicts(TokenPools(), *transforms) == {'right'}
    assert verdicts(WindowPools(), *transforms) == {'right'}


def test_a_swapped_axis_fails(pools, monkeypatch):
    heatmap = grid.Grid.heatmap

    def swapped(self, values):
        turned = np.ascontiguousarray(heatmap(self, values).T)
        return turned[np.ix_(*(np.linspace(0, n - 1, m).astype(int) for n, m in zip(turned.shape, turned.T.shape)))]

    monkeypatch.setattr(grid.Grid, 'heatmap', swapped)
    assert verdicts(forward_only(pools)) == {'wrong'}


def test_a_forgotten_flip_fails(pools, monkeypatch):
    monkeypatch.setattr(placements, 'flipped_axes', lambda meta: (False, False))
    assert verdicts(forward_only(pools), FLIP) == {'wrong'}


def test_a_wrong_token_order_fails(monkeypatch):
    monkeypatch.setattr(tokens, '_roughness', lambda maps: maps[0].shape[2])  # coarse to fine, whatever they say
    assert verdicts(TokenPools()) == {'right', 'wrong'}  # the backbone, and the encoder


def test_a_wrong_window_order_fails(monkeypatch):
    fold = tokens._fold_windows

    def columns_first(windows, batch, grids, shift):
        whole = windows.reshape(batch, 3, 4, 64, -1).transpose(1, 2)
        return fold(whole.reshape(windows.shape), batch, grids, shift)

    monkeypatch.setattr(tokens, '_fold_windows', columns_first)
    assert verdicts(WindowPools()) == {'right', 'wrong'}


def test_an_input_too_large_by_half_fails(pools, monkeypatch):
    """The classical mistake: the padded map stretched over the image."""
    placement_of = placements.placement_from_metas

    def stretched(meta, image):
        placement = placement_of(meta, image)
        height, width = placement.image_size
        scale = np.diag([1.3 * image.shape[2] / width, 1.3 * image.shape[1] / height, 1.0])
        return placements.Placement(scale, placement.image_size, placement.input_size)

    monkeypatch.setattr(placements, 'placement_from_metas', stretched)
    assert verdicts(forward_only(pools)) == {'wrong'}


@pytest.mark.parametrize('cells', [1.5, -1.5])
def test_a_constant_shift_fails(pools, monkeypatch, cells):
    """It moves with the patch, so only the offset tells."""
    placement_of = placements.placement_from_metas

    def shifted(meta, image):
        placement = placement_of(meta, image)
        matrix = placement.matrix.copy()
        matrix[0, 2] += 32 * cells
        return placements.Placement(matrix, placement.image_size, placement.input_size)

    monkeypatch.setattr(placements, 'placement_from_metas', shifted)
    assert verdicts(forward_only(pools)) == {'wrong'}


class Repeating(nn.Module):
    """A neck as an FPN is: each level has the coarser ones added to it, cell by cell."""

    def forward(self, levels):
        coarsest = levels[-1]
        sizes = [level.shape[2:] for level in levels]
        return tuple(level + nn.functional.interpolate(coarsest, size=size) for level, size in zip(levels, sizes))


def test_what_flows_in_from_coarser_levels_may_be_off_by_half_their_cells(pools):
    """And the same distance in the backbone is wrong."""
    model = forward_only(pools)
    backbone = model.backbone.forward

    def corner(inputs):  # the coarsest level looks 12 pixels further left and up
        levels = backbone(inputs)
        moved = backbone(torch.roll(inputs, (12, 12), (2, 3)))[-1]
        return (*levels[:-1], moved)

    model.backbone.forward = corner
    model.neck = Repeating()
    model.test_step = lambda data: model.neck(model.backbone(model.data_preprocessor(data, False)['inputs']))
    levels = level_placements(model, lambda picture: packed(pipeline(), picture))
    assert [level.allowed for level in levels] == [1, 1, 1, 2.5, 1.5, 1]
    assert {level.verdict for level in levels} == {'right'}


def test_beyond_the_bound_only_what_looks_far_is_called_blurred(pools):
    """A level that lies 1.5 cells of stride 8 beside the patch: wrong in a backbone of convolutions."""
    model = forward_only(pools)
    backbone = model.backbone.forward
    model.backbone.forward = lambda inputs: backbone(torch.roll(inputs, 12, 3))[:1]
    pack = lambda picture: packed(pipeline(), picture)  # noqa: E731
    assert [level.verdict for level in level_placements(model, pack)] == ['wrong']
    model.backbone.attention = nn.MultiheadAttention(2, 1)
    assert [level.verdict for level in level_placements(model, pack)] == ['blurred']
    model.backbone.forward = lambda inputs: backbone(torch.roll(inputs, 160, 3))[:1]  # beyond BLUR
    assert [level.verdict for level in level_placements(model, pack)] == ['wrong']


def test_a_level_that_sees_nothing_is_not_placed_right(pools):
    model = forward_only(pools)
    backbone = model.backbone.forward
    model.backbone.forward = lambda inputs: [level * 0 for level in backbone(inputs)]
    assert {level.verdict for level in level_placements(model, lambda p: packed(pipeline(), p))} == {'wrong'}


def placed(level, verdict='right', moves=0.01):
    return asdict(LevelPlacement('neck', level, moves, 0.25 * (level + 1), 1.0, verdict))


def table(tmp_path, **changes):
    row = dict(
        detector='ATSS',
        same=True,
        pictures=2,
        levels=[['neck', 0, 8.0, 8.0], ['neck', 1, 16.0, 16.0]],
        silent=[],
        placed=[placed(0), placed(1)],
        seconds=3.2,
    )
    rows = {
        'good': [(tmp_path / 'good_r50.py', {**row, **changes})],
        'bad': [(tmp_path / 'bad_r50.py', dict(error='ImportError: no | such module'))],
    }
    args = type('Args', (), dict(out=tmp_path / 'docs' / 'table.md'))
    all_well = zoo_coverage.write_table(args, rows)
    return all_well, args.out.read_text()


def test_the_table_has_a_row_for_each_config_with_its_reason(tmp_path):
    all_well, text = table(tmp_path)
    assert all_well
    assert (
        '1 of 2 configs in 2 folders run, 1 of them with identical predictions, '
        '1 placed right, 0 blurred, 0 placed wrong.'
    ) in text
    assert '| good | `good_r50` | ATSS | neck 8 16 | yes | neck 0.01 / 0.50 | identical | 3.2 s |' in text
    assert '| bad | `bad_r50` | | | | | | ImportError: no / such module |' in text


def test_what_is_placed_wrong_is_named_and_counted_and_ends_the_tool_with_an_error(tmp_path):
    all_well, text = table(tmp_path, placed=[placed(0, 'blurred'), placed(1, 'wrong', float('nan'))])
    assert not all_well
    assert '0 placed right, 0 blurred, 1 placed wrong.' in text
    assert '| **no** | neck not finite / 0.50 (level 0 1) |' in text
    all_well, text = table(tmp_path, placed=[placed(0, 'blurred', 1.5), placed(1)])
    assert all_well
    assert '| blurred | neck 1.50 / 0.50 (level 0) |' in text
    all_well, text = table(tmp_path, same=False)
    assert not all_well
    assert '**differ**' in text


def test_a_config_that_fails_or_takes_too_long_leaves_its_reason(tmp_path):
    args = type('Args', (), dict(image=tmp_path / 'image.png', timeout=100))
    row = zoo_coverage.run_child(tmp_path / 'nothing.py', args)
    assert row['error'].startswith('FileNotFoundError: ')
    assert str(tmp_path) not in row['error']
    args.timeout = 0
    assert zoo_coverage.run_child(tmp_path / 'nothing.py', args) == dict(error='took more than 0 s')
