"""Tokens: folds the token sequences and windows of transformers into feature maps."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Iterable, Sequence

import torch
from torch import Tensor, nn

from mmdet_featviz.utils.call_stack import values_of

MAX_CLASS_TOKENS = 5  # a class token and four registers
MIN_CELLS = 4  # one to three tokens are classes, scores or sentences
MAX_STRIDE = 64
PATCHES = range(6, 33)  # sides of patches, in pixels, that need not be powers of two


def fold_tokens(
    tokens: Tensor, inputs: Tensor, levels_seen: Iterable[Sequence[tuple[int, int]]], shift: int | None = None
) -> list[Tensor]:
    """Fold tokens into feature maps.

    Args:
        tokens: (N, L, C), or (L, N, C) as PyTorch's own transformers take them by default: row by row over one grid or
            over several grids in sequence, optionally after class tokens. Or windows of a grid, (N * windows, S * S,
            C). If the first two axes are both N long, the first one counts as N.
        inputs: The network's input (N, ., H, W).
        levels_seen: For each other layer, the grids (rows, columns) of its levels, in the layer's order. Tokens of
            several levels use consecutive grids of one layer, in this order or reversed.
        shift: How many cells the grid was rolled up and left before it was cut into windows. None means that
            the tokens are not windows, whose shape can be that of (L, N, C).

    Returns:
        Feature maps (N, C, rows, columns), in the order of the tokens. Empty if no grid fits.
    """
    if tokens.dim() != 3 or tokens.numel() == 0 or not tokens.is_floating_point():
        return []
    levels_seen = [list(grids) for grids in levels_seen]
    single = [*(grid for grids in levels_seen for grid in grids), *_grids_of_strides(inputs)]
    if shift is None and len(tokens) != len(inputs) and tokens.shape[1] == len(inputs):
        tokens = tokens.transpose(0, 1)
    if len(tokens) == len(inputs):
        # Grids of other layers and of usual strides come first.
        usual, patches = _candidate_splits(levels_seen, single), ((grid,) for grid in _grids_of_patches(inputs))
        for candidates in (list(usual), list(patches)):
            for class_tokens in range(MAX_CLASS_TOKENS + 1):
                spatial = tokens[:, class_tokens:]
                splits = {split for split in candidates if sum(map(math.prod, split)) == spatial.shape[1] >= MIN_CELLS}
                if splits:
                    splits = _stated_splits(splits) or sorted(splits, reverse=True)
                    return min((_fold(spatial, split) for split in splits), key=_roughness)
    return [] if shift is None else _fold_windows(tokens, len(inputs), single, shift)


def _grids_of_strides(inputs: Tensor) -> list[tuple[int, int]]:
    """The grids (rows, columns) of the strides 1, 2, 4, ..., 64, fine to coarse."""
    height, width = inputs.shape[-2:]
    strides = [2**exponent for exponent in range(MAX_STRIDE.bit_length())]
    return [(math.ceil(height / stride), math.ceil(width / stride)) for stride in strides]


def _grids_of_patches(inputs: Tensor) -> list[tuple[int, int]]:
    """The grids (rows, columns) of whole patches of any usual size; what remains at the borders is left out."""
    height, width = inputs.shape[-2:]
    return [(height // side, width // side) for side in PATCHES]


def _candidate_splits(levels_seen: Iterable[list], single: Iterable[tuple[int, int]]) -> Iterable[tuple]:
    """All sequences of grids that the tokens may cover."""
    for grid in single:
        yield (grid,)
    for grids in levels_seen:
        for start, stop in combinations(range(len(grids) + 1), 2):
            yield tuple(grids[start:stop])
            yield tuple(grids[start:stop][::-1])


def _stated_splits(splits: set[tuple]) -> list[tuple]:
    """The splits that deformable attention itself works with, if the tokens are of some: its callers pass them on.

    What tokens of an image without structure hold does not tell the order of their levels.
    """
    if len(splits) == 1:
        return []
    stated = (shapes.tolist() for shapes in values_of('spatial_shapes') if isinstance(shapes, Tensor))
    return [split for split in (tuple(map(tuple, shapes)) for shapes in stated if shapes) if split in splits][:1]


def _fold(tokens: Tensor, split: Sequence[tuple[int, int]]) -> list[Tensor]:
    parts = tokens.split([math.prod(grid) for grid in split], dim=1)
    return [part.transpose(1, 2).unflatten(2, grid) for part, grid in zip(parts, split)]


def _roughness(maps: Sequence[Tensor]) -> float:
    """Mean squared difference of vertical neighbors. It is larger on a wrong grid, where they are not neighbors."""
    steps = [level.diff(dim=2).float().square() for level in maps if level.shape[2] > 1]
    count = sum(step.numel() for step in steps)
    return float(sum(step.sum() for step in steps) / count) if count else math.inf


def _fold_windows(tokens: Tensor, batch: int, grids: Iterable[tuple[int, int]], shift: int) -> list[Tensor]:
    """Join square windows (N * windows, S * S, C) into one map; the grid was padded to whole windows."""
    windows, side = len(tokens) / batch, math.isqrt(tokens.shape[1])
    if side * side != tokens.shape[1]:
        return []
    for rows, columns in sorted(set(grids), reverse=True):  # the largest grid has the least padding
        down, across = math.ceil(rows / side), math.ceil(columns / side)
        if down * across == windows:
            whole = tokens.reshape(batch, down, across, side, side, -1).permute(0, 5, 1, 3, 2, 4)
            whole = whole.reshape(batch, -1, down * side, across * side)
            whole = torch.roll(whole, (shift, shift), dims=(2, 3))
            return [whole[:, :, :rows, :columns]]
    return []


def window_shift(model: nn.Module, layer: str) -> int | None:
    """How many cells the window attention around this layer rolls its grid, often 0; None outside window attention."""
    parents, has_windows = layer.split('.'), False
    for depth in range(len(parents), 0, -1):
        module = model.get_submodule('.'.join(parents[:depth]))
        shift = getattr(module, 'shift_size', None)
        if isinstance(shift, int):
            return shift
        has_windows = has_windows or hasattr(module, 'window_size')
    return 0 if has_windows else None
