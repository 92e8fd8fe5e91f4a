"""Drawing benchmark: the time of nine heatmaps of one image, compared with other ways to draw them."""

from __future__ import annotations

import argparse
import tempfile
import warnings
from functools import partial

from mmdet_featviz.benchmarks.drawing_case import REDUCTIONS, DrawingCase
from mmdet_featviz.benchmarks.timing import set_threads, time_in_turns
from mmdet_featviz.capture.reductions import reduce_max


def measure_drawing(args: argparse.Namespace) -> dict[str, dict]:
    """Time all ways to draw.

    Args:
        args: Options of the command line: `threads` and `rounds` are used.

    Returns:
        ``seconds``: median elapsed and processor seconds by way; ``ratios`` between them.
    """
    set_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # draw_featmap warns for each map
        case = DrawingCase(folder)
        case.ours()
        floors = {'floor': case.floor, 'floor of our reduction': partial(case.floor, reduce_max)}
        # Faster ways get more rounds.
        fast = time_in_turns({'ours': case.ours, **floors}, 3 * args.rounds)
        slow = time_in_turns({'recipe': case.recipe, 'ours': case.ours}, args.rounds)
        featmaps = {f'draw_featmap {name}': partial(case.draw_featmap, name) for name in REDUCTIONS}
        slowest = time_in_turns({**featmaps, 'ours': case.ours}, min(args.rounds, 3))
    ratios = {}
    for index, suffix in enumerate(('', ', processor')):
        for name in featmaps:
            ratios[f'{name} / ours{suffix}'] = slowest[name][index] / slowest['ours'][index]
        ratios[f'recipe / ours{suffix}'] = slow['recipe'][index] / slow['ours'][index]
        for name in floors:
            ratios[f'ours / {name}{suffix}'] = fast['ours'][index] / fast[name][index]
    return dict(seconds={**slowest, 'recipe': slow['recipe'], **fast}, ratios=ratios)
