"""Label places: where labels of boxes cover no other label."""

from __future__ import annotations

from typing import Iterator, NamedTuple, Sequence


class Area(NamedTuple):
    """A rectangle in whole pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def touches(self, other: Area) -> bool:
        """Whether another rectangle covers a part."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def overlap(self, other: Sequence[float]) -> float:
        """Area of the part that another rectangle covers."""
        across = min(self.right, other[2]) - max(self.left, other[0])
        down = min(self.bottom, other[3]) - max(self.top, other[1])
        return max(across, 0) * max(down, 0)


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
        if place.top >= 0 and place.bottom <= size[1] and not any(place.touches(other) for other in taken):
            return place
    return None


def _corners(box: Sequence[float], label: tuple[int, int]) -> Iterator[tuple[float, float]]:
    """Left and top of a label above the box, below its upper side, below the box, above its lower side."""
    left, top, right, bottom = box
    for y in (top - label[1], max(top, 0), bottom, bottom - label[1]):
        yield left, y
        yield right - label[0], y
