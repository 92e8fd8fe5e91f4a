"""Boxes: ground truth and predictions of one image, from mmdet's data samples."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Sequence

import numpy as np
from mmengine.logging import print_log

from mmdet_featviz.structures.placement import Placement, flipped_axes, removed_offset
from mmdet_featviz.utils.messages import first_names

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


def collect_boxes(sample: Any, result: Any, placement: Placement | None = None) -> Boxes:
    """Collect the ground truth of a data sample and the predictions of a result; the highest score comes last.

    Boxes without labels or scores are left out, and so are boxes with NaN or infinite corners or scores (an overflow in
    the detector).

    Args:
        sample: Data sample of the image, with its meta information.
        result: Data sample with predictions, or None.
        placement: Where the image lies in the network's input, for predictions of a single pass: these are flipped like
            the input. None for those merged by test-time augmentation, which are flipped back.
    """
    corners, labels, scores = [NO_BOXES], [np.zeros(0, np.int64)], [np.zeros(0)]
    truth = getattr(sample, 'gt_instances', None)
    if has_all(truth, 'bboxes', 'labels'):
        corners.append(corners_of(truth.bboxes))
        labels.append(truth.labels.cpu().numpy())
        scores.append(np.full(len(truth), np.nan))
    predictions = getattr(result, 'pred_instances', None)
    if has_all(predictions, 'bboxes', 'labels', 'scores'):
        predicted_scores = predictions.scores.detach().cpu().double().numpy()  # NumPy has no bfloat16
        order = predicted_scores.argsort(kind='stable')
        predicted_corners = corners_of(predictions.bboxes)[order]
        corners.append(
            predicted_corners if placement is None else _flip_back(predicted_corners, sample.metainfo, placement)
        )
        labels.append(predictions.labels.cpu().numpy()[order])
        scores.append(predicted_scores[order])
        corners[-1][~np.isfinite(scores[-1])] = np.nan  # a score of NaN would pass for ground truth
    boxes = Boxes(np.concatenate(corners), np.concatenate(labels).astype(np.int64), np.concatenate(scores))
    return boxes[np.isfinite(boxes.corners).all(axis=1)]


def ignored_boxes(sample: Any) -> np.ndarray:
    """Corners (M, 4) of a data sample's ignored boxes (crowds), which count neither as objects nor as background."""
    ignored = getattr(sample, 'ignored_instances', None)
    corners = corners_of(ignored.bboxes) if has_all(ignored, 'bboxes') else NO_BOXES
    return corners[np.isfinite(corners).all(axis=1)]


def has_all(instances: Any, *fields: str) -> bool:
    """Whether `instances` is not None and has all of these fields."""
    return instances is not None and all(field in instances for field in fields)


def _flip_back(corners: np.ndarray, meta: dict, placement: Placement) -> np.ndarray:
    """Move corners (N, 4) from the flipped image to the original one.

    Detectors only divide by the scale, so padding that came before the flip is still in their boxes.
    """
    corners, offset = corners.copy(), removed_offset(meta)
    for axis, flipped in enumerate(flipped_axes(meta)):
        if flipped:
            low, high, size = axis, axis + 2, float(placement.image_size[1 - axis])
            if placement.is_separable:
                size = (placement.matrix[axis, 2] - offset[axis]) / -placement.matrix[axis, axis]
            corners[:, [low, high]] = size - corners[:, [high, low]]
    return corners


def corners_of(boxes: Any) -> np.ndarray:
    """Return corners (N, 4) float64 of a box tensor, or of one of the box structures of mmdet or mmrotate.

    Rotated boxes (N, 5: center, width, height, angle in radians) and quadrilaterals (N, 8) become the upright boxes
    around them, with one message. NaN for boxes of any other kind, which are then left out.
    """
    boxes = getattr(boxes, 'tensor', boxes).detach().cpu().double().numpy()
    if boxes.ndim == 2 and boxes.shape[1] == 4:
        return boxes
    if not boxes.size:
        return NO_BOXES
    kind = boxes.shape[1] if boxes.ndim == 2 else 0
    _note_kind(kind)
    if kind == 5:
        centers, sizes, angles = boxes[:, :2], boxes[:, 2:4], boxes[:, 4:]
        # The half width and half height of the box around a turned rectangle.
        half = (np.abs(np.cos(angles)) * sizes + np.abs(np.sin(angles)) * sizes[:, ::-1]) / 2
        return np.concatenate([centers - half, centers + half], axis=1)
    if kind == 8:
        points = boxes.reshape(-1, 4, 2)
        return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return np.full((len(boxes), 4), np.nan)


@lru_cache(maxsize=None)
def _note_kind(columns: int) -> None:
    """Log once how boxes of a kind are drawn."""
    kinds = {5: 'rotated boxes are drawn', 8: 'quadrilateral boxes are drawn'}
    message = f'{kinds[columns]} and counted as the upright boxes around them' if columns in kinds else ''
    print_log(message or 'boxes without 4, 5 or 8 numbers each are not drawn', 'current', logging.WARNING)


def class_names(dataset_meta: dict | None) -> list[str]:
    """Return the names of the classes of a data set, as text whatever they are; empty if they are not known.

    An empty name cannot be read, chosen or named in an option: the index of the class stands for it.
    """
    classes = (dataset_meta or {}).get('classes')
    if isinstance(classes, str):
        return [classes]
    known = classes if isinstance(classes, (list, tuple, np.ndarray)) else ()
    return [str(name) if str(name).strip() else str(label) for label, name in enumerate(known)]


def label_name(label: int, names: Sequence[str]) -> str:
    """Return the name of a class, or its index as text if it has none."""
    return names[label] if 0 <= label < len(names) else str(label)


def find_label(name: str, names: Sequence[str] | None) -> int:
    """Return the index of a class that is given by its name, or by its index as text; -1 where names come later (None).

    Raises:
        ValueError: If there is none; the message has the closest names.
    """
    if names is None:
        return -1
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and (not names or int(name) < len(names)):
        return int(name)
    close = difflib.get_close_matches(name, names, n=3) or list(names)
    raise ValueError(
        f'unknown class {name!r}: {"the closest are " if names else "no class names are known"}{first_names(close)}'
    )
