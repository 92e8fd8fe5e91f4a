"""Agreement: which levels of two runs are partners, and how far their heatmaps agree, in figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import numpy as np

from .boxes import Boxes
from .geometry import Grid, Placement
from .snapshots import Level
from .views import finite_heat

# What makes two levels partners, the strictest first.
MATCHES = (
    lambda level: (level.layer, level.level, level.stride_text),
    lambda level: (level.layer, level.stride_text),
    lambda level: level.stride_text,
)
# Interpolation in float32 leaves a constant map so uneven, as a part of its value: this is no signal.
UNEVENNESS = 1e-6


@dataclass(frozen=True, eq=False)
class Pair:
    """A level of run A and its partner of run B."""

    a: Level
    b: Level

    @property
    def names(self) -> tuple[str, str]:
        return self.a.name, self.b.name


@dataclass(frozen=True, eq=False)
class Heats:
    """The heatmaps of a pair over one photo.

    Attributes:
        a: (height, width) float32.
        b: The same of run B.
        seen: (height, width) bool: what both networks saw of the photo. Pipelines may cut some of it away.
    """

    a: np.ndarray
    b: np.ndarray
    seen: np.ndarray

    @property
    def limits(self) -> tuple[float, float]:
        """The range that holds both."""
        return min(float(self.a.min()), float(self.b.min())), max(float(self.a.max()), float(self.b.max()))

    @property
    def difference(self) -> np.ndarray:
        """B - A, float64; zero where not both saw the photo."""
        return np.where(self.seen, np.subtract(self.b, self.a, dtype=np.float64), 0)


@dataclass(frozen=True)
class Figures:
    """How far a pair agrees on one image, NaN where that is not defined.

    Attributes:
        correlation: Pearson's, -1 to 1.
        inside_a: Share of the energy of A inside the boxes, 0 to 1.
        inside_b: The same of B.
        chance: Share of the photo inside the boxes: what heat without any preference would reach.
    """

    correlation: float
    inside_a: float
    inside_b: float
    chance: float


def match_levels(a: Sequence[Level], b: Sequence[Level]) -> tuple[list[Pair], list[Level], list[Level]]:
    """Find the partner of each level.

    Partners are of one stride: of one layer and number where there are such, else of one layer, else of any.

    Returns:
        The pairs in the order of A, and what has no partner in A and in B.
    """
    pairs, alone_a, alone_b = [], list(a), list(b)
    for key in MATCHES:
        for level in list(alone_a):
            partner = next((other for other in alone_b if key(other) == key(level)), None)
            if partner is not None:
                pairs.append(Pair(level, partner))
                alone_a.remove(level)
                alone_b.remove(partner)
    order = {level.name: number for number, level in enumerate(a)}
    return sorted(pairs, key=lambda pair: order[pair.a.name]), alone_a, alone_b


def heat_on_photo(level: Level, placement: Placement, align: str) -> np.ndarray:
    """Bring a level onto its photo.

    Returns:
        The heatmap (height, width) float32, in which what is not finite or was not seen is as cold as the coldest
        visible value.
    """
    grid = Grid(level.values.shape, level.stride, placement, align)
    heat, lowest = finite_heat(level.values, grid)
    return np.where(placement.seen, heat, lowest)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two heatmaps of one shape, in float64; NaN if one is constant."""
    if is_constant(a) or is_constant(b):
        return math.nan
    a, b = (heat.astype(np.float64).ravel() - heat.mean(dtype=np.float64) for heat in (a, b))
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))


def energy_inside(heat: np.ndarray, inside: np.ndarray) -> float:
    """Share of a heatmap's energy that lies inside the boxes, 0 to 1.

    The energy-based pointing game of Wang et al., Score-CAM, CVPR Workshops 2020: the heat, normalised to begin at
    zero, inside the boxes over all of it. (That its largest value becomes one cancels out.) NaN for a constant heatmap:
    it has no heat above its minimum that could lie anywhere.

    Args:
        heat: Of any shape.
        inside: The same shape, bool.
    """
    if is_constant(heat):
        return math.nan
    energy = heat.astype(np.float64) - heat.min()
    return float(energy[inside].sum() / energy.sum())


def inside_boxes(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which pixels of a photo have their centre in any of the boxes.

    Args:
        corners: (N, 4) as left, top, right, bottom, in pixels of the photo.
        size: (height, width) of the photo.

    Returns:
        (height, width) bool.
    """
    inside = np.zeros(size, bool)
    for left, top, right, bottom in pixels_of(corners, size).tolist():
        inside[top:bottom, left:right] = True
    return inside


def pixels_of(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which pixels of a photo have their centre in each box.

    Args:
        corners: (N, 4) as left, top, right, bottom, in pixels of the photo.
        size: (height, width) of the photo.

    Returns:
        (N, 4) int: first column and row, and those behind the last.
    """
    height, width = size
    return np.clip(np.ceil(corners - 0.5), 0, [width, height, width, height]).astype(int)


def reference_boxes(a: Boxes | None, b: Boxes | None, score_thr: float) -> tuple[np.ndarray, str]:
    """The boxes that heat should lie in: ground truth of either run, else what A predicts.

    Args:
        a: Boxes of run A.
        b: Boxes of run B.
        score_thr: Smallest score of a prediction.

    Returns:
        Corners (N, 4), N = 0 if there are no boxes, and what they are.
    """
    for boxes in (a, b):
        if boxes is not None and boxes.are_truth.any():
            return boxes[boxes.are_truth].corners, 'ground truth'
    if a is None:
        return np.zeros((0, 4)), 'none'
    found = a[~a.are_truth]
    found = found[found.scores >= score_thr]
    return found.corners, f'predictions of A with a score of at least {score_thr:g}' if len(found) else 'none'


def figures_of(heats: Heats, inside: np.ndarray | None) -> Figures:
    """The figures of a pair on one image.

    Args:
        heats: Both heatmaps.
        inside: (height, width) bool, from :func:`inside_boxes`; None without boxes.
    """
    a, b = heats.a[heats.seen], heats.b[heats.seen]
    if inside is None or not a.size:
        return Figures(correlation(a, b), math.nan, math.nan, math.nan)
    inside = inside[heats.seen]
    return Figures(correlation(a, b), energy_inside(a, inside), energy_inside(b, inside), float(inside.mean()))


def is_constant(heat: np.ndarray) -> bool:
    """Whether a heatmap is nowhere warmer than elsewhere, but for errors of rounding."""
    if not heat.size:
        return True
    low, high = float(heat.min()), float(heat.max())
    return high - low <= UNEVENNESS * max(abs(low), abs(high))
