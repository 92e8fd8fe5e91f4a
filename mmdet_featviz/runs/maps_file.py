"""Maps file: saves the activation maps of an image as maps.npz, and loads them again."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os.path as osp
import zipfile
from dataclasses import replace
from typing import Any, Iterator

import numpy as np
from mmengine import fileio

from mmdet_featviz.runs.storage import is_inside
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.channel_maps import ChannelMaps
from mmdet_featviz.structures.compact_features import CompactFeatures
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level, Snapshot, is_mean
from mmdet_featviz.utils.regular_files import read_file

FORMAT = 1
CHANNEL_PARTS = ('picked', 'pooled')
COMPACT = 'compact'
EMBEDDING = 'embedding'
ATTENTION = 'attention/'
MOST = 1 << 31  # of passes, levels, channels, classes
MAX_PIXELS = 1 << 30  # OpenCV decodes no larger image
UNPROVEN_PIXELS = 89_478_485  # as many as Pillow opens without a warning: a quarter of a gigabyte
PIXELS_PER_BYTE = 10_000  # of a large image in its file; photos have 1 to 20, a PNG of one color 8,000


class MapsError(ValueError):
    """A maps file that cannot be read, or whose content does not fit."""


def dump_snapshot(snapshot: Snapshot, dtype: str = 'float32', **facts: Any) -> bytes:
    """Return the content of an ``.npz`` file with a snapshot's activation maps and their placement on the image.

    Arrays in the file: one map (rows, columns) per level, under the level's name (``neck_0``); selected channels
    (``neck_0.picked.maps``) and compact features (``neck_0.compact.scores``); ``boxes`` (N, 6) as corners, label and
    score (NaN for ground truth); ``ignored`` (M, 4) as corners; and ``meta``, a JSON string.

    Args:
        snapshot: The snapshot.
        dtype: ``float32`` or ``float16`` for the maps. In float16, values beyond +-65504 are clipped.
        **facts: Further entries of ``meta``.
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
        position=snapshot.position,
        path=snapshot.path,
        augmentation=snapshot.augmentation,
        is_file=snapshot.is_file,
        matrix=snapshot.placement.matrix.tolist(),
        photo_size=snapshot.placement.image_size,
        input_size=snapshot.placement.input_size,
        levels=[_level_facts(level) for level in snapshot.levels],
        attention=[_level_facts(level) for level in snapshot.attention],
        **facts,
    )
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array(json.dumps(meta, ensure_ascii=False)), **arrays)
    return buffer.getvalue()


def load_snapshot(path: str) -> Snapshot:
    """Load a snapshot from an ``.npz`` file of :func:`dump_snapshot`, with the raw feature maps saved next to it.

    Args:
        path: Path or URL of the file.

    Raises:
        MapsError: If the file cannot be read, or holds no maps in this package's format: a file from outside may have
            a name that leads out of the folder of the run, or arrays and sizes that do not fit each other.
    """
    with errors_of(path):
        snapshot = parse_snapshot(read_file(path), path)
        return replace(snapshot, levels=[_with_raw(level, snapshot, path) for level in snapshot.levels])


def parse_snapshot(data: bytes, name: str) -> Snapshot:
    """Build a snapshot from the content of a maps file.

    Args:
        data: The content.
        name: What to call the file in an error.

    Raises:
        MapsError: As :func:`load_snapshot`.
    """
    return parse_maps(data, name)[0]


def parse_maps(data: bytes, name: str) -> tuple[Snapshot, dict[str, Any]]:
    """As :func:`parse_snapshot`; also returns ``meta``, whose further entries are not checked."""
    with errors_of(name):
        arrays = load_arrays(data)
        meta = _parse_meta(str(arrays['meta']))
        version = meta['format']
        if version != FORMAT:
            raise MapsError(f'{name} was written by another version of this package (format {version})')
        snapshot = _parse_snapshot(meta, arrays)
        _check_large_image(snapshot, osp.dirname(name))
        return snapshot, meta


def _parse_meta(text: str) -> Any:
    meta = json.loads(text)
    json.dumps(meta, ensure_ascii=False).encode('utf-8', 'surrogateescape')  # half a character is none, not in a path
    return meta


@contextlib.contextmanager
def errors_of(name: str, content: str = 'maps') -> Iterator[None]:
    """Within the context, an error of any kind becomes a MapsError that names the file, which should have `content`."""
    try:
        yield
    except MapsError:
        raise
    except KeyError as error:
        raise MapsError(f'{name} holds no {content} of this package: it lacks {error}') from error
    except Exception as error:  # the archive, its content and each file backend raise errors of their own
        raise MapsError(f'{name} holds no {content} of this package: {error}') from error


def load_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file that is not compressed."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        # No archive fills the memory: none is larger than the file, be it compressed or with parts that overlap.
        entries = archive.zip.infolist()
        require(all(entry.compress_type == zipfile.ZIP_STORED for entry in entries), 'its arrays are compressed')
        require(sum(entry.file_size for entry in entries) <= len(data), 'its arrays are larger than the file')
        return dict(archive)


