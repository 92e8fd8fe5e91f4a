"""Summary of the runs of a report: the settings, metrics and focus at the top of the page."""

from __future__ import annotations

import os.path as osp
from typing import Iterator, Mapping, Sequence

from mmdet_featviz.evaluation.focus import MEASURES, SIZES, TOLERANCE, FocusMeans
from mmdet_featviz.evaluation.level_statistics import COLUMNS, LevelStatistics, statistics_rows
from mmdet_featviz.report.metric_history import MetricHistory, metrics_by_class, order_by_time, order_metrics
from mmdet_featviz.report.plots import Plot, plot
from mmdet_featviz.runs import field_files
from mmdet_featviz.runs.maps_file import errors_of
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_info import RUN_INFO_FILE, TEST
from mmdet_featviz.runs.run_names import LETTERS, in_words
from mmdet_featviz.utils.messages import count_noun


def summarize_runs(runs: Sequence[Run], focus_means: FocusMeans, names: Sequence[str] | None = None) -> dict:
    """The variables of the page template that describe the runs.

    Args:
        runs: One run, or those of a comparison.
        focus_means: Mean focus over the images on the page. Shown for the first run, unless a FeatureFocusMetric with
            the settings of the saved maps was recorded for it.
        names: Names of the runs for the title; None takes those of their configs.
    """
    letters = LETTERS[: len(runs)] if len(runs) > 1 else ('',)
    histories = {letter: MetricHistory(run.info) for letter, run in zip(letters, runs)}
    evaluations = [
        (f'{letter} {name}'.strip(), values)
        for letter, history in histories.items()
        for name, values in history.evaluations.items()
    ]
    all_metrics = order_metrics(metric for _, values in evaluations for metric in values)
    by_class = metrics_by_class(all_metrics, _classes(runs))
    of_classes = {metric for rows in by_class.values() for metric in rows.values()}
    metrics = [metric for metric in all_metrics if metric not in of_classes]
    return dict(
        title=in_words(list(dict.fromkeys(names or map(_title, runs)))),
        letters=letters,
        runs=[_describe(run) for run in runs],
        metrics=metrics,
        evaluations=[(name, [values.get(metric) for metric in metrics]) for name, values in evaluations],
        class_tables=[_class_table(measure, rows, evaluations) for measure, rows in by_class.items()],
        latest=_latest_values(metrics[0], histories) if metrics else [],
        over_time=_plot_over_time(metrics[0], histories) if metrics else None,
        focus=list(_focus_tables(histories, focus_means)),
        statistics=list(_statistics_tables(runs, letters)),
        statistics_columns=COLUMNS,
        fields=list(_field_tables(runs, letters)),
        field_columns=field_files.COLUMNS,
        measures=MEASURES,
        sizes=['all', *SIZES],
        tolerance=TOLERANCE,
    )


def _classes(runs: Sequence[Run]) -> list[str]:
    """The classes of all runs, each once."""
    names = (name for run in runs for name in (run.info.get('dataset_meta') or {}).get('classes') or ())
    return list(dict.fromkeys(map(str, names)))


def _class_table(measure: str, rows: Mapping[str, str], evaluations: Sequence[tuple[str, dict]]) -> dict:
    """A table of a metric with a row for each class; a column for each evaluation that has it.

    Args:
        measure: What is measured, such as ``coco/precision``.
        rows: ``{class: metric}``.
        evaluations: Names and metrics of the evaluations.
    """
    columns = [(name, values) for name, values in evaluations if any(metric in values for metric in rows.values())]
    return dict(
        measure=measure,
        columns=[name for name, _ in columns],
        rows={class_: [values.get(metric) for _, values in columns] for class_, metric in rows.items()},
    )


def _latest_values(metric: str, histories: Mapping[str, MetricHistory]) -> list[tuple[str, float]]:
    """Letter and last value of each run that has the metric."""
    all_values = {
        letter: [values[metric] for values in history.evaluations.values() if values.get(metric) is not None]
        for letter, history in histories.items()
    }
    return [(f'{letter} '.lstrip(), values[-1]) for letter, values in all_values.items() if values]


