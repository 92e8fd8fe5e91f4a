"""Drawing of boxes on pictures."""

from __future__ import annotations

import cv2
import numpy as np

from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.visualization.text import Text, draw_texts

BOXES = ('pred', 'gt', 'both')
GT_COLOR = (255, 255, 255)


class BoxStyle:
    """Which boxes are drawn, in which colors and with which words.

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
        """A copy of the picture, which may be smaller than the image by `scale`, with outlines and captions."""
        boxes = self.select(boxes)
        picture = picture.copy()
        width = max(2, round(min(picture.shape[:2]) / 250))
        corners = np.round(boxes.corners * scale).astype(int).tolist()
        colors = [self.color(label, score) for label, score in zip(boxes.labels.tolist(), boxes.scores.tolist())]
        for (left, top, right, bottom), color in zip(corners, colors):
            # A dark rim keeps the line visible on any color of the heat.
            cv2.rectangle(picture, (left, top), (right, bottom), (0, 0, 0), width + 2)
            cv2.rectangle(picture, (left, top), (right, bottom), color, width)
        size = max(11, round(min(picture.shape[:2]) / 36))
        texts = []
        for (left, top, _, _), color, label, score in zip(corners, colors, boxes.labels, boxes.scores):
            position = max(left, 0), max(top - size - 4, 0)
            texts.append(Text(self._caption(int(label), float(score)), position, size, (255, 255, 255), color))
        return draw_texts(picture, texts)

    def _caption(self, label: int, score: float) -> str:
        name = self.classes[label] if label < len(self.classes) else str(label)
        return name if np.isnan(score) else f'{name} {score:.2f}'

    def color(self, label: int, score: float) -> tuple[int, int, int]:
        """White for ground truth; else BGR from the palette, or from the colors of a wheel."""
        if np.isnan(score):
            return GT_COLOR
        if label < len(self.palette):
            return tuple(int(value) for value in self.palette[label][::-1])
        hue = np.uint8([[[label * 67 % 180, 200, 255]]])
        return tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
