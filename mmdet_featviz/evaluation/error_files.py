"""Error files: the errors of an evaluation as a table of boxes, tables of counts and contrasts, and a plot."""

from __future__ import annotations

import math
from typing import Iterator, Mapping, Sequence

import cv2

from mmdet_featviz.evaluation.detection_errors import COSTS, FALSE_TYPES, FOUND, MISSED, TRUE
from mmdet_featviz.evaluation.error_records import ErrorRecord, errors_csv
from mmdet_featviz.evaluation.focus import SIZES
from mmdet_featviz.evaluation.miss_mechanisms import MECHANISMS
from mmdet_featviz.evaluation.missed_contrasts import (
    ALL_SIZES,
    ContrastRow,
    Estimate,
    compare_contrasts,
    is_score,
    largest_differences,
)
from mmdet_featviz.utils.file_names import safe_name
from mmdet_featviz.utils.messages import count_noun
from mmdet_featviz.visualization.charts import Interval, interval_chart

PREFIX = 'errors'  # of the metrics, and of the files
CSV = f'{PREFIX}.csv'  # the table, of a metric with this prefix
UNITS = {False: 'contrast (standard deviations)', True: 'contrast (probability)'}  # of features, of class scores
EXPLANATION = (
    'Contrast: mean heat inside a ground-truth box minus that in the ring around it; of features in standard '
    'deviations of the heatmap over its image, of class scores (`...scores`) in probability. Intervals: 95 %, from '
    'images drawn with replacement, for each level on its own; none where the objects are in fewer than five images. '
    'A sentence needs an interval above 0 that is wider the more levels there are.'
)


def error_files(
    records: Sequence[ErrorRecord],
    names: Sequence[str],
    score: float,
    metrics: Mapping[str, float],
    prefix: str = PREFIX,
) -> dict[str, bytes]:
    """Return {name: content} of the files of an evaluation, named ``errors.csv`` or, for example, ``errors_low.csv``.

    Args:
        records: The records of the data set.
        names: Names of the classes.
        score: Smallest score of a prediction that counts.
        metrics: What the metric returns, without a prefix.
        prefix: That of the metric's keys: the files of two metrics have different names.
    """
    stem = safe_name((prefix if prefix.startswith(PREFIX) else f'{PREFIX}_{prefix}').replace('/', '_'))
    rows = compare_contrasts(records, score)
    text = _markdown(len(records), score, metrics, rows)
    files = {f'{stem}.csv': errors_csv(records, names, score), f'{stem}.md': text.encode()}
    if rows:
        files[f'{stem}.png'] = _plot(rows)
    return files


def contrast_findings(rows: Sequence[ContrastRow]) -> list[str]:
    """One sentence per object size: where missed objects differ most from found ones, as far as intervals carry it.

    There is none for all sizes together: missed objects are smaller, and size alone changes the contrast of a level.
    """
    sentences = []
    for size in SIZES:
        if not any(row.size == size and not math.isnan(row.difference.low) for row in rows):
            continue
        objects = f'{size} objects'
        features, scores = largest_differences(rows, size)
        parts = [_difference_in_words(row) for row in (features, scores) if row is not None]
        if not parts:
            sentences.append(f'Missed {objects} are at no level clearly less in contrast than found ones.')
        elif features is None and any(row.size == size and not is_score(row.level) for row in rows):
            sentences.append(
                f'Missed {objects} are at no level of the features clearly less in contrast than found ones, but '
                f'in the class scores they are: most at {parts[0]}.'
            )
        else:
            sentences.append(
                f'Missed {objects} fall behind found ones most at {", and in the scores at ".join(parts)}.'
            )
    return sentences


def _difference_in_words(row: ContrastRow) -> str:
    gap = row.difference
    return (
        f'`{row.level}` (contrast {row.missed.mean:.3g} against {row.found.mean:.3g}; difference {gap.mean:.3g}, '
        f'{gap.low:.3g} to {gap.high:.3g})'
    )


def _markdown(images: int, score: float, metrics: Mapping[str, float], rows: Sequence[ContrastRow]) -> str:
    lines = ['# Detection errors', '']
    lines.append(f'{count_noun(images, "image")}; predictions of a score of at least {score:g}.')
    lines += ['', '| type | number | cost in AP50 |', '| --- | ---: | ---: |']
    for type_ in (TRUE, *FALSE_TYPES, FOUND, MISSED):
        cost = f'{metrics[f"dAP_{type_}"]:.4f}' if type_ in COSTS else ''
        lines.append(f'| {type_} | {metrics[type_]:.0f} | {cost} |')
    lines += ['', f'AP50: {metrics["AP50"]:.4f}. Costs are those of predictions of any score.']
    if f'{MISSED}_{MECHANISMS[0]}' in metrics:
        lines += ['', '| mechanism of missed objects | number |', '| --- | ---: |']
        lines += [f'| {mechanism} | {metrics[f"{MISSED}_{mechanism}"]:.0f} |' for mechanism in MECHANISMS]
    if rows:
        lines += ['', '## Contrast of found and missed objects', '', *_contrast_table(rows), '', EXPLANATION]
        lines += [f'\n{sentence}' for sentence in contrast_findings(rows)]
    return '\n'.join([*lines, ''])


def _contrast_table(rows: Sequence[ContrastRow]) -> Iterator[str]:
    yield '| level | size | found | missed | found minus missed |'
    yield '| --- | --- | ---: | ---: | ---: |'
    for row in rows:
        found, missed = (f'{_cell(group)} ({group.objects})' for group in (row.found, row.missed))
        yield f'| {row.level} | {row.size} | {found} | {missed} | {_cell(row.difference)} |'


def _cell(estimate: Estimate) -> str:
    interval = '' if math.isnan(estimate.low) else f' [{estimate.low:.3f}, {estimate.high:.3f}]'
    return f'{estimate.mean:.3f}{interval}'


def _plot(rows: Sequence[ContrastRow]) -> bytes:
    """The plot of found against missed by level: a column per object size, a row for features and one for scores."""
    panels = {}
    for scores, unit in UNITS.items():
        for size in ALL_SIZES:
            chosen = [row for row in rows if row.size == size and is_score(row.level) == scores]
            if chosen:
                panels[unit, f'{size} objects'] = {
                    FOUND: {row.level: Interval(*row.found[:3]) for row in chosen},
                    MISSED: {row.level: Interval(*row.missed[:3]) for row in chosen},
                }
    return cv2.imencode('.png', interval_chart(panels))[1].tobytes()
