"""Boxes of ground truth and predictions of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdet_featviz.structures.placement import flipped_axes

NO_BOXES = np.zeros((0, 4))


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one image.

    Attributes:
        corners: (N, 4) float64 as left, top, right, bottom, in pixels of the image.
        labels: (N,) int64, numbers of classes.
        scores: (N,) float64; NaN for ground truth.
    """

    corners: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    @property
    def are_truth(self) -> np.ndarray:
        """(N,) bool: which are ground truth."""
        return np.isnan(self.scores)

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, index: Any) -> Boxes:
        return Boxes(self.corners[index], self.labels[index], self.scores[index])


def collect_boxes(sample: Any, result: Any, mirrored: bool = False) -> Boxes:
    """Ground truth of a data sample and predictions of a result, the best last.

    Boxes without a label or score are left out, and so are those that end nowhere (an exponential that overflowed).

    Args:
        sample: Data sample of the image, with its metas.
        result: Data sample with predictions, or None.
        mirrored: Whether the predictions are still flipped as the input was: those of a single pass are, those that
            test-time augmentation merged are not.
    """
    corners, labels, scores = [NO_BOXES], [np.zeros(0, np.int64)], [np.zeros(0)]
    truth = getattr(sample, 'gt_instances', None)
    if has_all(truth, 'bboxes', 'labels'):
        corners.append(corners_of(truth.bboxes))
        labels.append(truth.labels.cpu().numpy())
        scores.append(np.full(len(truth), np.nan))
    found = getattr(result, 'pred_instances', None)
    if has_all(found, 'bboxes', 'labels', 'scores'):
        found_scores = found.scores.detach().cpu().numpy().astype(np.float64)
        order = found_scores.argsort(kind='stable')
        found_corners = corners_of(found.bboxes)[order]
        corners.append(_mirrored(found_corners, sample.metainfo) if mirrored else found_corners)
        labels.append(found.labels.cpu().numpy()[order])
        scores.append(found_scores[order])
    boxes = Boxes(np.concatenate(corners), np.concatenate(labels), np.concatenate(scores))
    return boxes[np.isfinite(boxes.corners).all(axis=1)]


def ignored_boxes(sample: Any) -> np.ndarray:
    """Corners (M, 4) of the boxes of a data sample that count neither as objects nor as background (crowds)."""
    ignored = getattr(sample, 'ignored_instances', None)
    return corners_of(ignored.bboxes) if has_all(ignored, 'bboxes') else NO_BOXES


def has_all(instances: Any, *fields: str) -> bool:
    """Whether there are instances, and they have all of these fields."""
    return instances is not None and all(field in instances for field in fields)


def _mirrored(corners: np.ndarray, meta: dict) -> np.ndarray:
    """Boxes (N, 4) of a flipped image on the image itself."""
    height, width = meta['ori_shape'][:2]
    corners = corners.copy()
    for flipped, (low, high), size in zip(flipped_axes(meta), ((0, 2), (1, 3)), (width, height)):
        if flipped:
            corners[:, [low, high]] = size - corners[:, [high, low]]
    return corners


def corners_of(boxes: Any) -> np.ndarray:
    """(N, 4) of a box tensor or of one of mmdet's box structures."""
    return getattr(boxes, 'tensor', boxes).detach().cpu().numpy().astype(np.float64).reshape(-1, 4)
