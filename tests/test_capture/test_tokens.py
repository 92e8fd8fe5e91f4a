"""The test tokens hold their own position, so folding is right if each cell of the map holds its position."""

import pytest
import torch
from mmdet.models import MSDeformAttnPixelDecoder
from mmdet.models.backbones.swin import ShiftWindowMSA, SwinTransformer, WindowMSA
from mmengine.config import ConfigDict
from torch import nn

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.module_outputs import feature_maps_in
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.capture.tokens import fold_tokens

LEVELS = [(30, 41), (15, 21), (8, 11)]  # strides 8, 16 and 32 of the input below
INPUTS = torch.zeros(2, 3, 237, 322)


def positions(grid):
    """(2, rows, columns): the vertical and horizontal position of each cell, from 0 to 1."""
    rows, columns = grid
    down = (torch.arange(rows) + 0.5) / rows
    across = (torch.arange(columns) + 0.5) / columns
    return torch.stack([down[:, None].expand(grid), across[None].expand(grid)])


def tokens_on(grids, class_tokens=0):
    tokens = torch.cat([positions(grid).flatten(1).T for grid in grids])
    tokens = torch.cat([torch.full((class_tokens, 2), 9.0), tokens])
    return tokens.expand(2, *tokens.shape)


@pytest.mark.parametrize('grids', [LEVELS, LEVELS[::-1], LEVELS[1:], LEVELS[:0:-1]], ids=str)
def test_several_levels_in_both_orders(grids):
    maps = fold_tokens(tokens_on(grids), INPUTS, [LEVELS])
    assert [tuple(level.shape) for level in maps] == [(2, 2, *grid) for grid in grids]
    for level, grid in zip(maps, grids):
        torch.testing.assert_close(level[1], positions(grid))


@pytest.mark.parametrize('layer', ['encoder', 'encoder.layers.0', 'encoder.layers.0.self_attn.sampling_offsets'])
def test_levels_of_an_image_without_structure_keep_their_order(layer):
    """mmdet's pixel decoder has the coarse level first, which the tokens of a uniform image do not tell."""
    decoder = MSDeformAttnPixelDecoder(
        in_channels=[8, 8, 8],
        strides=[8, 16, 32],
        feat_channels=32,
        out_channels=32,
        num_outs=3,
        positional_encoding=dict(num_feats=16, normalize=True),
        norm_cfg=dict(type='GN', num_groups=4),
        encoder=ConfigDict(
            num_layers=1,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=32, num_heads=4, num_levels=3, num_points=2, batch_first=True),
                ffn_cfg=dict(embed_dims=32, feedforward_channels=32, num_fcs=2),
            ),
        ),
    )
    decoder.init_weights()
    model, tokens = nn.ModuleDict({'backbone': nn.Identity(), 'pixel_decoder': decoder.eval()}), []
    inputs, grids = torch.zeros(1, 3, 128, 192), [(16, 24), (8, 12), (4, 6)]
    taps = Taps(model, [f'pixel_decoder.{layer}'], lambda features: features[:, 0])
    decoder.get_submodule(layer).register_forward_hook(lambda module, args, output: tokens.append(output[0, :, 0]))
    with taps, torch.no_grad():
        taps.begin(inputs, [None])
        decoder(model['backbone']([torch.zeros(1, 8, *grid) for grid in grids]))
    maps = [activation.values[0] for activation in taps.take()[0].maps]
    assert [tuple(level.shape) for level in maps] == grids[::-1]
    torch.testing.assert_close(torch.cat([level.flatten() for level in maps]), tokens[0])


