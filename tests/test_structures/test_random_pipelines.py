"""Heatmaps of random pipelines are compared with a float64 reference at each pixel.

BrightnessPools averages the input over blocks, so the value of each cell is known. The images are scaled, flipped,
padded, cropped or turned here; `Journey` is where this leads, worked out without any code of the package.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from conftest import STRIDES, noise, pool_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.visualization.views import Views

NORMALIZATIONS = ('image', 'max', 'layer', 'fixed')


@dataclass
class Journey:
    """An image, the network's input (H, W, 3), the meta information, and the (3, 3) matrix from image to input."""

    image: np.ndarray
    inputs: np.ndarray
    meta: dict
    matrix: np.ndarray
    bends: bool = False


def scaled(rng):
    """An image scaled by another factor along each axis: pixels, image, and matrix."""
    image = noise(*rng.integers(60, 200, 2), seed=int(rng.integers(1 << 30)))
    height, width = (max(8, int(side * rng.uniform(0.4, 1.6))) for side in image.shape[:2])
    matrix = np.diag([width / image.shape[1], height / image.shape[0], 1.0])
    return cv2.resize(image, (width, height)), image, matrix


def flip_at_random(rng, pixels, matrix):
    """Flip in one direction, in both or in none: pixels, matrix, and meta information."""
    direction = [None, 'horizontal', 'vertical', 'diagonal'][rng.integers(4)]
    height, width = pixels.shape[:2]
    if direction in ('horizontal', 'diagonal'):
        pixels, matrix = pixels[:, ::-1], np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) @ matrix
    if direction in ('vertical', 'diagonal'):
        pixels, matrix = pixels[::-1], np.array([[1.0, 0, 0], [0, -1, height], [0, 0, 1]]) @ matrix
    return pixels, matrix, dict(flip=direction is not None, flip_direction=direction)


def pad_around(rng):
    """Scaled, flipped and padded on any side, far enough for cells of padding only, as a letterbox is."""
    pixels, image, matrix = scaled(rng)
    factors = matrix[[0, 1], [0, 1]]
    pixels, matrix, meta = flip_at_random(rng, pixels, matrix)
    top, bottom, left, right = (int(side) for side in rng.integers(0, 150, 4) * rng.integers(0, 2, 4))
    pad = float(rng.choice([0, 114, 255]))
    pixels = cv2.copyMakeBorder(pixels, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(pad, pad, pad))
    meta.update(pad_param=(top, bottom, left, right), scale_factor=tuple(factors))
    return Journey(image, pixels, meta, np.array([[1.0, 0, left], [0, 1, top], [0, 0, 1]]) @ matrix)


def crop(rng):
    """Scaled and flipped, of which the network sees a part; only a homography can state that."""
    pixels, image, matrix = scaled(rng)
    pixels, matrix, meta = flip_at_random(rng, pixels, matrix)
    (top, bottom), (left, right) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in pixels.shape[:2])
    matrix = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]]) @ matrix
    return Journey(image, pixels[top:bottom, left:right], dict(meta, homography_matrix=matrix), matrix)


def turn(rng):
    """Rotated and tilted into an input of another size."""
    _, image, matrix = scaled(rng)
    (sine, cosine), shift = np.sin(rng.uniform(-0.7, 0.7) + np.array([0, np.pi / 2])), rng.uniform(-40, 60, 2)
    tilt = rng.uniform(-0.001, 0.001, 2)
    matrix = np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]], [*tilt, 1]]) @ matrix
    width, height = (int(side) for side in rng.integers(40, 260, 2))
    pixels = cv2.warpPerspective(image, matrix, (width, height), borderValue=(255, 255, 255))
    return Journey(image, pixels, dict(homography_matrix=matrix), matrix, bends=True)


def draw(journey, **style):
    """The gray pictures of all levels, drawn from what the detector saw."""
    visualizer = FeatureVisualizer(reduction='max', save='heatmap', colormap='gray', **style)
    model = MODELS.build(pool_detector()).eval()
    visualizer.taps = visualizer.make_taps(model)
    meta = dict(ori_shape=journey.image.shape[:2], img_shape=journey.inputs.shape[:2], **journey.meta)
    inputs = torch.from_numpy(np.ascontiguousarray(journey.inputs)).permute(2, 0, 1)
    with visualizer.taps as taps, torch.no_grad():
        data = model.data_preprocessor(dict(inputs=[inputs], data_samples=[DetDataSample(metainfo=meta)]))
        model.backbone(data['inputs'])
    (snapshot,) = visualizer.snapshots(taps.take(), 0, None)
    views = Views(visualizer.style)
    return [picture.pixels[..., 0] for picture in views.draw(snapshot, views.place(snapshot))]


