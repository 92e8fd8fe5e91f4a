"""Boxes of ground truth and predictions on a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from .geometry import flipped_axes
from .rendering import Text, draw_texts

BOXES = ('pred', 'gt', 'both')
GT_COLOUR = (255, 255, 255)
NO_BOXES = np.zeros((0, 4))


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one photo.

    Attributes:
        corners: (N, 4) float64 as left, top, right, bottom, in pixels of the photo.
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


def boxes_of(sample: Any, result: Any, mirrored: bool = False) -> Boxes:
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


def ignored_of(sample: Any) -> np.ndarray:
    """Corners (M, 4) of the boxes of a data sample that count neither as objects nor as background (crowds)."""
    ignored = getattr(sample, 'ignored_instances', None)
    return corners_of(ignored.bboxes) if has_all(ignored, 'bboxes') else NO_BOXES


def has_all(instances: Any, *fields: str) -> bool:
    """Whether there are instances, and they have all of these fields."""
    return instances is not None and all(field in instances for field in fields)


class BoxStyle:
    """Which boxes are drawn, in which colours and with which words.

    Args:
        which: ``pred``, ``gt`` or ``both``.
        score_thr: Smallest score of a predicted box that is drawn.
        dataset_meta: ``classes`` and ``palette`` (RGB) of the data set, as far as they are known.
    """

    def __init__(self, which: str, score_thr: float, dataset_meta: dict | None = None) -> None:
        self.which = which
        self.score_thr = score_thr
        meta = dataset_meta or {}
        self.classes = meta.get('classes') or ()
        # A palette may also be the name of one, which is mmdet's to look up.
        self.palette = meta['palette'] if isinstance(meta.get('palette'), (list, tuple)) else ()

    def select(self, boxes: Boxes) -> Boxes:
        """Those that are drawn."""
        truth = boxes.are_truth & (self.which in ('gt', 'both'))
        with np.errstate(invalid='ignore'):
            found = (boxes.scores >= self.score_thr) & (self.which in ('pred', 'both'))
        return boxes[truth | found]

    def draw(self, picture: np.ndarray, boxes: Boxes, scale: float = 1.0) -> np.ndarray:
        """A copy of the picture, which may be smaller than the photo by `scale`, with outlines and captions."""
        boxes = self.select(boxes)
        picture = picture.copy()
        width = max(2, round(min(picture.shape[:2]) / 250))
        corners = np.round(boxes.corners * scale).astype(int).tolist()
        colours = [self.colour(label, score) for label, score in zip(boxes.labels.tolist(), boxes.scores.tolist())]
        for (left, top, right, bottom), colour in zip(corners, colours):
            # A dark rim keeps the line visible on any colour of the heat.
            cv2.rectangle(picture, (left, top), (right, bottom), (0, 0, 0), width + 2)
            cv2.rectangle(picture, (left, top), (right, bottom), colour, width)
        size = max(11, round(min(picture.shape[:2]) / 36))
        texts = []
        for (left, top, _, _), colour, label, score in zip(corners, colours, boxes.labels, boxes.scores):
            position = max(left, 0), max(top - size - 4, 0)
            texts.append(Text(self._caption(int(label), float(score)), position, size, (255, 255, 255), colour))
        return draw_texts(picture, texts)

    def _caption(self, label: int, score: float) -> str:
        name = self.classes[label] if label < len(self.classes) else str(label)
        return name if np.isnan(score) else f'{name} {score:.2f}'

    def colour(self, label: int, score: float) -> tuple[int, int, int]:
        """White for ground truth; else BGR from the palette, or from the colours of a wheel."""
        if np.isnan(score):
            return GT_COLOUR
        if label < len(self.palette):
            return tuple(int(value) for value in self.palette[label][::-1])
        hue = np.uint8([[[label * 67 % 180, 200, 255]]])
        return tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])


def _mirrored(corners: np.ndarray, meta: dict) -> np.ndarray:
    """Boxes (N, 4) of a flipped photo on the photo itself."""
    height, width = meta['ori_shape'][:2]
    corners = corners.copy()
    for flipped, (low, high), size in zip(flipped_axes(meta), ((0, 2), (1, 3)), (width, height)):
        if flipped:
            corners[:, [low, high]] = size - corners[:, [high, low]]
    return corners


def corners_of(boxes: Any) -> np.ndarray:
    """(N, 4) of a box tensor or of one of mmdet's box structures."""
    return getattr(boxes, 'tensor', boxes).detach().cpu().numpy().astype(np.float64).reshape(-1, 4)
