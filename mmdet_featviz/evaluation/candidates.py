"""Candidates: the boxes that a detector considers near some objects, and the boxes that it starts from."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np
import torch

from mmdet_featviz.evaluation.detection_errors import BACKGROUND
from mmdet_featviz.explanation.detections import Detections, overlaps
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.starting_boxes import StartingBoxes
from mmdet_featviz.structures.boxes import Boxes


class ImageCandidates(NamedTuple):
    """The candidates of one image.

    Attributes:
        boxes: The boxes before threshold and suppression that overlap one of the objects by at least 0.1.
        starts: (S, 4) region proposals, anchors or points, in pixels of the image; None if the detector has none.
    """

    boxes: Boxes
    starts: np.ndarray | None


def find_candidates(model: Any, data: Mapping[str, Any], objects: Sequence[np.ndarray]) -> list[ImageCandidates]:
    """Let a detector predict a batch again, with every candidate: there can be millions, so most are left out at once.

    Args:
        model: The detector.
        data: The batch as a data loader returns it. With test-time augmentation, the first of its passes that is not
            flipped is predicted.
        objects: For each image (M, 4) corners of the objects whose candidates are wanted.
    """
    batch = DetectorBatch(model, _plain_batch(data), suppressed=False, limited=False)
    with StartingBoxes(batch.model) as starts:
        detections = batch.detections
    metas = [sample.metainfo for sample in batch.plain_pass.samples]
    return [
        ImageCandidates(_near(found, corners), starts.of_image(index, meta.get('scale_factor', (1.0, 1.0))[:2]))
        for index, (found, corners, meta) in enumerate(zip(detections, objects, metas))
    ]


def _plain_batch(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The batch, or with test-time augmentation, which has a batch for each pass, that of a pass without a flip."""
    if not isinstance(data['data_samples'][0], (list, tuple)):
        return data
    flips = [bool(samples[0].metainfo.get('flip')) for samples in data['data_samples']]
    return {name: values[flips.index(False) if False in flips else 0] for name, values in data.items()}


def _near(found: Detections, corners: np.ndarray) -> Boxes:
    """The candidates that overlap one of the objects (M, 4) by at least 0.1."""
    near = torch.zeros(len(found), dtype=torch.bool, device=found.scores.device)
    for box in found.bboxes.new_tensor(corners):
        near |= overlaps(found.bboxes, box) >= BACKGROUND  # false for NaN
    near &= torch.isfinite(found.scores)
    boxes, scores = (part[near].cpu().double().numpy() for part in (found.bboxes, found.scores))
    return Boxes(boxes, found.labels[near].cpu().numpy(), scores)
