"""Scores of a comparison: how well two heatmaps agree."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from mmdet_featviz.evaluation.heat_measures import correlation, energy_inside
from mmdet_featviz.evaluation.level_matching import LevelPair
from mmdet_featviz.structures.boxes import Boxes


@dataclass(frozen=True, eq=False)
class HeatmapPair:
    """The heatmaps of a pair over one image.

    Attributes:
        a: (height, width) float32.
        b: The same of run B.
        seen: (height, width) bool: what both networks saw of the image. Pipelines may cut some of it away.
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
        """B - A, float64; zero where not both saw the image."""
        return np.where(self.seen, np.subtract(self.b, self.a, dtype=np.float64), 0)


@dataclass(frozen=True)
class ComparisonScores:
    """How far a pair agrees on one image, NaN where that is not defined.

    Attributes:
        correlation: Pearson's, -1 to 1.
        inside_a: Share of the energy of A inside the boxes, 0 to 1.
        inside_b: The same of B.
        chance: Share of the image inside the boxes: what heat without any preference would reach.
    """

    correlation: float
    inside_a: float
    inside_b: float
    chance: float


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


def score_pair(heats: HeatmapPair, inside: np.ndarray | None) -> ComparisonScores:
    """The figures of a pair on one image.

    Args:
        heats: Both heatmaps.
        inside: (height, width) bool, from :func:`inside_boxes`; None without boxes.
    """
    a, b = heats.a[heats.seen], heats.b[heats.seen]
    if inside is None or not a.size:
        return ComparisonScores(correlation(a, b), math.nan, math.nan, math.nan)
    inside = inside[heats.seen]
    return ComparisonScores(correlation(a, b), energy_inside(a, inside), energy_inside(b, inside), float(inside.mean()))


class ScoreMeans:
    """Means of the figures of each pair of levels; holds sums, whatever the number of images."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, pair: LevelPair, figures: ComparisonScores) -> None:
        empty = {field.name: (0.0, 0) for field in fields(ComparisonScores)}
        row = self._rows.setdefault(pair.names, dict(stride=pair.a.stride_text, images=0, **empty))
        row['images'] += 1
        for name, value in asdict(figures).items():
            if not math.isnan(value):
                total, count = row[name]
                row[name] = total + value, count + 1

    def rows(self) -> list[dict[str, Any]]:
        """For each pair its levels and stride, its number of images, and of each figure the mean (None if it is never
        defined) and how many images entered."""
        return [
            dict(
                level_a=level_a,
                level_b=level_b,
                stride=row['stride'],
                images=row['images'],
                **{field.name: _mean(*row[field.name]) for field in fields(ComparisonScores)},
            )
            for (level_a, level_b), row in self._rows.items()
        ]


def _mean(total: float, count: int) -> dict[str, Any]:
    return dict(mean=total / count if count else None, images=count)
