"""Metric history: the metrics of a run, by epoch."""

from __future__ import annotations

import re
from typing import Any, Iterable

from mmdet_featviz.evaluation.focus import FIGURES, SIZES, UNDEFINED, FocusTable
from mmdet_featviz.runs.run_info import TEST

# Keys of FeatureFocusMetric; what follows a further slash is a class.
FOCUS = re.compile(rf'(.+?)/([^/]+_\d+)/({"|".join(FIGURES)})(?:_({"|".join(SIZES)}))?(/.*)?', re.DOTALL)
IMAGES = '/images', '/images_without_boxes'


class MetricHistory:
    """What evaluators told of one run.

    Args:
        info: What ``run.json`` says of the run.

    Attributes:
        rounds: {``epoch 4`` or ``iter 500`` or ``test``: {metric: value}} in the order of time, the test last. None is
            the value of what is not finite, or not defined.
        focus: {prefix: figures}: those of each FeatureFocusMetric in the last round that has any.
        focus_round: That round.
        focus_settings: {prefix: what its figures depend on}, as far as it is known.
        drawn_with: The same of what the run has drawn.
    """

    def __init__(self, info: dict[str, Any]) -> None:
        self.rounds: dict[str, dict[str, float | None]] = {}
        self.focus: dict[str, FocusTable] = {}
        self.focus_round = ''
        self.focus_settings: dict[str, dict] = info.get('focus') or {}
        align = info.get('style', {}).get('align')
        self.drawn_with = dict(layers=info.get('layers'), reduction=info.get('reduction'), align=align, boxes='gt')
        told = info.get('metrics') or {}
        for folder in by_time(told):
            name = folder.replace('_', ' ')
            values = {metric: None if value == UNDEFINED else value for metric, value in told[folder].items()}
            focus = _focus_in(values)
            if focus:
                self.focus, self.focus_round = focus, name
            kept = {metric: value for metric, value in values.items() if not _is_of_focus(metric, focus)}
            if kept:
                self.rounds[name] = kept


def in_order(metrics: Iterable[str]) -> list[str]:
    """Each metric once, the mean average precision first."""
    return sorted(dict.fromkeys(metrics), key=lambda name: (not name.endswith('mAP'), 'AP' not in name))


def by_time(rounds: Iterable[str]) -> list[str]:
    """Names of rounds or of their folders, each once, by their number; the test comes last."""
    return sorted(dict.fromkeys(rounds), key=lambda name: (name == TEST, int('0' + ''.join(re.findall('[0-9]', name)))))


def _focus_in(values: dict[str, float | None]) -> dict[str, FocusTable]:
    """The figures of each FeatureFocusMetric by its prefix; those of single classes are left to the logs."""
    rows: dict[str, dict] = {}
    for metric, value in values.items():
        found = FOCUS.fullmatch(metric)
        if found:
            prefix, level, figure, size, class_ = found.groups()
            of_level = rows.setdefault(prefix, {}).setdefault(level, {})
            if not class_ and value is not None:
                of_level.setdefault(figure, {})[size or 'all'] = value
    return {prefix: FocusTable(int(values.get(f'{prefix}/images') or 0), levels) for prefix, levels in rows.items()}


def _is_of_focus(metric: str, focus: dict[str, FocusTable]) -> bool:
    return FOCUS.fullmatch(metric) is not None or metric in {f'{prefix}{name}' for prefix in focus for name in IMAGES}
