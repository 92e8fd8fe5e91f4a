"""Where the cells of a level are: networks with known receptive fields, and spots that have to come back."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from conftest import resnet_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from torch import nn

from mmdet_featviz.capture import alignment
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import identity_placement

SIZE = 256, 320
SPREAD = 12  # of a spot, in pixels


class Detector(nn.Module):
    """As much of a detector as taps need."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs):
        return self.backbone(inputs)


class Levels(nn.Sequential):
    """The outputs of all parts of a chain."""

    def forward(self, x):
        return [x := part(x) for part in self]


class Residual(nn.Module):
    """A strided residual block with a shortcut."""

    def __init__(self, channels=4):
        super().__init__()
        self.block = nn.Sequential(conv(stride=2), nn.BatchNorm2d(channels), nn.ReLU(), conv())
        self.shortcut = nn.Conv2d(channels, channels, 1, 2, bias=False)

    def forward(self, x):
        out = self.block(x)
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())

    def forward(self, x):
        return x * self.weigh(x)


class Stages(nn.Module):
    """Two branches that are concatenated, as in CSPNet."""

    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(conv(), nn.SiLU(), conv(), nn.Hardswish())
        self.short = nn.Conv2d(4, 4, 1)
        self.final = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.final(torch.cat([self.main(x), self.short(x)], 1))


class Merging(nn.Module):
    """Tokens of 2 x 2 cells become one, as in Swin; attention before it."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.reduce = nn.Linear(16, 4)

    def forward(self, x):
        n, _, rows, columns = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + 1e-3 * self.attention(tokens, tokens, tokens)[0]
        x = tokens.view(n, rows, columns, 4)
        x = torch.cat([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1)
        return self.reduce(x).permute(0, 3, 1, 2)


class ResNetD(nn.Module):
    """A strided residual block with a pooled shortcut."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(conv(size=1), nn.ReLU(), conv(stride=2))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), conv(size=1))

    def forward(self, x):
        return self.block(x) + self.shortcut(x)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Focus(nn.Module):
    """Space to depth."""

    def forward(self, x):
        return torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)


def conv(inputs=4, size=3, stride=1, dilation=1):
    return nn.Conv2d(inputs, 4, size, stride, dilation * (size // 2), dilation, bias=False)


def stem():
    return nn.Sequential(conv(3, 7, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1))


NETS = {  # name: parts, strides and offsets of their outputs
    'chain': (lambda: [conv(3, 3, 2), conv(stride=2), conv(stride=2), conv(stride=2)], (2, 4, 8, 16), (0.5,) * 4),
    'resnet': (lambda: [stem(), Residual(), Residual()], (4, 8, 16), (0.5,) * 3),
    'gate': (lambda: [stem(), nn.Sequential(conv(stride=2), Gate())], (4, 8), (0.5,) * 2),
    'dilated': (lambda: [stem(), conv(stride=2), conv(dilation=2), conv(dilation=4)], (4, 8, 8, 8), (0.5,) * 4),
    'csp': (lambda: [stem(), nn.Sequential(conv(stride=2), Stages())], (4, 8), (0.5,) * 2),
    'focus': (lambda: [nn.Sequential(Focus(), conv(12)), conv(stride=2)], (2, 4), (1, 1)),
    'patches': (lambda: [nn.Conv2d(3, 4, 4, 4), Merging(), Merging()], (4, 8, 16), (2, 4, 8)),
    'pools': (lambda: [nn.Sequential(conv(3), nn.AvgPool2d(2)), nn.AvgPool2d(3, 2, 1)], (2, 4), (1, 1)),
    'transposed': (lambda: [stem(), conv(stride=2), nn.ConvTranspose2d(4, 4, 4, 2, 1)], (4, 8, 4), (0.5, 0.5, -1.5)),
    'upsampled': (
        lambda: [stem(), conv(stride=2), *[nn.Sequential(nn.Upsample(scale_factor=2), conv()) for _ in range(3)]],
        (4, 8, 4, 2, 1),
        (0.5, 0.5, -1.5, -2.5, -3),
    ),
    'ceil': (
        lambda: [conv(3), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, ceil_mode=True)],
        (1, 2, 4),
        (0.5, 1, 2),
    ),
    'causal': (
        lambda: [
            nn.Sequential(nn.ZeroPad2d((2, 0, 2, 0)), nn.Conv2d(3, 4, 3)),
            nn.Sequential(nn.ReflectionPad2d((2, 0, 2, 0)), nn.Conv2d(4, 4, 3, 2)),
        ],
        (1, 2),
        (-0.5, -1.5),
    ),
    'even': (
        lambda: [nn.Conv2d(3, 4, 2), nn.Conv2d(4, 4, 4, 2, 1), nn.Conv2d(4, 4, 4, padding='same')],
        (1, 2, 2),
        (1, 1.5, 2.5),
    ),
    'dilated pools': (
        lambda: [conv(3), nn.MaxPool2d(3, 2, 1, dilation=2), nn.MaxPool2d(2, 2, dilation=3)],
        (1, 2, 4),
        (0.5, 1.5, 4.5),
    ),
    'pool with indices': (
        lambda: [conv(3), Call(lambda x: F.max_pool2d(x, 2, return_indices=True)[0])],
        (1, 2),
        (0.5, 1),
    ),
    'rare activations': (
        lambda: [nn.Sequential(conv(3, 3, 2), nn.LogSigmoid(), nn.Softshrink(0), nn.Hardshrink(0), nn.Softplus())],
        (2,),
        (0.5,),
    ),
    'resnet d': (lambda: [stem(), ResNetD(), ResNetD()], (4, 8, 16), (0.5, 1.5, 3.5)),
    'output padding': (
        lambda: [stem(), conv(stride=2), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), nn.ConvTranspose2d(4, 4, 2, 2)],
        (4, 8, 4, 2),
        (0.5, 0.5, 0.5, -0.5),
    ),
    'thirds': (lambda: [conv(3, 3, 4), nn.ConvTranspose2d(4, 4, 5, 3, 1, 2)], (4, 4 / 3), (0.5, -0.83)),
    'resampled': (
        lambda: [conv(3, 3, 2), Call(lambda x: F.interpolate(x, scale_factor=1.5, mode='bilinear'))],
        (2, 4 / 3),
        (0.5, 0.17),
    ),
}