def block_means(inputs, stride):
    """Mean of each block of the input padded to multiples of 32, float64."""
    height, width = (-(-side // 32) * 32 for side in inputs.shape[:2])
    padded = np.zeros((height, width))
    padded[: inputs.shape[0], : inputs.shape[1]] = inputs.mean(2, dtype=np.float64)
    return np.array(
        [
            [padded[y : y + stride, x : x + stride].mean() for x in range(0, width, stride)]
            for y in range(0, height, stride)
        ]
    )


def reference(journey, stride, align):
    """Heat (height, width) in float64, which pixels the network saw, and smallest and largest visible value."""
    blocks, (height, width) = block_means(journey.inputs, stride), journey.image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    u, v, w = np.einsum('ij,jhw->ihw', journey.matrix, np.stack([x, y, np.ones_like(x)]))
    sizes = [-(-side // 32) * 32 for side in journey.inputs.shape[1::-1]]
    places, seen = [u / w, v / w], w > 0
    ends = []
    for axis, (place, size) in enumerate(zip(places, sizes)):
        seen &= (place >= 0) & (place <= size)
        half = 0.5 if align == 'center' else (1.0 if journey.bends else abs(journey.matrix[axis, axis])) / 2 / stride
        first, last = 0, blocks.shape[1 - axis] - 1
        if not journey.bends:  # blocks of padding only must not influence the heat
            sides = np.sort(journey.matrix[axis, axis] * np.array([0, (width, height)[axis]]) + journey.matrix[axis, 2])
            first, last = max(first, int(sides[0] // stride)), min(last, -int(-sides[1] // stride) - 1)
        places[axis] = np.clip(place / stride - half, first, last)
    columns, rows = places
    heat = bilinear(blocks, rows, columns)
    visible = heat[seen]
    if not journey.bends and seen.any():
        for position in (rows[seen], columns[seen]):
            inner = np.arange(np.ceil(position.min()), np.floor(position.max()) + 1)
            ends.append(np.array([position.min(), *inner, position.max()]))
        visible = bilinear(blocks, *np.meshgrid(*ends, indexing='ij'))
    return heat, seen, (visible.min(), visible.max()) if seen.any() else None


def bilinear(blocks, rows, columns):
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, right = np.minimum(top + 1, len(blocks) - 1), np.minimum(left + 1, blocks.shape[1] - 1)
    down, along = rows - top, columns - left
    upper = (1 - along) * blocks[top, left] + along * blocks[top, right]
    lower = (1 - along) * blocks[bottom, left] + along * blocks[bottom, right]
    return (1 - down) * upper + down * lower


def limits_of(normalize, own, layer):
    if normalize == 'image':
        return own
    if normalize == 'max':
        return 0, own[1]
    if normalize == 'layer':
        return min(low for low, _ in layer), max(high for _, high in layer)
    return normalize


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('route', [pad_around, crop, turn])
def test_each_pixel_is_within_a_gray_level_of_float64(route, seed):
    rng = np.random.default_rng(seed)
    journey = route(rng)
    for align in ('center', 'corner'):
        expected = [reference(journey, stride, align) for stride in STRIDES]
        for normalize in NORMALIZATIONS:
            if normalize == 'fixed':  # within the values, so that much is cut
                low = rng.uniform(40, 150)
                normalize = low, low + rng.uniform(5, 60)
            pictures = draw(journey, normalize=normalize, align=align)
            layer = [own for *_, own in expected if own is not None]
            for stride, gray, (heat, seen, own) in zip(STRIDES, pictures, expected):
                if own is None:
                    continue
                low, high = limits_of(normalize, own, layer)
                if high - low < 1e-3:  # a map of one value is not heat
                    continue
                exact = np.clip((heat - low) / (high - low), 0, 1) * 255
                assert np.abs(gray - exact)[seen].max() <= 1.01, (normalize, align, stride)
