"""Feature compression: keeps the leading principal components of the feature map of one image."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_featviz.structures.compact_features import CompactFeatures

COMPONENTS = 32  # of any feature map
ROOM = 1 << 19  # values, to keep more of a small one: all of 256 channels at stride 8 of 320x320 pixels


@torch.no_grad()
def compress_features(features: Tensor, room: int = ROOM) -> CompactFeatures:
    """Project the feature map of one image on its own leading principal components.

    There are 32, or more as long as they take no more than `room` values; never more than channels or cells. With as
    many, nothing is lost.

    Args:
        features: (C, rows, columns), of any floating type, on any device; it is not changed.
        room: How many values more than 32 components may take.
    """
    cells = features.detach().float().flatten(1)
    is_finite = cells.isfinite().all(0)
    cells = torch.where(is_finite, cells, cells.new_zeros(()))
    mean = cells.sum(1) / is_finite.sum().clamp(min=1)
    centered = torch.where(is_finite, cells - mean[:, None], cells.new_zeros(()))
    basis = _leading_directions(centered, max(COMPONENTS, room // sum(centered.shape)))
    scores = (basis.T @ centered).masked_fill(~is_finite, torch.nan)
    scores = scores.view(-1, *features.shape[1:])
    return CompactFeatures(*(part.cpu().numpy() for part in (mean, basis.T.contiguous(), scores)))


def _leading_directions(centered: Tensor, components: int) -> Tensor:
    """Orthonormal directions (C, K) of the largest variance of cells (C, cells).

    From the smaller one of the two matrices of inner products, which has the same eigenvalues. If there is room for all
    directions, they are those of the channels.
    """
    channels, cells = centered.shape
    if channels <= components:
        return torch.eye(channels, dtype=centered.dtype, device=centered.device)
    if channels <= cells:
        return torch.linalg.eigh(centered @ centered.T)[1][:, -components:]
    combinations = torch.linalg.eigh(centered.T @ centered)[1][:, -components:]
    return torch.linalg.qr(centered @ combinations)[0]
