"""Box drawing: outlines and labels of ground truth and predictions on pictures."""

from __future__ import annotations

from typing import Any, Sequence, Tuple

import cv2
import numpy as np

from mmdet_featviz.structures.boxes import Boxes, class_names, find_label, label_name
from mmdet_featviz.visualization.label_places import Area, free_place
from mmdet_featviz.visualization.text import SMALLEST_TEXT, Text, draw_texts, line_height, text_size, text_width

BOX_KINDS = ('pred', 'gt', 'both')
LABELS = ('full', 'class', 'none')
GT_COLOR, INK = (255, 255, 255), (0, 0, 0)
LUMA, LEAST_LUMA = (0.114, 0.587, 0.299), 145  # weights of B, G and R; of pure green it is 150
GOLDEN_RATIO = (5**0.5 - 1) / 2
Color = Tuple[int, int, int]


class BoxStyle:
    """Selects boxes and draws them, with colors and labels by class.

    Args:
        kind: ``pred`` (predictions), ``gt`` (ground truth) or ``both``.
        score_thr: Lowest score of a predicted box that is drawn.
        dataset_meta: ``classes`` and ``palette`` (RGB) of the data set, if known.
        shown: Classes whose boxes are drawn, as names or indices in text; None draws all.
        labels: Text at boxes: class and score (``full``), ``class`` or ``none``.
        line_width: Width of outlines in pixels of the image; None follows the size of the picture.
        font_size: Font size of labels in pixels of the image; None follows the size of the picture.

    Raises:
        ValueError: If the data set has no class of a name in `shown`.
    """

    def __init__(
        self,
        kind: str,
        score_thr: float,
        dataset_meta: dict | None = None,
        shown: Sequence[str] | None = None,
        labels: str = 'full',
        line_width: float | None = None,
        font_size: float | None = None,
    ) -> None:
        self.kind = kind
        self.score_thr = score_thr
        self.labels = labels
        self.line_width = line_width
        self.font_size = font_size
        self.classes = class_names(dataset_meta)
        self.palette = _palette((dataset_meta or {}).get('palette'))
        self._shown = None if shown is None else [find_label(name, self.classes) for name in shown]

    def select(self, boxes: Boxes) -> Boxes:
        """The boxes that are drawn."""
        truth = boxes.are_truth & (self.kind in ('gt', 'both'))
        with np.errstate(invalid='ignore'):
            predicted = (boxes.scores >= self.score_thr) & (self.kind in ('pred', 'both'))
        chosen = truth | predicted
        return boxes[chosen if self._shown is None else chosen & np.isin(boxes.labels, self._shown)]

    def draw(self, picture: np.ndarray, boxes: Boxes, scale: float = 1.0) -> np.ndarray:
        """Draw outlines and labels on a copy of the picture.

        A label stands at a corner of its box where it covers no label of a higher score. If there is no such place, it
        is only the class, or nothing.

        Args:
            picture: (H, W, 3), BGR, uint8.
            boxes: Boxes in pixels of the image.
            scale: Size of the picture relative to the image.
        """
        boxes = self.select(boxes)
        picture = picture.copy()
        usual = max(2, round(min(picture.shape[:2]) / 250))
        width = usual if self.line_width is None else max(1, round(self.line_width * scale))
        rim = max(1, width // 4)  # a dark border keeps the line visible on any color of the heatmap
        # OpenCV draws no coordinates of 2^31; those outside the picture need not be exact.
        beyond = width + 2 * rim
        ends = np.array([*picture.shape[1::-1], *picture.shape[1::-1]]) + beyond
        corners = np.round(np.clip(boxes.corners * scale, -beyond, ends)).astype(int).tolist()
        colors = [self.color(label, score) for label, score in zip(boxes.labels.tolist(), boxes.scores.tolist())]
        for (left, top, right, bottom), color in zip(corners, colors):
            cv2.rectangle(picture, (left, top), (right, bottom), (0, 0, 0), width + 2 * rim)
            cv2.rectangle(picture, (left, top), (right, bottom), color, width)
        if self.labels == 'none' or not len(boxes):
            return picture
        size = text_size(picture) if self.font_size is None else max(SMALLEST_TEXT, round(self.font_size * scale))
        return draw_texts(picture, self._place_labels(boxes, corners, colors, size, picture.shape))

    def _place_labels(
        self, boxes: Boxes, corners: Sequence[Sequence[int]], colors: Sequence[Color], size: int, shape: Sequence[int]
    ) -> list[Text]:
        """Labels that cover no other, in pixels of a picture of a shape; the highest scores choose first."""
        texts: list[Text] = []
        taken: list[Area] = []
        for index in reversed(range(len(boxes))):
            box, label, score = corners[index], int(boxes.labels[index]), float(boxes.scores[index])
            if box[2] <= 0 or box[3] <= 0 or box[0] >= shape[1] or box[1] >= shape[0]:
                continue
            name = self.caption(label, np.nan)
            for caption in [self.caption(label, score), name] if self.labels == 'full' else [name]:
                extent = text_width(caption, size), line_height(size)
                place = free_place(box, extent, (shape[1], shape[0]), taken)
                if place is not None:
                    taken.append(place)
                    texts.append(Text(caption, (place.left, place.top), size, INK, colors[index]))
                    break
        return texts

    def caption(self, label: int, score: float) -> str:
        """The text at a box: the class and, if it has one, the score."""
        name = label_name(label, self.classes)
        return name if np.isnan(score) else f'{name} {score:.2f}'

    def color(self, label: int, score: float) -> Color:
        """BGR color of a box: white for ground truth (NaN score), else from the palette, or a tint.

        All are light, so that a line with a dark border is seen on any color of the heatmap, and dark text on it. Tints
        are from cyan to red, which no common color map of heat comes near.
        """
        if np.isnan(score):
            return GT_COLOR
        if 0 <= label < len(self.palette):
            return _lightened(self.palette[label][::-1])
        hue = 75 + label * GOLDEN_RATIO % 1 * 110  # neighbors differ much; half degrees, as in OpenCV
        tint = np.uint8([[[hue % 180, 77, 255]]])
        return tuple(int(value) for value in cv2.cvtColor(tint, cv2.COLOR_HSV2BGR)[0, 0])


def _lightened(color: Sequence[int]) -> Color:
    """Make a BGR color brighter, and then paler, until its luma (ITU-R BT.601) is at least `LEAST_LUMA`."""
    bgr = np.array(color, np.float64)
    luma, largest = bgr @ LUMA, bgr.max()
    if luma < LEAST_LUMA and largest:
        bgr *= min(255 / largest, LEAST_LUMA / luma)
    luma = bgr @ LUMA
    bgr += max(0.0, (LEAST_LUMA - luma) / (255 - luma)) * (255 - bgr) if luma < 255 else 0
    return tuple(np.round(bgr).astype(int).tolist())


def _palette(palette: Any) -> list[list[int]]:
    """Return the RGB colors of a palette; none if it is a name, which only mmdet can look up."""
    try:
        colors = np.asarray(palette, np.float64)
    except (TypeError, ValueError):
        return []
    return np.clip(colors, 0, 255).astype(int).tolist() if colors.ndim == 2 and colors.shape[1] == 3 else []
