"""Miss mechanisms: where in a detector an object was lost, from its candidates before threshold and suppression.

After Miller et al., What's in the Black Box? The False Negative Mechanisms Inside Object Detectors, RA-L 2022.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmdet_featviz.evaluation.detection_errors import BACKGROUND, FOREGROUND, NONE, pairwise_overlaps
from mmdet_featviz.structures.boxes import Boxes

MECHANISMS = ('proposal', 'regression', 'other_class', 'background', 'suppressed')


class Miss(NamedTuple):
    """Why an object was missed.

    Attributes:
        mechanism: One of `MECHANISMS`.
        candidate: Index of the candidate that tells; -1 without candidates. It is the one with the largest score among
            those that the mechanism is about; for ``proposal`` and ``regression`` the one nearest to the object.
        overlap: Intersection over union of that candidate with the object.
    """

    mechanism: str
    candidate: int
    overlap: float


def find_mechanism(corners: np.ndarray, label: int, candidates: Boxes, starts: np.ndarray | None, score: float) -> Miss:
    """Find out why an object was missed: the first of these that holds.

    - ``proposal``: no candidate overlaps the object by at least 0.5, and neither does a box that the detector starts
      from, so nothing was there to be moved onto it.
    - ``regression``: no candidate overlaps it by at least 0.5, but a start does: the box was moved away.
    - ``suppressed``: a candidate of its class with enough score overlaps it. Another box removed it, or the limit of
      predictions, or it was matched with another object.
    - ``other_class``: the candidates that overlap it reach the score only with other classes.
    - ``background``: none of the candidates that overlap it reaches the score with any class.

    Args:
        corners: (4,): the object.
        label: Its class index.
        candidates: The candidates of the image, at least those that overlap the object by 0.1 or more.
        starts: (S, 4): region proposals or anchors, or points as boxes without area, which are on the object if they
            are in it; in pixels of the image. None if the detector has none that are known, as with queries: then a
            candidate that overlaps the object by at least 0.1 stands for a start.
        score: Smallest score of a prediction that counts.
    """
    overlaps = pairwise_overlaps(candidates.corners, corners[None])[:, 0]
    on_object = overlaps >= FOREGROUND

    def miss(mechanism: str, rank: np.ndarray) -> Miss:
        best = int(rank.argmax()) if len(rank) else NONE
        return Miss(mechanism, best, float(overlaps[best]) if len(rank) else 0.0)

    if not on_object.any():
        started = overlaps.max(initial=0) >= BACKGROUND if starts is None else _are_near(starts, corners).any()
        return miss('regression' if started else 'proposal', overlaps)
    enough = on_object & (candidates.scores >= score)
    right = enough & (candidates.labels == label)
    if right.any():
        return miss('suppressed', np.where(right, candidates.scores, -1))
    return miss('other_class' if enough.any() else 'background', np.where(on_object, candidates.scores, -1))


def _are_near(starts: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Which starts (S, 4) overlap the object by at least 0.5 or, if they are points, are in it."""
    are_points = (starts[:, :2] == starts[:, 2:]).all(axis=1)
    inside = ((corners[:2] <= starts[:, :2]) & (starts[:, 2:] <= corners[2:])).all(axis=1)
    return np.where(are_points, inside, pairwise_overlaps(starts, corners[None])[:, 0] >= FOREGROUND)
