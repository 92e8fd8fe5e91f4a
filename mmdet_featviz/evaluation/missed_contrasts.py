"""Missed contrasts: the mean contrast of found and of missed objects by level and size, with intervals."""

from __future__ import annotations

import math
from collections import Counter
from typing import Iterator, NamedTuple, Sequence

import numpy as np

from mmdet_featviz.evaluation.bootstrap import CONFIDENCE, percentile_interval, resamples
from mmdet_featviz.evaluation.detection_errors import NONE
from mmdet_featviz.evaluation.error_records import ErrorRecord, box_sizes, level_names
from mmdet_featviz.evaluation.focus import SIZES

ALL_SIZES = ('all', *SIZES)
LEAST_IMAGES = 5  # that have such objects: an interval from fewer would say too much


class Estimate(NamedTuple):
    """A mean over objects, with an interval that holds it with a confidence of 95 %.

    Attributes:
        mean: The mean; NaN without objects.
        low, high: The interval; NaN if objects of fewer than five images enter.
        objects: Number of objects.
    """

    mean: float
    low: float
    high: float
    objects: int


class ContrastRow(NamedTuple):
    """The contrast of the objects of one size at one level.

    Attributes:
        level: Name of the level.
        size: One of `ALL_SIZES`.
        found: Mean over the found objects.
        missed: Mean over the missed objects.
        difference: Found minus missed.
        falls_behind: Whether missed objects have less contrast than found ones with a confidence of 97.5 % for all
            levels of this kind and size together: the more levels, the wider the interval that must lie above 0
            (Bonferroni's correction).
    """

    level: str
    size: str
    found: Estimate
    missed: Estimate
    difference: Estimate
    falls_behind: bool


def compare_contrasts(records: Sequence[ErrorRecord], score: float) -> list[ContrastRow]:
    """Compare the contrasts of found and missed objects, by level and object size.

    Intervals are bootstrap percentiles: images are drawn with replacement, with all their objects, as objects of one
    image are alike.

    Args:
        records: The records of the data set.
        score: Smallest score of a prediction that finds an object.

    Returns:
        A row for each level and size that has found and missed objects.
    """
    groups = [(level, size) for level in level_names(records) for size in ALL_SIZES]
    if not groups:
        return []
    sums, counts = _sums_by_image(records, groups, score)
    shown = np.flatnonzero(counts.any(axis=0).all(axis=1))
    sums, counts = sums[:, shown], counts[:, shown]
    draws = np.concatenate(list(_draws(sums, counts)))
    means = _ratio(sums.sum(axis=0), counts.sum(axis=0))
    has_interval = (counts > 0).sum(axis=0) >= LEAST_IMAGES
    kinds = Counter((is_score(groups[group][0]), groups[group][1]) for group in shown)
    rows = []
    for index, group in enumerate(shown):
        level, size = groups[group]
        objects = counts[:, index].sum(axis=0)
        found, missed = (
            _estimate(means[index, side], draws[:, index, side], has_interval[index, side], objects[side])
            for side in range(2)
        )
        difference = draws[:, index, 0] - draws[:, index, 1]
        gap = _estimate(found.mean - missed.mean, difference, has_interval[index].all(), objects.sum())
        share = (1 - CONFIDENCE) / 2 / kinds[is_score(level), size]
        falls_behind = not math.isnan(gap.low) and bool(np.nanquantile(difference, share) > 0)
        rows.append(ContrastRow(level, size, found, missed, gap, falls_behind))
    return rows


def largest_differences(rows: Sequence[ContrastRow], size: str) -> tuple[ContrastRow | None, ContrastRow | None]:
    """Find where missed objects fall behind found ones most, among the features and among the class-score maps.

    Of the score maps of a head with several levels only the merged one is asked: within a size, too, missed objects may
    belong to another level than found ones.

    Args:
        rows: The rows of all levels.
        size: One of `ALL_SIZES`.

    Returns:
        The rows of the largest differences; None where no missed object falls behind clearly.
    """
    merged = any('.merged_scores_' in row.level for row in rows)
    behind = [row for row in rows if row.size == size and row.falls_behind]
    features = [row for row in behind if not is_score(row.level)]
    scores = [row for row in behind if is_score(row.level) and (not merged or '.merged_scores_' in row.level)]
    first, second = (max(kind, key=lambda row: row.difference.mean, default=None) for kind in (features, scores))
    return first, second


def is_score(level: str) -> bool:
    """Whether a level is a class-score map, by its name."""
    return level.rpartition('_')[0].endswith(('.scores', '.merged_scores'))


def _sums_by_image(
    records: Sequence[ErrorRecord], groups: Sequence[tuple[str, str]], score: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of contrasts (images, groups, 2): of found objects, and of missed ones."""
    sums, counts = (np.zeros((len(records), len(groups), 2)) for _ in range(2))
    for image, record in enumerate(records):
        are_missed = record.errors.above(score).found_by == NONE
        sizes = box_sizes(record.errors.truth.corners)
        for index, (level, size) in enumerate(groups):
            values = record.contrasts.get(level)
            if values is None:
                continue
            of_size = np.isfinite(values) & ((size == ALL_SIZES[0]) | (sizes == ALL_SIZES.index(size) - 1))
            for side, chosen in enumerate((of_size & ~are_missed, of_size & are_missed)):
                sums[image, index, side] = values[chosen].sum()
                counts[image, index, side] = chosen.sum()
    return sums, counts


def _draws(sums: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yields means (draws, groups, 2) over images that are drawn with replacement; NaN without objects."""
    for images in resamples(len(sums)):
        times = np.array([np.bincount(drawn, minlength=len(sums)) for drawn in images], float)
        yield _ratio(np.tensordot(times, sums, 1), np.tensordot(times, counts, 1))


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, sums, np.nan) / np.where(counts > 0, counts, 1)


def _estimate(mean: float, draws: np.ndarray, has_interval: bool, objects: float) -> Estimate:
    low, high = percentile_interval(draws) if has_interval else (math.nan, math.nan)
    return Estimate(float(mean), float(low), float(high), int(objects))
