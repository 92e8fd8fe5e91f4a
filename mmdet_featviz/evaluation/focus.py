"""Focus: the share of heat inside boxes, of one image and as means over many."""

from __future__ import annotations

from typing import Iterable, Mapping, NamedTuple

import numpy as np

from mmdet_featviz.evaluation.heat_measures import UNEVENNESS, heat_on_image, inside_boxes, is_constant, pixels_of
from mmdet_featviz.structures.boxes import NO_BOXES
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level

SIZES = ('small', 'medium', 'large')
AREAS = 32**2, 96**2  # COCO: a medium object begins with the first, a large one with the second
TOLERANCE = 15
FIGURES = ('energy', 'gain', 'hit')
UNDEFINED = -1.0  # as pycocotools says of a size that no object has


class Focus(NamedTuple):
    """How far a heatmap lies in boxes.

    Attributes:
        energy: Share of the heat inside the boxes, 0 to 1.
        share: Share of the image inside the boxes, 0 to 1: what heat without any preference would reach.
        hit: Whether the maximum lies in a box, 0 or 1; of several equal maxima the part that does.
    """

    energy: float
    share: float
    hit: float

    @property
    def gain(self) -> float:
        """How much more of the heat lies in the boxes than by chance."""
        return self.energy / self.share


class BoxRegions:
    """The boxes of one image, in groups that may overlap.

    What lies in ignored boxes does not count, neither as heat nor as a maximum nor as a part of the image, unless a
    box of the groups holds it too.

    Args:
        groups: Corners (N, 4) of the boxes of each group as left, top, right, bottom, in pixels of the image. A group
            that holds the centre of no pixel that counts is left out.
        ignored: Corners (M, 4) of the ignored boxes.
        seen: (height, width) bool: what the network saw of the image.
    """

    def __init__(self, groups: Mapping[str, np.ndarray], ignored: np.ndarray, seen: np.ndarray) -> None:
        self._width = seen.shape[1]
        masks = {name: inside_boxes(corners, seen.shape) for name, corners in groups.items()}
        boxed = np.any(list(masks.values()), axis=0) if masks else np.zeros(seen.shape, bool)
        counted = seen & (boxed | ~inside_boxes(ignored, seen.shape))
        # Numbers of pixels, not masks: most boxes are small, and a image has many levels.
        self._counted = np.flatnonzero(counted)
        inside = {name: np.flatnonzero(mask[counted]) for name, mask in masks.items()}
        self._inside = {name: numbers for name, numbers in inside.items() if len(numbers)}
        self._pixels = {name: pixels_of(groups[name], seen.shape) for name in self._inside}

    def focus(self, heat: np.ndarray, tolerance: float = TOLERANCE) -> dict[str, Focus]:
        """The figures of a heatmap (height, width) for each group, in float64.

        A constant heatmap has no preference: its figures are those of chance.

        Args:
            tolerance: How many pixels beside a box a maximum may lie.
        """
        if not self._inside:
            return {}
        counted = heat.ravel()
        if len(self._counted) < len(counted):
            counted = counted[self._counted]
        if is_constant(counted):
            energy = np.ones(counted.shape)
        else:
            energy = np.subtract(counted, counted.min(), dtype=np.float64)
        total, places = energy.sum(), self._maxima(counted)
        return {
            name: Focus(
                energy=float(energy[inside].sum() / total),
                share=len(inside) / len(counted),
                hit=float(_near(places, self._pixels[name], tolerance).mean()),
            )
            for name, inside in self._inside.items()
        }

    def _maxima(self, counted: np.ndarray) -> np.ndarray:
        """Columns and rows (K, 2) of the largest of the values that count; a plateau has many."""
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
    """The figures of all levels of a image for each group of boxes, by the name of the level.

    Args:
        levels: The levels.
        placement: Of the image.
        align: Where the values of cells sit.
        groups: Corners (N, 4) of the boxes of each group.
        ignored: Corners (M, 4) of the ignored boxes.
        tolerance: How many pixels beside a box a maximum may lie.
    """
    targets = BoxRegions(groups, ignored, placement.seen)
    return {level.name: targets.focus(heat_on_image(level, placement, align), tolerance) for level in levels}


class FocusTable(NamedTuple):
    """Means of figures over images.

    Attributes:
        images: How many had boxes.
        rows: {name of a level: {figure: {size: mean}}}, where ``all`` is a size, too; of sizes that any image had.
    """

    images: int
    rows: dict[str, dict[str, dict[str, float]]]


class FocusMeans:
    """Means of figures over images; holds sums, whatever the number of images.

    Attributes:
        images: How many had boxes.
    """

    def __init__(self) -> None:
        self.images = 0
        self._sums: dict[tuple[str, str, str], float] = {}
        self._counts: dict[tuple[str, str, str], int] = {}

    def add(self, figures: Mapping[str, Mapping[str, Focus]]) -> None:
        """Count an image in, with its figures by level and size."""
        self.images += any(figures.values())
        for level, sizes in figures.items():
            for size, focus in sizes.items():
                for figure in FIGURES:
                    place = level, figure, size
                    self._sums[place] = self._sums.get(place, 0.0) + getattr(focus, figure)
                    self._counts[place] = self._counts.get(place, 0) + 1

    def table(self) -> FocusTable:
        """The means."""
        rows: dict[str, dict[str, dict[str, float]]] = {}
        for (level, figure, size), total in self._sums.items():
            mean = total / self._counts[level, figure, size]
            rows.setdefault(level, {}).setdefault(figure, {})[size] = mean
        return FocusTable(self.images, rows)


def group_by_size(corners: np.ndarray) -> dict[str, np.ndarray]:
    """Boxes (N, 4) as those of small, medium and large objects, by the area of the box in pixels of the image."""
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
