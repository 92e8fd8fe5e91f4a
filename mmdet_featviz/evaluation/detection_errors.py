"""Detection errors: which predictions are true, of what kind the false ones are, and which objects are missed.

The matching is that of COCO, the types are those of TIDE (Bolya et al., TIDE: A General Toolbox for Identifying Object
Detection Errors, ECCV 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, NamedTuple, Sequence

import numpy as np

from mmdet_featviz.structures.boxes import Boxes

FOREGROUND, BACKGROUND = 0.5, 0.1  # intersection over union, as in the paper
FALSE_TYPES = ('classification', 'localization', 'both', 'duplicate', 'background')
TRUE, IGNORED, FOUND, MISSED = 'true', 'ignored', 'found', 'missed'
COSTS = (*FALSE_TYPES, MISSED)  # what has a cost in AP
NONE = -1
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """The predictions and the ground truth of one image, matched.

    Attributes:
        predictions: P predictions by descending score.
        truth: G ground-truth boxes, without crowds.
        types: (P,) type of each prediction: ``true``, one of `FALSE_TYPES`, or ``ignored`` (in a crowd of its class).
        matches: (P,) index of the ground-truth box that the type is about; -1 for ``background`` and ``ignored``. It is
            the one that a true prediction found, a duplicate found again, and a false one would have found with the
            right class or place.
        overlaps: (P,) intersection over union with that box; for ``background`` the largest with any box.
        found_by: (G,) index of the prediction that is true for a box; -1 for none.
    """

    predictions: Boxes
    truth: Boxes
    types: np.ndarray
    matches: np.ndarray
    overlaps: np.ndarray
    found_by: np.ndarray

    def above(self, score: float) -> ImageErrors:
        """The same for the predictions of at least this score. Those below change nothing of those above."""
        count = int((self.predictions.scores >= score).sum())
        found_by = np.where(self.found_by < count, self.found_by, NONE)
        kept = (part[:count] for part in (self.predictions, self.types, self.matches, self.overlaps))
        predictions, types, matches, overlaps = kept
        return ImageErrors(predictions, self.truth, types, matches, overlaps, found_by)


class _Overlaps(NamedTuple):
    """Intersection over union (P, G) of predictions and ground truth: of one class, and of different classes."""

    same: np.ndarray
    other: np.ndarray


def find_errors(predictions: Boxes, truth: Boxes, crowds: Boxes) -> ImageErrors:
    """Match the predictions of an image with its ground truth, and find the type of each.

    By descending score, each prediction takes the free box of its class that it overlaps most, if by at least 0.5.
    Every other prediction that lies in a crowd of its class by at least half of its area is ignored. With :math:`u` and
    :math:`v` the largest overlaps with a box of its own and of another class, the first of these that holds is its
    type:

    - ``localization``: :math:`0.1 \\le u < 0.5`
    - ``classification``: :math:`v \\ge 0.5`
    - ``duplicate``: :math:`u \\ge 0.5` (the box has been taken)
    - ``background``: :math:`v \\le 0.1`
    - ``both``: the rest

    Args:
        predictions: The predictions, in any order.
        truth: The ground truth, without crowds.
        crowds: Ignored boxes.
    """
    predictions = predictions[np.argsort(-predictions.scores, kind='stable')]
    overlaps = pairwise_overlaps(predictions.corners, truth.corners)
    is_same = predictions.labels[:, None] == truth.labels[None]
    same, other = np.where(is_same, overlaps, 0), np.where(is_same, 0, overlaps)
    found_by = _match(same)
    count = len(predictions)
    types = np.full(count, IGNORED, dtype=object)
    matches, matched_overlaps = np.full(count, NONE), np.zeros(count)
    taken = {int(row): index for index, row in enumerate(found_by) if row != NONE}
    in_crowds = _are_in_crowds(predictions, crowds)
    for row in range(count):
        if row in taken:
            types[row], matches[row] = TRUE, taken[row]
        elif not in_crowds[row]:
            types[row], matches[row] = _false_type(_Overlaps(same[row], other[row]))
        if matches[row] != NONE:
            matched_overlaps[row] = overlaps[row, matches[row]]
        elif types[row] == 'background':
            matched_overlaps[row] = overlaps[row].max(initial=0)
    return ImageErrors(predictions, truth, types, matches, matched_overlaps, found_by)


def pairwise_overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (A, B) of boxes (A, 4) and (B, 4); 0 for pairs without any area."""
    common, area_a, area_b = _areas(a, b)
    union = area_a[:, None] + area_b - common
    return common / np.where(union > 0, union, 1)


