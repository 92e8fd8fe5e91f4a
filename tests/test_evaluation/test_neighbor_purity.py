"""Purity of neighbors against a sort of all pairs, and the map against a singular value decomposition."""

import sys
import types

import numpy as np
import pytest

from mmdet_featviz.evaluation import neighbor_purity as module
from mmdet_featviz.evaluation.neighbor_purity import chance_shares, neighbor_purity, neighbor_shares, purest_level
from mmdet_featviz.evaluation.plane_map import plane_map, two_components
from mmdet_featviz.structures.boxes import Boxes

RANDOM = np.random.default_rng(0)
COUNT = 60
LABELS, IMAGES = RANDOM.integers(0, 4, COUNT), RANDOM.integers(0, 12, COUNT)
VECTORS = RANDOM.normal(size=(COUNT, 6)).astype(np.float32) + LABELS[:, None]


def slow_shares(vectors, labels, images, neighbors):
    shares = []
    for row, vector in enumerate(vectors.astype(float)):
        others = [one for one in range(len(vectors)) if images[one] != images[row]]
        cosine = {
            one: vector
            @ vectors[one].astype(float)
            / np.sqrt((vector**2).sum() * (vectors[one].astype(float) ** 2).sum())
            for one in others
        }
        nearest = sorted(others, key=cosine.get, reverse=True)[:neighbors]
        shares.append(np.mean([labels[one] == labels[row] for one in nearest]) if nearest else np.nan)
    return shares


@pytest.mark.parametrize('neighbors', [1, 10, 100])
def test_shares_are_those_of_a_sort_of_all_pairs(monkeypatch, neighbors):
    monkeypatch.setattr(module, 'BLOCK', 7)
    found = neighbor_shares(VECTORS, LABELS, IMAGES, neighbors)
    np.testing.assert_allclose(found, slow_shares(VECTORS, LABELS, IMAGES, neighbors))
    if neighbors == 100:  # all others are neighbors, so this is the share by chance
        np.testing.assert_allclose(chance_shares(LABELS, IMAGES), found)


def test_rows_of_levels_kinds_and_classes():
    scores = np.where(RANDOM.random(COUNT) < 0.5, np.nan, 0.8)
    boxes = Boxes(np.zeros((COUNT, 4)), LABELS, scores)
    noise = RANDOM.normal(size=(COUNT, 3))
    rows = neighbor_purity(dict(neck_0=noise, neck_1=VECTORS), boxes, IMAGES)
    truth = np.isnan(scores)
    for kind, chosen in (('ground truth', truth), ('prediction', ~truth)):
        shares = np.array(slow_shares(VECTORS[chosen], LABELS[chosen], IMAGES[chosen], 10))
        of_level = {row.label: row for row in rows if (row.level, row.kind) == ('neck_1', kind)}
        assert list(of_level) == [None, 0, 1, 2, 3]
        assert of_level[None].boxes == chosen.sum() and of_level[None].purity == pytest.approx(shares.mean())
        assert of_level[2].purity == pytest.approx(shares[LABELS[chosen] == 2].mean())
        assert of_level[2].boxes == (LABELS[chosen] == 2).sum()
    assert purest_level(rows) == 'neck_1'


def test_without_neighbors():
    one_image = neighbor_purity(dict(neck_0=VECTORS[:3]), Boxes(np.zeros((3, 4)), LABELS[:3], np.ones(3)), np.zeros(3))
    assert one_image == [] and purest_level(one_image) is None
    assert neighbor_purity(dict(neck_0=VECTORS[:0]), Boxes(np.zeros((0, 4)), LABELS[:0], np.ones(0)), IMAGES[:0]) == []
    zero = neighbor_shares(np.zeros((3, 2)), np.array([0, 0, 1]), np.arange(3))
    np.testing.assert_allclose(zero, [0.5, 0.5, 0])


def test_the_map_without_umap_is_of_principal_components(monkeypatch):
    monkeypatch.setitem(sys.modules, 'umap', None)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    _, values, axes = np.linalg.svd(units - units.mean(0), full_matrices=False)
    expected = (units - units.mean(0)) @ axes[:2].T
    found = plane_map(VECTORS * 7)  # lengths do not count
    signs = np.sign((found.points * expected).sum(axis=0))
    np.testing.assert_allclose(found.points, expected * signs, atol=1e-5)
    share = (values[:2] ** 2).sum() / (values**2).sum()
    assert found.method == f'PCA, {100 * share:.0f} % of the variance'
    assert plane_map(np.zeros((0, 4))).points.shape == (0, 2)
    points, share = two_components(np.ones((5, 1)))
    assert not points.any() and share == 0


def test_umap_is_used_where_it_is_installed(monkeypatch):
    given = {}

    class UMAP:
        def __init__(self, **options):
            given.update(options)

        def fit_transform(self, vectors):
            return vectors[:, :2]

    monkeypatch.setitem(sys.modules, 'umap', types.SimpleNamespace(UMAP=UMAP))
    monkeypatch.setattr('importlib.util.find_spec', lambda name: object())
    found = plane_map(VECTORS)
    assert given['random_state'] == 0 and given['metric'] == 'cosine' and found.method == 'UMAP'
    np.testing.assert_allclose(found.points, VECTORS[:, :2] / np.linalg.norm(VECTORS, axis=1, keepdims=True), rtol=1e-5)
    assert plane_map(VECTORS[:15]).method.startswith('PCA')
