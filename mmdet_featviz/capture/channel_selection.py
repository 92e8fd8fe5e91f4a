"""Channel selection: which single channels of a feature map are kept, and their maps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Iterable, Sequence

import torch
from torch import Tensor

from mmdet_featviz.capture.feature_compression import compress_features
from mmdet_featviz.structures.channel_maps import ChannelMaps

ChannelChoice = Callable[[Tensor], Tensor]
"""From the weight of each channel (C,), usually its mean activation, to the indices of the chosen channels (K,)."""


class ChannelError(ValueError):
    """Raised if a chosen channel does not exist in a layer."""


def parse_channel_choice(channels: str | Sequence[int]) -> ChannelChoice:
    """Turn ``first 16``, ``top 16``, ``all``, or a list of channel numbers into a function that chooses channels.

    Raises:
        ValueError: If `channels` is none of these.
    """
    if isinstance(channels, str):
        words = re.fullmatch(r'\s*(?:(first|top)\s+([1-9]\d*)|all)\s*', channels)
        if words is None:
            raise ValueError(
                f"channels={channels!r} is not known: use 'first 16', 'top 16', 'all', or a list of channel numbers"
            )
        if words[1] is None:
            return lambda means: torch.arange(len(means))
        count = int(words[2])
        if words[1] == 'first':
            return lambda means: torch.arange(min(count, len(means)))
        return partial(top_channels, count)
    numbers = list(channels) if isinstance(channels, Iterable) else [channels]
    if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise ValueError(f'channels={channels!r} must be a list of channel numbers, counted from 0')
    return partial(_listed_channels, numbers)


def top_channels(count: int, means: Tensor) -> Tensor:
    """The indices of the `count` channels with the largest means, the largest first; NaN comes last."""
    return means.nan_to_num(-torch.inf).argsort(descending=True, stable=True)[:count]


def _listed_channels(numbers: Sequence[int], means: Tensor) -> Tensor:
    return torch.tensor(numbers)


def choose_channels(choice: ChannelChoice, weights: Tensor, level: str = '') -> Tensor:
    """Return the indices of the channels that are chosen among those with these weights (C,).

    Raises:
        ChannelError: If a channel that was chosen by its number does not exist.
    """
    indices = choice(weights)
    if (indices >= len(weights)).any():
        raise ChannelError(
            f'channel {int(indices.max())} does not exist: {level or "the layer"} has {len(weights)} channels, '
            f'0-{len(weights) - 1}. Choose among these with channels, or other layers'
        )
    return indices


def select_channels(
    features: Tensor, choice: ChannelChoice, weights: Tensor | None = None, level: str = ''
) -> ChannelMaps:
    """Take the chosen channels from the feature map of one image.

    Args:
        features: (C, rows, columns), of any floating type, on any device.
        choice: Chooses channels by their weights.
        weights: (C,); None uses the mean activation of each channel.
        level: Name of the level, for the error.

    Raises:
        ChannelError: If a channel that was chosen by its number does not exist.
    """
    if weights is None:
        weights = features.mean((1, 2), dtype=torch.float32)
    weights = weights.detach().float().cpu()
    indices = choose_channels(choice, weights, level)
    maps = features.detach()[indices.to(features.device)].float().cpu()
    return ChannelMaps(indices.numpy(), maps.numpy(), weights.numpy())


@dataclass(frozen=True)
class DetailRecorder:
    """Records details of a feature map that its activation map lacks: single channels, or the whole map.

    Attributes:
        choice: Chooses the channels to record for channel pictures; None records none.
        pooled: How many channels with the largest weights to record; None records none.
        raw: Whether to record the whole feature map.
        compact: Whether to record the leading principal components.
    """

    choice: ChannelChoice | None = None
    pooled: int | None = None
    raw: bool = False
    compact: bool = False

    def record(self, features: Tensor, weights: Tensor | None = None, level: str = '') -> list[dict[str, Any]]:
        """Record the details of each image of a feature map.

        Args:
            features: Feature map (N, C, rows, columns); it is copied.
            weights: (N, C) from channel attention; None uses the mean activation of each channel.
            level: Name of the level, for errors.

        Returns:
            One dict per image with the requested details: ``picked`` and ``pooled`` (:class:`ChannelMaps`), ``raw`` (C,
            rows, columns) and ``compact`` (:class:`CompactFeatures`). With `weights`, only ``pooled`` is recorded.

        Raises:
            ChannelError: If a channel that was chosen by its number does not exist.
        """
        return [
            self._record_image(image, None if weights is None else weights[n], level)
            for n, image in enumerate(features)
        ]

    def _record_image(self, image: Tensor, weights: Tensor | None, level: str) -> dict[str, Any]:
        details = {}
        if self.choice is not None and weights is None:
            details['picked'] = select_channels(image, self.choice, level=level)
        if self.pooled is not None:
            details['pooled'] = select_channels(image, partial(top_channels, self.pooled), weights)
        if self.raw and weights is None:
            numpy_has_type = image.dtype in (torch.float16, torch.float32)  # NumPy has no bfloat16
            details['raw'] = (image if numpy_has_type else image.float()).detach().cpu().clone().numpy()
        if self.compact and weights is None:
            details['compact'] = compress_features(image)
        return details
