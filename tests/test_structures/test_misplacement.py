"""Misplacement: the distance of a moved image from its place, and none for one that only has other colors."""

import math

import cv2
import numpy as np
import pytest
from conftest import noise

from mmdet_featviz.structures.misplacement import misplacement
from mmdet_featviz.structures.placement import Placement

SIZE = (180, 240)
IMAGE = np.clip(0.6 * noise(*SIZE) + 0.4 * cv2.resize(noise(40, 40, seed=1), None, fx=6, fy=4.5), 0, 255).astype(
    'uint8'
)
ONCE = np.diag([1.5, 1.2, 1.0])  # from the image to the input, where it lies according to the placement


def input_after(further, image=IMAGE):
    """The input (3, 230, 370) of an image that is resized and then moved by a matrix, in continuous coordinates."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ further @ ONCE @ half
    moved = cv2.warpPerspective(image, matrix, (360, 216), borderValue=(114, 114, 114))
    return cv2.copyMakeBorder(moved, 0, 14, 0, 10, cv2.BORDER_CONSTANT).transpose(2, 0, 1).astype(np.float32)


def turned(degrees):
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    about = np.array([[1, 0, 180.0], [0, 1, 108], [0, 0, 1]])
    return about @ [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]] @ np.linalg.inv(about)


def cropped(part):
    """The middle is cut out and resized to the size of the whole."""
    scale = 1 / (1 - part)
    return np.array([[scale, 0, 180 * (1 - scale)], [0, scale, 108 * (1 - scale)], [0, 0, 1]])


MOVES = {
    'turned by 2 degrees': turned(2),
    'turned by 5 degrees': turned(-5),
    'turned by 10 degrees': turned(10),
    'cropped by 5 %': cropped(0.05),
    'cropped by 10 %': cropped(0.1),
    'cropped by 20 %': cropped(0.2),
    'sheared by 0.05': np.array([[1, 0.05, 0], [0, 1, 0], [0, 0, 1]]),
    'sheared by 0.1': np.array([[1, 0, 0], [-0.1, 1, 0], [0, 0, 1]]),
    'resized once more': np.diag([0.9, 0.9, 1]),
    'shifted': np.array([[1, 0, 12.0], [0, 1, -7], [0, 0, 1]]),
}


@pytest.mark.parametrize('name', MOVES)
def test_small_moves_are_measured(name):
    columns, rows = np.meshgrid(np.arange(360) + 0.5, np.arange(216) + 0.5)
    points = np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)])
    expected = np.hypot(*(np.linalg.inv(MOVES[name]) @ points - points)[:2]).mean() / 360
    found = misplacement(input_after(MOVES[name]), IMAGE, Placement(ONCE, SIZE, (230, 370)))
    assert found == pytest.approx(expected, rel=0.2, abs=0.002)


FAR = {
    'half its size': np.diag([0.5, 0.5, 1]),
    'twice its size': np.diag([2.0, 2, 1]),
    'upside down': np.array([[1, 0, 0], [0, -1, 216.0], [0, 0, 1]]),
}


@pytest.mark.parametrize('name', FAR)
def test_an_image_far_away_is_not_found(name):
    assert misplacement(input_after(FAR[name]), IMAGE, Placement(ONCE, SIZE, (230, 370))) == math.inf


COLORS = {
    'unchanged': lambda image: image,
    'RGB': lambda image: image[..., ::-1],
    'gray': lambda image: np.repeat(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], 3, 2),
    'negative': lambda image: 255 - image,
    'solarized': lambda image: np.where(image < 128, image, 255 - image),
    'posterized': lambda image: image & 0xC0,
    'gamma': lambda image: (255 * (image / 255) ** 3).astype(np.uint8),
    'dark': lambda image: image // 12,
    'equalized': lambda image: np.stack([cv2.equalizeHist(np.ascontiguousarray(image[..., k])) for k in range(3)], 2),
    'blurred': lambda image: cv2.GaussianBlur(image, (0, 0), 3),
    'noisy': lambda image: np.clip(image + np.random.default_rng(0).normal(0, 30, image.shape), 0, 255).astype('uint8'),
}


@pytest.mark.parametrize('name', COLORS)
def test_other_colors_are_no_move(name):
    inputs = input_after(np.eye(3), np.ascontiguousarray(COLORS[name](IMAGE)))
    normalized = (inputs - 116) / 57
    for channels in (normalized, normalized[:1]):
        assert misplacement(channels, IMAGE, Placement(ONCE, SIZE, (230, 370))) == 0


def test_what_cannot_be_compared_is_in_place():
    placement = Placement(np.eye(3), (5, 5), (5, 5))
    assert misplacement(np.eye(5, dtype=np.float32)[None], noise(5, 5), placement) == 0
    uniform = np.full_like(IMAGE, 50)
    assert misplacement(input_after(np.eye(3)), uniform, Placement(ONCE, SIZE, (230, 370))) == 0
    assert misplacement(input_after(np.eye(3), uniform), IMAGE, Placement(ONCE, SIZE, (230, 370))) == math.inf


def test_an_input_with_an_overflow_raises_nothing():
    inputs = input_after(np.eye(3))
    inputs[0, 40:60] = np.nan
    assert misplacement(inputs, IMAGE, Placement(ONCE, SIZE, (230, 370))) == 0