def _areas(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Area of the intersection of each pair (A, B), and of the boxes (A,) and (B,)."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    areas = (np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1) for boxes in (a, b))
    return (np.maximum(sides, 0).prod(axis=2), *areas)


def _match(same: np.ndarray) -> np.ndarray:
    """For each ground-truth box, the prediction that takes it; of equal overlaps the last box, as in pycocotools."""
    found_by = np.full(same.shape[1], NONE)
    for row, overlaps in enumerate(same):
        free = np.where(found_by == NONE, overlaps, -1)
        if free.max(initial=-1) >= FOREGROUND:
            found_by[np.flatnonzero(free == free.max())[-1]] = row
    return found_by


def _are_in_crowds(predictions: Boxes, crowds: Boxes) -> np.ndarray:
    """Which predictions lie in a crowd of their class, by at least half of their own area."""
    common, areas, _ = _areas(predictions.corners, crowds.corners)
    of_class = predictions.labels[:, None] == crowds.labels[None]
    return (of_class & (common >= FOREGROUND * areas[:, None]) & (common > 0)).any(axis=1)


def _false_type(overlaps: _Overlaps) -> tuple[str, int]:
    """The type of a prediction that found nothing, and the index of the box that it is about."""
    same, other = (part.max(initial=0) for part in overlaps)
    if BACKGROUND <= same < FOREGROUND:
        return 'localization', int(overlaps.same.argmax())
    if other >= FOREGROUND:
        return 'classification', int(overlaps.other.argmax())
    if same >= FOREGROUND:
        return 'duplicate', int(overlaps.same.argmax())
    if other <= BACKGROUND:
        return 'background', NONE
    return 'both', int(overlaps.other.argmax())


def error_costs(images: Sequence[ImageErrors]) -> dict[str, float]:
    """How much AP each type of error costs: TIDE's dAP, the AP at an overlap of 0.5 that is gained by mending it.

    A ``localization`` or ``classification`` error becomes true if its box was found by no prediction; of several for
    one box, that of the highest score does, and the others are removed. All other false predictions are removed. A
    ``missed`` box, here one that no ``localization`` or ``classification`` error is about either, no longer counts as
    ground truth. Each type is mended alone, so the costs do not add up.

    Returns:
        ``AP50``, and the cost of each of `COSTS` in AP, 0 to 1, at least 0. The mean is over the classes that have
        ground truth, as in COCO's evaluation. (The tool of TIDE also counts other predicted classes, with an AP of 0.)
    """
    table = _PredictionTable(images)
    base = table.mean_precision(mended=None)
    return {'AP50': base, **{type_: max(table.mean_precision(type_) - base, 0.0) for type_ in COSTS}}


class _PredictionTable:
    """The predictions of a data set by descending score, and the number of ground-truth boxes of each class."""

    def __init__(self, images: Sequence[ImageErrors]) -> None:
        scores = _joined((image.predictions.scores for image in images), float)
        order = np.argsort(-scores, kind='stable')
        self.labels = _joined((image.predictions.labels for image in images), int)[order]
        self.types = _joined((image.types for image in images), object)[order]
        # Boxes are numbered over all images. An error that can be mended has the box that it would find.
        starts = np.cumsum([0, *(len(image.truth) for image in images)])
        boxes = (np.where(image.matches == NONE, NONE, image.matches + start) for image, start in zip(images, starts))
        boxes = _joined(boxes, int)[order]
        self.truth_labels = _joined((image.truth.labels for image in images), int)
        was_found = _joined((image.found_by != NONE for image in images), bool)
        self.mends = np.full(len(boxes), NONE)
        is_mendable = np.isin(self.types, ('localization', 'classification'))
        is_mendable[is_mendable] = ~was_found[boxes[is_mendable]]
        # Of one box, by any type, the best prediction is mended; by descending score this is the first.
        self.is_missed = ~was_found
        self.is_missed[boxes[is_mendable]] = False
        rows = np.flatnonzero(is_mendable)
        _, first = np.unique(boxes[rows], return_index=True)
        self.mends[rows[first]] = boxes[rows[first]]

    def mean_precision(self, mended: str | None) -> float:
        """Mean over the classes of the average precision, with the errors of one type mended."""
        is_true, labels = self.types == TRUE, self.labels.copy()
        is_mended = (self.types == mended) & (self.mends != NONE)
        labels[is_mended] = self.truth_labels[self.mends[is_mended]]
        counts = (self.types != IGNORED) & ((self.types != mended) | is_mended)
        is_true = is_true | is_mended
        truth_labels = self.truth_labels[~self.is_missed] if mended == MISSED else self.truth_labels
        precisions = [
            _average_precision(is_true[counts & (labels == label)], int((truth_labels == label).sum()))
            for label in np.unique(self.truth_labels)
        ]
        return float(np.mean(precisions)) if precisions else -1.0


def _average_precision(is_true: np.ndarray, positives: int) -> float:
    """Average precision of predictions by descending score: the mean of the precision at 101 values of recall."""
    if not positives or not len(is_true):
        return 0.0
    hits = np.cumsum(is_true)
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    reached = np.searchsorted(hits / positives, RECALLS, side='left')
    return float(np.append(precision, 0.0)[reached].mean())


def _joined(parts: Iterable[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)
