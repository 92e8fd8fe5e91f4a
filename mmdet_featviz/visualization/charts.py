"""Charts: channel weights of a layer as bars or a histogram, and values with intervals."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, NamedTuple, Sequence

import cv2
import numpy as np

MAX_BARS = 128
DPI = 100
PANEL = 3.4, 2.8  # width and height of a panel, in inches
LINE_COLORS = '#1f6fb2', '#d1495b', '#3a8f5c', '#8c6bb1'


class Interval(NamedTuple):
    """A value and the interval around it; without an interval, `low` and `high` are NaN."""

    value: float
    low: float
    high: float


def weight_chart(
    weights: np.ndarray, marked: np.ndarray, quantity: str, size: tuple[int, int], scale: float = 1.0
) -> np.ndarray:
    """Draw one bar per channel, or a histogram for more than 128 channels; marked channels have another color.

    Args:
        weights: (C,); NaN and infinite weights are drawn as 0.
        marked: Indices of the channels to mark.
        quantity: Axis label of the weights.
        size: (width, height) of the picture, in pixels.
        scale: Size of the text and lines, relative to the usual one.

    Returns:
        (height, width, 3), BGR, uint8.
    """
    # Imported here because it is slow to import. pyplot is not used, as it would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dpi = DPI * scale
    figure = Figure(figsize=(size[0] / dpi, size[1] / dpi), dpi=dpi, layout='constrained')
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    finite = np.where(np.isfinite(weights), weights, 0)
    if len(weights) <= MAX_BARS:
        axes.bar(np.arange(len(weights)), finite, width=0.8, color='#7a92a8')
        axes.bar(marked, finite[marked], width=0.8, color='#d1495b')
        axes.set(xlabel='channel', ylabel=quantity, xlim=(-1, len(weights)))
    else:
        counts, edges = np.histogram(finite, 64)
        axes.stairs(counts, edges, fill=True, color='#7a92a8')
        for weight in finite[marked]:
            axes.axvline(weight, color='#d1495b', linewidth=1)
        axes.set(xlabel=quantity, ylabel='channels')
    axes.spines[['top', 'right']].set_visible(False)
    canvas.draw()
    return cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)


def interval_chart(panels: Mapping[tuple[str, str], Mapping[str, Mapping[str, Interval]]]) -> np.ndarray:
    """Draw values with their intervals over categories, in a grid of panels.

    Args:
        panels: ``{(what the values of a row of panels are, title of a column): {name of a line: {category:
            Interval}}}``. Panels of one row share their categories and their scale.

    Returns:
        (height, width, 3), BGR, uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = (list(dict.fromkeys(keys)) for keys in zip(*panels))
    size = PANEL[0] * len(columns), PANEL[1] * len(rows)
    figure = Figure(figsize=size, dpi=DPI, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(columns), sharex='row', sharey='row', squeeze=False)
    for (row, column), lines in panels.items():
        axes = grid[rows.index(row)][columns.index(column)]
        categories = _categories(panel for (of_row, _), panel in panels.items() if of_row == row)
        for number, (name, values) in enumerate(lines.items()):
            _draw_intervals(axes, categories, values, name, number, len(lines))
        axes.axhline(0, color='#888888', linewidth=0.8)
        axes.set_xticks(range(len(categories)), categories, rotation=90, fontsize=7)
        axes.set_title(column, fontsize=9)
        axes.spines[['top', 'right']].set_visible(False)
    for row, first in zip(rows, grid[:, 0]):
        first.set_ylabel(row, fontsize=8)
    for index in np.ndindex(grid.shape):
        grid[index].set_visible((rows[index[0]], columns[index[1]]) in panels)
    grid[0][0].legend(fontsize=8, frameon=False)
    canvas.draw()
    return cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)


def _categories(panels: Iterable[Mapping[str, Mapping[str, Interval]]]) -> list[str]:
    return list(dict.fromkeys(category for panel in panels for values in panel.values() for category in values))


def _draw_intervals(
    axes: Any, categories: Sequence[str], values: Mapping[str, Interval], name: str, number: int, lines: int
) -> None:
    """Draw one line's values, beside those of the other lines."""
    x = np.array([categories.index(category) for category in values]) + 0.16 * (number - (lines - 1) / 2)
    middle, low, high = np.array(list(values.values()), float).reshape(-1, 3).T
    color = LINE_COLORS[number % len(LINE_COLORS)]
    has_interval = np.isfinite(low)
    axes.vlines(x[has_interval], low[has_interval], high[has_interval], color=color, linewidth=1.5)
    axes.plot(x, middle, 'o', color=color, markersize=3.5, label=name)
