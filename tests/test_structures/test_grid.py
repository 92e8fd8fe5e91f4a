"""Where the heat lies is compared with positions that these tests work out themselves, in float64.

BrightnessPools averages the input over blocks, so that a bright dot must come back where it was. Each pipeline is a
real one; what it does to a position is stated here a second time, independent of any meta.
"""

import cv2
import numpy as np
import pytest
import torch
from conftest import STRIDES, keep_ratio_pipeline, pool_detector, read, runner_config, write_dataset
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine.runner import Runner

from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement, identity_placement, placement_from_metas

SIZE = (231, 310)  # height, width: odd on purpose


@TRANSFORMS.register_module()
class PadAllSides(BaseTransform):
    """Pads every side and says so in `pad_param`, as the letterbox of mmyolo does."""

    def __init__(self, top, bottom, left, right):
        self.sides = top, bottom, left, right

    def transform(self, results):
        top, bottom, left, right = self.sides
        results['img'] = cv2.copyMakeBorder(
            results['img'], top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114)
        )
        results['img_shape'] = results['img'].shape[:2]
        results['pad_param'] = np.array(self.sides, np.float32)
        return results


class Case:
    """A pipeline, and what it does to a image's coordinates: scaled, mirrored, then shifted."""

    def __init__(self, *after_resize, scale=(200, 200), offset=(0, 0), flip='', meta_keys=(), flip_height=None):
        self.pipeline = keep_ratio_pipeline(scale, *after_resize, meta_keys=meta_keys)
        self.scale, self.offset, self.flip, self.flip_height = scale, np.array(offset), flip, flip_height

    def content(self, size):
        """Resized (height, width): mmcv rounds half up."""
        ratio = min(max(self.scale) / max(size), min(self.scale) / min(size))
        return tuple(int(side * ratio + 0.5) for side in size)

    def to_input(self, points, size):
        """(N, 2) positions (x, y) in the image to positions in the input."""
        height, width = self.content(size)
        x, y = points[:, 0] * width / size[1], points[:, 1] * height / size[0]
        if self.flip in ('horizontal', 'diagonal'):
            x = width - x
        if self.flip in ('vertical', 'diagonal'):
            y = (self.flip_height or height) - y
        return np.stack([x, y], 1) + self.offset


def flip(direction):
    return dict(type='RandomFlip', prob=1.0, direction=direction)


SQUARE = dict(type='Pad', pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0)))
CASES = {
    'right and bottom padding': Case(scale=(300, 200)),
    'enlarged': Case(scale=(700, 500)),
    'padded to a square': Case(SQUARE, scale=(192, 192)),
    'padded on all sides': Case(
        dict(type='PadAllSides', top=13, bottom=22, left=37, right=5), offset=(37, 13), meta_keys=('pad_param',)
    ),
    'horizontal flip': Case(flip('horizontal'), flip='horizontal'),
    'vertical flip': Case(flip('vertical'), flip='vertical'),
    'diagonal flip, square': Case(flip('diagonal'), SQUARE, flip='diagonal'),
    'flip, then all sides': Case(
        flip('horizontal'),
        dict(type='PadAllSides', top=3, bottom=40, left=50, right=5),
        offset=(50, 3),
        flip='horizontal',
        meta_keys=('pad_param',),
    ),
    # mmdet's default test-time augmentation flips YOLOX's input after its padding; 200 is the height of the square.
    'square, then flip': Case(SQUARE, flip('vertical'), flip='vertical', flip_height=200),
    'homography': Case(flip('horizontal'), flip='horizontal', meta_keys=('homography_matrix',)),
}


