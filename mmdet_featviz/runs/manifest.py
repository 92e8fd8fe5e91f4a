"""Manifest: the list of all files of a run, one line per map."""

from __future__ import annotations

import io
import json
import os
import os.path as osp
import re
from typing import Any, Iterator

from mmdet_featviz.runs.storage import Storage

MANIFEST = 'manifest.jsonl'
PART = 'manifest.rank{}.jsonl'
IS_PART = re.compile(r'manifest\.rank\d+\.jsonl')


def manifest_names(store: Storage) -> list[str]:
    """Names of a run's manifest, and of what ranks that were stopped left of theirs."""
    names = store.names()
    return [MANIFEST] * (MANIFEST in names) + [name for name in names if IS_PART.fullmatch(name)]


def read_entries(store: Storage) -> Iterator[dict[str, Any]]:
    """All lines of a run's manifest, but one that it was killed in."""
    for name in manifest_names(store):
        for line in whole_lines(store.read(name)):
            yield json.loads(line.decode('utf-8', 'surrogateescape'))


def whole_lines(data: bytes) -> Iterator[bytes]:
    for line in io.BytesIO(data):
        try:
            is_entry = isinstance(json.loads(line.decode('utf-8', 'surrogateescape')), dict)
        except ValueError:
            is_entry = False
        if is_entry and line.endswith(b'\n'):
            yield line


def is_below(name: str) -> bool:
    """Whether a name in a manifest, which may be anybody's, stays below the folder."""
    return not osp.isabs(name) and '..' not in name.replace(os.sep, '/').split('/')


def finished_levels(store: Storage) -> dict[tuple, set[str]]:
    """{(image key, pass): names of the levels} of which all files are there."""
    there = store.all_names()
    finished: dict[tuple, set[str]] = {}
    for entry in read_entries(store):
        if 'augmentation' not in entry:  # a comparison of runs
            continue
        levels = finished.setdefault((entry['key'], entry['augmentation']), set())
        name = f'{entry["layer"]}_{entry["level"]}'
        is_whole = not entry.get('incomplete') and there.issuperset(entry['files'])
        (levels.add if is_whole else levels.discard)(name)
    return finished
