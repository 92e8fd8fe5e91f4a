"""Explanation measures: how well a heatmap explains a detection, in numbers."""

from __future__ import annotations

import math
from typing import NamedTuple, Sequence

import cv2
import numpy as np
import torch

from mmdet_featviz.evaluation.heat_measures import inside_boxes, is_constant
from mmdet_featviz.explanation.baselines import smooth_noise
from mmdet_featviz.explanation.detections import Detections, overlaps
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.perturbation_methods import hide, mean_color
from mmdet_featviz.explanation.targets import Target

SAME_OVERLAP = 0.5  # a detection with a larger one is still the explained one
COMPARED_SIZE = 64  # longer side of the heatmaps whose ranks are compared


class Curves(NamedTuple):
    """What is left of a score while pixels are added or removed in order of heat.

    Attributes:
        insertion: (steps + 1,): the score divided by that in the whole image, with 0 to all pixels added.
        deletion: (steps + 1,): the same, with 0 to all pixels removed.
    """

    insertion: np.ndarray
    deletion: np.ndarray


def area(curve: np.ndarray) -> float:
    """Area under a curve over the share of the pixels, 0 to 1, by the trapezoidal rule."""
    curve = np.asarray(curve, np.float64)
    return float((curve[1:] + curve[:-1]).mean() / 2)


def kept_score(target: Target, found: Detections) -> float:
    """Highest score among detections of the target's class that overlap it by more than half; 0 without any."""
    same = (found.labels == target.label) & (
        overlaps(found.bboxes, found.bboxes.new_tensor(target.bbox)) > SAME_OVERLAP
    )
    scores = found.scores[same].nan_to_num(0)
    return float(scores.max()) if len(scores) else 0.0


def pixel_order(heat: np.ndarray, content: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of the pixels of the content, hottest first.

    Pixels of equal heat come region by region, in the order of smooth noise. Most of the image has no heat at all in
    a local map; single pixels strewn over it would disturb the detector more than any region does.

    Args:
        heat: (H, W).
        content: (H, W) bool: the pixels that show the image.
        rng: Random numbers.
    """
    pixels = np.flatnonzero(content)
    noise = smooth_noise(heat.shape, rng)
    return pixels[np.lexsort((noise.ravel()[pixels], -heat.ravel()[pixels].astype(np.float64)))]


def perturbation_curves(
    batch: DetectorBatch, target: Target, order: np.ndarray, steps: int, batch_size: int, blank: float
) -> Curves:
    """Insert and delete the pixels of an image in an order, and predict after each step.

    Pixels that are not there have the mean color of the image, so that both curves go from the same blank image to the
    same whole one, and back (after RISE, Petsiuk et al., BMVC 2018).

    Args:
        batch: The detector and the images.
        target: The explained detection.
        order: Indices of the pixels of the network's input, hottest first.
        steps: Number of steps; each adds or removes the same number of pixels.
        batch_size: Images per prediction.
        blank: What :func:`kept_score` finds in the blank image.
    """
    pixels, sample = batch.data['inputs'][target.image], batch.data['data_samples'][target.image]
    whole = kept_score(target, batch.detections[target.image])
    inner = [order[: round(step / steps * len(order))] for step in range(1, steps)]
    masks = [(first, shown) for shown in (1.0, 0.0) for first in inner]
    color, scores = mean_color(pixels), []
    for begin in range(0, len(masks), batch_size):
        hidden = [hide(pixels, _mask(pixels, order, *mask), color) for mask in masks[begin : begin + batch_size]]
        scores += [kept_score(target, found) for found in batch.predict(hidden, [sample] * len(hidden))]
    inserted, deleted = scores[: len(inner)], scores[len(inner) :]
    return Curves(np.array([blank, *inserted, whole]) / whole, np.array([whole, *deleted, blank]) / whole)


def blank_scores(batch: DetectorBatch, image: int, content: np.ndarray, targets: Sequence[Target]) -> list[float]:
    """Return what :func:`kept_score` finds of each target in an image without its content (H, W)."""
    pixels, sample = batch.data['inputs'][image], batch.data['data_samples'][image]
    (found,) = batch.predict([hide(pixels, 1 - content.astype(np.float32), mean_color(pixels))], [sample])
    return [kept_score(target, found) for target in targets]


def _mask(pixels: torch.Tensor, order: np.ndarray, first: np.ndarray, shown: float) -> np.ndarray:
    """A mask (H, W) where the first pixels of an order are shown (1) and the others are not, or the other way round."""
    mask = np.ones(pixels.shape[-2] * pixels.shape[-1], np.float32)  # padding stays as it is
    mask[order] = 1 - shown
    mask[first] = shown
    return mask.reshape(pixels.shape[-2:])


def pointing_game(heat: np.ndarray, box: np.ndarray) -> float:
    """Whether the hottest pixel is in a box (Zhang et al., IJCV 2018): 1 or 0; of several, the share that is.

    Args:
        heat: (H, W), at least 0.
        box: (4,): left, top, right, bottom, in pixels. A pixel is in the box if its center is.
    """
    return float(inside_boxes(box[None], heat.shape)[heat == heat.max()].mean())


def energy_in_box(heat: np.ndarray, box: np.ndarray) -> float:
    """Share of the heat that is in a box, 0 to 1 (Wang et al., CVPR Workshops 2020); NaN without heat."""
    total = heat.sum(dtype=np.float64)
    return float(heat[inside_boxes(box[None], heat.shape)].sum(dtype=np.float64) / total) if total else math.nan


def discrimination(heat: np.ndarray, own: np.ndarray, others: np.ndarray) -> float:
    """Share of the heat in boxes that is on other objects: ODI, 0 to 1, lower is better (Zhao & Chan, ICLR 2023).

    Pixels that other objects share with the own box count as the own. NaN without other objects, and without heat.

    Args:
        heat: (H, W), at least 0.
        own: (4,): box of the object.
        others: (N, 4): boxes of the others.
    """
    mine = inside_boxes(own[None], heat.shape)
    theirs = inside_boxes(others, heat.shape) & ~mine
    if not theirs.any():
        return math.nan
    on_own, on_others = (heat[pixels].sum(dtype=np.float64) for pixels in (mine, theirs))
    return float(on_others / (on_own + on_others)) if on_own + on_others else math.nan


def rank_correlation(heat: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two heatmaps of one image, -1 to 1; 0 if one is flat.

    They are first made smaller, by averaging, to a longer side of 64.
    """
    from scipy.stats import spearmanr

    factor = COMPARED_SIZE / max(heat.shape)
    size = tuple(max(1, round(side * min(1.0, factor))) for side in heat.shape[::-1])
    small = [cv2.resize(one.astype(np.float32), size, interpolation=cv2.INTER_AREA).ravel() for one in (heat, other)]
    return 0.0 if any(map(is_constant, small)) else float(spearmanr(*small)[0])
