"""The coverage tool's own check must fail when something is placed wrong: each mistake is made here on purpose."""

import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, pool_detector
from mmdet.registry import MODELS
from torch import nn

from mmdet_featviz import geometry, tokens

sys.path.insert(0, str(ROOT / 'tools'))
import zoo_coverage  # noqa: E402


def pipeline(*transforms):
    keys = ('img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    return [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.Resize', scale=(320, 240), keep_ratio=True),
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
        level = self.backbone(self.data_preprocessor(data, False)['inputs'])[0]  # 32 x 40 cells, padded from 30
        batch, channels, rows, columns = level.shape
        windows = level.reshape(batch, channels, rows // 8, 8, columns // 8, 8).permute(0, 2, 4, 3, 5, 1)
        self.encoder(windows.reshape(-1, 64, channels))


def worst(model, *transforms):
    return max(zoo_coverage.patch_offsets(model.eval(), pipeline(*transforms)).values())


@pytest.fixture
def pools():
    return MODELS.build(pool_detector((8, 16, 32))).eval()


def forward_only(model):
    """The tool runs test_step; the pools' head has nothing to say."""
    model.test_step = lambda data: model(**model.data_preprocessor(data, False), mode='tensor')
    return model


@pytest.mark.parametrize('transforms', [(), (FLIP,)], ids=['plain', 'flipped'])
def test_what_is_placed_right_passes(pools, transforms):
    assert worst(forward_only(pools), *transforms) < 0.5
    assert worst(TokenPools(), *transforms) < 0.5
    assert worst(WindowPools(), *transforms) < 0.5


def test_a_swapped_axis_fails(pools, monkeypatch):
    heatmap = geometry.Grid.heatmap

    def swapped(self, values):
        turned = np.ascontiguousarray(heatmap(self, values).T)
        return turned[np.ix_(*(np.linspace(0, n - 1, m).astype(int) for n, m in zip(turned.shape, turned.T.shape)))]

    monkeypatch.setattr(geometry.Grid, 'heatmap', swapped)
    assert worst(forward_only(pools)) > 1.5


def test_a_forgotten_flip_fails(pools, monkeypatch):
    monkeypatch.setattr(geometry, 'flipped_axes', lambda meta: (False, False))
    assert worst(forward_only(pools), FLIP) > 1.5


def test_a_wrong_token_order_fails(monkeypatch):
    monkeypatch.setattr(tokens, '_roughness', lambda maps: maps[0].shape[2])  # coarse to fine, whatever they say
    assert worst(TokenPools()) > 1.5


def test_a_wrong_window_order_fails(monkeypatch):
    fold = tokens._fold_windows

    def columns_first(windows, batch, grids, shift):
        whole = windows.reshape(batch, 4, 5, 64, -1).transpose(1, 2)
        return fold(whole.reshape(windows.shape), batch, grids, shift)

    monkeypatch.setattr(tokens, '_fold_windows', columns_first)
    assert worst(WindowPools()) > 1.5


def test_an_input_too_large_by_half_fails(pools, monkeypatch):
    """The classical mistake: the padded map stretched over the photo."""
    placement_of = geometry.placement_of

    def stretched(meta, image):
        placement = placement_of(meta, image)
        height, width = placement.photo_size
        scale = np.diag([1.3 * image.shape[2] / width, 1.3 * image.shape[1] / height, 1.0])
        return geometry.Placement(scale, placement.photo_size, placement.input_size)

    monkeypatch.setattr(geometry, 'placement_of', stretched)
    assert worst(forward_only(pools)) > 1.5


def test_the_table_has_a_row_for_each_config_with_its_reason(tmp_path):
    rows = {
        'good': [
            (
                tmp_path / 'good_r50.py',
                dict(
                    detector='ATSS',
                    same=True,
                    pictures=2,
                    levels=[['neck', 0, 8.0, 8.0], ['neck', 1, 16.0, 16.0]],
                    silent=[],
                    offsets={'neck_0': 0.25, 'neck_1': 0.5},
                    seconds=3.2,
                ),
            )
        ],
        'bad': [(tmp_path / 'bad_r50.py', dict(error='ImportError: no | such module'))],
    }
    args = type('Args', (), dict(out=tmp_path / 'docs' / 'table.md'))
    zoo_coverage.write_table(args, rows)
    text = args.out.read_text()
    assert '1 of 2 configs in 2 folders run, 1 of them with identical predictions' in text
    assert '| good | `good_r50` | ATSS | neck 8 16 | neck 0.50 | identical | 3.2 s |' in text
    assert '| bad | `bad_r50` | | | | | ImportError: no / such module |' in text
