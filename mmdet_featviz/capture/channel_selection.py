"""Selection of single channels of a feature map."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Sequence

import torch
from torch import Tensor

from mmdet_featviz.structures.channel_maps import ChannelMaps

ChannelChoice = Callable[[Tensor], Tensor]
"""From the mean activation of each channel (C,) to the numbers of the chosen ones (K,)."""


def parse_channel_choice(channels: str | Sequence[int]) -> ChannelChoice:
    """What ``first 16``, ``top 16``, ``all`` or a list of numbers stands for.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(channels, str):
        words = re.fullmatch(r'\s*(?:(first|top)\s+([1-9]\d*)|all)\s*', channels)
        if words is None:
            raise ValueError(f"channels={channels!r} is not known: 'first 16', 'top 16', 'all', or a list of numbers")
        if words[1] is None:
            return lambda means: torch.arange(len(means))
        count = int(words[2])
        if words[1] == 'first':
            return lambda means: torch.arange(min(count, len(means)))
        return partial(top_channels, count)
    numbers = [channels] if isinstance(channels, int) else list(channels)
    if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise ValueError(f'channels={channels!r}: numbers of channels, counted from 0')
    return partial(_listed, numbers)


def top_channels(count: int, means: Tensor) -> Tensor:
    """The numbers of the channels with the largest means, the largest first."""
    return means.nan_to_num(-torch.inf).argsort(descending=True, stable=True)[:count]


def _listed(numbers: Sequence[int], means: Tensor) -> Tensor:
    if max(numbers) >= len(means):
        raise ValueError(
            f'channel {max(numbers)} does not exist: a layer has {len(means)} channels, 0-{len(means) - 1}'
        )
    return torch.tensor(numbers)


def select_channels(features: Tensor, choice: ChannelChoice, weights: Tensor | None = None) -> ChannelMaps:
    """Take the chosen channels out of the feature map of one image.

    Args:
        features: (C, rows, columns), of any floating type, on any device.
        choice: Which channels, by their weights.
        weights: (C,); the mean activations where there are none.
    """
    if weights is None:
        weights = features.mean((1, 2), dtype=torch.float32)
    weights = weights.detach().float().cpu()
    indices = choice(weights)
    maps = features.detach()[indices.to(features.device)].float().cpu()
    return ChannelMaps(indices.numpy(), maps.numpy(), weights.numpy())


@dataclass(frozen=True)
class DetailRecorder:
    """Keeps more of a feature map than its activation map, at once and in the forward hook.

    Attributes:
        choice: Which channels are kept to be shown.
        pooled: How many of the most weighted channels are kept.
        raw: Whether the whole feature map is kept.
    """

    choice: ChannelChoice | None = None
    pooled: int | None = None
    raw: bool = False

    def keep(self, features: Tensor, weights: Tensor | None = None) -> list[dict[str, Any]]:
        """For each image of a feature map (N, C, rows, columns): `picked`, `pooled` and `raw`, as far as asked for.

        Args:
            weights: (N, C) of channel attention; without them channels are weighted by their mean activation.
        """
        return [self._keep(image, None if weights is None else weights[n]) for n, image in enumerate(features)]

    def _keep(self, image: Tensor, weights: Tensor | None) -> dict[str, Any]:
        kept = {}
        if self.choice is not None and weights is None:
            kept['picked'] = select_channels(image, self.choice)
        if self.pooled is not None:
            kept['pooled'] = select_channels(image, partial(top_channels, self.pooled), weights)
        if self.raw and weights is None:
            has_dtype = image.dtype in (torch.float16, torch.float32)  # NumPy has no bfloat16
            kept['raw'] = (image if has_dtype else image.float()).detach().cpu().clone().numpy()
        return kept
