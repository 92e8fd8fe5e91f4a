"""Boxes of ground truth and predictions on a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import cv2
import numpy as np

from .geometry import flipped_axes
from .rendering import Text, draw_texts

GT_COLOUR = (255, 255, 255)


@dataclass(frozen=True)
class Boxes:
    """Boxes on one picture.

    Attributes:
        corners: (N, 4) as left, top, right, bottom, in pixels of the picture.
        captions: N texts.
        colours: N BGR colours.
    """

    corners: np.ndarray
    captions: Sequence[str]
    colours: Sequence[tuple[int, int, int]]


class BoxStyle:
    """Which boxes of an image are drawn, and how.

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

    def boxes_of(self, sample: Any, result: Any, mirrored: bool = False) -> Boxes:
        """Ground truth of a data sample in white, and predictions of a result in the colour of their class.

        Args:
            sample: Data sample of the image, with its metas.
            result: Data sample with predictions.
            mirrored: Whether the predictions are still flipped as the input was: those of a single pass are, those
                that test-time augmentation merged are not.
        """
        corners, captions, colours = [np.zeros((0, 4))], [], []
        truth = getattr(sample, 'gt_instances', None)
        if self.which in ('gt', 'both') and truth is not None and 'bboxes' in truth:
            corners.append(_corners(truth.bboxes))
            captions += [self._class_name(label) for label in truth.labels.tolist()]
            colours += [GT_COLOUR] * len(truth)
        found = getattr(result, 'pred_instances', None)
        if self.which in ('pred', 'both') and found is not None and 'bboxes' in found:
            found = found[found.scores >= self.score_thr]
            found = found[found.scores.argsort()]  # the best last, on top
            corners.append(_mirrored(_corners(found.bboxes), sample.metainfo) if mirrored else _corners(found.bboxes))
            labels = found.labels.tolist()
            captions += [f'{self._class_name(k)} {score:.2f}' for k, score in zip(labels, found.scores.tolist())]
            colours += [self._class_colour(label) for label in labels]
        return Boxes(np.concatenate(corners), captions, colours)

    def _class_name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)

    def _class_colour(self, label: int) -> tuple[int, int, int]:
        """BGR from the palette, or from the colours of a wheel."""
        if label < len(self.palette):
            return tuple(int(value) for value in self.palette[label][::-1])
        hue = np.uint8([[[label * 67 % 180, 200, 255]]])
        return tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])


def draw_boxes(picture: np.ndarray, boxes: Boxes, scale: float = 1.0) -> np.ndarray:
    """A copy of the picture, which may be smaller than that of the boxes by `scale`, with outlines and captions."""
    picture = picture.copy()
    width = max(2, round(min(picture.shape[:2]) / 250))
    corners = np.round(boxes.corners * scale).astype(int)
    for (left, top, right, bottom), colour in zip(corners.tolist(), boxes.colours):
        # A dark rim keeps the line visible on any colour of the heat.
        cv2.rectangle(picture, (left, top), (right, bottom), (0, 0, 0), width + 2)
        cv2.rectangle(picture, (left, top), (right, bottom), colour, width)
    size = max(11, round(min(picture.shape[:2]) / 36))
    texts = []
    for (left, top, _, _), caption, colour in zip(corners.tolist(), boxes.captions, boxes.colours):
        texts.append(Text(caption, (max(left, 0), max(top - size - 4, 0)), size, (255, 255, 255), colour))
    return draw_texts(picture, texts)


def _mirrored(corners: np.ndarray, meta: dict) -> np.ndarray:
    """Boxes (N, 4) of a flipped photo on the photo itself."""
    height, width = meta['ori_shape'][:2]
    corners = corners.copy()
    for flipped, (low, high), size in zip(flipped_axes(meta), ((0, 2), (1, 3)), (width, height)):
        if flipped:
            corners[:, [low, high]] = size - corners[:, [high, low]]
    return corners


def _corners(boxes: Any) -> np.ndarray:
    """(N, 4) of a box tensor or of one of mmdet's box structures."""
    return getattr(boxes, 'tensor', boxes).detach().cpu().numpy().astype(np.float64).reshape(-1, 4)
