"""Plots: lines over named positions, measured for the page to draw as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Mapping, NamedTuple, Sequence

LEFT, RIGHT = 13, 97  # percent of the width: it becomes as wide as there is room, its words stay as large
TOP, BOTTOM = 26, 216  # pixels
MOST_NAMES, LONGEST_NAME = 24, 16


class Tick(NamedTuple):
    """A place on an axis, in percent across or in pixels down, and its name."""

    place: float
    name: str


class Mark(NamedTuple):
    """A value: percent across, pixels down, and what it says."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Plot:
    """Lines over named places.

    Attributes:
        title: What is shown.
        text: The same for those who do not see it, with the highest value of each line.
        quantity: What the vertical axis measures.
        along: What the places are.
        names: Places on the horizontal axis that are named; of many every n-th.
        ticks: Of the vertical axis.
        height: Of the whole, in pixels.
        level: Pixels down of the value to compare with, if any.
        lines: {name: marks}.
        left, right: Ends of the horizontal axis, in percent across.
        bottom: Where it lies, in pixels down.
    """

    title: str
    text: str
    quantity: str
    along: str
    names: list[Tick]
    ticks: list[Tick]
    height: int
    level: float | None
    lines: dict[str, list[Mark]]
    left: int = LEFT
    right: int = RIGHT
    bottom: int = BOTTOM


def plot(
    title: str,
    quantity: str,
    along: str,
    places: Sequence[str],
    lines: Mapping[str, Mapping[str, float]],
    level: float | None = None,
) -> Plot | None:
    """Measure a plot out.

    Args:
        title: What is shown.
        quantity: What the vertical axis measures.
        along: What the places are, such as ``level``.
        places: All places, in order.
        lines: {name of a line: {place: value}}.
        level: A value to compare with, drawn as a dashed line.

    Returns:
        The plot, of the lines that have any value; None where none has.
    """
    lines = {name: values for name, values in lines.items() if values}
    if not lines:
        return None
    steps = _steps([value for values in lines.values() for value in values.values()] + [level or 0.0])
    every = math.ceil(len(places) / MOST_NAMES)

    def across(place: str) -> float:
        return round(LEFT + (RIGHT - LEFT) * (places.index(place) + 0.5) / len(places), 2)

    def down(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - steps[0]) / (steps[-1] - steps[0]), 1)

    return Plot(
        title,
        _text(title, lines),
        quantity,
        along,
        names=[Tick(across(place), _short(place)) for place in places[::every]],
        ticks=[Tick(down(step), f'{step:g}') for step in steps],
        height=BOTTOM + 40 + 6 * max(len(_short(place)) for place in places),
        level=None if level is None else down(level),
        lines={
            name: [Mark(across(place), down(value), f'{name}, {place}: {value:.3g}') for place, value in values.items()]
            for name, values in lines.items()
        },
    )


def _steps(values: Sequence[float]) -> list[float]:
    """Round numbers around zero and all values."""
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    size = 10 ** math.floor(math.log10(span))
    step = next(size * part for part in (0.2, 0.5, 1, 2) if span <= 5 * size * part)
    first, last = math.floor(low / step), max(math.ceil(high / step), 1)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _text(title: str, lines: Mapping[str, Mapping[str, float]]) -> str:
    """What the plot shows, in words."""
    highest = ((name, max(values, key=values.get), max(values.values())) for name, values in lines.items())
    return f'{title}. Highest: {"; ".join(f"{name} {value:.3g} at {place}" for name, place, value in highest)}.'


def _short(name: str) -> str:
    """A name with its beginning cut off: levels differ in their ends."""
    return name if len(name) <= LONGEST_NAME else f'…{name[1 - LONGEST_NAME :]}'
