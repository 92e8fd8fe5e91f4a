"""Maps file: saves a snapshot as maps.npz and loads it again."""

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
    """The activation maps of a snapshot as an ``.npz`` file, with all that is needed to place them on the image.

    Each map is an array named as its level (``neck_0``), chosen channels lie beside it (``neck_0.picked.maps``);
    ``boxes`` is (N, 6): corners, label, score (NaN for ground truth); ``ignored`` is (M, 4): corners; ``meta`` is JSON.

    Args:
        dtype: ``float32``, or ``float16``, in which values beyond 65504 are cut.
    """
    arrays = {}
    for level in snapshot.levels:
        arrays.update(_arrays(level.name, level, dtype))
    for level in snapshot.attention:  # such a module may be tapped as a layer, too
        arrays.update(_arrays(f'{ATTENTION}{level.name}', level, dtype))
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
        levels=[_names(level) for level in snapshot.levels],
        attention=[_names(level) for level in snapshot.attention],
    )
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array(json.dumps(meta, ensure_ascii=False)), **arrays)
    return buffer.getvalue()


def load_snapshot(path: str) -> Snapshot:
    """Read a snapshot back from a file that :func:`dump` made; the raw feature maps beside it too, if there are any.

    Args:
        path: The ``.npz`` file.

    Raises:
        ValueError: If it is no such file.
    """
    try:
        with np.load(io.BytesIO(fileio.get(path)), allow_pickle=False) as archive:
            arrays = dict(archive)
        meta = json.loads(str(arrays['meta']))
        version = meta['format']
    except Exception as error:  # of the archive, of its content, or of a file backend, each of which has its own
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
        [_level('', names, arrays) for names in meta['levels']],
        [_level(ATTENTION, names, arrays) for names in meta['attention']],
        boxes,
        arrays.get('ignored'),  # runs of earlier versions have none
        is_file=meta['is_file'],
        folder=meta.get('folder', ''),
    )
    folder = osp.dirname(path)
    levels = [replace(level, raw=_raw(osp.join(folder, snapshot.raw_file(level)))) for level in snapshot.levels]
    return replace(snapshot, levels=levels)


def _raw(path: str) -> np.ndarray | None:
    """A raw feature map, if there is one; of a file on disk only what is looked at is read."""
    if not fileio.exists(path):
        return None
    return np.load(path, mmap_mode='r') if osp.exists(path) else np.load(io.BytesIO(fileio.get(path)))


def _arrays(key: str, level: Level, dtype: str) -> dict[str, np.ndarray]:
    arrays = {key: _cast(level.values, dtype)}
    for part in CHANNEL_PARTS:
        channels = getattr(level, part)
        if channels is not None:
            arrays[f'{key}.{part}.indices'] = channels.indices
            arrays[f'{key}.{part}.maps'] = _cast(channels.maps, dtype)
            arrays[f'{key}.{part}.weights'] = channels.weights
    return arrays


def _level(prefix: str, names: dict, arrays: dict[str, np.ndarray]) -> Level:
    names['stride'] = tuple(names['stride'])
    key, parts = f'{prefix}{names["layer"]}_{names["level"]}', {}
    for part in CHANNEL_PARTS:
        if f'{key}.{part}.maps' in arrays:
            indices, maps, weights = (arrays[f'{key}.{part}.{field}'] for field in ('indices', 'maps', 'weights'))
            parts[part] = ChannelMaps(indices, maps.astype(np.float32), weights)
    return Level(**names, values=arrays[key].astype(np.float32), **parts)


def _names(level: Level) -> dict[str, Any]:
    return dict(layer=level.layer, level=level.level, channels=level.channels, stride=level.stride)


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == 'float16':
        limit = np.finfo(np.float16).max
        return np.where(np.isfinite(values), np.clip(values, -limit, limit), values).astype(np.float16)
    return values.astype(dtype)
