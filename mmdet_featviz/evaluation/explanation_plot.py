"""Explanation plot: insertion and deletion curves of all methods, with their intervals."""

from __future__ import annotations

import io
from typing import Any, Mapping

import numpy as np


def plot_curves(curves: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> bytes:
    """Draw the curves that ``mean_curves`` returns; returns a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=150, layout='constrained')
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ('insertion', 'deletion')):
        for method, own in curves.items():
            curve = own[name]
            share = np.linspace(0, 100, len(curve['mean']))
            (line,) = axes.plot(share, curve['mean'], label=method)
            axes.fill_between(share, curve['low'], curve['high'], color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set(title=name.capitalize(), xlabel=f'pixels {"added" if name == "insertion" else "removed"} (%)')
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel('score ÷ score in the whole image')
    figure.axes[1].legend()
    png = io.BytesIO()
    figure.savefig(png, format='png')
    return png.getvalue()
