"""Plots: the layout of line plots over named categories, which the page draws as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Mapping, NamedTuple, Sequence

LEFT, RIGHT = 13, 97  # percent of the width, so that a plot fills any width and its text keeps its size
TOP, BOTTOM = 26, 216  # pixels
MAX_X_TICKS, MAX_LABEL_LENGTH = 24, 16


class Tick(NamedTuple):
    """A labeled position on an axis: x in percent from the left, or y in pixels from the top."""

    position: float
    label: str


class Mark(NamedTuple):
    """A value: x in percent from the left, y in pixels from the top, text for its tooltip, joined to the one before."""

    x: float
    y: float
    text: str
    is_joined: bool


@dataclass(frozen=True)
class Plot:
    """The layout of a line plot.

    Attributes:
        title: Title.
        description: The content in words, for screen readers: title and highest value of each line.
        y_label: What the vertical axis measures.
        x_label: What the categories on the horizontal axis are.
        x_ticks: Ticks of the horizontal axis; with many categories only every n-th has one.
        y_ticks: Ticks of the vertical axis.
        height: Height of the plot, in pixels.
        reference: y of the reference value, in pixels from the top; None without one.
        lines: ``{name: marks}``.
        left, right: Ends of the horizontal axis, in percent from the left.
        bottom: y of the horizontal axis, in pixels from the top.
    """

    title: str
    description: str
    y_label: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    height: int
    reference: float | None
    lines: dict[str, list[Mark]]
    left: int = LEFT
    right: int = RIGHT
    bottom: int = BOTTOM


def plot(
    title: str,
    y_label: str,
    x_label: str,
    categories: Sequence[str],
    lines: Mapping[str, Mapping[str, float | None]],
    reference: float | None = None,
) -> Plot | None:
    """Lay out a line plot.

    Args:
        title: Title.
        y_label: What the vertical axis measures.
        x_label: What the categories are, such as ``level``.
        categories: Names along the horizontal axis, in order.
        lines: ``{name of a line: {category: value}}``, in the order of the categories. A line has a gap where a value
            is None; a category that is left out does not interrupt it.
        reference: A value to compare with, drawn as a dashed line.

    Returns:
        The plot of the lines that have values; None if none has.
    """
    joined = {name: _joined(values) for name, values in lines.items()}
    known = {name: {key: value for key, value in values.items() if value is not None} for name, values in lines.items()}
    lines = {name: values for name, values in known.items() if values}
    if not lines:
        return None
    steps = _steps([value for values in lines.values() for value in values.values()] + [reference or 0.0])
    tick_step = math.ceil(len(categories) / MAX_X_TICKS)

    def x_of(category: str) -> float:
        return round(LEFT + (RIGHT - LEFT) * (categories.index(category) + 0.5) / len(categories), 2)

    def y_of(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - steps[0]) / (steps[-1] - steps[0]), 1)

    return Plot(
        title,
        _describe(title, lines),
        y_label,
        x_label,
        x_ticks=[Tick(x_of(category), _shorten(category)) for category in categories[::tick_step]],
        y_ticks=[Tick(y_of(step), f'{step:g}') for step in steps],
        height=BOTTOM + 40 + 6 * max(len(_shorten(category)) for category in categories),
        reference=None if reference is None else y_of(reference),
        lines={
            name: [
                Mark(x_of(category), y_of(value), f'{name}, {category}: {value:.3g}', category in joined[name])
                for category, value in values.items()
            ]
            for name, values in lines.items()
        },
    )


def _joined(values: Mapping[str, float | None]) -> set[str]:
    """The categories with a value that follow on one with a value."""
    pairs = zip(values.items(), list(values.items())[1:])
    return {category for (_, before), (category, value) in pairs if before is not None and value is not None}


def _steps(values: Sequence[float]) -> list[float]:
    """Round numbers at equal distances, from below to above zero and all values."""
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    size = 10 ** math.floor(math.log10(span))
    step = next(size * part for part in (0.2, 0.5, 1, 2) if span <= 5 * size * part)
    first, last = math.floor(low / step), max(math.ceil(high / step), 1)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _describe(title: str, lines: Mapping[str, Mapping[str, float]]) -> str:
    """The plot in words: its title and the highest value of each line."""
    highest = ((name, max(values, key=values.get), max(values.values())) for name, values in lines.items())
    return f'{title}. Highest: {"; ".join(f"{name} {value:.3g} at {category}" for name, category, value in highest)}.'


def _shorten(name: str) -> str:
    """Cut off the beginning of a long name: names of levels differ at their ends."""
    return name if len(name) <= MAX_LABEL_LENGTH else f'…{name[1 - MAX_LABEL_LENGTH :]}'
