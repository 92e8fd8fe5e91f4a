"""Starting boxes: what a detector begins its boxes with: region proposals, anchors or points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
from torch import Tensor, nn

from mmdet_featviz.capture.detector import predicting_branch
from mmdet_featviz.capture.head_scores import find_heads, priors_of, proposes


class StartingBoxes:
    """Keeps the starting boxes of a pass, inside a ``with`` block.

    Args:
        model: The detector, without wrappers.
    """

    def __init__(self, model: nn.Module) -> None:
        branch = predicting_branch(model)
        self._extractor = _region_extractor(model, branch)
        self._head = _dense_head(model, branch) if self._extractor is None else None
        self._handles: list[Any] = []
        self._regions: Tensor | None = None
        self._priors: Tensor | None = None

    def __enter__(self) -> StartingBoxes:
        if self._extractor is not None:
            self._handles.append(self._extractor.register_forward_pre_hook(self._keep_regions))
        if self._head is not None:
            self._handles.append(self._head.register_forward_hook(self._keep_priors))
        return self

    def __exit__(self, *exc_info: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def of_image(self, index: int, scale: tuple[float, float]) -> np.ndarray | None:
        """Return the starting boxes of an image of the batch.

        Args:
            index: Index of the image in the batch.
            scale: (horizontal, vertical) scale from the image to the network's input: its ``scale_factor``.

        Returns:
            (S, 4) float64, in pixels of the image; a point is a box without area. None if the detector has none, as
            with queries, or they are of an unknown kind.
        """
        boxes = self._priors if self._regions is None else self._regions[self._regions[:, 0] == index, 1:5]
        return None if boxes is None else boxes.cpu().numpy().astype(np.float64) / [*scale, *scale]

    def _keep_regions(self, module: nn.Module, args: Any) -> None:
        if self._regions is None:  # of a cascade, the first stage
            self._regions = args[1].detach()

    def _keep_priors(self, module: nn.Module, args: Any, output: Any) -> None:
        generator = priors_of(self._head)
        if self._priors is None and generator is not None:
            sizes = [tuple(level.shape[2:]) for level in output[0]]
            priors = generator.grid_priors(sizes, device=output[0][0].device)
            priors = torch.cat([getattr(level, 'tensor', level) for level in priors])
            self._priors = priors if priors.shape[1] == 4 else priors[:, [0, 1, 0, 1]]


def _region_extractor(model: nn.Module, branch: str) -> nn.Module | None:
    """What cuts the regions of a two-stage detector out of its feature maps, for the first stage."""
    for name, part in model.named_modules():
        if name.startswith(branch) and isinstance(part, BaseRoIHead) and part.with_bbox:
            extractor = part.bbox_roi_extractor
            return extractor[0] if isinstance(extractor, nn.ModuleList) else extractor
    return None


def _dense_head(model: nn.Module, branch: str) -> nn.Module | None:
    try:
        heads = find_heads(model, branch)
    except ValueError:  # a head with queries
        return None
    return next((head for name, head in heads.items() if not proposes(name, head)), None)
