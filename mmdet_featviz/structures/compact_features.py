"""Compact features: the feature map of one image on its own leading principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class CompactFeatures:
    """The feature map of one image, near ``mean + scores * basis`` in each cell.

    Of all approximations with as many components, it has the least squared error (Eckart and Young, Psychometrika 1,
    1936). With as many components as channels it is exact.

    Attributes:
        mean: (C,) float32: mean of the cells.
        basis: (K, C) float32: orthonormal directions in the space of the channels.
        scores: (K, rows, columns) float32: each cell without the mean, along these directions; NaN for a cell with
            values that are not finite.
    """

    mean: np.ndarray
    basis: np.ndarray
    scores: np.ndarray
