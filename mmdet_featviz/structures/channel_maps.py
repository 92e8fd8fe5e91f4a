"""Channel maps: selected channels of the feature map of one image, with the weights of all channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ChannelMaps:
    """Selected channels of the feature map of one image.

    Attributes:
        indices: (K,) indices of the selected channels.
        maps: (K, rows, columns) float32.
        weights: (C,) float32, one for each channel of the feature map: its mean activation, or its weight in channel
            attention.
    """

    indices: np.ndarray
    maps: np.ndarray
    weights: np.ndarray
