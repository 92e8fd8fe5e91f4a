"""Neighbor purity: how often the boxes with the most similar features are of the same class, by level."""

from __future__ import annotations

from typing import Iterator, Mapping, NamedTuple

import numpy as np

from mmdet_featviz.structures.boxes import Boxes

NEIGHBORS = 10
KINDS = {'ground truth': True, 'prediction': False}  # whether boxes of a kind are ground truth
BLOCK = 512  # boxes whose similarities with all others are in memory at once


class Purity(NamedTuple):
    """The purity of a level, of boxes of one kind.

    Attributes:
        level: Name of the level.
        kind: ``ground truth`` or ``prediction``.
        label: Class index; None for all classes.
        boxes: Number of boxes with a neighbor.
        purity: Mean share of their neighbors that have their class.
        chance: The same of boxes drawn at random instead of neighbors.
    """

    level: str
    kind: str
    label: int | None
    boxes: int
    purity: float
    chance: float


def neighbor_purity(vectors: Mapping[str, np.ndarray], boxes: Boxes, images: np.ndarray) -> list[Purity]:
    """The purity of each level: of all boxes of a kind, and of each class.

    The neighbors of a box are the 10 boxes of its kind in other images whose vectors have the largest cosine with its
    own; all, if there are fewer. Boxes of its own image do not count: there are its own prediction or object, and boxes
    that overlap it, whose features are the same.

    Args:
        vectors: {name of a level: finite vectors (N, C)}.
        boxes: N boxes.
        images: (N,) number of the image of each.
    """
    rows = []
    for level, of_level in vectors.items():
        for kind, is_truth in KINDS.items():
            chosen = boxes.are_truth == is_truth
            rows += _rows(level, kind, of_level[chosen], boxes.labels[chosen], images[chosen])
    return rows


def _rows(level: str, kind: str, vectors: np.ndarray, labels: np.ndarray, images: np.ndarray) -> Iterator[Purity]:
    shares, chances = neighbor_shares(vectors, labels, images), chance_shares(labels, images)
    has_neighbor = ~np.isnan(shares)
    for label in (None, *np.unique(labels[has_neighbor]).tolist()) if has_neighbor.any() else ():
        chosen = has_neighbor if label is None else has_neighbor & (labels == label)
        means = (float(part[chosen].mean()) for part in (shares, chances))
        yield Purity(level, kind, label, int(chosen.sum()), *means)


def neighbor_shares(
    vectors: np.ndarray, labels: np.ndarray, images: np.ndarray, neighbors: int = NEIGHBORS
) -> np.ndarray:
    """For each box the share of its nearest neighbors in other images that have its label; NaN without any.

    Args:
        vectors: (N, C), finite.
        labels: (N,).
        images: (N,) number of the image of each box.
        neighbors: Number of neighbors.
    """
    units, shares = unit_rows(vectors), np.full(len(vectors), np.nan)
    for start in range(0, len(units), BLOCK):
        block = slice(start, start + BLOCK)
        cosines = units[block] @ units.T
        cosines[images[block, None] == images] = -np.inf
        count = min(neighbors, len(units))
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        is_other = np.take_along_axis(cosines, nearest, axis=1) > -np.inf
        is_same = is_other & (labels[nearest] == labels[block, None])
        found = is_other.sum(axis=1)
        shares[block] = np.where(found, is_same.sum(axis=1) / np.maximum(found, 1), np.nan)
    return shares


def chance_shares(labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """For each box the share of all boxes in other images that have its label; NaN without any."""
    _, label = np.unique(labels, return_inverse=True)
    _, image = np.unique(images, return_inverse=True)
    counts = np.zeros((image.max(initial=-1) + 1, label.max(initial=-1) + 1))
    np.add.at(counts, (image, label), 1)
    others = len(labels) - counts.sum(axis=1)[image]
    same = counts.sum(axis=0)[label] - counts[image, label]
    return np.where(others > 0, same / np.maximum(others, 1), np.nan)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, C) float32, each divided by its length; zero stays zero."""
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def purest_level(rows: list[Purity]) -> str | None:
    """The level with the largest purity: of ground truth, or without it of predictions; None without any."""
    whole = [row for row in rows if row.label is None]
    of_kind = [row for row in whole if row.kind == 'ground truth'] or whole
    return max(of_kind, key=lambda row: row.purity).level if of_kind else None
