"""Embedding: the leading principal components of each cell in eight bits, and how similar cells are by them.

Each cell has a scale of its own, which makes its largest component 127 or -127. A cosine does not depend on the scale.
So what rounding costs is bounded for every cell, however short its vector is beside others: a vector of K components
has a length of at least 127, all components but the largest move by at most 1/2, and it turns by at most
``asin(sqrt(K - 1) / 254)``, 0.9 degrees for 16. The cosine of two cells changes by at most twice the sine of that. With
a scale for each component or each level, no bound would hold for short vectors.
"""

from __future__ import annotations

import numpy as np

LARGEST = 127
COSINE_ERROR = 15**0.5 / 127  # at most, for 16 components: 0.031


def quantize(components: np.ndarray) -> np.ndarray:
    """Round the components (K, rows, columns) of each cell to int8, -127 to 127.

    Cells without a direction, whose components are all zero or not all finite, become zero.
    """
    largest = np.abs(components).max(0)
    has_direction = np.isfinite(largest) & (largest > 0)
    scaled = np.where(has_direction, components, 0) / np.where(has_direction, largest, 1)
    return np.rint(LARGEST * scaled).astype(np.int8)


def cosines(codes: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The cosine (rows, columns) float64 of the angle between each cell and a vector; 0 without a direction.

    Args:
        codes: (K, rows, columns) int8, from :func:`quantize`.
        vector: (K,) int8.
    """
    cells, vector = codes.astype(np.float32), vector.astype(np.float32)  # sums of the products are exact whole numbers
    squares = np.einsum('krc,krc->rc', cells, cells).astype(np.float64) * np.float64(vector @ vector)
    return np.tensordot(vector, cells, 1) / np.sqrt(np.where(squares > 0, squares, 1))