def detector(parts):
    """A detector whose weights are all alike and positive, in evaluation mode."""
    model = Detector(Levels(*parts)).eval()
    for name, weight in model.named_parameters():
        nn.init.constant_(weight, 0.0 if name.endswith('bias') else 1 / weight[0].numel())
    return model


def levels_of(model, inputs, reduction=lambda features: features.mean(1)):
    taps = Taps(model, ['backbone'], reduction)
    with taps, torch.no_grad():
        taps.begin(inputs, [DetDataSample() for _ in inputs])
        model(inputs)
    (taken,) = taps.take()
    return taken.maps


@pytest.mark.parametrize('name', NETS)
def test_strides_and_offsets_of_known_networks(name):
    parts, strides, offsets = NETS[name]
    levels = levels_of(detector(parts()), torch.zeros(1, 3, *SIZE))
    assert [level.stride for level in levels] == [(stride, stride) for stride in strides]
    np.testing.assert_allclose([level.offset for level in levels], [(offset, offset) for offset in offsets], atol=0.02)


@pytest.mark.parametrize('name', NETS)
def test_a_spot_comes_back_where_it_is(name):
    """The heat of a Gaussian spot has its center of mass at the spot, on average over the positions in a cell."""
    model = detector(NETS[name][0]())
    placement = identity_placement(SIZE, SIZE)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    errors = []
    for left, top in np.random.default_rng(0).uniform((140, 110), (172, 142), (8, 2)):
        spot = np.exp(-((x - left) ** 2 + (y - top) ** 2) / 2 / SPREAD**2)
        levels = levels_of(model, torch.tensor(spot, dtype=torch.float32).expand(1, 3, -1, -1))
        heats = (
            Grid(tuple(level.values.shape[1:]), level.stride, placement, 'auto', level.offset).heatmap(
                level.values[0].numpy()
            )
            for level in levels
        )
        heats = [np.clip(heat - np.median(heat), 0, None).astype(np.float64) for heat in heats]
        errors.append([[(h * x).sum() / h.sum() - left, (h * y).sum() / h.sum() - top] for h in heats])
    means = np.abs(np.mean(errors, axis=0)).max(1)
    assert (means <= np.maximum(0.75, [level.stride[0] / 16 for level in levels])).all(), means


