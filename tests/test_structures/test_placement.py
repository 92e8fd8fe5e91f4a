"""Heatmaps of real pipelines are compared with positions that these tests compute themselves, in float64.

BrightnessPools averages the input over blocks, so a bright dot in the image must be bright at the same place in the
heatmap. Each pipeline is a real one; `Case` states once more, without any meta information, how it moves a position.
"""

import cv2
import numpy as np
import pytest
import torch
from conftest import STRIDES, keep_ratio_pipeline, pool_detector, read, runner_config, write_dataset
from mmcv.transforms import BaseTransform, Compose
from mmdet.registry import TRANSFORMS
from mmengine.runner import Runner

from mmdet_featviz.structures.placement import identity_placement, placement_from_metas
from mmdet_featviz.visualization.images import match_with_image

SIZE = (231, 310)  # height, width: odd on purpose


@TRANSFORMS.register_module()
class PadAllSides(BaseTransform):
    """Pads every side and sets `pad_param`, like mmyolo's letterbox."""

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
    """A pipeline, and how it moves coordinates of the image: scaled, then flipped, then shifted."""

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


def center_of_mass(heat):
    heat = heat.astype(np.float64)
    y, x = np.mgrid[: heat.shape[0], : heat.shape[1]] + 0.5
    return np.array([(heat * x).sum(), (heat * y).sum()]) / heat.sum()


def reference_heat(case, image, stride, input_size):
    """The expected heatmap in float64: block means of the input, interpolated with np.interp along each axis."""
    size = image.shape[:2]
    height, width = case.content(size)
    resized = cv2.resize(image[..., 0], (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float64)
    placed = np.full(input_size, np.nan)
    rows, columns = np.mgrid[:height, :width]
    centers = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1)
    # From the resized image to the input: the same step without its scaling.
    x, y = case.to_input(centers * [size[1] / width, size[0] / height], size).T
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
    # Only blocks with content count: blocks of padding only must not influence the heatmap.
    rows, columns = (np.flatnonzero(_any_in_blocks(~pad.all(axis), stride)) for axis in (1, 0))
    wide = np.array([np.interp(across, columns, row[columns]) for row in blocks])
    return np.array([np.interp(down, rows, column[rows]) for column in wide.T]).T


def _any_in_blocks(flags, stride):
    return np.array([flags[start : start + stride].any() for start in range(0, len(flags), stride)])


def run_heatmaps(tmp_path, case, images, batch_size=1):
    """Run a real test with the hook; returns {name: {level: heatmap (H, W) in gray values}}."""
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
def test_bright_dot_is_bright_at_its_place_in_the_heatmap(tmp_path, name):
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
        # The picture holds integer gray levels, rounded down.
        assert np.abs(heat - expected).max() <= 1.01, (name, stride)
        if stride <= 16:  # cells are not larger than the dot: compare with the dot's own position too
            around = (slice(20, 116), slice(172, 268))
            spot = np.clip(heat[around].astype(float) - 40, 0, None)
            cell = stride * SIZE[1] / content[1]
            assert np.abs(center_of_mass(spot) + (172, 20) - dot).max() <= (1 if stride == 4 else 1 + cell / 2)


def with_margins(size, dot):
    """A bright dot in a dark frame between white margins, which fill a quarter of the image on each side."""
    image = np.full((*size, 3), 255, np.uint8)
    inner = tuple(slice(side // 4, side - side // 4) for side in size)
    image[inner] = dotted(size, dot, 5)[inner]
    return image


@pytest.mark.parametrize('margin', [255, 0])
@pytest.mark.parametrize('pad_value', [0.0, 255.0])
@pytest.mark.parametrize('steps', [('Pad', 'RandomFlip'), ('RandomFlip', 'Pad')])
@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_a_flip_beside_padding_and_an_even_margin_of_the_image(tmp_path, direction, steps, pad_value, margin):
    """Both placements are surrounded by even pixels; the image file shows which of them is right."""
    image = with_margins((100, 160), (92.5, 38.5))
    image[image == 255] = margin
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, image)
    padded = dict(horizontal=(148, 80), vertical=(128, 94), diagonal=(148, 94))[direction]  # (width, height)
    options = dict(
        Pad=dict(type='mmdet.Pad', size=padded, pad_val=dict(img=(pad_value,) * 3)),
        RandomFlip=dict(type='mmdet.RandomFlip', prob=1.0, direction=direction),
    )
    keys = ('ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.Resize', scale=(128, 96), keep_ratio=True),  # to 80 x 128
        *(options[step] for step in steps),
        dict(type='mmdet.PackDetInputs', meta_keys=keys),
    ]
    packed = Compose(pipeline)(dict(img_path=path))
    inputs = packed['inputs'].float() / 58.4 - 2.1
    size = padded if steps[0] == 'Pad' else (128, 80)  # of what was flipped
    expected = np.diag([0.8, 0.8, 1.0])
    for axis in range(2):
        if direction in (('horizontal', 'vertical')[axis], 'diagonal'):
            expected[axis, axis], expected[axis, 2] = -0.8, size[axis]
    found = placement_from_metas(packed['data_samples'].metainfo, inputs, match_with_image(path, inputs))
    np.testing.assert_allclose(found.matrix, expected)


def test_without_the_image_file_even_margins_are_no_error(tmp_path):
    meta = dict(ori_shape=(8, 8), img_shape=(8, 16), scale_factor=(1, 1), flip=True)
    for path in (None, str(tmp_path / 'missing.png')):
        found = placement_from_metas(meta, torch.zeros(3, 8, 16), match_with_image(path, torch.zeros(3, 8, 16)))
        assert found.matrix[0, 2] in (8, 16)


def test_the_hook_compares_even_margins_with_the_image_file(tmp_path):
    dot, case = (150.3, 110.8), Case(dict(type='Pad', size=(300, 256)), flip('vertical'), scale=(300, 300))
    heat = run_heatmaps(tmp_path, case, {'a.png': with_margins(SIZE, dot)})['a.png'][0]
    spot = np.clip(heat[80:140, 120:180].astype(float) - 60, 0, None)
    assert np.abs(center_of_mass(spot) + (120, 80) - dot).max() < 1


def test_images_of_a_batch_are_placed_independently(tmp_path):
    """The heatmaps of an image do not depend on the padding of its batch."""
    case = Case(scale=(256, 160))
    images = {
        'wide.png': dotted((120, 300), (40.2, 90.9), 5),
        'tall.png': dotted((301, 140), (99.9, 33.3), 5),
        'small.png': dotted((64, 50), (25.0, 32.0), 5),
    }
    together = run_heatmaps(tmp_path / 'together', case, images, batch_size=3)
    for name, image in images.items():
        single = run_heatmaps(tmp_path / name, case, {name: image})[name]
        for level in range(3):  # up to stride 16, blocks of the image have the same padding in both runs
            assert np.abs(together[name][level].astype(int) - single[level]).max() <= 1


def test_missing_ori_shape_is_an_error_with_a_remedy():
    with pytest.raises(ValueError, match="no 'ori_shape'.*meta_keys of PackDetInputs"):
        placement_from_metas(dict(scale_factor=(1, 1)), torch.zeros(3, 8, 8))


def test_image_without_scale_factor_is_unscaled():
    placement = placement_from_metas(dict(ori_shape=(20, 30)), torch.zeros(3, 32, 32))
    np.testing.assert_array_equal(placement.matrix, np.eye(3))
    assert identity_placement((20, 30), (32, 32)).content_box == (0, 0, 30, 20)
