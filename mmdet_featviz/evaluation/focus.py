"""Focus: the share of heat inside boxes of small, medium and large objects, for one image and averaged over images."""

from __future__ import annotations

from typing import Iterable, Mapping, NamedTuple

import numpy as np

from mmdet_featviz.evaluation.heat_measures import (
    UNEVENNESS,
    heat_above_floor,
    heat_on_image,
    inside_boxes,
    pixel_ranges,
)
from mmdet_featviz.structures.boxes import NO_BOXES
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level

SIZES = ('small', 'medium', 'large')
SIZE_LIMITS = 32**2, 96**2  # as in COCO: areas from which an object is medium and large
TOLERANCE = 15  # pixels, as in the pointing game
MEASURES = ('energy', 'gain', 'hit')
UNDEFINED = -1.0  # what pycocotools reports for a size without objects


class Focus(NamedTuple):
    """How well a heatmap matches boxes.

    Attributes:
        energy: Share of the heat inside the boxes, 0 to 1.
        share: Share of the image area inside the boxes, 0 to 1. Uniform heat has this energy.
        hit: Whether the maximum is in or near a box, 0 or 1. With several equal maxima: the share of them that is.
    """

    energy: float
    share: float
    hit: float

    @property
    def gain(self) -> float:
        """Energy divided by the energy of uniform heat; 1 is chance."""
        return self.energy / self.share


class BoxRegions:
    """The boxes of one image, in groups that may overlap, as sets of pixels.

    Pixels that the network did not see do not count: not as heat, not as a maximum, not as image area. Neither do
    pixels in ignored boxes, unless they are also in a box of a group.

    Args:
        groups: Name and corners (N, 4) of the boxes of each group: left, top, right, bottom, in pixels of the image. A
            group without any pixel that counts is left out. A pixel is in a box if its center is.
        ignored: Corners (M, 4) of the ignored boxes.
        seen: (height, width) bool: which pixels of the image the network saw.
    """

    def __init__(self, groups: Mapping[str, np.ndarray], ignored: np.ndarray, seen: np.ndarray) -> None:
        self._width = seen.shape[1]
        masks = {name: inside_boxes(corners, seen.shape) for name, corners in groups.items()}
        boxed = np.any(list(masks.values()), axis=0) if masks else np.zeros(seen.shape, bool)
        counted = seen & (boxed | ~inside_boxes(ignored, seen.shape))
        # Indices of pixels instead of masks: most boxes are small, and an image has many levels.
        self._counted = np.flatnonzero(counted)
        inside = {name: np.flatnonzero(mask[counted]) for name, mask in masks.items()}
        self._inside = {name: indices for name, indices in inside.items() if len(indices)}
        self._ranges = {name: pixel_ranges(groups[name], seen.shape) for name in self._inside}

    def focus(self, heat: np.ndarray, tolerance: float = TOLERANCE) -> dict[str, Focus]:
        """Measure a heatmap against each group of boxes, in float64.

        A constant heatmap gets the values of chance: its energy is the boxes' share of the image.

        Args:
            heat: (height, width): the heatmap.
            tolerance: Largest distance of a maximum from a box, in pixels, that still counts as a hit.

        Returns:
            The focus of each group, by its name.
        """
        if not self._inside:
            return {}
        counted = heat.ravel()
        if len(self._counted) < len(counted):
            counted = counted[self._counted]
        energy = heat_above_floor(counted)
        if energy is None:
            energy = np.ones(counted.shape)
        total, maxima = energy.sum(), self._maxima(counted)
        return {
            name: Focus(
                energy=float(energy[inside].sum() / total),
                share=len(inside) / len(counted),
                hit=float(_are_near(maxima, self._ranges[name], tolerance).mean()),
            )
            for name, inside in self._inside.items()
        }

    def _maxima(self, counted: np.ndarray) -> np.ndarray:
        """Columns and rows (K, 2) of the pixels with the largest value; a plateau has several."""
        low, high = counted.min(), counted.max()
        largest = np.flatnonzero(counted >= high - UNEVENNESS * max(abs(low), abs(high)))
        rows, columns = np.divmod(self._counted[largest], self._width)
        return np.stack([columns, rows], axis=1)


