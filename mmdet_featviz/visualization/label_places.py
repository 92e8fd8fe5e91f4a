"""Label places: where labels of boxes cover no other label."""

from __future__ import annotations

from typing import Iterator, Sequence

from mmdet_featviz.visualization.figure_layout import Area


def free_place(
    box: Sequence[float], label: tuple[int, int], size: tuple[int, int], taken: Sequence[Area]
) -> Area | None:
    """Find a place for a label at one of the corners of its box, outside or inside.

    Args:
        box: Left, top, right, bottom of the box, in pixels of the tile.
        label: Width and height of the label.
        size: Width and height of the tile.
        taken: What must not be covered.

    Returns:
        The first free place; None if there is none inside the tile.
    """
    if label[0] > size[0]:
        return None
    for left, top in _corners(box, label):
        left = min(max(round(left), 0), size[0] - label[0])
        place = Area(left, round(top), left + label[0], round(top) + label[1])
        if place.top >= 0 and place.bottom <= size[1] and not any(place.overlap(other) for other in taken):
            return place
    return None


def _corners(box: Sequence[float], label: tuple[int, int]) -> Iterator[tuple[float, float]]:
    """Left and top of a label above the box, below its upper side, below the box, above its lower side."""
    left, top, right, bottom = box
    for y in (top - label[1], max(top, 0), bottom, bottom - label[1]):
        yield left, y
        yield right - label[0], y
