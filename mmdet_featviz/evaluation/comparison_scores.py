"""Comparison scores: how well the heatmaps of two runs agree with each other and with boxes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from mmdet_featviz.evaluation.heat_measures import correlation, energy_inside
from mmdet_featviz.evaluation.level_matching import LevelPair
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.visualization.colors import to_unit
from mmdet_featviz.visualization.value_ranges import union_of_ranges


@dataclass(frozen=True, eq=False)
class HeatmapPair:
    """The heatmaps of a pair of levels on one image.

    Attributes:
        a: Heatmap of run A: (height, width), float32.
        b: Heatmap of run B, of the same size.
        seen: (height, width) bool: which pixels both networks saw; pipelines may crop the image.
        one_scale: Whether their values can be compared, so that both are drawn in one range.
    """

    a: np.ndarray
    b: np.ndarray
    seen: np.ndarray
    one_scale: bool = True

    @property
    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The ranges in which A and B are drawn: from the smallest to the largest value, of both or of each."""
        own = [(float(heat.min()), float(heat.max())) for heat in (self.a, self.b)]
        return (union_of_ranges(own),) * 2 if self.one_scale else tuple(own)

    @property
    def difference(self) -> np.ndarray:
        """B - A, float64; zero where one of the networks did not see the image.

        Without one scale, both are divided by their ranges first.
        """
        heats = self.a, self.b
        if not self.one_scale:
            heats = [to_unit(heat, limits) for heat, limits in zip(heats, self.limits)]
        return np.where(self.seen, np.subtract(heats[1], heats[0], dtype=np.float64), 0)


@dataclass(frozen=True)
class ComparisonScores:
    """How well the heatmaps of a pair agree on one image; a score that is not defined is NaN.

    Attributes:
        correlation: Pearson's correlation, -1 to 1; not defined if a heatmap is constant.
        inside_a: Share of the energy of A inside the boxes, 0 to 1; not defined if A is constant.
        inside_b: The same for B.
        chance: Share of the image area inside the boxes, 0 to 1: the energy that uniform heat would have there.
    """

    correlation: float
    inside_a: float
    inside_b: float
    chance: float


def reference_boxes(a: Boxes | None, b: Boxes | None, score_thr: float) -> tuple[np.ndarray, str]:
    """Choose the boxes that both heatmaps are scored against: the ground truth of A or B, else the predictions of A.

    Args:
        a: Boxes of run A; None if it has none.
        b: Boxes of run B; None if it has none.
        score_thr: Smallest score of a prediction.

    Returns:
        Corners (N, 4), with N = 0 if there are no boxes, and a description of the boxes.
    """
    for boxes in (a, b):
        if boxes is not None and boxes.are_truth.any():
            return boxes[boxes.are_truth].corners, 'ground truth'
    if a is None:
        return np.zeros((0, 4)), 'none'
    predictions = a[~a.are_truth]
    predictions = predictions[predictions.scores >= score_thr]
    source = f'predictions of A with a score of at least {score_thr:g}' if len(predictions) else 'none'
    return predictions.corners, source


def score_pair(heats: HeatmapPair, inside: np.ndarray | None) -> ComparisonScores:
    """Score a pair of heatmaps on one image. Only pixels that both networks saw count.

    Args:
        heats: Both heatmaps.
        inside: (height, width) bool: which pixels are inside boxes; None without boxes.
    """
    a, b = heats.a[heats.seen], heats.b[heats.seen]
    if inside is None or not a.size:
        return ComparisonScores(correlation(a, b), math.nan, math.nan, math.nan)
    inside = inside[heats.seen]
    return ComparisonScores(correlation(a, b), energy_inside(a, inside), energy_inside(b, inside), float(inside.mean()))


@dataclass
class _Mean:
    """Mean of a score over passes, and the number of images that these are of."""

    total: float = 0.0
    passes: int = 0
    images: int = 0
    last_key: str | None = None

    def add(self, value: float, key: str) -> None:
        self.total += value
        self.passes += 1
        self.images += key != self.last_key
        self.last_key = key

    def as_dict(self) -> dict[str, Any]:
        return dict(mean=self.total / self.passes if self.passes else None, images=self.images)


class ScoreMeans:
    """Averages the scores of each pair of levels over images and passes. Keeps only sums: memory does not grow."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, pair: LevelPair, scores: ComparisonScores, key: str) -> None:
        """Add the scores of a pair in one pass over an image; scores that are NaN do not count.

        Args:
            pair: The levels.
            scores: Their scores.
            key: Image key. Passes over one image follow each other, and it counts as one.
        """
        means = {field.name: _Mean() for field in fields(ComparisonScores)}
        row = self._rows.setdefault(pair.names, dict(stride=pair.a.stride_text, images=_Mean(), **means))
        for name, value in dict(images=1.0, **asdict(scores)).items():
            if not math.isnan(value):
                row[name].add(value, key)

    def rows(self) -> list[dict[str, Any]]:
        """The means of each pair of levels.

        Returns:
            For each pair: ``level_a``, ``level_b``, ``stride``, ``images`` (their number), and for each score its
            ``mean`` (None if it was never defined) and the number of ``images`` that it was defined for.
        """
        return [
            dict(
                level_a=level_a,
                level_b=level_b,
                stride=row['stride'],
                images=row['images'].images,
                **{field.name: row[field.name].as_dict() for field in fields(ComparisonScores)},
            )
            for (level_a, level_b), row in self._rows.items()
        ]