@pytest.mark.parametrize('class_tokens', [0, 1, 2])
@pytest.mark.parametrize('stride', [4, 16])
def test_single_grid_after_class_tokens(class_tokens, stride):
    grid = (-(-237 // stride), -(-322 // stride))
    (level,) = fold_tokens(tokens_on([grid], class_tokens), INPUTS, [])
    torch.testing.assert_close(level[0], positions(grid))


def test_grid_of_another_layer_without_a_stride():
    (level,) = fold_tokens(tokens_on([(17, 23)]), INPUTS, [[(17, 23)]])
    torch.testing.assert_close(level[0], positions((17, 23)))


@pytest.mark.parametrize('shift', [0, 3])
@pytest.mark.parametrize('stride', [4, 8, 16, 32])
def test_windows_of_swin_are_joined(stride, shift):
    """mmdet's own attention cuts the windows; its inner layer is tapped."""
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


@pytest.mark.parametrize('class_tokens', [0, 1])
@pytest.mark.parametrize('batch', [1, 2, 4, 9, 16])
def test_tokens_before_the_batch_as_of_torch_by_default(batch, class_tokens):
    """Batches of 4, 9 and 16 look like windows of 2 x 2, 3 x 3 and 4 x 4 cells."""

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0)
            self.backbone = nn.Conv2d(1, 8, 16, 16)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x):
            tokens = self.backbone(x).flatten(2).permute(2, 0, 1)
            return self.encoder(torch.cat([torch.zeros(class_tokens, *tokens.shape[1:]), tokens]))

    model, inputs = Detector().eval(), torch.rand(batch, 1, 192, 256)
    layers = ['encoder', 'encoder.layers.0.linear1', 'encoder.layers.1.norm2']
    taps = Taps(model, layers, lambda features: features[:, 0])
    with taps, torch.no_grad():
        taps.begin(inputs, [None] * batch)
        expected = model(inputs)[class_tokens:]
    maps = taps.take()[0].maps
    assert sorted({activation.layer for activation in maps}) == sorted(layers)
    values = {activation.layer: activation.values for activation in maps}
    for cell in range(12 * 16):
        row, column = divmod(cell, 16)
        torch.testing.assert_close(values['encoder'][:, row, column], expected[cell, :, 0])


def test_several_levels_before_the_batch_beside_text():
    tokens = tokens_on(LEVELS).repeat(2, 1, 1).transpose(0, 1)
    inputs = INPUTS.repeat(2, 1, 1, 1)
    maps = fold_tokens(tokens, inputs, [LEVELS])
    assert [tuple(level.shape) for level in maps] == [(4, 2, *grid) for grid in LEVELS]
    for level, grid in zip(maps, LEVELS):
        torch.testing.assert_close(level[3], positions(grid))
    current = Pass(inputs, [None] * 4, grids={'backbone': LEVELS})
    text = torch.rand(8 * 11, 4, 2)  # fits a grid
    found = [folded for _, folded in feature_maps_in((tokens, text), 'encoder', current)]
    assert [len(folded) for folded in found] == [3, 0]


@pytest.mark.parametrize('shape', [(300, 4, 8), (16 * 12, 49, 8), (4, 16, 8), (100, 49, 8)])
def test_sequences_that_fit_no_grid_are_not_taken_for_windows(shape):
    """Queries of a batch of 4, and 7 x 7 crops of regions: there are windows only inside of window attention."""
    inputs = torch.zeros(4, 3, 240, 272)
    assert fold_tokens(torch.rand(shape), inputs, []) == []


def test_as_many_tokens_as_images_are_taken_with_the_batch_first():
    tokens = tokens_on([(2, 2)]).repeat(2, 1, 1) + torch.arange(4)[:, None, None]
    (level,) = fold_tokens(tokens, torch.zeros(4, 3, 64, 64), [])
    torch.testing.assert_close(level[3], positions((2, 2)) + 3)


@pytest.mark.parametrize('batch', [1, 4])
def test_windows_of_attention_that_never_shifts_are_joined(batch):
    model = nn.ModuleDict({'attn': WindowMSA(embed_dims=8, num_heads=1, window_size=(2, 2))}).eval()
    grid, inputs = (12, 16), torch.zeros(batch, 3, 192, 256)
    cells = positions(grid).repeat(4, 1, 1).expand(batch, 8, *grid)
    windows = cells.reshape(batch, 8, 6, 2, 8, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 8)
    taps = Taps(model, ['attn.qkv'], lambda features: features[:, 0])
    model['attn'].qkv.forward = lambda tokens: tokens
    with taps, torch.no_grad():
        taps.begin(inputs, [None] * batch)
        model['attn'].qkv(windows)
    (activation,) = taps.take()[0].maps
    torch.testing.assert_close(activation.values[-1], positions(grid)[0])


