"""Explanation: the maps of one target, merged into one heatmap on the image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Sequence

import numpy as np

from mmdet_featviz.explanation.targets import Target
from mmdet_featviz.structures.boxes import Boxes, class_names, label_name
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement, identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.point_drawing import draw_points
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import PlacedLevel, Views

# What differs from other pictures: zero heat has the first color of the color map, and the explained box is drawn.
LOOK = dict(normalize='max', border=0, boxes='both', score_thr=0.0, classes=None, save=('overlay',))


class SamplingPoint(NamedTuple):
    """A point that deformable attention looks at.

    Attributes:
        x, y: Position in pixels of the image; points may be outside, in padding.
        weight: Share of the attention, 0 to 1.
        level: Name of the level that it samples.
    """

    x: float
    y: float
    weight: float
    level: str


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the score or the box of one detection rests on.

    Only the maps on the grids of the levels are kept; heatmaps of the size of the image are computed when asked for.

    Attributes:
        target: What is explained.
        method: Name of the explainer.
        snapshot: The image, with the maps of this target as its levels, and the explained box. The ground-truth or
            drawn box is among the boxes too, as ground truth.
        style: How the overlay is drawn.
    """

    target: Target
    method: str
    snapshot: Snapshot = field(repr=False)
    style: Style = field(repr=False)

    @property
    def bbox(self) -> np.ndarray:
        """The explained box: (4,) float64: left, top, right, bottom, in pixels of the image."""
        return np.array(self.target.bbox, np.float64)

    @property
    def label(self) -> int:
        """Class index of the explained box."""
        return self.target.label

    @property
    def class_name(self) -> str:
        """Name of the class, or its index if the names are not known."""
        return label_name(self.label, class_names(self.snapshot.dataset_meta))

    @property
    def score(self) -> float:
        """Score of the explained box, 0 to 1."""
        return self.target.score

    @cached_property
    def levels(self) -> dict[str, float]:
        """Share of each level, by its name: its part of the heat of its layer, summed over cells.

        With several layers, each layer counts the same. The shares sum to 1, or are all 0 if all heat is 0.
        """
        return level_shares(self.snapshot.levels)

    @property
    def heatmap(self) -> np.ndarray:
        """The heat of all levels, on the image: (H, W) float32, at least 0.

        Each level adds heat in proportion to its share: heat per pixel is heat per cell divided by the area of a cell.
        With a single level, this is the heatmap of that level.
        """
        return merged_heat(self.snapshot.levels, self.snapshot.placement, self.style.align)

    @property
    def points(self) -> list[SamplingPoint]:
        """The points that deformable attention looks at; their weights sum to 1. Other methods have none."""
        levels = [level for level in self.snapshot.levels if level.points is not None]
        total = float(sum(level.points[:, 2].sum() for level in levels)) or 1.0
        return [
            SamplingPoint(x, y, weight / total, level.name)
            for level in levels
            for (x, y), weight in zip(
                self._grid(level).to_image(level.points[:, :2]).tolist(), level.points[:, 2].tolist()
            )
        ]

    def values(self, name: str) -> np.ndarray:
        """Return the map of one level, on its own grid: (rows, columns) float32, at least 0.

        Raises:
            KeyError: If no level has this name.
        """
        return self._level(name).values

    def level_heatmap(self, name: str) -> np.ndarray:
        """Return the heatmap of one level, on the image: (H, W) float32, at least 0.

        Raises:
            KeyError: If no level has this name.
        """
        level = self._level(name)
        return self._grid(level).heatmap(level.values)

    def overlay(self, name: str | None = None) -> np.ndarray:
        """Return the heatmap, colored, over the image, with the explained box: (H, W, 3) uint8, RGB.

        Sampling points are drawn as dots, whose areas are in proportion to their weights.

        Args:
            name: Draw only the level of this name. None draws all levels merged.

        Raises:
            ImageError: If the image cannot be read.
        """
        return np.ascontiguousarray(self.draw(name)[..., ::-1])

    def draw(self, name: str | None = None) -> np.ndarray:
        """As :meth:`overlay`, in BGR, with a color bar if the style has one: for writing it to a file."""
        size, placed = self.snapshot.placement.image_size, self.placed(name)
        (picture,) = Views(self.style).draw(replace(self.snapshot, levels=[placed.level]), [placed])
        return draw_points(picture.pixels, size, [point[:3] for point in self.points if name in (None, point.level)])

    def placed(self, name: str | None = None) -> PlacedLevel:
        """The heatmap laid over the image, with one cell per pixel; the snapshot says what the network saw.

        Args:
            name: Only the level of this name. None merges all levels.
        """
        heatmap = self.heatmap if name is None else self.level_heatmap(name)
        size = self.snapshot.placement.image_size
        level = Level('explanation', 0, 1, (1.0, 1.0), heatmap)
        placed = Views(self.style).place_level(level, identity_placement(size, size))
        return replace(placed, seen=self.snapshot.placement.seen)

    def _repr_png_(self) -> bytes:
        return encode_picture(self.draw(), 'explanation.png').tobytes()

    def __str__(self) -> str:
        shares = ', '.join(f'{name} {share:.0%}' for name, share in self.levels.items() if share)
        return f'{self.class_name} {self.score:.2f}, {self.target}, by {self.method}: {shares or "no heat"}'

    def _level(self, name: str) -> Level:
        for level in self.snapshot.levels:
            if level.name == name:
                return level
        raise KeyError(f'no level {name!r}: choose from {", ".join(level.name for level in self.snapshot.levels)}')

    def _grid(self, level: Level) -> Grid:
        return Grid(level.values.shape, level.stride, self.snapshot.placement, self.style.align, level.offset)


