"""Box drawing: outlines and captions of ground truth and predictions on pictures."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from mmdet_featviz.structures.boxes import Boxes, class_names
from mmdet_featviz.visualization.text import Text, draw_texts

BOX_KINDS = ('pred', 'gt', 'both')
GT_COLOR = (255, 255, 255)
GOLDEN_RATIO = (5**0.5 - 1) / 2


class BoxStyle:
    """Selects boxes and draws them, with colors and captions by class.

    Args:
        kind: ``pred`` (predictions), ``gt`` (ground truth) or ``both``.
        score_thr: Lowest score of a predicted box that is drawn.
        dataset_meta: ``classes`` and ``palette`` (RGB) of the data set, if known.
    """

    def __init__(self, kind: str, score_thr: float, dataset_meta: dict | None = None) -> None:
        self.kind = kind
        self.score_thr = score_thr
        self.classes = class_names(dataset_meta)
        self.palette = _palette((dataset_meta or {}).get('palette'))

    def select(self, boxes: Boxes) -> Boxes:
        """The boxes that are drawn."""
        truth = boxes.are_truth & (self.kind in ('gt', 'both'))
        with np.errstate(invalid='ignore'):
            predicted = (boxes.scores >= self.score_thr) & (self.kind in ('pred', 'both'))
        return boxes[truth | predicted]

    def draw(self, picture: np.ndarray, boxes: Boxes, scale: float = 1.0) -> np.ndarray:
        """Draw outlines and captions on a copy of the picture.

        Args:
            picture: (H, W, 3), BGR, uint8.
            boxes: Boxes in pixels of the image.
            scale: Size of the picture relative to the image.
        """
        boxes = self.select(boxes)
        picture = picture.copy()
        width = max(2, round(min(picture.shape[:2]) / 250))
        # OpenCV draws no coordinates of 2^31; those outside the picture need not be exact.
        beyond = width + 2
        ends = np.array([*picture.shape[1::-1], *picture.shape[1::-1]]) + beyond
        corners = np.round(np.clip(boxes.corners * scale, -beyond, ends)).astype(int).tolist()
        colors = [self.color(label, score) for label, score in zip(boxes.labels.tolist(), boxes.scores.tolist())]
        for (left, top, right, bottom), color in zip(corners, colors):
            # A dark border keeps the line visible on any color of the heatmap.
            cv2.rectangle(picture, (left, top), (right, bottom), (0, 0, 0), width + 2)
            cv2.rectangle(picture, (left, top), (right, bottom), color, width)
        size = max(11, round(min(picture.shape[:2]) / 36))
        texts = []
        for (left, top, _, _), color, label, score in zip(corners, colors, boxes.labels, boxes.scores):
            position = max(left, 0), max(top - size - 4, 0)
            texts.append(Text(self.caption(int(label), float(score)), position, size, (255, 255, 255), color))
        return draw_texts(picture, texts)

    def caption(self, label: int, score: float) -> str:
        """The text at a box: the class and, if it has one, the score."""
        name = self.classes[label] if 0 <= label < len(self.classes) else str(label)
        return name if np.isnan(score) else f'{name} {score:.2f}'

    def color(self, label: int, score: float) -> tuple[int, int, int]:
        """BGR color of a box: white for ground truth (NaN score), else from the palette, or a tint.

        Tints from cyan to red, which no common color map of heat comes near.
        """
        if np.isnan(score):
            return GT_COLOR
        if 0 <= label < len(self.palette):
            return tuple(self.palette[label][::-1])
        hue = 75 + label * GOLDEN_RATIO % 1 * 110  # neighbors differ much; half degrees, as in OpenCV
        tint = np.uint8([[[hue % 180, 77, 255]]])
        return tuple(int(value) for value in cv2.cvtColor(tint, cv2.COLOR_HSV2BGR)[0, 0])


def _palette(palette: Any) -> list[list[int]]:
    """Return the RGB colors of a palette; none if it is a name, which only mmdet can look up."""
    try:
        colors = np.asarray(palette, np.float64)
    except (TypeError, ValueError):
        return []
    return np.clip(colors, 0, 255).astype(int).tolist() if colors.ndim == 2 and colors.shape[1] == 3 else []
