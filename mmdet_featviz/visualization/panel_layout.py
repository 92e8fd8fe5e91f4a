"""Panel layout: which levels stand beside and above each other on a panel."""

from __future__ import annotations

from typing import Sequence

from mmdet_featviz.structures.snapshot import Level

WRAP, MOST_COLUMNS = 6, 8


def arrange_panel(layers: Sequence[Sequence[Level]]) -> list[list[Level | None]]:
    """Arrange the levels of a panel in rows, with the image at the first place.

    Each layer with several levels begins a row; layers with a single level share rows. Levels of equal stride stand
    above each other, unless a layer has several of the same stride, or there are too many strides: then its levels
    fill rows from left to right.

    Args:
        layers: The levels of each layer, in forward order.

    Returns:
        The rows, top down. The first place is that of the image, and None, as is each place that stays empty.
    """
    groups = [part for group in _share_rows(layers) for part in _parts(group)]
    strides = sorted({level.stride for group in groups if _is_aligned(group) for level in group})
    columns = strides if len(strides) < MOST_COLUMNS else []
    wrap = max(WRAP, 1 + len(columns))
    rows: list[list[Level | None]] = []
    for group in groups:
        if columns and _is_aligned(group):
            places = {level.stride: level for level in group}
            last = columns.index(max(places)) + 1
            rows.append([None, *map(places.get, columns[:last])])
        else:
            line = [*group] if rows else [None, *group]
            rows += [line[start : start + wrap] for start in range(0, len(line), wrap)]
    return rows


def _share_rows(layers: Sequence[Sequence[Level]]) -> list[list[Level]]:
    """Join layers with a single level that follow each other."""
    groups: list[list[Level]] = []
    was_single = False
    for layer in layers:
        is_single = len(layer) == 1
        if is_single and was_single:
            groups[-1] += layer
        else:
            groups.append(list(layer))
        was_single = is_single
    return groups


def _parts(group: Sequence[Level]) -> list[list[Level]]:
    """Split levels where a stride comes again; not at all where most parts would be single levels."""
    parts: list[list[Level]] = []
    for level in group:
        if parts and level.stride not in [other.stride for other in parts[-1]]:
            parts[-1].append(level)
        else:
            parts.append([level])
    return parts if 2 * len(parts) <= len(group) else [list(group)]


def _is_aligned(group: Sequence[Level]) -> bool:
    """Whether levels can stand above others of their strides: each has another one."""
    return len({level.stride for level in group}) == len(group)
