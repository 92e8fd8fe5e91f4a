"""Input match: high where the input shows the image, whatever happened to its colors, and low where it does not."""

import cv2
import numpy as np
import pytest
from conftest import noise

from mmdet_featviz.structures.input_match import agreement
from mmdet_featviz.structures.placement import Placement

SIZE = (90, 120)
IMAGE = noise(*SIZE)


def as_input(image, scale=(2.0, 1.5), pad=(7, 0, 9, 40)):
    """The input of an image resized by (x, y) and padded at the top, bottom, left and right, and its placement."""
    resized = cv2.resize(image, None, fx=scale[0], fy=scale[1])
    padded = cv2.copyMakeBorder(resized, *pad, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    matrix = np.array([[scale[0], 0, pad[2]], [0, scale[1], pad[0]], [0, 0, 1]])
    return padded.transpose(2, 0, 1).astype(np.float32), Placement(matrix, SIZE, padded.shape[:2])


def by_hand(inputs, image):
    """R² of the fit for an unscaled image that fills the input, with one cell per pixel."""
    known = np.column_stack([image.reshape(-1, 3).astype(np.float64), np.ones(image.shape[0] * image.shape[1])])
    shares = []
    for channel in inputs.reshape(len(inputs), -1).astype(np.float64):
        weights = np.linalg.pinv(known) @ channel
        shares.append(1 - ((channel - known @ weights) ** 2).sum() / ((channel - channel.mean()) ** 2).sum())
    return np.mean(shares)


def test_it_is_the_r_squared_of_a_linear_fit():
    image, other = noise(40, 60), noise(40, 60, seed=5)
    inputs = (0.7 * image + 0.3 * other).transpose(2, 0, 1)
    found = agreement(inputs, image, Placement(np.eye(3), (40, 60), (40, 60)))
    assert 0.5 < found < 0.95
    assert found == pytest.approx(by_hand(inputs, image), abs=1e-6)


COLORS = {
    'unchanged': lambda image: image,
    'normalized': lambda image: (image - np.array([123.7, 116.3, 103.5])) / np.array([58.4, 57.1, 57.4]),
    'RGB': lambda image: image[..., ::-1],
    'gray': lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2),
    'dark': lambda image: image // 16,
    'gamma': lambda image: 255 * (image / 255.0) ** 0.5,
    'negative': lambda image: 255 - image,
}


@pytest.mark.parametrize('scale', [(0.3, 0.3), (1.0, 1.0), (2.0, 1.5)])
@pytest.mark.parametrize('colors', COLORS)
def test_colors_do_not_matter(colors, scale):
    inputs, placement = as_input(COLORS[colors](IMAGE).astype(np.float32), scale)
    assert agreement(inputs, IMAGE, placement) > 0.9


@pytest.mark.parametrize('size', [(20, 24), (90, 120), (700, 500)])
@pytest.mark.parametrize('scale', [0.3, 1, 2.3])
def test_images_of_single_pixels_agree_too(size, scale):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    resized = cv2.resize(image, (round(size[1] * scale), round(size[0] * scale)))
    matrix = np.diag([resized.shape[1] / size[1], resized.shape[0] / size[0], 1.0])
    flipped = np.array([[-1.0, 0, resized.shape[1]], [0, 1, 0], [0, 0, 1]]) @ matrix
    for pixels, placed in ((resized, matrix), (resized[:, ::-1], flipped)):
        assert agreement(pixels.transpose(2, 0, 1), image, Placement(placed, size, resized.shape[:2])) > 0.9


def rotated(image, degrees):
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return cv2.warpAffine(image, turn, (width, height), borderValue=(114, 114, 114))


GEOMETRY = {
    'turned': lambda image: rotated(image, 15),
    'upside down': lambda image: image[::-1],
    'sheared': lambda image: cv2.warpAffine(image, np.float32([[1, 0.3, 0], [0, 1, 0]]), image.shape[1::-1]),
    'cropped': lambda image: cv2.resize(image[18:72, 24:96], image.shape[1::-1]),
    'resized twice': lambda image: cv2.copyMakeBorder(cv2.resize(image, None, fx=0.6, fy=0.6), 0, 36, 0, 48, 0),
    'uniform': lambda image: np.full_like(image, 7),
}


@pytest.mark.parametrize('geometry', GEOMETRY)
def test_another_place_is_seen(geometry):
    inputs, placement = as_input(GEOMETRY[geometry](IMAGE))
    assert agreement(inputs, IMAGE, placement) < 0.6


def test_a_homography_is_undone():
    matrix = np.array([[0.9, 0.2, 10], [-0.1, 1.1, 20], [0.001, 0.0005, 1]])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    turned = cv2.warpPerspective(IMAGE, np.linalg.inv(half) @ matrix @ half, (160, 140))
    placement = Placement(matrix, SIZE, (140, 160))
    assert agreement(turned.transpose(2, 0, 1), IMAGE, placement) > 0.99
    assert agreement(turned[:, ::-1].transpose(2, 0, 1), IMAGE, placement) < 0.6


def test_uniform_and_tiny_images_cannot_be_compared():
    assert np.isnan(agreement(np.eye(5)[None], noise(5, 5), Placement(np.eye(3), (5, 5), (5, 5))))
    inputs, placement = as_input(np.full_like(IMAGE, 50))
    assert np.isnan(agreement(inputs, np.full_like(IMAGE, 50), placement))
    far = np.array([[1, 0, 500.0], [0, 1, 0], [0, 0, 1]])
    assert np.isnan(agreement(inputs, IMAGE, Placement(far, SIZE, placement.input_size)))
