"""Maps of single channels of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ChannelMaps:
    """Some channels of the feature map of one image.

    Attributes:
        indices: (K,) numbers of the channels.
        maps: (K, rows, columns) float32.
        weights: (C,) float32, of all channels: their mean activation, or what channel attention gives them.
    """

    indices: np.ndarray
    maps: np.ndarray
    weights: np.ndarray