@pytest.mark.parametrize(('stride', 'rows', 'columns'), [(14, 800, 1066), (12, 800, 1333), (10, 256, 320)])
def test_patches_of_any_size_have_their_own_stride(stride, rows, columns):
    (level,) = levels_of(detector([nn.Conv2d(3, 4, stride, stride)]), torch.zeros(1, 3, rows, columns))
    assert level.stride == (stride, stride)
    assert level.offset == (stride / 2, stride / 2)


def test_unpadded_layers_have_their_own_stride():
    """As the last levels of SSD300, whose convolutions do not fit into the small input that is tried first."""
    parts = [nn.Sequential(conv(3), nn.MaxPool2d(64, ceil_mode=True)), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)]
    levels = levels_of(detector(parts), torch.zeros(1, 3, 300, 300))
    assert [level.values.shape[1] for level in levels] == [5, 3, 1]
    assert [level.stride[0] for level in levels[:2]] == [64, 64]  # one cell has no neighbor
    assert [level.offset[0] for level in levels] == [32, 96, 160]


def test_the_weights_decide():
    """A kernel of which only the right column counts looks one pixel to the right."""
    model = detector([conv(3, 3, 2)])
    with torch.no_grad():
        model.backbone[0].weight[..., :2] = 0
    (level,) = levels_of(model, torch.zeros(1, 3, *SIZE))
    assert level.offset == (0.5, 1.5)


@pytest.mark.parametrize(('rows', 'columns'), [(800, 1090), (1090, 800)])
def test_a_level_that_rounds_up_on_one_axis_and_down_on_the_other(rows, columns):
    """A patch embedding and mergings round down, the extra level of an FPN rounds up: 800 / 64 is 13, 1090 / 64 17."""
    stages = [nn.Conv2d(3, 4, 4, 4), *(nn.Conv2d(4, 4, 2, 2) for _ in range(3)), nn.MaxPool2d(1, 2)]
    levels = levels_of(detector(stages), torch.zeros(1, 3, rows, columns))
    assert sorted(levels[-1].values.shape[1:]) == [13, 17]
    assert [level.stride for level in levels] == [(stride, stride) for stride in (4, 8, 16, 32, 64)]
    np.testing.assert_allclose([level.offset[0] for level in levels], (2, 4, 8, 16, 16), atol=0.02)


@pytest.mark.parametrize(
    ('size', 'probe'),
    [((300, 300), (300, 300)), ((192, 256), (192, 256)), ((800, 1333), (192, 256)), ((64, 96), (192, 256))],
)
def test_a_detector_runs_once_for_its_centers(size, probe, monkeypatch):
    """With three pictures at once; at its own size if that is not large."""
    probes, run = [], alignment.CenterFinder._run_skeleton
    monkeypatch.setattr(alignment.CenterFinder, '_run_skeleton', lambda *args: probes.append(args[2]) or run(*args))
    levels_of(detector([stem(), nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2)]), torch.zeros(1, 3, *size))
    assert probes == [probe]


def test_finding_centers_leaves_no_trace():
    """Flags, statistics, gradients, hooks, random state and outputs stay as they are, also if the network fails."""
    model = MODELS.build(resnet_detector()).train()
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    inputs, samples = torch.rand(2, 3, 64, 96), [DetDataSample(), DetDataSample()]
    with torch.no_grad():
        outputs = copy.deepcopy(model).eval().extract_feat(inputs)
    calls.clear()
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    for size in (alignment.SMALL_INPUT, (1, 1)):
        finder = alignment.CenterFinder(model, Taps(model, None, lambda f: f[:, 0])._taps_of, print, print)
        finder._run_skeleton(alignment.Pass(inputs, samples), size, 'tensor', ['neck_0'], torch.float32)
    assert not calls
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all('forward' not in vars(module) for module in model.modules())
    with torch.no_grad():
        assert all(map(torch.equal, model.eval().extract_feat(inputs), outputs))


def test_centers_are_found_once_and_again_for_other_weights(monkeypatch):
    probes = []
    run = alignment.CenterFinder._run_skeleton
    monkeypatch.setattr(alignment.CenterFinder, '_run_skeleton', lambda *args: probes.append(args[2]) or run(*args))
    model = detector([conv(3, 3, 2)])
    inputs, taps = torch.zeros(1, 3, *SIZE), Taps(model, ['backbone'], lambda features: features[:, 0])

    def offset():
        with taps, torch.no_grad():
            taps.begin(inputs, [DetDataSample()])
            model(inputs)
        return taps.take()[0].maps[0].offset

    assert [offset(), offset()] == [(0.5, 0.5)] * 2
    assert len(probes) == 1
    with torch.no_grad():
        model.backbone[0].weight[..., :2] = 0
    assert model.train() and offset() == (0.5, 0.5)  # not between the iterations of a training
    assert model.eval() and offset() == (0.5, 1.5)
    assert len(probes) == 2


