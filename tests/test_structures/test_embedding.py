"""Embedding: what eight bits cost."""

import numpy as np

from mmdet_featviz.structures.embedding import COSINE_ERROR, cosines, quantize


def exact(cells, vector):
    """Cosines in float64, of the components themselves."""
    return np.tensordot(vector, cells, 1) / np.linalg.norm(cells, axis=0) / np.linalg.norm(vector)


def test_the_error_of_a_cosine_is_bounded_for_short_and_for_long_vectors():
    rng = np.random.default_rng(0)
    # Lengths from 1e-6 to 1e6, and directions along a few components as well as along all.
    cells = rng.normal(size=(16, 40, 50)) * 10 ** rng.uniform(-6, 6, (40, 50)) * rng.choice([0.01, 1], (16, 40, 50))
    codes, errors = quantize(cells), []
    assert codes.dtype == np.int8 and (np.abs(codes.astype(int)).max(0) == 127).all()
    for column in range(50):
        errors.append(np.abs(cosines(codes, codes[:, 0, column]) - exact(cells, cells[:, 0, column])).max())
    assert 0.005 < max(errors) <= COSINE_ERROR < 0.031
    assert np.mean(errors) < 0.01


def test_cells_without_a_direction_are_similar_to_none():
    cells = np.ones((16, 2, 3))
    cells[:, 0, 0], cells[4, 0, 1], cells[5, 0, 2] = 0, np.nan, -np.inf
    codes = quantize(cells)
    np.testing.assert_array_equal(cosines(codes, codes[:, 1, 0]), [[0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(cosines(codes, codes[:, 0, 1]), np.zeros((2, 3)))
