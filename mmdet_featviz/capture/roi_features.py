"""RoI features: what a detector's neck, and the box head of a two-stage detector, have inside given boxes."""

from __future__ import annotations

from typing import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.detector import predicting_branch, unwrap_detector
from mmdet_featviz.capture.layer_selection import modules_by_name
from mmdet_featviz.capture.module_outputs import tensors_in
from mmdet_featviz.capture.strides import stride_of
from mmdet_featviz.structures.box_features import BoxFeatures
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.placement import Placement

WINDOW = 7  # bins of a box along each axis
SOURCES = ('neck', 'backbone')  # the first that the detector has
CHUNK = 256  # boxes at a time, so that many boxes take no more memory
HEAD = 'roi_head.bbox_head'


@torch.no_grad()
def box_features(
    model: nn.Module, pass_: Pass, index: int, boxes: Boxes, placement: Placement, score_thr: float
) -> BoxFeatures:
    """The features of the boxes of an image: of its ground truth, and of predictions of at least a score.

    Of each level of the neck (without one, of the backbone), the mean over the 7x7 bins of RoIAlign (He et al., ICCV
    2017), with ``aligned=True`` and samples as dense as the cells. Of a Faster or Cascade R-CNN also the vector that
    the last box head classifies a box by, when it is given the box itself as a proposal.

    Args:
        model: The detector.
        pass_: A pass that kept its features.
        index: Index of the image in the batch.
        boxes: Boxes of the image, in its pixels.
        placement: Where the image lies in the network's input.
        score_thr: Smallest score of a prediction.

    Raises:
        ValueError: If the pass has no features of neck or backbone.
    """
    numbers = np.flatnonzero(boxes.are_truth | (boxes.scores >= score_thr))
    chosen = boxes[numbers]
    detector = unwrap_detector(model)
    branch = predicting_branch(detector)
    layer = next((branch + name for name in SOURCES if branch + name in pass_.features), None)
    if layer is None or not pass_.features[layer].are_intact:
        raise ValueError('neither neck nor backbone returned feature maps, once in the pass, that could be kept')
    rois, are_seen = input_boxes(chosen.corners, placement)
    maps = [features[index : index + 1] for features in tensors_in(pass_.features[layer].output())]
    vectors = {}
    for number, features in enumerate(maps):
        stride = stride_of(features, pass_.inputs[index : index + 1])
        if stride is not None:
            vectors[f'{layer}_{number}'] = _masked(align_mean(features, rois, stride), are_seen)
    roi_head = modules_by_name(detector).get(f'{branch}roi_head')
    if roi_head is not None and _is_plain(roi_head):
        vectors[branch + HEAD] = _masked(_head_vectors(roi_head, maps, rois), are_seen)
    return BoxFeatures(chosen, numbers, vectors)


def input_boxes(corners: np.ndarray, placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    """The upright boxes around boxes of an image, in pixels of the network's input and cut to it.

    Args:
        corners: (N, 4), in pixels of the image.
        placement: Where the image lies in the input.

    Returns:
        (N, 4) float64, and (N,) bool: whether the network saw anything of each; others are zero.
    """
    points = corners[:, [[0, 1], [2, 1], [0, 3], [2, 3]]]  # (N, 4 points, x and y)
    x, y, w = np.moveaxis(np.concatenate([points, np.ones((*points.shape[:2], 1))], 2) @ placement.matrix.T, 2, 0)
    is_ahead = (w > 0).all(axis=1)  # of the horizon of a homography
    depth = np.where(w > 0, w, 1)
    height, width = placement.input_size
    x, y = np.clip(x / depth, 0, width), np.clip(y / depth, 0, height)
    boxes = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)
    are_seen = is_ahead & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return np.where(are_seen[:, None], boxes, 0), are_seen


def align_mean(features: Tensor, boxes: np.ndarray, stride: tuple[float, float]) -> np.ndarray:
    """Mean over the bins of RoIAlign.

    Args:
        features: Feature map (1, C, rows, columns).
        boxes: (N, 4), in pixels of the input.
        stride: (vertical, horizontal) of the cells, in pixels of the input.

    Returns:
        (N, C) float32.
    """
    from mmcv.ops import roi_align  # compiled; not needed before

    vertical, horizontal = stride
    rois = _rois(boxes / [horizontal, vertical, horizontal, vertical], features)
    means = [
        roi_align(features.float(), part.float(), WINDOW, 1.0, 0, 'avg', True).mean((2, 3))
        for part in rois.split(CHUNK)
    ]
    return torch.cat(means).cpu().numpy() if len(boxes) else np.zeros((0, features.shape[1]), np.float32)


def _rois(boxes: np.ndarray, like: Tensor) -> Tensor:
    """Boxes as mmdet's regions of interest (N, 5) of the first image."""
    rois = np.concatenate([np.zeros((len(boxes), 1)), boxes], axis=1)
    return torch.from_numpy(rois).to(like)


def _masked(vectors: np.ndarray, are_seen: np.ndarray) -> np.ndarray:
    vectors[~are_seen] = np.nan
    return vectors


def _is_plain(roi_head: nn.Module) -> bool:
    """Whether a head finds its vectors from regions and maps alone: many inherit from these two and need more."""
    from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead

    plain = StandardRoIHead._bbox_forward, CascadeRoIHead._bbox_forward
    return getattr(type(roi_head), '_bbox_forward', None) in plain and hasattr(_last_head(roi_head), 'fc_cls')


def _last_head(roi_head: nn.Module) -> nn.Module:
    head = roi_head.bbox_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _head_vectors(roi_head: nn.Module, maps: Sequence[Tensor], boxes: np.ndarray) -> np.ndarray:
    """What the last box head gives its classifier for boxes (N, 4) in pixels of the input: (N, C) float32."""
    head, taken = _last_head(roi_head), []
    weight = next(head.parameters())
    stages = () if head is roi_head.bbox_head else (len(roi_head.bbox_head) - 1,)
    handle = head.fc_cls.register_forward_pre_hook(lambda _, args: taken.append(args[0].flatten(1).float().cpu()))
    try:
        maps = tuple(features.to(weight.dtype) for features in maps)
        for part in _rois(boxes, weight).split(CHUNK) if len(boxes) else ():
            roi_head._bbox_forward(*stages, maps, part)
    finally:
        handle.remove()
    return torch.cat(taken).numpy() if taken else np.zeros((0, head.fc_cls.in_features), np.float32)
