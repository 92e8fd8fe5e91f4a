"""Explanation matching: pairs the explanations of the same boxes in two runs."""

from __future__ import annotations

from typing import Sequence

import torch

from mmdet_featviz.explanation.detections import overlaps
from mmdet_featviz.explanation.explanation import Explanation

SAME_OVERLAP = 0.5  # of the boxes


def match_explanations(
    explanations: Sequence[Explanation], others: Sequence[Explanation]
) -> list[tuple[Explanation, Explanation | None]]:
    """For each explanation, find that of the same box in another run.

    Two boxes are the same if their classes are and they overlap by at least half; of several, the largest overlap
    counts. The same of them must be explained: the score, a side or both.
    """
    return [(one, _partner(one, others)) for one in explanations]


def _partner(explanation: Explanation, others: Sequence[Explanation]) -> Explanation | None:
    def same(one: Explanation) -> tuple:
        return one.class_name, one.target.of, one.target.kind == 'drawn box'

    others = [other for other in others if same(other) == same(explanation)]
    if not others:
        return None
    boxes = torch.tensor([other.target.bbox for other in others])
    fits = overlaps(boxes, torch.tensor(explanation.target.bbox))
    best = int(fits.argmax())
    return others[best] if float(fits[best]) >= SAME_OVERLAP else None
