"""Contrast: how much hotter a heatmap is inside a box than in the ring around it."""

from __future__ import annotations

import math
from typing import Iterable

import numpy as np

from mmdet_featviz.evaluation.heat_measures import heat_on_image, inside_boxes, is_constant, pixel_ranges
from mmdet_featviz.structures.boxes import NO_BOXES
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level

RING = 0.5  # width of the ring, in sides of the box


def measure_contrasts(
    levels: Iterable[Level], placement: Placement, align: str, corners: np.ndarray, ignored: np.ndarray = NO_BOXES
) -> dict[str, np.ndarray]:
    """Measure the contrast of each box at each level: the mean heat inside the box minus that in the ring around it.

    The ring is half as wide as the box on each side, but at least a cell of the level, so that inside and ring are not
    the same cell. It leaves out the pixels of all boxes and those that the network did not see. An activation map has
    no unit: its contrast is divided by the standard deviation of the heatmap over the image. That of a class-score map
    is a difference of probabilities.

    Args:
        levels: The levels of one image.
        placement: Where the image is in the network's input.
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.
        corners: (N, 4): the boxes, in pixels of the image.
        ignored: (M, 4): further boxes that rings leave out, such as crowds.

    Returns:
        {name of a level: (N,) float64}; 0 for a constant heatmap, NaN for a box without pixels inside or in its ring.
    """
    seen, scale = placement.seen, _scale(placement)
    background = seen & ~inside_boxes(np.concatenate([corners, ignored]), seen.shape)
    contrasts = {}
    for level in levels:
        heat = heat_on_image(level, placement, align)
        unit = 1.0 if level.score_of is not None else heat[seen].std(dtype=np.float64)
        if is_constant(heat[seen]):
            heat, unit = np.zeros_like(heat), 1.0
        cell = level.stride[::-1] / scale
        differences = [_difference(heat, box, cell, seen, background) for box in corners]
        contrasts[level.name] = np.array(differences, float) / unit
    return contrasts


def _difference(heat: np.ndarray, box: np.ndarray, cell: np.ndarray, seen: np.ndarray, background: np.ndarray) -> float:
    """Mean inside a box minus mean in its ring.

    Args:
        heat: (height, width): the heatmap.
        box: (4,): the box.
        cell: (horizontal, vertical) size of a cell, in pixels of the image.
        seen: (height, width) bool: which pixels the network saw.
        background: (height, width) bool: which of them are in no box.
    """
    width = np.maximum(RING * (box[2:] - box[:2]), cell)
    in_box, around = (
        _pixels(corners, heat.shape) for corners in (box, np.concatenate([box[:2] - width, box[2:] + width]))
    )
    inside, ring = heat[in_box][seen[in_box]], heat[around][background[around]]
    if not inside.size or not ring.size:
        return math.nan
    return inside.mean(dtype=np.float64) - ring.mean(dtype=np.float64)


def _pixels(box: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels of a box."""
    left, top, right, bottom = pixel_ranges(box[None], size)[0].tolist()
    return slice(top, bottom), slice(left, right)


def _scale(placement: Placement) -> np.ndarray:
    """Pixels of the network's input per pixel of the image, (horizontal, vertical), at the image's center."""
    height, width = placement.image_size
    center = np.array([width / 2, height / 2])
    moved = [_to_input(placement, center + step) for step in ((0, 0), (1, 0), (0, 1))]
    return np.array([np.linalg.norm(moved[1] - moved[0]), np.linalg.norm(moved[2] - moved[0])])


def _to_input(placement: Placement, point: np.ndarray) -> np.ndarray:
    x, y, depth = placement.matrix @ [*point, 1.0]
    return np.array([x, y]) / depth
