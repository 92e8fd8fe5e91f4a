"""Suppression: lets a detector predict all its candidates, as they are before thresholds and suppression."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import Any, Iterator

from torch import nn

# Most candidates of each level that become boxes at all (pairs of a cell and a class, the highest scores first).
CANDIDATES_OF_LEVEL = 10_000
CANDIDATES = 100_000  # of an image


@contextmanager
def without_suppression(model: nn.Module) -> Iterator[None]:
    """Within the context, a detector predicts every candidate, also those that another box or a threshold removes.

    The detector's own code predicts, with another ``test_cfg`` of its head: no score threshold, no NMS, and more boxes.
    The region proposals of a two-stage detector stay as they are.
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
            head.test_cfg = _open(head.test_cfg)
        yield
    finally:
        for name, head in heads.items():
            head.test_cfg = originals[name]


def _makes_proposals(name: str, names: Any) -> bool:
    parent, _, own = name.rpartition('.')
    return own == 'rpn_head' and f'{parent}.roi_head'.lstrip('.') in names


def _open(test_cfg: dict) -> dict:
    """Return a copy of a ``test_cfg`` that keeps every candidate."""
    opened = copy.deepcopy(test_cfg)
    changes = dict(nms=None, score_thr=0.0, min_bbox_size=-1, max_per_img=CANDIDATES, nms_pre=CANDIDATES_OF_LEVEL)
    opened.update({key: value for key, value in changes.items() if key in opened})
    return opened
