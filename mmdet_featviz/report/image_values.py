"""Image values: what the page sorts and searches images by, such as scores, classes and focus."""

from __future__ import annotations

import numpy as np

from mmdet_featviz.evaluation.focus import TOLERANCE, FocusMeans, group_by_size, measure_focus
from mmdet_featviz.report.page_data import IMAGE_SIZE, rounded, shrink_placement
from mmdet_featviz.structures.boxes import NO_BOXES, Boxes
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.box_drawing import BoxStyle


class ImageValues:
    """Collects the values of images, one image at a time.

    Args:
        score_thr: Smallest score of a prediction that counts.
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.

    Attributes:
        levels: ``{name: stride}`` of all levels seen so far.
        focus_means: Mean focus over the images so far that have ground truth.
    """

    def __init__(self, score_thr: float, align: str) -> None:
        self._align = align
        self._box_style = BoxStyle('both', score_thr)
        self.levels: dict[str, str] = {}
        self.focus_means = FocusMeans()

    def add(self, snapshot: Snapshot) -> dict:
        """Measure an image.

        Returns:
            ``detections``: number of predictions; ``best`` and ``lowest``: their scores, None without predictions;
            ``truth``: number of ground-truth boxes; ``labels``: labels of all boxes. With ground truth also ``energy``:
            ``{level: share of its heat inside the boxes}``, and ``share``: share of the image area inside the boxes.
        """
        for level in snapshot.levels:
            self.levels.setdefault(level.name, level.stride_text)
        boxes = snapshot.boxes or Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
        boxes = self._box_style.select(boxes)
        scores, truth = boxes.scores[~boxes.are_truth], boxes.corners[boxes.are_truth]
        return dict(
            detections=len(scores),
            best=rounded(scores.max()) if len(scores) else None,
            lowest=rounded(scores.min()) if len(scores) else None,
            truth=len(truth),
            labels=np.unique(boxes.labels).tolist(),
            **self._add_focus(snapshot, truth),
        )

    def _add_focus(self, snapshot: Snapshot, truth: np.ndarray) -> dict:
        """Measure the focus on ground-truth boxes (N, 4), at the size that the page shows the image at."""
        if not len(truth):
            return {}
        placement, scale = shrink_placement(snapshot.placement, IMAGE_SIZE)
        groups = {size: boxes * scale for size, boxes in {'all': truth, **group_by_size(truth)}.items()}
        ignored = NO_BOXES if snapshot.ignored is None else snapshot.ignored * scale
        measurable = [level for level in snapshot.levels if level.label is None]  # not against boxes of other classes
        levels = measure_focus(measurable, placement, self._align, groups, ignored, TOLERANCE * scale)
        self.focus_means.add(levels)
        measured = {name: sizes['all'] for name, sizes in levels.items() if sizes}  # empty without a counted pixel
        if not measured:
            return {}
        energies = {name: rounded(focus.energy) for name, focus in measured.items()}
        return dict(energy=energies, share=rounded(next(iter(measured.values())).share))