def dotted(size, dot, sigma):
    """A dark image with a soft bright dot around (x, y)."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    bump = np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.round(20 + 230 * bump)[..., None], 3, 2).astype(np.uint8)


def centre_of_mass(heat):
    heat = heat.astype(np.float64)
    y, x = np.mgrid[: heat.shape[0], : heat.shape[1]] + 0.5
    return np.array([(heat * x).sum(), (heat * y).sum()]) / heat.sum()


def reference_heat(case, image, stride, input_size):
    """The heatmap in float64: block means of the placed image, interpolated with np.interp along each axis."""
    size = image.shape[:2]
    height, width = case.content(size)
    resized = cv2.resize(image[..., 0], (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float64)
    placed = np.full(input_size, np.nan)
    rows, columns = np.mgrid[:height, :width]
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1)
    # From the resized image to the input: the same step without its scaling.
    x, y = case.to_input(centres * [size[1] / width, size[0] / height], size).T
    placed[y.astype(int), x.astype(int)] = resized.ravel()
    pad = np.isnan(placed)
    placed[pad] = 0
    if any(t['type'] in ('Pad', 'PadAllSides') for t in case.pipeline):
        boxed = np.zeros(input_size, bool)
        boxed[: case.padded[0], : case.padded[1]] = True
        placed[pad & boxed] = 114
    cells = [-(-side // stride) for side in input_size]
    blocks = np.array(
        [
            [placed[r * stride : (r + 1) * stride, c * stride : (c + 1) * stride].mean() for c in range(cells[1])]
            for r in range(cells[0])
        ]
    )
    corners = case.to_input(np.array([[0.5, 0.5], [size[1] - 0.5, size[0] - 0.5]]), size)
    across = np.linspace(corners[0, 0], corners[1, 0], size[1]) / stride - 0.5
    down = np.linspace(corners[0, 1], corners[1, 1], size[0]) / stride - 0.5
    # Only blocks with content take part: padding alone must not shine into the image.
    rows, columns = (np.flatnonzero(_any_in_blocks(~pad.all(axis), stride)) for axis in (1, 0))
    wide = np.array([np.interp(across, columns, row[columns]) for row in blocks])
    return np.array([np.interp(down, rows, column[rows]) for column in wide.T]).T


def _any_in_blocks(flags, stride):
    return np.array([flags[start : start + stride].any() for start in range(0, len(flags), stride)])


def run_heatmaps(tmp_path, case, images, batch_size=1):
    """Run a real test with the hook; returns {name: {level: heatmap (H, W)}} of grey values."""
    data = write_dataset(tmp_path / 'data', images)
    hook = dict(save=('heatmap',), colormap='gray', out_dir=str(tmp_path / 'out'), reduction='max', normalize=(0, 255))
    cfg = runner_config(data, tmp_path / 'work', pool_detector(), case.pipeline, batch_size, hook)
    Runner.from_cfg(cfg).test()
    return {
        name: {
            level: read(tmp_path / 'out' / name[:-4] / f'backbone_{level}.heatmap.png')[..., 0]
            for level in range(len(STRIDES))
        }
        for name in images
    }


@pytest.mark.parametrize('name', CASES)
def test_a_bright_dot_comes_back_where_it_was(tmp_path, name):
    case, dot = CASES[name], (221.3, 67.8)
    content = case.content(SIZE)
    case.padded = (200, 200) if 'square' in name else content
    if 'all sides' in name:
        pad = next(t for t in case.pipeline if t['type'] == 'PadAllSides')
        case.padded = (content[0] + pad['top'] + pad['bottom'], content[1] + pad['left'] + pad['right'])
    if name == 'padded to a square':
        case.padded = (192, 192)
    input_size = tuple(-(-side // 32) * 32 for side in case.padded)
    image = dotted(SIZE, dot, sigma=6)
    heatmaps = run_heatmaps(tmp_path, case, {'a.png': image})['a.png']
    for level, stride in enumerate(STRIDES):
        heat = heatmaps[level]
        assert heat.shape == SIZE
        expected = reference_heat(case, image, stride, input_size)
        # The picture holds whole grey levels, cut off.
        assert np.abs(heat - expected).max() <= 1.01, (name, stride)
        if stride <= 16:  # cells no larger than the dot: also against the dot's own position
            around = (slice(20, 116), slice(172, 268))
            spot = np.clip(heat[around].astype(float) - 40, 0, None)
            cell = stride * SIZE[1] / content[1]
            assert np.abs(centre_of_mass(spot) + (172, 20) - dot).max() <= (1 if stride == 4 else 1 + cell / 2)


def test_batches_of_different_sizes_are_placed_each_on_its_own(tmp_path):
    """However much larger the padding of the batch, each image's heatmaps are those that it has alone."""
    case = Case(scale=(256, 160))
    images = {
        'wide.png': dotted((120, 300), (40.2, 90.9), 5),
        'tall.png': dotted((301, 140), (99.9, 33.3), 5),
        'small.png': dotted((64, 50), (25.0, 32.0), 5),
    }
    together = run_heatmaps(tmp_path / 'together', case, images, batch_size=3)
    for name, image in images.items():
        alone = run_heatmaps(tmp_path / name, case, {name: image})[name]
        for level in range(3):  # up to stride 16, where no block of the image reaches into padding that it lacks alone
            assert np.abs(together[name][level].astype(int) - alone[level]).max() <= 1


