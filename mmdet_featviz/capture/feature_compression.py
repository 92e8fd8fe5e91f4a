"""Feature compression: keeps the leading principal components of the feature map of one image."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_featviz.structures.compact_features import CompactFeatures

COMPONENTS = 32


@torch.no_grad()
def compress_features(features: Tensor, components: int = COMPONENTS) -> CompactFeatures:
    """Project the feature map of one image on its own leading principal components.

    Args:
        features: (C, rows, columns), of any floating type, on any device; it is not changed.
        components: How many to keep at most; there are no more than channels or cells.
    """
    cells = features.detach().float().flatten(1)
    is_finite = cells.isfinite().all(0)
    cells = torch.where(is_finite, cells, cells.new_zeros(()))
    mean = cells.sum(1) / is_finite.sum().clamp(min=1)
    centered = torch.where(is_finite, cells - mean[:, None], cells.new_zeros(()))
    basis = _leading_directions(centered, components)
    scores = (basis.T @ centered).masked_fill(~is_finite, torch.nan)
    scores = scores.view(-1, *features.shape[1:])
    return CompactFeatures(*(part.cpu().numpy() for part in (mean, basis.T.contiguous(), scores)))


def _leading_directions(centered: Tensor, components: int) -> Tensor:
    """Orthonormal directions (C, K) of the largest variance of cells (C, cells), the largest last.

    From the smaller one of the two matrices of inner products, which has the same eigenvalues.
    """
    channels, cells = centered.shape
    if channels <= cells:
        return torch.linalg.eigh(centered @ centered.T)[1][:, -components:]
    combinations = torch.linalg.eigh(centered.T @ centered)[1][:, -components:]
    return torch.linalg.qr(centered @ combinations)[0]