def test_a_level_without_centers_is_reported_once_and_centered(caplog):
    class Shuffle(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x, 8).flip(-1)

    warnings = []
    taps = Taps(Detector(Shuffle()), ['backbone'], lambda features: features[:, 0])
    taps._centers._warn = warnings.append
    inputs = torch.zeros(1, 3, *SIZE)
    for _ in range(2):
        with taps:
            taps.begin(inputs, [DetDataSample()])
            taps.model(inputs)
        (level,) = taps.take()[0].maps
        assert (level.stride, level.offset) == ((8, 8), None)
    assert len(warnings) == 1
    assert 'backbone_0' in warnings[0]
    grid = Grid((32, 40), (8, 8), identity_placement(SIZE, SIZE), 'auto', level.offset)
    assert np.array_equal(grid.input_to_cells, Grid((32, 40), (8, 8), grid.placement, 'center').input_to_cells)


def test_queries_that_fill_a_grid_by_chance_are_no_map():
    """300 queries are as many as the cells of stride 32 in 480 x 640 pixels; the tokens of an encoder are a map."""

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.encoder, self.head = nn.Conv2d(3, 8, 32, 32), nn.Linear(8, 8), nn.Linear(8, 4)
            self.queries = nn.Parameter(torch.rand(300, 8))
            self.cross = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, inputs):
            memory = self.encoder(self.backbone(inputs).flatten(2).transpose(1, 2))
            queries = self.queries.expand(len(inputs), -1, -1)
            return self.head(queries + self.cross(queries, memory, memory)[0])

    model, inputs = Transformer().eval(), torch.rand(1, 3, 480, 640)
    taps = Taps(model, ['backbone', 'encoder', 'head'], lambda features: features[:, 0])
    with taps, torch.no_grad():
        taps.begin(inputs, [DetDataSample()])
        model(inputs)
    levels = taps.take()[0].maps
    assert [level.name for level in levels] == ['backbone_0', 'encoder_0']
    np.testing.assert_allclose([level.offset for level in levels], 16, atol=1)  # the weights are random
    assert taps.not_maps == {'head': 'tokens without a position, (1, 300, 4)'}


def test_patches_of_a_transformer_with_class_and_register_tokens():
    """A class token and four registers before patches of 14 x 14 pixels, as in DINOv2, in blocks with attention."""

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.leading = nn.Conv2d(3, 8, 14, 14), nn.Parameter(torch.rand(1, 5, 8))
            self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

        def forward(self, inputs):
            tokens = self.patches(inputs).flatten(2).transpose(1, 2)
            return self.blocks(torch.cat([self.leading.expand(len(inputs), -1, -1), tokens], 1))

    (level,) = levels_of(Detector(Transformer()).eval(), torch.rand(1, 3, 800, 1066))
    assert level.values.shape == (1, 57, 76)
    assert level.stride == (14, 14)
    np.testing.assert_allclose(level.offset, 7, atol=0.5)  # the weights are random


@pytest.mark.parametrize('gain', [1, 1e30])
def test_the_own_resolution_decides_however_much_is_added_from_a_coarser_one(gain):
    """As in an FPN: repeated coarse cells look further up and left, but a moved patch is found at its place."""

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.coarse = stem(), nn.Sequential(conv(stride=2), conv(stride=2))

        def forward(self, x):
            x = self.stem(x)
            return x + F.interpolate(self.coarse(x), scale_factor=4) * gain

    (level,) = levels_of(detector([Pyramid()]), torch.zeros(1, 3, *SIZE))
    np.testing.assert_allclose(level.offset, 0.5, atol=0.02)


@pytest.fixture
def probes(monkeypatch):
    """The size and the precision of each run of a skeleton."""
    found, run = [], alignment.CenterFinder._run_skeleton
    monkeypatch.setattr(
        alignment.CenterFinder, '_run_skeleton', lambda *args: found.append((args[2], args[5])) or run(*args)
    )
    return found