def measure_focus(
    levels: Iterable[Level],
    placement: Placement,
    align: str,
    groups: Mapping[str, np.ndarray],
    ignored: np.ndarray = NO_BOXES,
    tolerance: float = TOLERANCE,
) -> dict[str, dict[str, Focus]]:
    """Measure the focus of all levels of one image.

    Args:
        levels: The levels.
        placement: Where the image is in the network's input.
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.
        groups: Name and corners (N, 4) of each group of boxes, in pixels of the image.
        ignored: Corners (M, 4) of the ignored boxes.
        tolerance: Largest distance of a maximum from a box, in pixels, that still counts as a hit.

    Returns:
        ``{level: {group: Focus}}``.
    """
    regions = BoxRegions(groups, ignored, placement.seen)
    return {level.name: regions.focus(heat_on_image(level, placement, align), tolerance) for level in levels}


class FocusTable(NamedTuple):
    """Means of the focus measures over images.

    Attributes:
        images: Number of images with boxes.
        rows: ``{level: {measure: {size: mean}}}``, with the size ``all`` for boxes of any size. Sizes that no image has
            are missing.
    """

    images: int
    rows: dict[str, dict[str, dict[str, float]]]


class FocusMeans:
    """Averages the focus of images. Keeps only sums, so memory does not grow with the number of images.

    Attributes:
        images: Number of images with boxes so far.
    """

    def __init__(self) -> None:
        self.images = 0
        self._sums: dict[tuple[str, str, str], float] = {}
        self._counts: dict[tuple[str, str, str], int] = {}

    def add(self, levels: Mapping[str, Mapping[str, Focus]]) -> None:
        """Add an image, given as ``{level: {size: Focus}}``."""
        self.images += any(levels.values())
        for level, sizes in levels.items():
            for size, focus in sizes.items():
                for measure in MEASURES:
                    cell = level, measure, size
                    self._sums[cell] = self._sums.get(cell, 0.0) + getattr(focus, measure)
                    self._counts[cell] = self._counts.get(cell, 0) + 1

    def table(self) -> FocusTable:
        """The means over all images added so far."""
        rows: dict[str, dict[str, dict[str, float]]] = {}
        for (level, measure, size), total in self._sums.items():
            mean = total / self._counts[level, measure, size]
            rows.setdefault(level, {}).setdefault(measure, {})[size] = mean
        return FocusTable(self.images, rows)


def group_by_size(corners: np.ndarray) -> dict[str, np.ndarray]:
    """Split boxes (N, 4) into small, medium and large ones, by their area in pixels of the image."""
    sizes = sizes_of(corners)
    return {name: corners[sizes == index] for index, name in enumerate(SIZES)}


def sizes_of(corners: np.ndarray) -> np.ndarray:
    """Index in `SIZES` (N,) of each box (N, 4), by its area in pixels of the image."""
    widths, heights = (corners[:, 2:] - corners[:, :2]).T
    return np.digitize(widths * heights, SIZE_LIMITS)


def _are_near(pixels: np.ndarray, ranges: np.ndarray, tolerance: float) -> np.ndarray:
    """Which pixels are at most `tolerance` pixels from a box, between centers.

    Args:
        pixels: (K, 2): columns and rows.
        ranges: (N, 4): the pixels of each box, from :func:`pixel_ranges`.
        tolerance: Largest distance in pixels.

    Returns:
        (K,) bool.
    """
    near = np.zeros(len(pixels), bool)
    for first, end in zip(ranges[:, :2], ranges[:, 2:]):
        if (first < end).all():
            distance = np.maximum(np.maximum(first - pixels, pixels - (end - 1)), 0)
            near |= (distance**2).sum(axis=1) <= tolerance**2
    return near