def _parse_snapshot(meta: dict, arrays: dict[str, np.ndarray]) -> Snapshot:
    """Build a snapshot from the content of a maps file, which may be anybody's.

    Raises:
        KeyError, TypeError, ValueError: If something is missing or does not fit: a name that leads out of the folder of
            the run, sizes, types, a placement without an inverse.
    """
    key, path, augmentation, is_file = (meta[name] for name in ('key', 'path', 'augmentation', 'is_file'))
    folder, position = meta.get('folder', ''), meta.get('position')  # not in runs of earlier versions
    require(isinstance(key, str) and is_inside(key), f'its image key {key!r} leads out of the folder of the run')
    require(isinstance(folder, str) and isinstance(is_file, bool), f'its folder is {folder!r}, is_file {is_file!r}')
    require(path is None or isinstance(path, str), f'its image path is {path!r}')
    is_pass = _is_count(augmentation) or (is_mean(augmentation) and len(augmentation) < 20)
    require(is_pass, f'its pass is {augmentation!r}')
    require(position is None or type(position) is int, f'its position in the data set is {position!r}')
    matrix = np.array(meta['matrix'], np.float64)
    is_placed = matrix.shape == (3, 3) and np.isfinite(matrix).all() and np.linalg.cond(matrix) < 1e15
    require(is_placed, f'its placement {meta["matrix"]!r} is no matrix with an inverse')
    boxes = ignored = None
    if 'boxes' in arrays:
        boxes = check_boxes(arrays['boxes'])
    if 'ignored' in arrays:  # not in runs of earlier versions
        ignored = check_floats(arrays['ignored'], 'ignored boxes', (None, 4))
        require(np.isfinite(ignored).all(), 'an ignored box is not finite')
    for levels in (meta['levels'], meta['attention']):
        names = {(facts['layer'], facts['level']) for facts in levels}
        require(len(names) == len(levels), 'it names a level twice')
    return Snapshot(
        key,
        path,
        augmentation,
        Placement(matrix, _size(meta['photo_size']), _size(meta['input_size'])),
        [_load_level('', key, facts, arrays) for facts in meta['levels']],
        [_load_level(ATTENTION, key, facts, arrays) for facts in meta['attention']],
        boxes,
        ignored,
        is_file=is_file and path is not None,
        folder=folder,
        position=position,
    )


def require(fits: bool, problem: str) -> None:
    if not fits:
        raise ValueError(problem)


def _is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < MOST


def _size(size: Any) -> tuple[int, int]:
    """Check a size (height, width) of an image or of the network's input, in pixels."""
    height, width = size
    fits = type(height) is int and type(width) is int and min(height, width) > 0 and height * width <= MAX_PIXELS
    require(fits, f'a size of {width!r}x{height!r} pixels')
    return height, width


def check_floats(array: np.ndarray, name: str, shape: tuple) -> np.ndarray:
    """Check the type and the shape of an array; None in `shape` is any number of rows."""
    fits = array.dtype.kind == 'f' and array.ndim == len(shape)
    fits = fits and all(expected in (None, size) for size, expected in zip(array.shape, shape))
    require(fits, f'its {name} are {array.dtype} {array.shape}')
    return array


def _check_large_image(snapshot: Snapshot, folder: str) -> None:
    """Require the file of a very large image: a small file from outside could else claim more than the memory holds.

    Images behind a URL are not asked for: they may be large downloads.

    Args:
        snapshot: The snapshot.
        folder: Folder of the image, if that was rebuilt from the network's input.
    """
    height, width = snapshot.placement.image_size
    path = snapshot.path if snapshot.is_file else osp.join(folder, snapshot.image_file)
    if height * width > UNPROVEN_PIXELS and '://' not in path:
        size = osp.getsize(path) if osp.isfile(path) else 0
        problem = f'its image has {width}x{height} pixels, and {path} is not there or too small a file for them'
        require(height * width <= PIXELS_PER_BYTE * size, problem)


def check_boxes(rows: np.ndarray) -> Boxes:
    """Check boxes (N, 6) as corners, label and score, and return them."""
    rows = check_floats(rows, 'boxes', (None, 6))
    fits = np.isfinite(rows[:, :5]).all() and (np.abs(rows[:, 4]) < MOST).all() and not np.isinf(rows[:, 5]).any()
    require(fits, 'a box has corners, a label or a score that is not finite')
    return Boxes(rows[:, :4], rows[:, 4].astype(np.int64), rows[:, 5])


def _with_raw(level: Level, snapshot: Snapshot, path: str) -> Level:
    """Add the raw feature map (C, rows, columns) if its file exists. On a disk it is memory-mapped."""
    raw_path = osp.join(osp.dirname(path), snapshot.raw_file(level))
    if not fileio.exists(raw_path):
        return level
    is_local = osp.isfile(raw_path)
    raw = np.load(raw_path if is_local else io.BytesIO(read_file(raw_path)), mmap_mode='r' if is_local else None)
    return replace(level, raw=check_floats(raw, f'raw maps of {level.name}', (level.channels, *level.values.shape)))