def level_shares(levels: Sequence[Level]) -> dict[str, float]:
    """Return the share of each level, by its name: see :attr:`Explanation.levels`."""
    sums = _sums(levels)
    totals: dict[str, float] = {}
    for level in levels:
        totals[level.layer] = totals.get(level.layer, 0.0) + sums[level.name]
    layers = sum(total > 0 for total in totals.values())
    return {
        level.name: sums[level.name] / totals[level.layer] / layers if totals[level.layer] else 0.0 for level in levels
    }


def merged_heat(levels: Sequence[Level], placement: Placement, align: str) -> np.ndarray:
    """Return the heat of all levels on an image: see :attr:`Explanation.heatmap`.

    Args:
        levels: The maps of one target.
        placement: Where the image lies in the network's input.
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.
    """
    merged = np.zeros(placement.image_size, np.float32)
    shares, sums = level_shares(levels), _sums(levels)
    used = [level for level in levels if shares[level.name]]
    smallest = min((_area(level) for level in used), default=1.0)
    for level in used:
        weight = shares[level.name] / sums[level.name] * sum(sums.values()) * smallest / _area(level)
        grid = Grid(level.values.shape, level.stride, placement, align, level.offset)
        merged += np.float32(weight) * grid.heatmap(level.values)
    return merged


def _sums(levels: Sequence[Level]) -> dict[str, float]:
    return {level.name: float(level.values.sum(dtype=np.float64)) for level in levels}


def _area(level: Level) -> float:
    """Area of a cell, in square pixels of the network's input."""
    return level.stride[0] * level.stride[1]


def explanation_of(
    target: Target, method: str, levels: Sequence[Level], snapshot: Snapshot, style: Style
) -> Explanation:
    """Return the explanation of a target in the image of a snapshot, whose own maps and boxes are left out."""
    own = replace(snapshot, levels=levels, attention=(), boxes=explained_boxes(target), ignored=None)
    return Explanation(target, method, own, style)


def explained_boxes(target: Target) -> Boxes:
    """The explained box, and as ground truth the box that it was chosen for, if there is one."""
    corners, scores = [target.bbox], [target.score]
    if target.wanted is not None:
        corners.insert(0, target.wanted)
        scores.insert(0, np.nan)
    labels = np.full(len(corners), target.label, np.int64)
    return Boxes(np.array(corners, np.float64), labels, np.array(scores))
