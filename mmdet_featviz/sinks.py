"""Sinks: the files of a run, and the manifest that lists them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import os.path as osp
import re
from collections import Counter
from typing import Any, Iterable, Iterator, Sequence

import cv2
import numpy as np
from mmengine.dist import all_gather_object, get_rank, is_main_process

from .stores import Store, store_of

MANIFEST = 'manifest.jsonl'
PART = 'manifest.rank{}.jsonl'
REPORT = 'report'  # folder below that of the run
IS_PART = re.compile(r'manifest\.rank\d+\.jsonl')
LONGEST_NAME = 180  # bytes; file systems take 255, and endings are added
DEVICES = {'CON', 'PRN', 'AUX', 'NUL', *(f'{port}{number}' for port in ('COM', 'LPT') for number in range(1, 10))}
ENCODINGS = {
    'jpg': [],
    'png': [cv2.IMWRITE_PNG_COMPRESSION, 1],  # a third of the time of the default, about a tenth larger
    'webp': [cv2.IMWRITE_WEBP_QUALITY, 90],
}


class ImageKeys:
    """Names the output folder of every image: its path relative to a root, without its ending.

    Where several images would have one name (``a.jpg`` beside ``a.png``, or beside ``A.jpg``, which some file systems
    cannot tell apart), a hash of the path is added.

    Args:
        root: Folder of the images. A path outside it, or any path if it is None, gives a key from the whole path, so
            that no key can climb out of the output folder.
        paths: All images that there are, as far as they are known: then their names do not depend on their order.
            Otherwise the first of equal names is kept short.
    """

    def __init__(self, root: str | None = None, paths: Iterable[str] = ()) -> None:
        self.root = None if root is None else _normalise(root)
        self._paths: dict[str, str] = {}
        self._arrays = 0
        counts = Counter(self._short_key(path).casefold() for path in {_normalise(path) for path in paths})
        self._ambiguous = {key for key, count in counts.items() if count > 1}

    def key_of(self, path: str | None) -> str:
        """The key of an image path; an image without a path (an array) gets a number."""
        if path is None:
            self._arrays += 1
            return f'array_{self._arrays - 1:06d}'
        path = _normalise(path)
        key = self._short_key(path)
        if key.casefold() in self._ambiguous or self._paths.setdefault(key.casefold(), path) != path:
            key = f'{key}~{_hash(path)}'
        return key

    def _short_key(self, path: str) -> str:
        inside = self.root is not None and path.startswith(self.root.rstrip('/') + '/')
        relative = (path[len(self.root) :] if inside else path).lstrip('/')
        return '/'.join(map(_safe, osp.splitext(relative)[0].split('/')))


class FileSink:
    """Writes pictures and manifest of one run below a folder.

    No file is ever half there. Of several ranks each writes a part of the manifest, until :meth:`merge`.

    Args:
        out_dir: Folder of the run, made where it does not exist: a path, or a URL that mmengine has a file backend for.
        overwrite: Whether another run's pictures there may be replaced.
        resume: Whether another run may be gone on with.
        in_run: Whether all ranks make their sink at once and merge at the end.

    Attributes:
        finished: Of a run that is gone on with: {(image key, pass): names of the levels that are there}.

    Raises:
        FileExistsError: If the folder holds the manifest of another run and is neither to be replaced nor gone on with.
        ValueError: If no file backend can write to the URL.
        OSError: If the folder cannot be made or written to. All of them on all ranks, if on any.
    """

    def __init__(self, out_dir: str, overwrite: bool = False, resume: bool = False, in_run: bool = False) -> None:
        self._store = store_of(out_dir)
        self.out_dir = self._store.folder
        self.resume = resume
        part = get_rank() if in_run else 0
        self._manifest = PART.format(part) if part else MANIFEST
        error = None
        try:
            self._prepare(overwrite)
        except Exception as reason:  # each file backend raises errors of its own
            error = reason
        errors = [one for one in (all_gather_object(error) if in_run else [error]) if one is not None]
        if errors:
            raise errors[0]
        self.finished = _finished(self._store) if resume else {}

    def _prepare(self, overwrite: bool) -> None:
        """Make the folder; the first rank also looks for another run there."""
        try:
            self._store.prepare()
        except OSError as error:
            raise type(error)(
                f'out_dir {self.out_dir!r} cannot be written to ({error.strerror or error}): '
                'choose another folder with out_dir, or --featviz-dir of tools/test.py'
            ) from error
        # Another rank of this run may have written already, where it did not wait for the first.
        if not is_main_process() or not manifests(self._store):
            return
        if self.resume:
            self._store.remove_halves()
            self.merge()
        elif overwrite:
            self._remove_run()
        else:
            raise FileExistsError(
                f'{self.out_dir!r} holds the pictures of another run: overwrite=True (--overwrite) replaces it, '
                'resume=True (--resume of tools/test.py) goes on with it, another out_dir leaves it alone'
            )

    def _remove_run(self) -> None:
        """Remove what the manifests of the run and of its report list, and these; nothing else that lies there."""
        stores = [self._store]
        if f'{REPORT}/{MANIFEST}' in self._store.all_names():
            stores.append(store_of(self._store.path(REPORT)))
        for store in stores:
            store.remove_halves()
            for entry in entries(store):
                for name in filter(_is_below, entry.get('files', ())):
                    store.remove(name)
            for name in manifests(store):
                store.remove(name)

    def merge(self) -> None:
        """Make one manifest of all parts, without the line that a run may have been killed in."""
        names = manifests(self._store)
        self.write(MANIFEST, b''.join(line for name in names for line in _whole_lines(self._store.read(name))))
        for name in names:
            if name != MANIFEST:
                self._store.remove(name)

    def path(self, name: str) -> str:
        """Where the file of that name lies."""
        return self._store.path(name)

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whose name is a path below the folder.

        Raises:
            OSError: If it cannot be written.
        """
        self._store.write(name, data)

    def record(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add lines to the manifest.

        Raises:
            OSError: If they cannot be written, or not all of them.
        """
        lines = ''.join(json.dumps(entry, ensure_ascii=False) + '\n' for entry in entries)
        self._store.append(self._manifest, lines.encode('utf-8', 'surrogateescape'))

    def settle(self) -> None:
        """See that all that was recorded can be read by others."""
        self._store.settle()


def manifests(store: Store) -> list[str]:
    """Names of a run's manifest, and of what ranks that were stopped left of theirs."""
    names = store.names()
    return [MANIFEST] * (MANIFEST in names) + [name for name in names if IS_PART.fullmatch(name)]


def entries(store: Store) -> Iterator[dict[str, Any]]:
    """All lines of a run's manifest, but one that it was killed in."""
    for name in manifests(store):
        for line in _whole_lines(store.read(name)):
            yield json.loads(line.decode('utf-8', 'surrogateescape'))


def _whole_lines(data: bytes) -> Iterator[bytes]:
    for line in io.BytesIO(data):
        try:
            is_entry = isinstance(json.loads(line.decode('utf-8', 'surrogateescape')), dict)
        except ValueError:
            is_entry = False
        if is_entry and line.endswith(b'\n'):
            yield line


def _is_below(name: str) -> bool:
    """Whether a name in a manifest, which may be anybody's, stays below the folder."""
    return not osp.isabs(name) and '..' not in name.replace(os.sep, '/').split('/')


def _finished(store: Store) -> dict[tuple, set[str]]:
    """{(image key, pass): names of the levels} of which all files are there."""
    there = store.all_names()
    finished: dict[tuple, set[str]] = {}
    for entry in entries(store):
        if 'augmentation' not in entry:  # a comparison of runs
            continue
        levels = finished.setdefault((entry['key'], entry['augmentation']), set())
        name = f'{entry["layer"]}_{entry["level"]}'
        is_whole = not entry.get('incomplete') and there.issuperset(entry['files'])
        (levels.add if is_whole else levels.discard)(name)
    return finished


def encode(picture: np.ndarray, name: str) -> bytes:
    """A BGR picture as the file that the ending of its name says.

    Raises:
        OSError: If the format cannot hold it.
    """
    ending = osp.splitext(name)[1]
    try:
        done, encoded = cv2.imencode(ending, picture, ENCODINGS[ending[1:]])
    except cv2.error:
        done = False
    if not done:
        height, width = picture.shape[:2]
        raise OSError(f'{name}: a picture of {width}x{height} pixels cannot be encoded as {ending[1:]}; try png')
    return encoded


def _normalise(path: str) -> str:
    """An absolute path with forward slashes and no colon after a drive or a URL's scheme."""
    path = os.fspath(path)
    if '://' in path:
        path = '/' + path.replace('://', '/', 1)
    drive, rest = osp.splitdrive(osp.abspath(path))
    return drive.replace(':', '') + rest.replace(os.sep, '/')


def _safe(part: str) -> str:
    """A part of a path as a name that is not too long, no device of Windows and none of this package's own."""
    cut = part.encode('utf-8', 'surrogateescape')[:LONGEST_NAME].decode('utf-8', 'ignore')
    is_short = len(part.encode('utf-8', 'surrogateescape')) <= LONGEST_NAME
    reserved = part.partition('.')[0].upper() in DEVICES or part in ('run.json', MANIFEST)
    return part if is_short and not reserved else f'{cut if not is_short else part}~{_hash(part)}'


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]
