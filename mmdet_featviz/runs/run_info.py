"""Run info: the content of run.json, which has the settings of a run and the metrics of its evaluation."""

from __future__ import annotations

import json
import math
from typing import Any

from mmdet_featviz.runs.storage import Storage

RUN_INFO_FILE = 'run.json'
TEST = 'test'  # key of a test's metrics; those of a validation have its folder as key, such as epoch_3


def read_run_info(store: Storage) -> dict:
    """Return the content of a run's ``run.json``; empty without the file."""
    if RUN_INFO_FILE not in store.names():
        return {}
    return json.loads(store.read(RUN_INFO_FILE).decode('utf-8', 'surrogateescape'))


def check_same_settings(folder: str, before: dict, now: dict) -> None:
    """Raise ValueError if the run to be resumed in a folder was made with other settings."""
    for name in ('layers', 'reduction', 'style'):
        old, new = before.get(name), now.get(name)
        if old != new:
            if isinstance(old, dict) and isinstance(new, dict):
                option = next(option for option in new if old.get(option) != new[option])
                name, old, new = f'{name}.{option}', old.get(option), new.get(option)
            raise ValueError(
                f'{folder!r} was drawn with other settings ({name} was {old!r} and is {new!r} now), so resume=True '
                'cannot continue it: set overwrite=True to replace it, or choose another out_dir'
            )


def jsonable_dataset_meta(dataset_meta: dict | None) -> dict | None:
    """Return ``classes`` and ``palette`` of a data set if they are lists, which JSON can hold; None without any."""
    meta = dataset_meta or {}
    kept = {name: meta[name] for name in ('classes', 'palette') if isinstance(meta.get(name), (list, tuple))}
    return kept or None


def numeric_metrics(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Return the metrics that are numbers, as floats; NaN and infinity, which JSON cannot hold, become None."""
    numbers: dict[str, float | None] = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor with several elements
            continue
        numbers[name] = number if math.isfinite(number) else None
    return numbers


def to_json(info: dict) -> str:
    """Return the text of ``run.json``."""
    return json.dumps(info, ensure_ascii=False, indent=1, default=str)
