"""Baselines: maps that know nothing of the detector, which a method must beat to explain anything."""

from __future__ import annotations

import zlib
from typing import Sequence

import cv2
import numpy as np

from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.targets import Target
from mmdet_featviz.registry import EXPLAINERS
from mmdet_featviz.structures.placement import Placement, placement_from_metas
from mmdet_featviz.structures.snapshot import Level

SPREAD = 0.25  # standard deviation of the central heat, in sizes of the image


@EXPLAINERS.register_module(name='random')
def random(batch: DetectorBatch, targets: Sequence[Target], cells: int = 16, seed: int = 0) -> list[list[Level]]:
    """A baseline: smooth random heat, another one for each target.

    Args:
        cells: Random numbers along each side, with linear interpolation between them.
        seed: Seed of the random numbers.
    """
    return [[_level(smooth_noise(_size(batch, target), target_rng(batch, target, seed), cells))] for target in targets]


@EXPLAINERS.register_module(name='centre')
def centre(batch: DetectorBatch, targets: Sequence[Target]) -> list[list[Level]]:
    """A baseline: heat in the middle of the image, as wide as a quarter of it (standard deviation)."""
    maps = []
    for target in targets:
        placement = _placement(batch, target)
        corners = _corners(placement, (0, 0, *placement.image_size[::-1]))
        middles, spreads = corners.mean(0), np.ptp(corners, axis=0) * SPREAD
        across, down = (
            np.exp(-(((np.arange(size) + 0.5 - middle) / spread) ** 2) / 2)
            for size, middle, spread in zip(placement.input_size[::-1], middles, spreads)
        )
        maps.append([_level(np.outer(down, across))])
    return maps


@EXPLAINERS.register_module(name='box')
def box(batch: DetectorBatch, targets: Sequence[Target]) -> list[list[Level]]:
    """A baseline: heat 1 in the explained box and 0 elsewhere."""
    maps = []
    for target in targets:
        corners = _corners(_placement(batch, target), target.bbox)
        height, width = _size(batch, target)
        (left, top), (right, bottom) = np.round(corners).clip(0, (width, height)).astype(int)
        heat = np.zeros((height, width))
        heat[top : max(bottom, top + 1), left : max(right, left + 1)] = 1  # at least one pixel
        maps.append([_level(heat)])
    return maps


def target_rng(batch: DetectorBatch, target: Target, seed: int) -> np.random.Generator:
    """Random numbers of a target: the same for its number and pixels in each run, whatever the weights."""
    pixels = batch.data['inputs'][target.image].contiguous().cpu().numpy()
    return np.random.default_rng([seed, target.number, zlib.crc32(pixels)])


def smooth_noise(size: tuple[int, int], rng: np.random.Generator, cells: int = 16) -> np.ndarray:
    """Random numbers on a grid of cells, 0 to 1, with linear interpolation between them: (H, W) float32.

    Args:
        size: Height and width of the result.
        rng: Random numbers.
        cells: Random numbers along each side.
    """
    return cv2.resize(rng.random((cells, cells), np.float32), size[::-1])


def _size(batch: DetectorBatch, target: Target) -> tuple[int, int]:
    """(height, width) of the network's input for the image of a target, without the padding of its batch."""
    height, width = batch.data['inputs'][target.image].shape[-2:]
    return height, width


def _placement(batch: DetectorBatch, target: Target) -> Placement:
    metas = batch.data['data_samples'][target.image].metainfo
    return placement_from_metas(metas, batch.data['inputs'][target.image])


def _corners(placement: Placement, bbox: Sequence[float]) -> np.ndarray:
    """Top left and bottom right corner (2, 2) of the smallest box in the input around a box of the image."""
    left, top, right, bottom = bbox
    points = np.array([[left, right, left, right], [top, top, bottom, bottom], [1, 1, 1, 1]], np.float64)
    x, y, depth = placement.matrix @ points
    corners = np.stack([x / depth, y / depth], 1)
    return np.stack([corners.min(0), corners.max(0)])


def _level(heat: np.ndarray) -> Level:
    return Level('input', 0, 3, (1.0, 1.0), heat.astype(np.float32))