@pytest.mark.parametrize(('align', 'shift'), [('center', 0.5), ('corner', 0.0)])
def test_both_alignments_are_the_classical_formulas(align, shift):
    cells, size = (5, 7), (61, 83)
    values = np.random.default_rng(0).normal(size=cells)
    stride = 16.0
    placement = Placement(
        np.diag([cells[1] * stride / size[1], cells[0] * stride / size[0], 1.0]),
        size,
        tuple(int(c * stride) for c in cells),
    )
    heat = Grid(cells, (stride, stride), placement, align).heatmap(values.astype(np.float32))
    source = [(np.arange(out) + shift) * n / out - shift for n, out in zip(cells, size)]
    wide = np.array([np.interp(source[1], np.arange(cells[1]), row) for row in values])
    expected = np.array([np.interp(source[0], np.arange(cells[0]), column) for column in wide.T]).T
    np.testing.assert_allclose(heat, expected, atol=1e-5)


@pytest.mark.parametrize('align', ['center', 'corner'])
@pytest.mark.parametrize('shift', [0.0, 7.3])
@pytest.mark.parametrize('cells', [(7, 9), (9, 12)])
@pytest.mark.parametrize('size', [(61, 83), (33, 131), (130, 170)])
def test_padded_content_is_interpolated_as_in_float64(align, shift, cells, size):
    stride, scale = 16.0, (0.93, 1.07)  # down and along
    values = np.random.default_rng(3).normal(size=cells)
    matrix = np.array([[scale[1], 0, shift], [0, scale[0], shift], [0, 0, 1]])
    input_size = tuple(int(c * stride) for c in cells)
    heat = Grid(cells, (stride, stride), Placement(matrix, size, input_size), align).heatmap(values.astype(np.float32))
    sources, seen = [], []
    for out, n, factor in zip(size, cells, scale):
        positions = factor * (np.arange(out) + 0.5) + shift
        before = 0.5 if align == 'center' else factor / 2 / stride
        first, last = np.floor(shift / stride), min(np.ceil((factor * out + shift) / stride) - 1, n - 1)
        sources.append(np.clip(positions / stride - before, first, last))
        seen.append(positions <= n * stride)
    wide = np.array([np.interp(sources[1], np.arange(cells[1]), row) for row in values])
    expected = np.array([np.interp(sources[0], np.arange(cells[0]), column) for column in wide.T]).T
    expected[~(seen[0][:, None] & seen[1])] = 0
    np.testing.assert_allclose(heat, expected, atol=2e-5)


def test_any_homography_agrees_with_the_separable_path_and_with_positions_by_hand():
    values = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    straight = Placement(np.array([[0.8, 0, 3.0], [0, 0.7, 5.0], [0, 0, 1]]), (50, 60), (96, 128))
    turned = Placement(straight.matrix + [[0, 1e-9, 0], [0, 0, 0], [0, 0, 0]], (50, 60), (96, 128))
    assert straight.is_separable
    assert not turned.is_separable
    expected = Grid((6, 8), (16, 16), straight).heatmap(values)
    np.testing.assert_allclose(Grid((6, 8), (16, 16), turned).heatmap(values), expected, atol=1e-5)

    quarter = Placement(np.array([[0, -1.0, 50], [1.0, 0, 0], [0, 0, 1]]), (50, 60), (60, 50))
    ramp = np.tile(np.arange(50, dtype=np.float32), (60, 1))  # each pixel of the input knows its column
    heat = Grid((60, 50), (1, 1), quarter).heatmap(ramp)
    np.testing.assert_allclose(heat, np.tile(49 - np.arange(50)[:, None], (1, 60)), atol=1e-4)


