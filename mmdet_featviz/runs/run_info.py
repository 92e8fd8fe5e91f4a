"""Run info: run.json, which says how a run was made and how it was evaluated."""

from __future__ import annotations

import json

from mmdet_featviz.runs.storage import Storage

RUN_INFO_FILE = 'run.json'
TEST = 'test'  # what names the metrics of a test, where those of a validation have the name of its folder


def read_run_info(store: Storage) -> dict:
    """What ``run.json`` says of a run; nothing if there is none."""
    if RUN_INFO_FILE not in store.names():
        return {}
    return json.loads(store.read(RUN_INFO_FILE).decode('utf-8', 'surrogateescape'))


def check_same_settings(folder: str, before: dict, known: dict) -> None:
    """Raise ValueError if the run in a folder, which is to be gone on with, was made with other settings."""
    for name in ('layers', 'reduction', 'style'):
        then, now = before.get(name), known.get(name)
        if then != now:
            if isinstance(then, dict) and isinstance(now, dict):
                name = next(f'{name}.{part}' for part in now if then.get(part) != now[part])
                then, now = (one.get(name.partition('.')[2]) for one in (then, now))
            raise ValueError(
                f'{folder!r} was drawn with other settings ({name} was {then!r} and is {now!r} now), so resume=True '
                'cannot go on with it: set overwrite=True to replace it, or choose another out_dir'
            )


def to_json(info: dict) -> str:
    return json.dumps(info, ensure_ascii=False, indent=1, default=str)
