"""Explanation summary: means of the measures of explanations, with intervals, by method and size of the object."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

import numpy as np

from mmdet_featviz.evaluation.bootstrap import interval
from mmdet_featviz.evaluation.focus import SIZES
from mmdet_featviz.utils.csv_table import csv_text

MEASURES = {  # with what they mean, for the table
    'insertion': 'area under the score while pixels are added, hottest first; higher is better',
    'deletion': 'area under the score while pixels are removed, hottest first; lower is better',
    'pointing': 'share of boxes whose hottest pixel is on the object; higher is better',
    'energy': 'share of the heat on the object',
    'odi': 'share of the heat in boxes that is on other objects; lower is better',
    'survives_head': 'rank correlation with the map after the weights of the head were shuffled; lower is better',
    'survives_neck': 'the same, with those of the neck shuffled too',
    'survives_backbone': 'the same, with all weights shuffled',
    'seconds': 'median of the seconds per box, without the prediction itself',
}
ALL = 'all'

Row = Mapping[str, Any]


def summarize(rows: Sequence[Row], seed: int = 0) -> list[dict[str, Any]]:
    """Average each measure over boxes.

    Args:
        rows: Results of :func:`mmdet_featviz.evaluation.explanation_scores.score_explanations`.
        seed: Seed of the intervals.

    Returns:
        A dict for each method, size (``all`` first) and measure: ``method``, ``size``, ``measure``, ``boxes`` (how many
        have the measure), ``mean`` (of seconds: the median), and the ends of its interval of 95 %, ``low`` and
        ``high``, by bootstrap over boxes. Without a box, a measure is left out.
    """
    summary = []
    for method in dict.fromkeys(row['method'] for row in rows):
        for size in (ALL, *SIZES):
            own = [row for row in rows if row['method'] == method and size in (ALL, row['size'])]
            for measure in MEASURES:
                values = np.array([row[measure] for row in own if row.get(measure) is not None], np.float64)
                if len(values):
                    statistic = np.median if measure == 'seconds' else np.mean
                    low, high = interval(values, seed, statistic)
                    middle = float(statistic(values))
                    facts = dict(method=method, size=size, measure=measure, boxes=len(values))
                    summary.append(dict(**facts, mean=middle, low=float(low), high=float(high)))
    return summary


def mean_curves(rows: Sequence[Row], seed: int = 0) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Average the curves over boxes: ``{method: {curve: {'mean', 'low', 'high'}}}``, a number for each step."""
    curves: dict[str, dict[str, dict[str, list[float]]]] = {}
    for method in dict.fromkeys(row['method'] for row in rows):
        own = [row['curves'] for row in rows if row['method'] == method]
        curves[method] = {}
        for name in own[0]:
            values = np.array([one[name] for one in own])
            low, high = interval(values, seed)
            curves[method][name] = dict(mean=values.mean(0).tolist(), low=low.tolist(), high=high.tolist())
    return curves


def summary_table(summary: Sequence[Row], boxes: int, images: int) -> str:
    """The Markdown page of a summary."""
    measures = [measure for measure in MEASURES if any(one['measure'] == measure for one in summary)]
    cells = {(one['method'], one['size'], one['measure']): one for one in summary}
    lines = ['# Explanations measured', '', f'{boxes} boxes in {images} images.', '']
    for size in (ALL, *SIZES):
        methods = [method for method in dict.fromkeys(one['method'] for one in summary) if _has(cells, method, size)]
        if not methods:
            continue
        count = max(cells[method, size, 'insertion']['boxes'] for method in methods)
        lines += [f'## {size.capitalize()} objects ({count})', '', f'| method | {" | ".join(measures)} |']
        lines.append('| --- |' + ' ---: |' * len(measures))
        for method in methods:
            shown = [_cell(cells.get((method, size, measure)), count) for measure in measures]
            lines.append(f'| {method} | {" | ".join(shown)} |')
        lines.append('')
    lines += ['In brackets: 95 % intervals (bootstrap over boxes).', '']
    return '\n'.join([*lines, *(f'- {measure}: {MEASURES[measure]}' for measure in measures), ''])


def _has(cells: Mapping[tuple, Any], method: str, size: str) -> bool:
    return (method, size, 'insertion') in cells


def _cell(one: Row | None, boxes: int) -> str:
    if one is None:
        return '-'
    if one['measure'] == 'seconds':
        return f'{one["mean"]:.2g}'
    count = '' if one['boxes'] == boxes else f', {one["boxes"]} boxes'
    return f'{one["mean"]:.3f} [{one["low"]:.3f}, {one["high"]:.3f}]{count}'


def to_csv(rows: Iterable[Row]) -> str:
    """Rows as CSV, without the curves; a box is ``left top right bottom``."""
    rows = [{name: value for name, value in row.items() if name != 'curves'} for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    for row in rows:
        if row.get('bbox') is not None:
            row['bbox'] = ' '.join(f'{side:.2f}' for side in row['bbox'])
    return csv_text(names, ([row.get(name) for name in names] for row in rows))
