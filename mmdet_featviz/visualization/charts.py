"""Charts: bar chart or histogram of the channel weights of a layer."""

from __future__ import annotations

import cv2
import numpy as np

MAX_BARS = 128
DPI = 100


def weight_chart(weights: np.ndarray, marked: np.ndarray, quantity: str, size: tuple[int, int]) -> np.ndarray:
    """Draw one bar per channel, or a histogram for more than 128 channels; marked channels have another color.

    Args:
        weights: (C,); NaN and infinite weights are drawn as 0.
        marked: Indices of the channels to mark.
        quantity: Axis label of the weights.
        size: (width, height) of the picture, in pixels.

    Returns:
        (height, width, 3), BGR, uint8.
    """
    # Imported here because it is slow to import. pyplot is not used, as it would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, layout='constrained')
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