@pytest.mark.parametrize(('scale', 'runs'), [(1e-30, 2), (1e-4, 2), (1, 1), (1e18, 1), (1e30, 2)])
def test_double_precision_where_products_of_weights_leave_the_range_of_single_precision(scale, runs, probes):
    """It is slow, so that the input has no more than two cells of the coarsest level, but 64 pixels."""
    model = detector([conv(3, 3, 2), conv(stride=2), conv(stride=2)])
    with torch.no_grad():
        for weight in model.parameters():
            weight *= scale
    levels = levels_of(model, torch.zeros(1, 3, *SIZE))
    assert probes == [(SIZE, torch.float32), ((64, 64), torch.float64)][:runs]
    np.testing.assert_allclose([level.offset for level in levels], 0.5, atol=0.02)


def test_double_precision_with_unpadded_layers_which_need_a_larger_input(probes):
    model = detector([nn.Sequential(conv(3), nn.MaxPool2d(32)), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)])
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1e30
    levels = levels_of(model, torch.zeros(1, 3, *SIZE))
    double = [size for size, precision in probes if precision == torch.float64]
    assert double == [(86, 80), SIZE]  # in the pass, the second level has 6 x 8 cells
    assert [level.offset[0] for level in levels] == [16, 48, 48]


def test_a_mean_of_the_whole_map_does_not_hide_what_was_upsampled():
    """It has no position, and the upsampled values keep that of the coarse cells."""

    class Context(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.coarse = stem(), conv(stride=2)

        def forward(self, x):
            x = self.stem(x)
            return F.interpolate(self.coarse(x), scale_factor=2) + x.mean((2, 3), keepdim=True)

    (level,) = levels_of(detector([Context()]), torch.zeros(1, 3, *SIZE))
    np.testing.assert_allclose(level.offset, -1.5, atol=0.02)


def test_shapes_are_computed_as_usual():
    """mmdet's pixel decoder splits tokens by products of shapes, which it takes from tensors."""

    class Split(nn.Module):
        def forward(self, x):
            x = F.avg_pool2d(x, 8)
            shape = torch._shape_as_tensor(x)
            tokens = x.flatten(2).split([int(shape[2] * shape[3])], dim=-1)[0]
            return tokens.view(*x.shape)

    (level,) = levels_of(Detector(Split()), torch.zeros(1, 3, *SIZE))
    assert level.offset == (4, 4)


def distances_from_spots(model, size, level):
    """(vertical, horizontal): how far the heat of spots all over the image is from them, on average, in pixels."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    placement, distances = identity_placement(size, size), []
    for top, left in [(90, size[1] - 90), (size[0] - 90, 90), (size[0] - 95, size[1] - 95)]:
        spot = np.exp(-((x - left) ** 2 + (y - top) ** 2) / 2 / SPREAD**2)
        found = levels_of(model, torch.tensor(spot, dtype=torch.float32).expand(1, 3, -1, -1))[level]
        grid = Grid(tuple(found.values.shape[1:]), found.stride, placement, 'auto', found.offset)
        heat = np.clip(grid.heatmap(found.values[0].numpy()).astype(np.float64) - 1e-3, 0, None)
        distances.append([abs((heat * axis).sum() / heat.sum() - at) for axis, at in ((y, top), (x, left))])
    return np.mean(distances, 0)


@pytest.mark.parametrize('size', [(256, 320), (608, 800), (800, 608)])
def test_a_level_with_aligned_corners_has_another_stride_for_each_size(size):
    upsample = nn.Upsample(scale_factor=2, mode='bilinear', align_corners=True)
    model = detector([stem(), conv(stride=2), upsample])
    assert distances_from_spots(model, size, 2).max() <= 0.75
    cells = [n // 8 for n in size]
    expected = [8 * (n - 1) / (2 * n - 1) for n in cells]
    np.testing.assert_allclose(levels_of(model, torch.zeros(1, 3, *size))[2].stride, expected, atol=0.01)


def test_a_level_of_a_fixed_size_is_not_drawn_in_a_corner():
    """30 x 40 cells, however large the input is: those of a small input would not cover a large one."""
    model = detector([conv(3, 3, 2), Call(lambda x: F.interpolate(x, size=(30, 40), mode='bilinear'))])
    assert distances_from_spots(model, (600, 800), 1).max() <= 20 / 16
