"""Maps file: saves the activation maps of an image as maps.npz, and loads them again."""

from __future__ import annotations

import io
import json
import os.path as osp
from dataclasses import replace
from typing import Any

import numpy as np
from mmengine import fileio

from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.channel_maps import ChannelMaps
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level, Snapshot

FORMAT = 1
CHANNEL_PARTS = ('picked', 'pooled')
ATTENTION = 'attention/'


def dump_snapshot(snapshot: Snapshot, dtype: str = 'float32') -> bytes:
    """Return the content of an ``.npz`` file with a snapshot's activation maps and their placement on the image.

    Arrays in the file: one map (rows, columns) per level, under the level's name (``neck_0``); selected channels
    (``neck_0.picked.maps``); ``boxes`` (N, 6) as corners, label and score (NaN for ground truth); ``ignored`` (M, 4) as
    corners; and ``meta``, a JSON string.

    Args:
        snapshot: The snapshot.
        dtype: ``float32`` or ``float16`` for the maps. In float16, values beyond +-65504 are clipped.
    """
    arrays = {}
    for level in snapshot.levels:
        arrays.update(_level_arrays(level.name, level, dtype))
    for level in snapshot.attention:  # the prefix keeps these apart from the same module as a layer
        arrays.update(_level_arrays(f'{ATTENTION}{level.name}', level, dtype))
    if snapshot.boxes is not None:
        columns = snapshot.boxes.corners, snapshot.boxes.labels[:, None], snapshot.boxes.scores[:, None]
        arrays['boxes'] = np.concatenate(columns, axis=1)
    if snapshot.ignored is not None:
        arrays['ignored'] = snapshot.ignored
    meta = dict(
        format=FORMAT,
        key=snapshot.key,
        folder=snapshot.folder,
        path=snapshot.path,
        augmentation=snapshot.augmentation,
        is_file=snapshot.is_file,
        matrix=snapshot.placement.matrix.tolist(),
        photo_size=snapshot.placement.image_size,
        input_size=snapshot.placement.input_size,
        levels=[_level_facts(level) for level in snapshot.levels],
        attention=[_level_facts(level) for level in snapshot.attention],
    )
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array(json.dumps(meta, ensure_ascii=False)), **arrays)
    return buffer.getvalue()


def load_snapshot(path: str) -> Snapshot:
    """Load a snapshot from an ``.npz`` file of :func:`dump_snapshot`, with the raw feature maps saved next to it.

    Args:
        path: Path or URL of the file.

    Raises:
        ValueError: If the file cannot be read, or holds no maps in this package's format.
    """
    try:
        with np.load(io.BytesIO(fileio.get(path)), allow_pickle=False) as archive:
            arrays = dict(archive)
        meta = json.loads(str(arrays['meta']))
        version = meta['format']
    except Exception as error:  # the archive, its content and each file backend raise errors of their own
        raise ValueError(f'{path} holds no maps of this package: {error}') from error
    if version != FORMAT:
        raise ValueError(f'{path} was written by another version of this package (format {version})')
    boxes = None
    if 'boxes' in arrays:
        rows = arrays['boxes']
        boxes = Boxes(rows[:, :4], rows[:, 4].astype(np.int64), rows[:, 5])
    snapshot = Snapshot(
        meta['key'],
        meta['path'],
        meta['augmentation'],
        Placement(np.array(meta['matrix']), tuple(meta['photo_size']), tuple(meta['input_size'])),
        [_load_level('', facts, arrays) for facts in meta['levels']],
        [_load_level(ATTENTION, facts, arrays) for facts in meta['attention']],
        boxes,
        arrays.get('ignored'),  # not in runs of earlier versions
        is_file=meta['is_file'],
        folder=meta.get('folder', ''),
    )
    folder = osp.dirname(path)
    levels = [replace(level, raw=_load_raw(osp.join(folder, snapshot.raw_file(level)))) for level in snapshot.levels]
    return replace(snapshot, levels=levels)


def _load_raw(path: str) -> np.ndarray | None:
    """Load a raw feature map (C, rows, columns), or None without a file. On a disk it is memory-mapped."""
    if not fileio.exists(path):
        return None
    return np.load(path, mmap_mode='r') if osp.exists(path) else np.load(io.BytesIO(fileio.get(path)))


def _level_arrays(key: str, level: Level, dtype: str) -> dict[str, np.ndarray]:
    arrays = {key: _cast(level.values, dtype)}
    for part in CHANNEL_PARTS:
        channels = getattr(level, part)
        if channels is not None:
            arrays[f'{key}.{part}.indices'] = channels.indices
            arrays[f'{key}.{part}.maps'] = _cast(channels.maps, dtype)
            arrays[f'{key}.{part}.weights'] = channels.weights
    return arrays


def _load_level(prefix: str, facts: dict, arrays: dict[str, np.ndarray]) -> Level:
    facts['stride'] = tuple(facts['stride'])
    key, parts = f'{prefix}{facts["layer"]}_{facts["level"]}', {}
    for part in CHANNEL_PARTS:
        if f'{key}.{part}.maps' in arrays:
            indices, maps, weights = (arrays[f'{key}.{part}.{field}'] for field in ('indices', 'maps', 'weights'))
            parts[part] = ChannelMaps(indices, maps.astype(np.float32), weights)
    return Level(**facts, values=arrays[key].astype(np.float32), **parts)


def _level_facts(level: Level) -> dict[str, Any]:
    return dict(layer=level.layer, level=level.level, channels=level.channels, stride=level.stride)


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == 'float16':
        limit = np.finfo(np.float16).max
        return np.where(np.isfinite(values), np.clip(values, -limit, limit), values).astype(np.float16)
    return values.astype(dtype)