def _level_arrays(key: str, level: Level, dtype: str) -> dict[str, np.ndarray]:
    arrays = {key: cast(level.values, dtype)}
    for part in CHANNEL_PARTS:
        channels = getattr(level, part)
        if channels is not None:
            arrays[f'{key}.{part}.indices'] = channels.indices
            arrays[f'{key}.{part}.maps'] = cast(channels.maps, dtype)
            arrays[f'{key}.{part}.weights'] = channels.weights
    if level.compact is not None:
        arrays[f'{key}.{COMPACT}.mean'] = level.compact.mean
        arrays[f'{key}.{COMPACT}.basis'] = level.compact.basis
        arrays[f'{key}.{COMPACT}.scores'] = cast(level.compact.scores, dtype)
    if level.embedding is not None:
        arrays[f'{key}.{EMBEDDING}'] = level.embedding
    return arrays


def _load_level(prefix: str, image_key: str, facts: dict, arrays: dict[str, np.ndarray]) -> Level:
    layer, number, channels, stride = (facts[name] for name in ('layer', 'level', 'channels', 'stride'))
    name = f'{layer}_{number}'
    require(is_inside(f'{image_key}/{name}'), f'its level {name!r} leads out of the folder of the run')
    is_counted = _is_count(number) and _is_count(channels, least=1)
    require(isinstance(layer, str) and is_counted, f'its level {name!r} has {channels!r} channels')
    vertical, horizontal = stride
    is_positive = all(side > 0 and math.isfinite(side) for side in (vertical, horizontal))
    require(is_positive, f'its level {name!r} has a stride of {stride!r}')
    key, parts = f'{prefix}{name}', {}
    values = check_floats(arrays[key], name, (None, None))
    require(values.size > 0, f'its level {name!r} has no cells')
    for part in CHANNEL_PARTS:
        if f'{key}.{part}.maps' in arrays:
            indices, maps, weights = (arrays[f'{key}.{part}.{field}'] for field in ('indices', 'maps', 'weights'))
            are_channels = indices.dtype.kind in 'iu' and indices.ndim == 1
            are_channels = are_channels and ((indices >= 0) & (indices < channels)).all()
            require(are_channels, f'the channels of {name} are not among its {channels}')
            maps = check_floats(maps, f'channels of {name}', (len(indices), *values.shape))
            weights = check_floats(weights, f'weights of {name}', (channels,))
            parts[part] = ChannelMaps(indices, maps.astype(np.float32), weights)
    if f'{key}.{COMPACT}.mean' in arrays:
        parts[COMPACT] = _load_compact(arrays, key, channels, values.shape)
    if f'{key}.{EMBEDDING}' in arrays:
        embedding = parts[EMBEDDING] = arrays[f'{key}.{EMBEDDING}']
        fits = embedding.dtype == np.int8 and embedding.ndim == 3 and embedding.shape[1:] == values.shape
        require(fits, f'the embedding of {name} is {embedding.dtype} {embedding.shape}')
    offset = _offset(facts.get('offset'), name)
    score_of, label = facts.get('score_of'), facts.get('label')
    require(score_of is None or isinstance(score_of, str), f'its level {name!r} has the scores of {score_of!r}')
    require(label is None or _is_count(label), f'its level {name!r} has the label {label!r}')
    parts.update(offset=offset, score_of=score_of, label=label)
    return Level(layer, number, channels, (vertical, horizontal), values.astype(np.float32), **parts)


def _load_compact(arrays: dict[str, np.ndarray], key: str, channels: int, cells: tuple[int, int]) -> CompactFeatures:
    mean, basis, scores = (arrays[f'{key}.{COMPACT}.{field}'] for field in ('mean', 'basis', 'scores'))
    mean = check_floats(mean, f'mean of {key}', (channels,))
    basis = check_floats(basis, f'basis of {key}', (None, channels))
    scores = check_floats(scores, f'components of {key}', (len(basis), *cells))
    return CompactFeatures(mean, basis, scores.astype(np.float32))


def _offset(offset: Any, name: str) -> tuple[float, float] | None:
    """Check the position of the first cell of a level; runs of earlier versions have none."""
    if offset is None:
        return None
    vertical, horizontal = offset
    require(math.isfinite(vertical) and math.isfinite(horizontal), f'its level {name!r} has an offset of {offset!r}')
    return vertical, horizontal


def _level_facts(level: Level) -> dict[str, Any]:
    names = 'layer', 'level', 'channels', 'stride', 'offset'
    facts = {name: getattr(level, name) for name in names}
    return facts if level.score_of is None else {**facts, 'score_of': level.score_of, 'label': level.label}


def cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values as ``float32`` or ``float16``; beyond the range of float16 they are clipped."""
    if dtype == 'float16':
        limit = np.finfo(np.float16).max
        return np.where(np.isfinite(values), np.clip(values, -limit, limit), values).astype(np.float16)
    return values.astype(dtype)
