"""Metric history: the metrics of a run after each validation and its test."""

from __future__ import annotations

import re
from typing import Any, Iterable, Sequence

from mmdet_featviz.evaluation.focus import MEASURES, SIZES, UNDEFINED, FocusTable
from mmdet_featviz.report.image_passes import folder_label
from mmdet_featviz.runs.run_info import TEST

# Keys of FeatureFocusMetric: prefix/level/measure, then _size or /class.
FOCUS_KEY = re.compile(rf'(.+?)/([^/]+_\d+)/({"|".join(MEASURES)})(?:_({"|".join(SIZES)}))?(/.*)?', re.DOTALL)
IMAGE_COUNTS = '/images', '/images_without_boxes'


class MetricHistory:
    """The metrics that a run recorded.

    Args:
        info: Content of the run's ``run.json``.

    Attributes:
        evaluations: ``{name: {metric: value}}`` without focus, in order of time; a name is ``epoch 4``, ``iter 500`` or
            ``test``. The value is None if it is not finite or not defined.
        focus: ``{prefix: focus}`` of each FeatureFocusMetric, from the last evaluation that has any.
        focus_evaluation: Name of that evaluation.
        focus_settings: ``{prefix: settings}`` of each FeatureFocusMetric, as far as they are known.
        map_settings: The same settings for the saved maps of the run.
    """

    def __init__(self, info: dict[str, Any]) -> None:
        self.evaluations: dict[str, dict[str, float | None]] = {}
        self.focus: dict[str, FocusTable] = {}
        self.focus_evaluation = ''
        self.focus_settings: dict[str, dict] = info.get('focus') or {}
        align = info.get('style', {}).get('align')
        self.map_settings = dict(layers=info.get('layers'), reduction=info.get('reduction'), align=align, boxes='gt')
        recorded = info.get('metrics') or {}
        for folder in order_by_time(recorded):
            name = folder_label(folder)
            values = {metric: None if value == UNDEFINED else value for metric, value in recorded[folder].items()}
            focus = _read_focus(values)
            if focus:
                self.focus, self.focus_evaluation = focus, name
            others = {metric: value for metric, value in values.items() if not _is_focus(metric, focus)}
            if others:
                self.evaluations[name] = others


def order_metrics(metrics: Iterable[str]) -> list[str]:
    """Each metric once, the mean average precision first."""
    return sorted(dict.fromkeys(metrics), key=lambda name: (not name.endswith('mAP'), 'AP' not in name))


def metrics_by_class(metrics: Iterable[str], classes: Sequence[str]) -> dict[str, dict[str, str]]:
    """The metrics of single classes, such as ``coco/cat_precision`` of CocoMetric with ``classwise=True``.

    Returns:
        ``{measure, such as coco/precision: {class: metric}}``, in the order of the classes.
    """
    found: dict[str, dict[str, str]] = {}
    numbers = {name: number for number, name in enumerate(classes)}
    for metric in metrics:
        for cut in [match.start() for match in re.finditer('_', metric)][::-1]:  # names of classes may have underscores
            parts = [(metric[:start], metric[start:cut]) for start in _starts(metric)]
            named = next(((prefix, name) for prefix, name in parts if name in numbers), None)
            if named is not None:
                found.setdefault(f'{named[0]}{metric[cut + 1 :]}', {})[named[1]] = metric
                break
    return {measure: dict(sorted(rows.items(), key=lambda row: numbers[row[0]])) for measure, rows in found.items()}


def _starts(metric: str) -> list[int]:
    """Where the name of a class may begin in that of a metric: at its beginning, or after a slash."""
    return [0, *(match.end() for match in re.finditer('/', metric))]


def order_by_time(evaluations: Iterable[str]) -> list[str]:
    """Names of evaluations or of their folders, each once, by their number; tests come last."""
    return sorted(
        dict.fromkeys(evaluations),
        key=lambda name: (name.startswith(TEST), [int(number) for number in re.findall('[0-9]+', name)]),
    )


def _read_focus(values: dict[str, float | None]) -> dict[str, FocusTable]:
    """The focus of each FeatureFocusMetric, by its prefix; values of single classes are left out."""
    rows: dict[str, dict] = {}
    for metric, value in values.items():
        match = FOCUS_KEY.fullmatch(metric)
        if match:
            prefix, level, measure, size, class_ = match.groups()
            measures = rows.setdefault(prefix, {}).setdefault(level, {})
            if not class_ and value is not None:
                measures.setdefault(measure, {})[size or 'all'] = value
    return {prefix: FocusTable(int(values.get(f'{prefix}/images') or 0), levels) for prefix, levels in rows.items()}


def _is_focus(metric: str, focus: dict[str, FocusTable]) -> bool:
    """Whether this is a key of a FeatureFocusMetric, of which `focus` has the prefixes."""
    counts = {f'{prefix}{name}' for prefix in focus for name in IMAGE_COUNTS}
    return FOCUS_KEY.fullmatch(metric) is not None or metric in counts
