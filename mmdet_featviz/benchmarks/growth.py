"""Growth benchmark: how the time of drawing grows with levels, channels, image size and number of images."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Mapping

from mmdet_featviz.benchmarks.drawing_case import DrawingCase
from mmdet_featviz.benchmarks.timing import seconds, set_threads, time_in_turns


def measure_growth(args: argparse.Namespace) -> dict[str, dict]:
    """Time our drawing of one image while one size varies at a time, and of several images.

    Args:
        args: Options of the command line: `threads`, `rounds` and `plot` are used.

    Returns:
        ``milliseconds``: ``{name of the size: {size: milliseconds}}``.
    """
    set_threads(args.threads)
    series = {
        'levels': {n: dict(backbone=[], neck=[(256, 8)] * n) for n in (1, 2, 4, 8, 16)},
        'channels': {c: dict(backbone=[], neck=[(c, 8)]) for c in (64, 256, 1024, 2048)},
        'image width': {
            w: dict(backbone=[], neck=[(256, 8)], image_size=(w * 3 // 4, w)) for w in (320, 768, 1920, 3840)
        },
    }
    milliseconds: dict[str, dict[int, float]] = {}
    for name, sizes in series.items():
        milliseconds[name] = {}
        for size, options in sizes.items():
            with tempfile.TemporaryDirectory() as folder:
                case = DrawingCase(folder, **options)
                milliseconds[name][size] = 1000 * time_in_turns({'ours': case.ours}, args.rounds)['ours'][0]
    with tempfile.TemporaryDirectory() as folder:
        case = DrawingCase(folder)
        milliseconds['images'] = {
            n: 1000 * seconds(lambda n=n: [case.ours() for _ in range(n)])[0] for n in (1, 3, 10, 30)
        }
    if args.plot is not None:
        plot_growth(milliseconds, args.plot)
    return dict(milliseconds=milliseconds)


def plot_growth(milliseconds: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Draw one plot for each varied size, side by side in one picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3), layout='constrained')
    for axes, (name, series) in zip(figure.subplots(1, len(milliseconds)), milliseconds.items()):
        axes.plot(list(series), list(series.values()), 'o-')
        axes.set(xlabel=name, ylabel='ms' if name == next(iter(milliseconds)) else '', ylim=(0, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(str(path), dpi=100)
