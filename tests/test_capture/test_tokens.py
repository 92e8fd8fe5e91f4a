"""Tokens that know their own position: a folding is right when each cell says where it is."""

import pytest
import torch
from mmdet.models.backbones.swin import ShiftWindowMSA, SwinTransformer
from torch import nn

from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.capture.tokens import fold_tokens

LEVELS = [(30, 41), (15, 21), (8, 11)]  # strides 8, 16 and 32 of the input below
INPUTS = torch.zeros(2, 3, 237, 322)


def positions(grid):
    """(2, rows, columns): each cell says how far down and across it lies, from 0 to 1."""
    rows, columns = grid
    down = (torch.arange(rows) + 0.5) / rows
    across = (torch.arange(columns) + 0.5) / columns
    return torch.stack([down[:, None].expand(grid), across[None].expand(grid)])


def tokens_on(grids, class_tokens=0):
    tokens = torch.cat([positions(grid).flatten(1).T for grid in grids])
    tokens = torch.cat([torch.full((class_tokens, 2), 9.0), tokens])
    return tokens.expand(2, *tokens.shape)


@pytest.mark.parametrize('grids', [LEVELS, LEVELS[::-1], LEVELS[1:], LEVELS[:0:-1]], ids=str)
def test_several_levels_in_either_order(grids):
    maps = fold_tokens(tokens_on(grids), INPUTS, [LEVELS])
    assert [tuple(level.shape) for level in maps] == [(2, 2, *grid) for grid in grids]
    for level, grid in zip(maps, grids):
        torch.testing.assert_close(level[1], positions(grid))


@pytest.mark.parametrize('class_tokens', [0, 1, 2])
@pytest.mark.parametrize('stride', [4, 16])
def test_one_grid_is_found_from_the_input_behind_class_tokens(class_tokens, stride):
    grid = (-(-237 // stride), -(-322 // stride))
    (level,) = fold_tokens(tokens_on([grid], class_tokens), INPUTS, [])
    torch.testing.assert_close(level[0], positions(grid))


def test_a_grid_that_is_no_stride_is_taken_from_the_levels_seen():
    (level,) = fold_tokens(tokens_on([(17, 23)]), INPUTS, [[(17, 23)]])
    torch.testing.assert_close(level[0], positions((17, 23)))


@pytest.mark.parametrize('shift', [0, 3])
@pytest.mark.parametrize('stride', [4, 8, 16, 32])
def test_windows_are_put_together_as_swin_took_them_apart(stride, shift):
    """The windows are cut by mmdet's own attention, whose inner layer is tapped."""
    grid = (-(-237 // stride), -(-322 // stride))
    attention = ShiftWindowMSA(embed_dims=8, num_heads=1, window_size=7, shift_size=shift).eval()
    attention.w_msa.forward = lambda windows, mask=None: windows
    model = nn.ModuleDict({'attn': attention})
    tokens = tokens_on([grid]).repeat(1, 1, 4)
    taps = Taps(model, ['attn.w_msa'], lambda features: features[:, 0])
    with taps, torch.no_grad():
        taps.begin(INPUTS, [None, None])
        attention(tokens, grid)
    (activation,) = taps.take()[0].maps
    torch.testing.assert_close(activation.values[1], positions(grid)[0])
    assert activation.stride == (stride, stride)


def test_what_lies_on_no_grid_gives_nothing():
    assert fold_tokens(torch.rand(2, 300, 8), INPUTS, [LEVELS]) == []
    assert fold_tokens(torch.rand(2, 77, 8), INPUTS, []) == []
    assert fold_tokens(torch.rand(2, 300), INPUTS, [LEVELS]) == []
    assert fold_tokens(torch.zeros(2, 0, 8), INPUTS, [LEVELS]) == []


def test_queries_of_a_decoder_are_no_map_even_if_as_many_as_a_grid_has_cells():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = nn.Identity()

    model = Decoder()
    taps = Taps(model, ['decoder'], lambda features: features.amax(1))
    with taps:
        taps.begin(INPUTS, [None, None])
        model.decoder(torch.rand(2, 8 * 11, 4))
    assert taps.take()[0].maps == []
    assert taps.not_maps['decoder'].startswith('scores, queries or the like')


@pytest.mark.parametrize('layer', ['stages.1', 'stages.0.blocks.1', 'patch_embed', 'norm2'])
def test_the_tokens_inside_swin_follow_the_image(layer):
    """A patch in the lower right of an even picture changes what lies there, in every part of a real Swin."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {'backbone': SwinTransformer(embed_dims=24, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))}
    ).eval()

    def look(inputs):
        features = []
        taps = Taps(model, [f'backbone.{layer}'], lambda level: features.append(level) or level[:, 0])
        with taps, torch.no_grad():
            taps.begin(inputs, [None])
            model['backbone'](inputs)
        return taps.take()[0].maps, features

    even, patched = torch.zeros(1, 3, 192, 256), torch.zeros(1, 3, 192, 256)
    patched[:, :, 128:144, 176:192] = 3
    maps, before = look(even)
    _, after = look(patched)
    assert maps
    for activation, old, new in zip(maps, before, after):
        change = (new - old).abs().mean((0, 1))
        row, column = divmod(int(change.argmax()), change.shape[1])
        stride = activation.stride[0]
        assert abs((row + 0.5) * stride - 136) <= 8 + stride / 2  # the patch is 16 pixels large
        assert abs((column + 0.5) * stride - 184) <= 8 + stride / 2


def test_a_text_beside_the_tokens_of_several_levels_is_no_map_even_if_as_long_as_a_grid():
    """Grounding DINO's encoder returns its memory of the image and that of the caption."""

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.encoder = nn.Identity(), nn.Identity()

    model = Detector()
    taps = Taps(model, ['encoder'], lambda features: features.amax(1))
    with taps:
        taps.begin(INPUTS, [None, None])
        model.backbone([positions(grid).expand(2, 2, *grid) for grid in LEVELS])
        model.encoder((tokens_on(LEVELS), torch.rand(2, 8 * 11, 2)))
    assert [tuple(level.values.shape[1:]) for level in taps.take()[0].maps] == LEVELS
    assert taps.not_maps['encoder'].startswith('scores, queries or the like')