def test_windows_in_a_batch_as_large_as_a_window():
    """4 images and windows of 2 x 2: mmdet's attention says which axis is which."""
    grid = (12, 16)
    attention = ShiftWindowMSA(embed_dims=8, num_heads=1, window_size=2, shift_size=1).eval()
    attention.w_msa.forward = lambda windows, mask=None: windows
    model = nn.ModuleDict({'attn': attention})
    inputs = torch.zeros(4, 3, 192, 256)
    tokens = tokens_on([grid]).repeat(2, 1, 4)
    taps = Taps(model, ['attn.w_msa'], lambda features: features[:, 0])
    with taps, torch.no_grad():
        taps.begin(inputs, [None] * 4)
        attention(tokens, grid)
    (activation,) = taps.take()[0].maps
    torch.testing.assert_close(activation.values[3], positions(grid)[0])


def test_tokens_that_fit_no_grid_give_no_maps():
    assert fold_tokens(torch.rand(2, 300, 8), INPUTS, [LEVELS]) == []
    assert fold_tokens(torch.rand(2, 77, 8), INPUTS, []) == []
    assert fold_tokens(torch.rand(2, 300), INPUTS, [LEVELS]) == []
    assert fold_tokens(torch.zeros(2, 0, 8), INPUTS, [LEVELS]) == []


def test_queries_of_a_decoder_are_not_folded_even_if_they_fit_a_grid():
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
    assert taps.not_maps['decoder'].startswith('scores, queries or similar')


@pytest.mark.parametrize('layer', ['stages.1', 'stages.0.blocks.1', 'patch_embed', 'norm2'])
def test_tokens_inside_swin_follow_the_image(layer):
    """A patch at the lower right of a uniform image changes the maps of all parts of a real Swin at this place."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {'backbone': SwinTransformer(embed_dims=24, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))}
    ).eval()

    def capture(inputs):
        features = []
        taps = Taps(model, [f'backbone.{layer}'], lambda level: features.append(level) or level[:, 0])
        with taps, torch.no_grad():
            taps.begin(inputs, [None])
            model['backbone'](inputs)
        return taps.take()[0].maps, features

    uniform, patched = torch.zeros(1, 3, 192, 256), torch.zeros(1, 3, 192, 256)
    patched[:, :, 128:144, 176:192] = 3
    maps, before = capture(uniform)
    _, after = capture(patched)
    assert maps
    for activation, old, new in zip(maps, before, after):
        change = (new - old).abs().mean((0, 1))
        row, column = divmod(int(change.argmax()), change.shape[1])
        stride = activation.stride[0]
        assert abs((row + 0.5) * stride - 136) <= 8 + stride / 2  # the patch is 16 pixels large
        assert abs((column + 0.5) * stride - 184) <= 8 + stride / 2


def test_text_tokens_beside_image_tokens_are_not_folded_even_if_they_fit_a_grid():
    """Grounding DINO's encoder returns tokens of the image and tokens of the text."""

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
    assert taps.not_maps['encoder'].startswith('scores, queries or similar')


@pytest.mark.parametrize(
    ('height', 'width', 'patch'), [(518, 518, 14), (800, 1066, 14), (384, 576, 12), (237, 322, 16)]
)
@pytest.mark.parametrize('leading', [0, 1, 5])
def test_patches_of_any_size_after_class_and_register_tokens(height, width, patch, leading):
    """Patches of DINOv2 with registers: a class token, four registers, and 14 x 14 pixels per token."""
    grid = height // patch, width // patch
    (level,) = fold_tokens(tokens_on([grid], leading), torch.zeros(2, 3, height, width), [])
    torch.testing.assert_close(level[1], positions(grid))


@pytest.mark.parametrize('count', [1, 2, 3])
@pytest.mark.parametrize('size', [(480, 640), (64, 64), (800, 1333)])
def test_up_to_three_tokens_are_no_map(count, size):
    assert fold_tokens(torch.rand(2, count, 8), torch.zeros(2, 3, *size), [[(1, 1), (1, 2), (1, 3)]]) == []
