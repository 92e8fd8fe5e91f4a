"""Explanation placement: checks that a detector's top detection can be explained, and that its heat follows a patch.

As in :mod:`mmdet_featviz.benchmarks.patch_placement`, a patch is moved over a plain image. The candidate that fits the
patch best is explained with ODAM, and the strong heat of its explanation must move as the patch does, and be in the box
of the candidate. This holds for heads that look at the cells in and around a box. A head with attention may look
anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Sequence

import numpy as np
from torch import nn

from mmdet_featviz.apis.explain import explain_batch
from mmdet_featviz.benchmarks import patch_placement
from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.explanation.targets import NoTargetError

ATTENTION = re.compile('Attention|MSA|Transformer')


@dataclass(frozen=True)
class ExplanationPlacement:
    """How well the explanations of a detector follow the patch, in cells of the level with the most heat.

    Attributes:
        target: ``detection``, or ``candidate`` if the detector predicts no box on the image with the patch.
        level: Name of the level with the most heat.
        moves: Largest difference between the movement of the heat and that of the patch.
        offset: Mean distance of the center of the heat from the explained box, 0 inside the box.
        verdict: ``right``, ``blurred`` and ``wrong`` as those of a level; ``not local`` (not right, behind attention);
            ``not measured`` (a detection is explained, but no candidate overlaps the patch); ``no heat`` (an
            explanation is zero everywhere).
    """

    target: str
    level: str
    moves: float
    offset: float
    verdict: str


def explanation_placement(
    model: nn.Module,
    pack: Callable[[np.ndarray], dict],
    levels: Sequence[patch_placement.LevelPlacement],
) -> ExplanationPlacement:
    """Explain the detection with the highest score, and measure how well explanations follow the patch.

    Args:
        model: The detector, in evaluation mode.
        pack: Makes the input of the detector's ``test_step`` from an image (height, width, 3), uint8.
        levels: The placement of the detector's levels, for the bounds of the level with the most heat.

    Raises:
        ValueError: If the detector cannot be explained.
        NoTargetError: If it predicts no box, and no candidate overlaps the patch.
    """
    top = _explain_if_any(model, pack, patch_placement.MOVES[0], 'top 1')
    moved = [_explain_if_any(model, pack, move) for move in patch_placement.MOVES]
    explained = [one for one in [top, *moved] if one is not None]
    if not explained:
        raise NoTargetError('the detector predicts no box, and no candidate overlaps the patch')
    target = 'candidate' if top is None else 'detection'
    level = max(explained[-1].levels, key=explained[-1].levels.get)
    if not all(np.isfinite(one.heatmap).all() and one.heatmap.any() for one in explained):
        return ExplanationPlacement(target, level, np.nan, np.nan, 'no heat')
    if None in moved:
        return ExplanationPlacement(target, level, np.nan, np.nan, 'not measured')
    centers, boxes = _centers_and_boxes(moved, level)
    moves = np.abs(centers - centers.mean(0)).max()
    outside = np.maximum(boxes[:, :2] - centers, centers - boxes[:, 2:])
    offset = np.maximum(outside, 0).mean(0).max()
    allowed = next((one.allowed for one in levels if f'{one.layer}_{one.level}' == level), 1.0)
    looks_far = any(map(patch_placement.reaches_far, model.modules()))
    verdict = patch_placement.verdict_of(max(moves, offset), allowed, looks_far)
    if verdict != 'right' and _attends_behind(model, {one.layer for one in moved[0].snapshot.levels}):
        verdict = 'not local'
    return ExplanationPlacement(target, level, round(float(moves), 2), round(float(offset), 2), verdict)


def _explain_if_any(
    model: nn.Module, pack: Callable[[np.ndarray], dict], move: tuple[int, int], target: str | None = None
) -> Explanation | None:
    """Explain a target in the image with the patch, if there is one; by default the candidate that fits the patch."""
    (x, y), half = _patch_center(move), patch_placement.PATCH // 2
    plain = np.full((*patch_placement.PICTURE, 3), patch_placement.BACKGROUND, np.uint8)
    data = pack(patch_placement.add_patch(plain, (x, y), 0))
    try:
        return explain_batch(model, data, targets=target or f'box {x - half} {y - half} {x + half} {y + half}')[0][0]
    except NoTargetError:
        return None


def _patch_center(move: tuple[int, int]) -> tuple[int, int]:
    return patch_placement.PLACES[0][0] + move[0], patch_placement.PLACES[0][1] + move[1]


def _centers_and_boxes(explained: Sequence[Explanation], level: str) -> tuple[np.ndarray, np.ndarray]:
    """Centers (K, 2) of the strong heat for each place of the patch, and explained boxes (K, 4), seen from the patch.

    In cells of a level.
    """
    (stride,) = (one.stride for one in explained[0].snapshot.levels if one.name == level)
    scale = np.abs(np.diag(explained[0].snapshot.placement.matrix)[:2]) / stride[::-1]
    patches = np.array([_patch_center(move) for move in patch_placement.MOVES])
    centers = np.array([patch_placement.center_of(one.heatmap) for one in explained])
    boxes = np.array([one.bbox for one in explained])
    return (centers - patches) * scale, (boxes - np.tile(patches, 2)) * np.tile(scale, 2)


def _attends_behind(model: nn.Module, layers: set[str]) -> bool:
    """Whether attention follows the layers at which detections are explained."""
    before = tuple(f'{name}.' for name in {*layers, 'backbone', 'neck'})
    return any(
        ATTENTION.search(type(module).__name__) is not None
        for name, module in model.named_modules()
        if not f'{name}.'.startswith(before)
    )