def test_what_was_cropped_away_has_no_heat_and_bounds_no_range():
    values = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    # The input is the middle 40 x 40 pixels of a image of 80 x 80.
    placement = Placement(np.array([[1.0, 0, -20], [0, 1.0, -20], [0, 0, 1]]), (80, 80), (40, 40))
    heat = Grid((4, 4), (10, 10), placement).heatmap(values)
    assert not heat[:20].any()
    assert not heat[:, 60:].any()
    assert heat[20, 20] == 1
    assert heat[59, 59] == 16
    outside = Placement(np.array([[1.0, 0, 500], [0, 1.0, 500], [0, 0, 1]]), (80, 80), (40, 40))
    assert Grid((4, 4), (10, 10), outside).visible(values).size == 0
    assert not Grid((4, 4), (10, 10), outside).heatmap(values).any()


@pytest.mark.parametrize('stride', [4, 32, 64])
def test_visible_values_bound_the_heatmap_and_leave_out_the_padding(stride):
    cells = tuple(-(-128 // stride) for _ in range(2))
    values = np.random.default_rng(2).normal(size=cells).astype(np.float32)
    placement = Placement(np.diag([0.5, 0.5, 1.0]), (101, 140), (128, 128))  # content is 50.5 x 70
    grid = Grid(cells, (stride, stride), placement)
    heat, visible = grid.heatmap(values), grid.visible(values)
    assert visible.min() <= heat.min() + 1e-6
    assert visible.max() >= heat.max() - 1e-6
    values[int(np.ceil(50.5 / stride + 0.5)) :] = 1e6
    values[:, int(np.ceil(70 / stride + 0.5)) :] = 1e6
    assert grid.visible(values).max() < 10
    assert grid.heatmap(values).max() < 10


def test_a_rounding_error_does_not_let_padding_in():
    size = 265
    scale = 400 / size
    assert size * scale > 400  # by 6e-14
    grid = Grid((26, 26), (16, 16), Placement(np.diag([scale, scale, 1.0]), (size, size), (416, 416)))
    values = np.ones((26, 26), np.float32)
    values[25] = values[:, 25] = 1e6  # 400 is where the last cell begins
    assert grid.visible(values).max() == 1
    assert grid.heatmap(values).max() == 1


def test_missing_ori_shape_says_what_to_add():
    with pytest.raises(ValueError, match="no 'ori_shape'.*meta_keys of PackDetInputs"):
        placement_from_metas(dict(scale_factor=(1, 1)), torch.zeros(3, 8, 8))


def test_metas_without_a_scale_are_an_unscaled_image():
    placement = placement_from_metas(dict(ori_shape=(20, 30)), torch.zeros(3, 32, 32))
    np.testing.assert_array_equal(placement.matrix, np.eye(3))
    assert identity_placement((20, 30), (32, 32)).content_box == (0, 0, 30, 20)


@pytest.mark.parametrize('stride', [8, 64])
def test_what_was_cut_away_stays_cold_however_far_the_cells_reach(stride):
    """The pipeline kept 800 of 820 rows: 13 cells of stride 64 reach to row 832, and the network saw none of it."""
    placement = Placement(np.eye(3), (820, 100), (800, 128))
    cells = -(-800 // stride), -(-128 // stride)
    heat = Grid(cells, (stride, stride), placement).heatmap(np.ones(cells, np.float32))
    assert (heat[:800] == 1).all()
    assert (heat[800:] == 0).all()
    assert np.array_equal(placement.seen, heat == 1)
