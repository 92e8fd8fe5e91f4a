"""Comparison scores: how well the heatmaps of runs agree with each other and with boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np

from mmdet_featviz.evaluation.heat_measures import correlation, energy_inside
from mmdet_featviz.evaluation.level_matching import LevelGroup, level_names
from mmdet_featviz.runs.run_names import LETTERS
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.visualization.colors import to_unit
from mmdet_featviz.visualization.value_ranges import union_of_ranges


@dataclass(frozen=True, eq=False)
class HeatmapGroup:
    """The heatmaps of a group of levels on one image.

    Attributes:
        heats: Heatmap of each run: (height, width), float32, all of the same size; None of a run without such a level.
        seen: (height, width) bool: which pixels all networks saw; pipelines may crop the image.
        one_scale: Whether their values can be compared, so that all are drawn in one range.
    """

    heats: Sequence[np.ndarray | None]
    seen: np.ndarray
    one_scale: bool = True

    @property
    def limits(self) -> list[tuple[float, float] | None]:
        """The range that each is drawn in: from the smallest to the largest value, of all or of its own."""
        own = [None if heat is None else (float(heat.min()), float(heat.max())) for heat in self.heats]
        if not self.one_scale:
            return own
        union = union_of_ranges(list(filter(None, own)))
        return [limits and union for limits in own]

    def difference(self, number: int) -> np.ndarray:
        """Run `number` minus the first run, float64; zero where one of the networks did not see the image.

        Without one scale, both are divided by their ranges first.
        """
        heats = self.heats[number], self.heats[0]
        if not self.one_scale:
            heats = [to_unit(heat, limits) for heat, limits in zip(heats, (self.limits[number], self.limits[0]))]
        return np.where(self.seen, np.subtract(*heats, dtype=np.float64), 0)


@dataclass(frozen=True)
class ComparisonScores:
    """How well the heatmaps of a group agree on one image; a score that is not defined is NaN.

    Attributes:
        correlations: Pearson's correlation of each further run with the first, -1 to 1; not defined if a heatmap is
            constant or missing.
        inside: For each run, share of its energy inside the boxes, 0 to 1; not defined if its heatmap is constant or
            missing.
        chance: Share of the image area inside the boxes, 0 to 1: the energy that uniform heat would have there.
    """

    correlations: tuple[float, ...]
    inside: tuple[float, ...]
    chance: float

    def named(self) -> dict[str, float]:
        """The scores by name: with two runs ``correlation``, ``inside_a``, ``inside_b`` and ``chance``."""
        correlations, inside = score_names(len(self.inside))
        return dict(zip((*correlations, *inside), (*self.correlations, *self.inside)), chance=self.chance)


def score_names(runs: int) -> tuple[list[str], list[str]]:
    """Names of the correlations with run A, and of the shares inside boxes: they end with the letter of the run.

    Args:
        runs: Number of runs. With two, the only correlation needs no letter.
    """
    letters = LETTERS[:runs].lower()
    correlations = [f'correlation_{letter}' for letter in letters[1:]] if runs > 2 else ['correlation']
    return correlations, [f'inside_{letter}' for letter in letters]


def reference_boxes(runs: Sequence[Boxes | None], score_thr: float) -> tuple[np.ndarray, str]:
    """Choose the boxes that all heatmaps are scored against: the first ground truth, else the predictions of A.

    Args:
        runs: Boxes of each run; None if it has none.
        score_thr: Smallest score of a prediction.

    Returns:
        Corners (N, 4), with N = 0 if there are no boxes, and a description of the boxes.
    """
    for boxes in runs:
        if boxes is not None and boxes.are_truth.any():
            return boxes[boxes.are_truth].corners, 'ground truth'
    if runs[0] is None:
        return np.zeros((0, 4)), 'none'
    predictions = runs[0][~runs[0].are_truth]
    predictions = predictions[predictions.scores >= score_thr]
    source = f'predictions of A with a score of at least {score_thr:g}' if len(predictions) else 'none'
    return predictions.corners, source


def score_group(group: HeatmapGroup, inside: np.ndarray | None) -> ComparisonScores:
    """Score a group of heatmaps on one image. Only pixels that all networks saw count.

    Args:
        group: The heatmaps.
        inside: (height, width) bool: which pixels are inside boxes; None without boxes.
    """
    first, *others = heats = [None if heat is None else heat[group.seen] for heat in group.heats]
    correlations = tuple(math.nan if heat is None else correlation(first, heat) for heat in others)
    if inside is None or not group.seen.any():
        return ComparisonScores(correlations, (math.nan,) * len(heats), math.nan)
    inside = inside[group.seen]
    shares = tuple(math.nan if heat is None else energy_inside(heat, inside) for heat in heats)
    return ComparisonScores(correlations, shares, float(inside.mean()))


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
    """Averages the scores of each group of levels over images and passes. Keeps only sums: memory does not grow."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str | None, ...], dict[str, Any]] = {}

    def add(self, group: LevelGroup, scores: ComparisonScores, key: str) -> None:
        """Add the scores of a group in one pass over an image; scores that are NaN do not count.

        Args:
            group: The levels.
            scores: Their scores.
            key: Image key. Passes over one image follow each other, and it counts as one.
        """
        named = scores.named()
        row = self._rows.setdefault(
            level_names(group),
            dict(stride=group[0].stride_text, images=_Mean(), scores={name: _Mean() for name in named}),
        )
        row['images'].add(1.0, key)
        for name, value in named.items():
            if not math.isnan(value):
                row['scores'][name].add(value, key)

    def rows(self) -> list[dict[str, Any]]:
        """The means of each group of levels.

        Returns:
            For each group: ``level_a``, ``level_b`` and so on (None where a run has no such level), ``stride``,
            ``images`` (their number), and for each score its ``mean`` (None if it was never defined) and the number of
            ``images`` that it was defined for.
        """
        return [
            dict(
                **{f'level_{letter}': name for letter, name in zip(LETTERS.lower(), names)},
                stride=row['stride'],
                images=row['images'].images,
                **{name: mean.as_dict() for name, mean in row['scores'].items()},
            )
            for names, row in self._rows.items()
        ]
