"""Focus: how far the heat of one photo lies in its boxes, in figures."""

from __future__ import annotations

from typing import Mapping, NamedTuple

import numpy as np

from .agreement import UNEVENNESS, inside_boxes, is_constant, pixels_of

SIZES = ('small', 'medium', 'large')
AREAS = 32**2, 96**2  # COCO: a medium object begins with the first, a large one with the second
TOLERANCE = 15


class Focus(NamedTuple):
    """How far a heatmap lies in boxes.

    Attributes:
        energy: Share of the heat inside the boxes, 0 to 1.
        share: Share of the photo inside the boxes, 0 to 1: what heat without any preference would reach.
        hit: Whether the maximum lies in a box, 0 or 1; of several equal maxima the part that does.
    """

    energy: float
    share: float
    hit: float

    @property
    def gain(self) -> float:
        """How much more of the heat lies in the boxes than by chance."""
        return self.energy / self.share


class Targets:
    """The boxes of one photo, in groups that may overlap.

    What lies in ignored boxes does not count, neither as heat nor as a maximum nor as a part of the photo, unless a
    box of the groups holds it too.

    Args:
        groups: Corners (N, 4) of the boxes of each group as left, top, right, bottom, in pixels of the photo. A group
            that holds the centre of no pixel that counts is left out.
        ignored: Corners (M, 4) of the ignored boxes.
        seen: (height, width) bool: what the network saw of the photo.
    """

    def __init__(self, groups: Mapping[str, np.ndarray], ignored: np.ndarray, seen: np.ndarray) -> None:
        size = seen.shape
        masks = {name: inside_boxes(corners, size) for name, corners in groups.items()}
        boxed = np.any(list(masks.values()), axis=0) if masks else np.zeros(size, bool)
        self.counted = seen & (boxed | ~inside_boxes(ignored, size))
        masks = {name: mask[self.counted] for name, mask in masks.items()}
        self.masks = {name: mask for name, mask in masks.items() if mask.any()}
        self.pixels = {name: pixels_of(groups[name], size) for name in self.masks}

    def focus(self, heat: np.ndarray, tolerance: float = TOLERANCE) -> dict[str, Focus]:
        """The figures of a heatmap (height, width) for each group, in float64.

        A constant heatmap has no preference: its figures are those of chance.

        Args:
            tolerance: How many pixels beside a box a maximum may lie.
        """
        counted = heat[self.counted].astype(np.float64)
        energy = np.ones_like(counted) if is_constant(counted) else counted - counted.min()
        total, places = energy.sum(), self._maxima(heat)
        return {
            name: Focus(
                energy=float(energy[mask].sum() / total),
                share=float(mask.mean()),
                hit=float(_near(places, self.pixels[name], tolerance).mean()),
            )
            for name, mask in self.masks.items()
        }

    def _maxima(self, heat: np.ndarray) -> np.ndarray:
        """Columns and rows (K, 2) of the largest values that count; a plateau has many."""
        low, high = (float(limit(heat[self.counted])) for limit in (np.min, np.max))
        least = high - UNEVENNESS * max(abs(low), abs(high))
        rows, columns = np.nonzero((heat >= least) & self.counted)
        return np.stack([columns, rows], axis=1)


def by_size(corners: np.ndarray) -> dict[str, np.ndarray]:
    """Boxes (N, 4) as those of small, medium and large objects, by the area of the box in pixels of the photo."""
    widths, heights = (corners[:, 2:] - corners[:, :2]).T
    sizes = np.digitize(widths * heights, AREAS)
    return {name: corners[sizes == number] for number, name in enumerate(SIZES)}


def _near(places: np.ndarray, pixels: np.ndarray, tolerance: float) -> np.ndarray:
    """Which pixels (K, 2) are at most so far from one (by their centres) in any of the boxes (N, 4): (K,) bool."""
    near = np.zeros(len(places), bool)
    for first, end in zip(pixels[:, :2], pixels[:, 2:]):
        if (first < end).all():
            beside = np.maximum(np.maximum(first - places, places - (end - 1)), 0)
            near |= (beside**2).sum(axis=1) <= tolerance**2
    return near
