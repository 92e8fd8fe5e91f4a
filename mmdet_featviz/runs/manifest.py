"""Manifest: makes and reads the lines of manifest.jsonl, one per level of an image, with the files that show it.

``run_folder.py`` appends the lines to the file.
"""

from __future__ import annotations

import io
import json
import re
import reprlib
from typing import Any, Iterator, Sequence

import numpy as np

from mmdet_featviz.runs.storage import Storage
from mmdet_featviz.structures.snapshot import Snapshot, is_mean
from mmdet_featviz.visualization.views import PlacedLevel

MANIFEST = 'manifest.jsonl'
PART = 'manifest.rank{}.jsonl'  # of a further rank, until all ranks have finished
TRAINING_FOLDER = re.compile(r'(epoch|iter)_\d')
IS_PART = re.compile(r'manifest\.rank\d+\.jsonl')
# What an entry must have that has a field, and the types of the values.
LEVEL, PASS = 'augmentation', 'pass'
NEEDED = {
    LEVEL: ('key', 'layer', 'level', 'files'),
    'method': ('key', PASS, 'files'),
    'vectors': ('key', PASS, 'image', 'folder', 'boxes', 'files'),
    'evaluation': ('files',),
}
TYPES = {
    'key': str,
    'layer': str,
    'level': int,
    'files': list,
    'boxes': int,
    'folder': str,
    'evaluation': str,
    LEVEL: (int, str),
    PASS: (int, str),
    'image': (str, type(None)),
    'position': (int, type(None)),
}


def image_facts(snapshot: Snapshot) -> dict[str, Any]:
    """Return what the manifest entry of anything says of its image."""
    return dict(image=snapshot.path, key=snapshot.key, folder=snapshot.folder, position=snapshot.position)


def level_entry(
    snapshot: Snapshot, placed: PlacedLevel, names: Sequence[str], incomplete: bool = False
) -> dict[str, Any]:
    """Return the manifest entry of one level of one image.

    Args:
        snapshot: The image, in one pass.
        placed: The level, on its image.
        names: Names of the files that show or hold the level, in the image's folder.
        incomplete: Whether some files of the level are missing because of an error.
    """
    level = placed.level
    vertical, horizontal = level.stride
    entry = dict(
        **image_facts(snapshot),
        augmentation=snapshot.augmentation,
        layer=level.layer,
        level=level.level,
        channels=level.channels,
        stride=vertical if vertical == horizontal else [vertical, horizontal],
        offset=level.offset,
        shape=level.values.shape,
        min=placed.range[0],
        max=placed.range[1],
        not_finite=int(np.count_nonzero(~np.isfinite(level.values))),
        files=[f'{snapshot.key}/{name}' for name in names],
    )
    if level.score_of is not None:
        entry.update(score_of=level.score_of, label=level.label)
    return {**entry, 'incomplete': True} if incomplete else entry


def manifest_names(store: Storage) -> list[str]:
    """Return the names of a run's manifest files: its manifest, and parts left by ranks that were stopped."""
    names = store.names()
    return [MANIFEST] * (MANIFEST in names) + [name for name in names if IS_PART.fullmatch(name)]


def read_entries(store: Storage) -> Iterator[dict[str, Any]]:
    """Iterate over the entries of a run's manifest; lines that were not written to their end are left out.

    Raises:
        ValueError: If an entry lacks something or has a value of another type: the file may come from anybody.
    """
    for name in manifest_names(store):
        for line in whole_lines(store.read(name)):
            entry = json.loads(line.decode('utf-8', 'surrogateescape'))
            problem = _problem(entry)
            if problem:
                raise ValueError(f'{store.path(name)} was not written by this package, or is damaged: {problem}')
            yield entry


def _problem(entry: dict[str, Any]) -> str:
    """What is wrong with an entry; empty if nothing is."""
    for kind, names in NEEDED.items():
        absent = [name for name in names if kind in entry and name not in entry]
        if absent:
            return f'an entry with {kind!r} has no {absent[0]!r}'
    for name in TYPES.keys() & entry.keys() - (set() if LEVEL in entry else {'level'}):
        if not isinstance(entry[name], TYPES[name]):
            return f'the {name!r} of an entry is {reprlib.repr(entry[name])}'
    if 'vectors' in entry and not (0 <= entry['boxes'] < 2**31 and entry['files']):
        return f'an entry has {reprlib.repr(entry["boxes"])} boxes in {reprlib.repr(entry["files"])}'
    if not all(isinstance(file, str) for file in entry.get('files', ())):
        return f"the 'files' of an entry are {reprlib.repr(entry['files'])}"
    return ''


def run_order(entry: dict[str, Any]) -> tuple:
    """Return what sorts manifest entries in the order of the run: by stage, position in the data set, and pass.

    The order in the file is that in which threads and ranks finished. The validations and training images of a training
    come before its tests. Entries without a position, such as those of earlier versions, come first, in the order of
    the file.
    """
    position, augmentation = entry.get('position'), entry['augmentation']
    if position is None:
        return ()
    folder = entry.get('folder', '')
    parts = [(int(part), '') if part.isdigit() else (0, part) for part in re.split(r'(\d+)', folder)]
    number = int(re.sub(r'\D', '', str(augmentation)) or 0)
    return not TRAINING_FOLDER.match(folder), parts, position, is_mean(augmentation), number


def whole_lines(data: bytes) -> Iterator[bytes]:
    """Iterate over the complete lines of a manifest file: JSON objects that end with a newline."""
    for line in io.BytesIO(data):
        try:
            is_entry = isinstance(json.loads(line.decode('utf-8', 'surrogateescape')), dict)
        except (ValueError, RecursionError):
            is_entry = False
        if is_entry and line.endswith(b'\n'):
            yield line


def finished_levels(store: Storage) -> dict[tuple, set[str]]:
    """Return {(image key, pass): names of the levels} for all levels whose files exist."""
    existing = store.all_names()
    finished: dict[tuple, set[str]] = {}
    for entry in read_entries(store):
        if 'augmentation' not in entry:  # written by a comparison of runs
            continue
        levels = finished.setdefault((entry['key'], entry['augmentation']), set())
        name = f'{entry["layer"]}_{entry["level"]}'
        is_complete = not entry.get('incomplete') and existing.issuperset(entry['files'])
        (levels.add if is_complete else levels.discard)(name)
    return finished


def complete_passes(store: Storage, field: str) -> set[tuple]:
    """Return (image key, pass) of all images whose entries with a field, such as ``method``, are complete."""
    existing = store.all_names()
    complete: dict[tuple, bool] = {}
    for entry in read_entries(store):
        if field in entry:
            known = entry['key'], entry['pass']
            is_complete = not entry.get('incomplete') and existing.issuperset(entry['files'])
            complete[known] = complete.get(known, True) and is_complete
    return {known for known, is_complete in complete.items() if is_complete}
