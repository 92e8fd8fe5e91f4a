"""Plane map: places vectors on a plane, similar ones near each other; by UMAP where it is installed, else by PCA."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import numpy as np

from mmdet_featviz.evaluation.neighbor_purity import unit_rows

COMPONENTS = 2
FEWEST_FOR_UMAP = 16  # more than the neighbors that it looks at


class PlaneMap(NamedTuple):
    """Where vectors are on a plane.

    Attributes:
        points: (N, 2) float64.
        method: ``UMAP``, or ``PCA`` with the share of the variance that it shows.
    """

    points: np.ndarray
    method: str


def plane_map(vectors: np.ndarray) -> PlaneMap:
    """Place vectors of unit length, so that only directions count, as in :func:`neighbor_purity`.

    UMAP (McInnes et al. 2018) is used where ``umap-learn`` is installed, with its own defaults, the cosine and a fixed
    seed; otherwise the two leading principal components.

    Args:
        vectors: (N, C), finite.
    """
    units = unit_rows(vectors)
    if len(units) >= FEWEST_FOR_UMAP and importlib.util.find_spec('umap') is not None:
        from umap import UMAP  # takes seconds to import

        return PlaneMap(np.asarray(UMAP(metric='cosine', random_state=0, n_jobs=1).fit_transform(units)), 'UMAP')
    points, share = two_components(units)
    return PlaneMap(points, f'PCA, {100 * share:.0f} % of the variance')


def two_components(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """The two leading principal components of vectors (N, C), as (N, 2), and their share of the variance.

    The sign of each is such that the largest entry of its direction is positive. Missing components are 0.
    """
    points = np.zeros((len(vectors), 2))
    if not len(vectors):
        return points, 0.0
    centered = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centered.T @ centered)
    leading = axes[:, : -COMPONENTS - 1 : -1]
    leading = leading * np.sign(np.take_along_axis(leading, np.abs(leading).argmax(axis=0)[None], axis=0))
    points[:, : leading.shape[1]] = centered @ leading
    total = np.trace(centered.T @ centered)
    return points, float(variances[-COMPONENTS:].sum() / total) if total > 0 else 0.0