def _plot_over_time(metric: str, histories: Mapping[str, MetricHistory]) -> Plot | None:
    """A plot of the metric after each validation; None unless a run has at least two."""
    lines = {
        letter or metric: {
            name: values.get(metric) for name, values in history.evaluations.items() if not name.startswith(TEST)
        }
        for letter, history in histories.items()
    }
    if max(sum(value is not None for value in values.values()) for values in lines.values()) < 2:
        return None
    validations = order_by_time(name for values in lines.values() for name in values)
    return plot(f'{metric} after each validation', metric, 'validation', validations, lines)


def _focus_tables(histories: Mapping[str, MetricHistory], focus_means: FocusMeans) -> Iterator[dict]:
    """The focus tables of each run, with their plots."""
    for number, (letter, history) in enumerate(histories.items()):
        tables = dict(history.focus)
        is_of_maps = [
            history.focus_settings.get(prefix, history.map_settings) == history.map_settings for prefix in tables
        ]
        if not number and focus_means.images and not any(is_of_maps):
            tables = {'': focus_means.table(), **tables}
        for prefix, table in tables.items():
            parts = [letter, *((prefix, history.focus_evaluation) if prefix else ())]
            title = 'Focus' + ''.join(f', {part}' for part in parts if part not in ('', 'focus', TEST))
            gains = {
                size: {name: row['gain'][size] for name, row in table.rows.items() if size in row.get('gain', {})}
                for size in ('all', *SIZES)
            }
            yield dict(
                title=title,
                is_recorded=bool(prefix),  # by a FeatureFocusMetric, not measured on the images of the page
                settings=_format_settings(history.focus_settings.get(prefix, {})),
                images=table.images,
                rows=table.rows,
                plot=plot(f'{title}: gain by level and size of objects', 'gain', 'level', list(table.rows), gains, 1.0),
            )


def _statistics_tables(runs: Sequence[Run], letters: Sequence[str]) -> Iterator[dict]:
    """The statistics of the levels of each run that recorded them, and what is unusual."""
    for letter, run in zip(letters, runs):
        statistics = run.info.get('statistics')
        if statistics:
            with errors_of(f'{run.root}/{RUN_INFO_FILE}', 'statistics'):
                levels = [LevelStatistics(**level) for level in statistics['levels']]
                images = count_noun(statistics['images'], 'image')
                remarks = [remark for level in levels for remark in level.remarks]
                rows = statistics_rows(levels)
            title = f'Features {letter}'.rstrip() + f': statistics of the first {images}'
            yield dict(title=title, rows=rows, remarks=remarks)


def _field_tables(runs: Sequence[Run], letters: Sequence[str]) -> Iterator[dict]:
    """The receptive fields of each run that measured them; those of its last validation or test."""
    for letter, run in zip(letters, runs):
        measured = run.info.get(field_files.TABLE)
        if measured:
            name, facts = list(measured.items())[-1]
            parts = [f'Receptive fields {letter}'.rstrip(), *([] if name == TEST else [name])]
            with errors_of(f'{run.root}/{RUN_INFO_FILE}', 'receptive fields'):
                title = f'{", ".join(parts)}: mean over {count_noun(facts["images"], "image")}'
                rows = field_files.field_rows(facts)
            yield dict(title=title, rows=rows)


def _format_settings(settings: Mapping[str, str]) -> str:
    """Settings of a metric in one line, without the layers, which are in the rows of the table."""
    return ', '.join(f'{name} {value}' for name, value in settings.items() if name != 'layers')


def _title(run: Run) -> str:
    """Name of the run's config, or else of its folder."""
    return osp.splitext(osp.basename(run.info.get('config') or ''))[0] or osp.basename(run.folder)


def _describe(run: Run) -> dict[str, str]:
    """Facts about a run, without those that are unknown."""
    info = run.info
    facts = dict(
        folder=run.folder,
        config=info.get('config'),
        checkpoint=info.get('checkpoint'),
        weights=info.get('weights'),
        layers=', '.join(info.get('layers') or ()),
        reduction=info.get('reduction'),
        align=info.get('style', {}).get('align'),
        written_by=f'mmdet_featviz {info["version"]}' if 'version' in info else None,
    )
    return {name.replace('_', ' '): str(value) for name, value in facts.items() if value}
