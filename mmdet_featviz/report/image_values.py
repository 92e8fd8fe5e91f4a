"""Image values: what the page sorts, filters and searches images by, such as scores, classes and focus."""

from __future__ import annotations

import numpy as np

from mmdet_featviz.evaluation.focus import TOLERANCE, FocusMeans, group_by_size, measure_focus
from mmdet_featviz.report.page_data import IMAGE_SIZE, rounded, shrink_placement
from mmdet_featviz.structures.boxes import NO_BOXES, Boxes
from mmdet_featviz.structures.snapshot import Snapshot

SCORE_STEPS = 10_000  # of a score on the page: its slider has a hundred


def box_values(boxes: Boxes | None) -> dict:
    """Scores and numbers of the boxes of a pass, by label.

    Returns:
        ``scores``: ``{label: scores of its predictions in steps of 1/10,000, rounded down, highest first}``, which
        decide as :func:`box_rows` does at each place of the page's slider; ``truth``: ``{label: number of ground-truth
        boxes}``.
    """
    scores: dict[int, list[int]] = {}
    truth: dict[int, int] = {}
    if boxes is not None:
        for label, score in zip(boxes.labels.tolist(), boxes.scores.tolist()):
            if np.isnan(score):
                truth[label] = truth.get(label, 0) + 1
            elif np.isfinite(score):
                scores.setdefault(label, []).append(score_steps(score))
    return dict(scores={label: sorted(of_label, reverse=True) for label, of_label in scores.items()}, truth=truth)


def score_steps(score: float) -> int:
    """A score in steps of 1/10,000, rounded down."""
    # Rounded to what the page shows; rounded again, as 0.57 x 10,000 is below 5,700.
    return int(round(rounded(score) * SCORE_STEPS, 3))


class ImageFocus:
    """Measures the focus of images, one image at a time.

    Args:
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.

    Attributes:
        levels: ``{name: stride}`` of all levels seen so far.
        means: Mean focus over the images so far that have ground truth.
    """

    def __init__(self, align: str) -> None:
        self._align = align
        self.levels: dict[str, str] = {}
        self.means = FocusMeans()

    def add(self, snapshot: Snapshot) -> dict:
        """Measure an image on its ground-truth boxes, at the size that the page shows it at.

        Returns:
            With ground truth, ``energy``: ``{level: share of its heat inside the boxes}``, and ``share``: share of the
            image area inside the boxes.
        """
        for level in snapshot.levels:
            self.levels.setdefault(level.name, level.stride_text)
        boxes = snapshot.boxes
        truth = NO_BOXES if boxes is None else boxes.corners[boxes.are_truth]
        if not len(truth):
            return {}
        placement, scale = shrink_placement(snapshot.placement, IMAGE_SIZE)
        groups = {size: boxes * scale for size, boxes in {'all': truth, **group_by_size(truth)}.items()}
        ignored = NO_BOXES if snapshot.ignored is None else snapshot.ignored * scale
        measurable = [level for level in snapshot.levels if level.label is None]  # not against boxes of other classes
        levels = measure_focus(measurable, placement, self._align, groups, ignored, TOLERANCE * scale)
        self.means.add(levels)
        measured = {name: sizes['all'] for name, sizes in levels.items() if sizes}  # empty without a counted pixel
        if not measured:
            return {}
        energies = {name: rounded(focus.energy) for name, focus in measured.items()}
        return dict(energy=energies, share=rounded(next(iter(measured.values())).share))
