"""Summary of the runs of a report: their settings, metrics and focus."""

from __future__ import annotations

import os.path as osp
from typing import Iterator, Mapping, Sequence

from mmdet_featviz.evaluation.focus import FIGURES, SIZES, TOLERANCE, FocusMeans
from mmdet_featviz.report.metric_history import MetricHistory, by_time, in_order
from mmdet_featviz.report.plots import Plot, plot
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_info import TEST


def summarize_runs(runs: Sequence[Run], focus: FocusMeans) -> dict:
    """What the template of the page needs for its head.

    Args:
        runs: One run, or two.
        focus: Means over the images of the first that the page shows; for a run whose evaluators told none.
    """
    letters = 'AB' if len(runs) > 1 else ('',)
    results = {letter: MetricHistory(run.info) for letter, run in zip(letters, runs)}
    rounds = [
        (f'{letter} {name}'.strip(), told) for letter, one in results.items() for name, told in one.rounds.items()
    ]
    metrics = in_order(metric for _, told in rounds for metric in told)
    return dict(
        title=' and '.join(dict.fromkeys(map(_title, runs))),
        runs=[_info_of(run) for run in runs],
        metrics=metrics,
        rounds=[(name, [told.get(metric) for metric in metrics]) for name, told in rounds],
        latest=_latest(metrics[0], results) if metrics else [],
        over_time=_over_time(metrics[0], results) if metrics else None,
        focus=list(_focus_tables(results, focus)),
        figures=FIGURES,
        sizes=['all', *SIZES],
        tolerance=TOLERANCE,
    )


def _latest(metric: str, results: Mapping[str, MetricHistory]) -> list[tuple[str, float]]:
    """Of each run that has the metric, its letter and the last value."""
    told = {
        letter: [told[metric] for told in one.rounds.values() if told.get(metric) is not None]
        for letter, one in results.items()
    }
    return [(f'{letter} '.lstrip(), values[-1]) for letter, values in told.items() if values]


def _over_time(metric: str, results: Mapping[str, MetricHistory]) -> Plot | None:
    """The metric after each validation, if any run had several."""
    lines = {
        letter or metric: {
            name: told[metric] for name, told in one.rounds.items() if name != TEST and told.get(metric) is not None
        }
        for letter, one in results.items()
    }
    if max(map(len, lines.values())) < 2:
        return None
    places = by_time(name for values in lines.values() for name in values)
    return plot(f'{metric} after each validation', metric, 'validation', places, lines)


def _focus_tables(results: Mapping[str, MetricHistory], means: FocusMeans) -> Iterator[dict]:
    """The tables of each run, with their plots."""
    for number, (letter, one) in enumerate(results.items()):
        tables = dict(one.focus)
        as_drawn = [one.focus_settings.get(prefix, one.drawn_with) == one.drawn_with for prefix in tables]
        if not number and means.images and not any(as_drawn):
            tables = {'': means.table(), **tables}
        for prefix, table in tables.items():
            of = [letter, *((prefix, one.focus_round) if prefix else ())]
            title = 'Focus' + ''.join(f', {part}' for part in of if part not in ('', 'focus', TEST))
            lines = {
                size: {name: row['gain'][size] for name, row in table.rows.items() if size in row.get('gain', {})}
                for size in ('all', *SIZES)
            }
            drawn = plot(f'{title}: gain by level and size of objects', 'gain', 'level', list(table.rows), lines, 1.0)
            settings = _words(one.focus_settings.get(prefix, {}))
            yield dict(
                title=title, told=bool(prefix), settings=settings, images=table.images, rows=table.rows, plot=drawn
            )


def _words(settings: Mapping[str, str]) -> str:
    """Settings of a metric in a line; its layers are the rows of the table."""
    return ', '.join(f'{name} {value}' for name, value in settings.items() if name != 'layers')


def _title(run: Run) -> str:
    """Name of its config, or of its folder."""
    return osp.splitext(osp.basename(run.info.get('config') or ''))[0] or osp.basename(run.folder)


def _info_of(run: Run) -> dict[str, str]:
    """What the page says of a run."""
    info = run.info
    known = dict(
        folder=run.folder,
        config=info.get('config'),
        checkpoint=info.get('checkpoint'),
        layers=', '.join(info.get('layers') or ()),
        reduction=info.get('reduction'),
        align=info.get('style', {}).get('align'),
        written_by=f'mmdet_featviz {info["version"]}' if 'version' in info else None,
    )
    return {name.replace('_', ' '): str(value) for name, value in known.items() if value}
