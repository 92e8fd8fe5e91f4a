"""Boxes: ground truth and predictions of one image, from mmdet's data samples."""

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
        corners: (N, 4) float64: left, top, right, bottom, in pixels of the image.
        labels: (N,) int64: class indices.
        scores: (N,) float64, 0 to 1; NaN for ground truth.
    """

    corners: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    @property
    def are_truth(self) -> np.ndarray:
        """(N,) bool: which boxes are ground truth."""
        return np.isnan(self.scores)

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, index: Any) -> Boxes:
        return Boxes(self.corners[index], self.labels[index], self.scores[index])


def collect_boxes(sample: Any, result: Any, mirrored: bool = False) -> Boxes:
    """Collect the ground truth of a data sample and the predictions of a result; the highest score comes last.

    Boxes without labels or scores are left out, and so are boxes with NaN or infinite corners (an overflow in the
    detector).

    Args:
        sample: Data sample of the image, with its meta information.
        result: Data sample with predictions, or None.
        mirrored: Whether the predictions are flipped like the network's input: True for those of a single pass, False
            for those merged by test-time augmentation.
    """
    corners, labels, scores = [NO_BOXES], [np.zeros(0, np.int64)], [np.zeros(0)]
    truth = getattr(sample, 'gt_instances', None)
    if has_all(truth, 'bboxes', 'labels'):
        corners.append(corners_of(truth.bboxes))
        labels.append(truth.labels.cpu().numpy())
        scores.append(np.full(len(truth), np.nan))
    predictions = getattr(result, 'pred_instances', None)
    if has_all(predictions, 'bboxes', 'labels', 'scores'):
        predicted_scores = predictions.scores.detach().cpu().numpy().astype(np.float64)
        order = predicted_scores.argsort(kind='stable')
        predicted_corners = corners_of(predictions.bboxes)[order]
        corners.append(_flip_back(predicted_corners, sample.metainfo) if mirrored else predicted_corners)
        labels.append(predictions.labels.cpu().numpy()[order])
        scores.append(predicted_scores[order])
    boxes = Boxes(np.concatenate(corners), np.concatenate(labels), np.concatenate(scores))
    return boxes[np.isfinite(boxes.corners).all(axis=1)]


def ignored_boxes(sample: Any) -> np.ndarray:
    """Corners (M, 4) of a data sample's ignored boxes (crowds), which count neither as objects nor as background."""
    ignored = getattr(sample, 'ignored_instances', None)
    return corners_of(ignored.bboxes) if has_all(ignored, 'bboxes') else NO_BOXES


def has_all(instances: Any, *fields: str) -> bool:
    """Whether `instances` is not None and has all of these fields."""
    return instances is not None and all(field in instances for field in fields)


def _flip_back(corners: np.ndarray, meta: dict) -> np.ndarray:
    """Move corners (N, 4) from the flipped image to the original one."""
    height, width = meta['ori_shape'][:2]
    corners = corners.copy()
    for flipped, (low, high), size in zip(flipped_axes(meta), ((0, 2), (1, 3)), (width, height)):
        if flipped:
            corners[:, [low, high]] = size - corners[:, [high, low]]
    return corners


def corners_of(boxes: Any) -> np.ndarray:
    """Corners (N, 4) float64 of a box tensor or of one of mmdet's box structures."""
    return getattr(boxes, 'tensor', boxes).detach().cpu().numpy().astype(np.float64).reshape(-1, 4)
