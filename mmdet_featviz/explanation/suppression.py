"""Suppression: lets a detector predict all its candidates, as they are before thresholds and suppression."""

from __future__ import annotations

import copy
from contextlib import ExitStack, contextmanager
from typing import Any, Iterator, Sequence

import torch
from mmdet.models.dense_heads import yolact_head
from mmdet.models.detectors.single_stage_instance_seg import SingleStageInstanceSegmentor
from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmdet_featviz.explanation.replacement import replace

# Most candidates of each level that become boxes at all (pairs of a cell and a class, the highest scores first).
CANDIDATES_OF_LEVEL = 10_000
CANDIDATES = 100_000  # of an image
NO_LIMIT = 10**9


@contextmanager
def without_suppression(model: nn.Module, limited: bool = True) -> Iterator[None]:
    """Within the context, a detector predicts every candidate, also those that another box or a threshold removes.

    The detector's own code predicts, with another ``test_cfg`` of its head: no score threshold, no NMS, and more boxes.
    The region proposals of a two-stage detector stay as they are.

    Args:
        model: The detector.
        limited: Whether to leave out the candidates of the lowest scores where there are very many.
    """
    names = dict(model.named_modules())
    heads = {
        name: module
        for name, module in names.items()
        if isinstance(getattr(module, 'test_cfg', None), dict) and not _makes_proposals(name, names)
    }
    originals = {name: head.test_cfg for name, head in heads.items()}
    try:
        for head in heads.values():
            head.test_cfg = _open(head.test_cfg, limited)
        with boxes_only(model), _AtMostAll(), ExitStack() as undo:
            if any(isinstance(module, yolact_head.YOLACTHead) for module in model.modules()):
                replace(yolact_head, 'fast_nms', _pairs, undo)
            yield
    finally:
        for name, head in heads.items():
            head.test_cfg = originals[name]


@contextmanager
def boxes_only(model: nn.Module) -> Iterator[None]:
    """Within the context, detectors predict no masks where the boxes come first and do not depend on them.

    These are two-stage detectors, and single-stage ones with a head for boxes, such as CondInst: they would make a mask
    of the size of the image for each of thousands of candidates. Panoptic detectors need their masks.
    """
    with ExitStack() as undo:
        for part in [] if hasattr(model, 'panoptic_fusion_head') else model.modules():
            if isinstance(part, BaseRoIHead) and part.with_mask:
                undo.callback(setattr, part, 'mask_head', part.mask_head)
                part.mask_head = None
            elif isinstance(part, SingleStageInstanceSegmentor) and part.with_bbox and part.with_mask:
                replace(part.mask_head, 'predict', _without_masks, undo)
        yield


def _without_masks(features: Any, samples: Sequence[Any], rescale: bool, results_list: list, **_: Any) -> list:
    """What the mask heads of single-stage detectors predict, without the masks: they bring the boxes to the image."""
    for sample, results in zip(samples, results_list):
        if rescale and len(results.bboxes):
            results.bboxes /= results.bboxes.new_tensor(sample.metainfo['scale_factor']).repeat((1, 2))
    return results_list


def _pairs(
    boxes: Tensor, scores: Tensor, coefficients: Tensor, score_thr: float, iou_thr: float, top_k: int, max_num: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What YOLACT's fast NMS returns, without the suppression: all pairs of a box and a class, the best scores first.

    No ``test_cfg`` can do that: the overlaps of all pairs would not fit in memory.
    """
    of_pairs = scores[:, :-1].flatten()  # the last is the background
    pairs = of_pairs.topk(max_num).indices
    rows, labels = pairs // (scores.shape[1] - 1), pairs % (scores.shape[1] - 1)
    return torch.cat([boxes[rows], of_pairs[pairs][:, None]], 1), labels, coefficients[rows]


class _AtMostAll(TorchFunctionMode):
    """Within this mode, ``topk`` returns all there are if there are fewer: query heads ask for as many as allowed."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.topk, Tensor.topk) and len(args) > 1:
            tensor, k, *rest = args
            dim = rest[0] if rest else kwargs.get('dim', -1)
            args = tensor, min(k, tensor.shape[dim]), *rest
        return func(*args, **kwargs)


def _makes_proposals(name: str, names: Any) -> bool:
    parent, _, own = name.rpartition('.')
    return own == 'rpn_head' and f'{parent}.roi_head'.lstrip('.') in names


def _open(test_cfg: dict, limited: bool) -> dict:
    """Return a copy of a ``test_cfg`` that keeps every candidate."""
    opened = copy.deepcopy(test_cfg)
    of_image, of_level = (CANDIDATES, CANDIDATES_OF_LEVEL) if limited else (NO_LIMIT, NO_LIMIT)
    changes = dict(nms=None, score_thr=0.0, min_bbox_size=-1, max_per_img=of_image, nms_pre=of_level)
    if 'topk' in opened:  # CenterNet suppresses cells that are no local maximum
        changes.update(topk=of_level, local_maximum_kernel=1)
    opened.update({key: value for key, value in changes.items() if key in opened})
    return opened
