"""Box features: one vector per box and level, of the predictions and the ground truth of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

import numpy as np

from mmdet_featviz.structures.boxes import Boxes


@dataclass(frozen=True, eq=False)
class BoxFeatures:
    """The features of some boxes of an image in one pass.

    Attributes:
        boxes: N boxes.
        numbers: (N,) int64: index of each among the boxes of the snapshot.
        vectors: {name of a level: (N, C) float}; NaN for a box of which the network saw nothing.
    """

    boxes: Boxes
    numbers: np.ndarray
    vectors: Mapping[str, np.ndarray]
