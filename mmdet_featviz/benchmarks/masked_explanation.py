"""Masked explanation: checks that a detector can be explained without gradients, by hiding parts of the image."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np
from torch import nn

from mmdet_featviz.apis.explain import explain_batch
from mmdet_featviz.explanation.targets import NoTargetError

FEW = dict(masks=4, cells=4, batch_size=2)  # enough to see that D-RISE runs, far too few for a good map


def masked_explanation(model: nn.Module, data: Mapping[str, Any]) -> str:
    """Explain a box with D-RISE: the detection with the highest score, or else the candidate that fits the image best.

    With few masks, no detection of the same class may be left behind any of them. Candidates always are.

    Args:
        model: The detector, in evaluation mode.
        data: A batch of one image, as the detector's ``test_step`` takes it.

    Returns:
        What is explained: ``detection`` or ``candidate``.

    Raises:
        ValueError: If there is no box to explain, or the heatmap is not finite, or has no heat.
    """
    height, width = data['data_samples'][0].metainfo['ori_shape'][:2]
    whole = f'box 0 0 {width} {height}'
    for kind, target in dict(detection='top 1', candidate=whole).items():
        try:
            heat = explain_batch(model, data, 'drise', target, **FEW)[0][0].heatmap
        except NoTargetError as error:
            reason = str(error).rpartition(': ')[2]
            continue
        if np.isfinite(heat).all() and heat.any():
            return kind
        reason = 'no heat' if np.isfinite(heat).all() else 'the heat is not finite'
    raise ValueError(reason)
