"""Reductions: the registered functions from a feature map (N, C, H, W) to an activation map (N, H, W)."""

from __future__ import annotations

import difflib
from typing import Callable

import torch
from torch import Tensor

from mmdet_featviz.registry import REDUCTIONS

Reduction = Callable[[Tensor], Tensor]
PCA = 'pca'  # drawn from principal components, which come with a norm as activation map


@REDUCTIONS.register_module(name='max')
def reduce_max(features: Tensor) -> Tensor:
    """The largest activation of each cell."""
    if features.device.type == 'cpu' and features.dtype == torch.float32:
        # NumPy reads memory row by row and is several times as fast as single-threaded torch; the result is the same.
        # It cannot read a view whose sign PyTorch flips lazily, such as the imaginary part of a conjugate.
        return torch.from_numpy(features.detach().resolve_neg().numpy().max(1))
    return features.amax(1)


@REDUCTIONS.register_module(name='mean')
def reduce_mean(features: Tensor) -> Tensor:
    """The mean activation of each cell, computed in float32."""
    return features.mean(1, dtype=torch.float32)


@REDUCTIONS.register_module(name='sum')
def reduce_sum(features: Tensor) -> Tensor:
    """The sum of each cell's activations, computed in float32, as half precision would overflow."""
    return features.sum(1, dtype=torch.float32)


@REDUCTIONS.register_module(name=PCA)
@REDUCTIONS.register_module(name='l2')
def reduce_l2(features: Tensor) -> Tensor:
    """The Euclidean norm of each cell's activations, computed in float32 (in float64 for float64)."""
    return torch.linalg.vector_norm(features, dim=1, dtype=torch.promote_types(features.dtype, torch.float32))


@REDUCTIONS.register_module(name='select_max')
def select_max(features: Tensor) -> Tensor:
    """For each image, the one channel whose activations have the largest sum."""
    totals = features.sum((2, 3), dtype=torch.float32).nan_to_num(-torch.inf)
    images = torch.arange(len(features), device=features.device)
    return features[images, totals.argmax(1)]


def get_reduction(name: str) -> Reduction:
    """Look up a registered reduction by name.

    Raises:
        ValueError: If no reduction of this name is registered.
    """
    if name not in REDUCTIONS.module_dict:
        names = sorted(REDUCTIONS.module_dict)
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f'did you mean {close[0]!r}? ' if close else ''
        raise ValueError(
            f'unknown reduction {name!r}: {hint}Registered are {", ".join(names)}; '
            'register your own function with @mmdet_featviz.REDUCTIONS.register_module()'
        )
    return REDUCTIONS.module_dict[name]


def reduce_feature_map(features: Tensor, reduction: Reduction) -> Tensor:
    """Reduce a feature map, without gradients and without changing it.

    Args:
        features: Feature map (N, C, H, W).
        reduction: Function that reduces it to (N, H, W).

    Returns:
        Activation map (N, H, W), float32, in memory of its own.

    Raises:
        ValueError: If the reduction returns no tensor, or one of another shape.
    """
    with torch.no_grad():
        values = reduction(features.detach())
        expected = (features.shape[0], *features.shape[2:])
        if not isinstance(values, Tensor) or values.shape != expected:
            found = f'the shape {tuple(values.shape)}' if isinstance(values, Tensor) else f'a {type(values).__name__}'
            raise ValueError(
                f'the reduction {getattr(reduction, "__name__", reduction)!r} returned {found} '
                f'for features of shape {tuple(features.shape)}: it must be a tensor (N, H, W), here {tuple(expected)}'
            )
        # Always copy: a reduction may return a view of the features, which later layers may change in place.
        return values.to(torch.float32, copy=True)
