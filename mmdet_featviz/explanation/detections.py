"""Detections: the boxes that a detector predicts for one image, as tensors that may carry gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmdet_featviz.structures.boxes import has_all


@dataclass(frozen=True, eq=False)
class Detections:
    """The predictions for one image.

    Attributes:
        bboxes: (K, 4): left, top, right, bottom, in pixels of the image.
        scores: (K,), 0 to 1.
        labels: (K,): class indices.
    """

    bboxes: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def equal(self, other: Detections) -> bool:
        """Whether both hold the same numbers, bit for bit (NaN equals NaN)."""
        pairs = ((self.bboxes, other.bboxes), (self.scores, other.scores), (self.labels, other.labels))
        return all(one.shape == two.shape and bool(_same(one, two).all()) for one, two in pairs)


def _same(one: Tensor, two: Tensor) -> Tensor:
    return (one == two) | ((one != one) & (two != two))


def detections_of(sample: Any) -> Detections:
    """Return the detections in a data sample that a detector has predicted.

    Raises:
        ValueError: If the detector predicts no boxes with labels and scores, or boxes of another kind.
    """
    predicted = getattr(sample, 'pred_instances', None)
    if not has_all(predicted, 'bboxes', 'labels', 'scores'):
        raise ValueError('the detector predicts no boxes with labels and scores, so there is nothing to explain')
    bboxes = getattr(predicted.bboxes, 'tensor', predicted.bboxes)
    if bboxes.dim() != 2 or bboxes.shape[1] != 4:
        raise ValueError(f'only upright boxes can be explained, but the detector predicts {tuple(bboxes.shape)}')
    return Detections(bboxes, predicted.scores, predicted.labels)


def overlaps(bboxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union (K,) of boxes (K, 4) with one box (4,); differentiable."""
    low, high = torch.maximum(bboxes[:, :2], box[:2]), torch.minimum(bboxes[:, 2:], box[2:])
    common = (high - low).clamp(min=0).prod(1)
    areas = (bboxes[:, 2:] - bboxes[:, :2]).clamp(min=0).prod(1)
    union = areas + (box[2:] - box[:2]).clamp(min=0).prod() - common
    return common / union.clamp(min=1e-12)
