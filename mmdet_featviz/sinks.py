"""Sinks: the files of a run, and the manifest that lists them."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import os.path as osp
import tempfile
from collections import Counter
from typing import Any, Iterable, Iterator, Sequence

import cv2
import numpy as np
from mmengine.dist import all_gather_object, get_rank, is_main_process

MANIFEST = 'manifest.jsonl'
PART = 'manifest.rank{}.jsonl'
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

    Every file is written under a temporary name and then renamed, so that none is ever half there. Of several ranks
    each writes a part of the manifest, until :meth:`merge`.

    Args:
        out_dir: Folder of the run, made where it does not exist.
        overwrite: Whether another run's pictures there may be replaced.
        resume: Whether another run may be gone on with.
        in_run: Whether all ranks make their sink at once and merge at the end.

    Attributes:
        finished: Of a run that is gone on with: {(image key, pass): names of the levels that are there}.

    Raises:
        FileExistsError: If the folder holds the manifest of another run and is neither to be replaced nor gone on with.
        OSError: If the folder cannot be made or written to. Both on all ranks, if on any.
    """

    def __init__(self, out_dir: str, overwrite: bool = False, resume: bool = False, in_run: bool = False) -> None:
        self.out_dir = osp.abspath(osp.expanduser(out_dir))
        self.resume = resume
        self._part = get_rank() if in_run else 0
        self._manifest = osp.join(self.out_dir, PART.format(self._part) if self._part else MANIFEST)
        self._torn = False
        error = None
        try:
            self._prepare(overwrite)
        except OSError as reason:
            error = reason
        errors = [one for one in (all_gather_object(error) if in_run else [error]) if one is not None]
        if errors:
            raise errors[0]
        self.finished = _finished(self.out_dir) if resume else {}

    def _prepare(self, overwrite: bool) -> None:
        """Make the folder; the first rank also looks for another run there."""
        try:
            os.makedirs(self.out_dir, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.out_dir):
                pass
        except OSError as error:
            raise type(error)(
                f'out_dir {self.out_dir!r} cannot be written to ({error.strerror or error}): '
                'choose another folder with out_dir, or --featviz-dir of tools/test.py'
            ) from error
        # Another rank of this run may have written already, where it did not wait for the first.
        if not is_main_process() or not manifests(self.out_dir):
            return
        if self.resume:
            self._remove_half_files()
            self.merge()
        elif overwrite:
            self._remove_run()
        else:
            raise FileExistsError(
                f'{self.out_dir!r} holds the pictures of another run: set resume=True to go on with it, '
                'overwrite=True to replace it, or choose another out_dir (--featviz-dir of tools/test.py)'
            )

    def _remove_run(self) -> None:
        """Remove the pictures that the manifest lists, and the manifest; nothing else that lies there."""
        for entry in entries(self.out_dir):
            for name in entry.get('files', ()):
                path = osp.normpath(osp.join(self.out_dir, name))
                if path.startswith(self.out_dir + os.sep) and osp.isfile(path):
                    os.remove(path)
        for path in manifests(self.out_dir):
            os.remove(path)

    def _remove_half_files(self) -> None:
        """Remove the files that a run was killed in."""
        for folder, _, names in os.walk(self.out_dir):
            for name in names:
                if name.startswith('.') and name.endswith('.part'):
                    os.remove(osp.join(folder, name))

    def merge(self) -> None:
        """Make one manifest of all parts, without the line that a run may have been killed in."""
        whole, *parts = [osp.join(self.out_dir, MANIFEST), *manifests(self.out_dir, parts_only=True)]
        lines = [line for path in (whole, *parts) if osp.exists(path) for line in _whole_lines(path)]
        self.write(MANIFEST, b''.join(lines))
        for path in parts:
            os.remove(path)

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whose name is a path below the folder.

        Raises:
            OSError: If it cannot be written.
        """
        path = osp.join(self.out_dir, name)
        os.makedirs(osp.dirname(path), exist_ok=True)
        temporary = osp.join(osp.dirname(path), f'.{osp.basename(path)}.{os.getpid()}.part')
        try:
            with open(temporary, 'wb') as file:
                file.write(data)
            os.replace(temporary, path)
        except BaseException:
            if osp.exists(temporary):
                os.unlink(temporary)
            raise

    def record(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add lines to the manifest, in one write: threads never mix their lines.

        Raises:
            OSError: If they cannot be written, or not all of them.
        """
        lines = ''.join(json.dumps(entry, ensure_ascii=False) + '\n' for entry in entries)
        data = b'\n' * self._torn + lines.encode('utf-8', 'surrogateescape')
        with open(self._manifest, 'ab', buffering=0) as file:
            written = file.write(data)
        self._torn = written < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._manifest)


def manifests(folder: str, parts_only: bool = False) -> list[str]:
    """The manifest of a run, and what ranks that were stopped left of theirs."""
    whole = [] if parts_only else [osp.join(folder, MANIFEST)]
    parts = sorted(glob.glob(osp.join(glob.escape(folder), PART.format('*'))))
    return [path for path in whole if osp.exists(path)] + parts


def entries(folder: str) -> Iterator[dict[str, Any]]:
    """All lines of a run's manifest, but one that it was killed in."""
    for path in manifests(folder):
        for line in _whole_lines(path):
            yield json.loads(line.decode('utf-8', 'surrogateescape'))


def _whole_lines(path: str) -> Iterator[bytes]:
    with open(path, 'rb') as file:
        for line in file:
            try:
                is_entry = isinstance(json.loads(line.decode('utf-8', 'surrogateescape')), dict)
            except ValueError:
                is_entry = False
            if is_entry and line.endswith(b'\n'):
                yield line


def _finished(folder: str) -> dict[tuple, set[str]]:
    """{(image key, pass): names of the levels} of which all files are there."""
    finished: dict[tuple, set[str]] = {}
    for entry in entries(folder):
        if 'augmentation' not in entry:  # a comparison of runs
            continue
        levels = finished.setdefault((entry['key'], entry['augmentation']), set())
        name = f'{entry["layer"]}_{entry["level"]}'
        is_whole = not entry.get('incomplete') and all(osp.exists(osp.join(folder, file)) for file in entry['files'])
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
    """A part of a path as a name that every file system takes, and that is none of this package's own."""
    cut = part.encode('utf-8', 'surrogateescape')[:LONGEST_NAME].decode('utf-8', 'ignore')
    is_short = len(part.encode('utf-8', 'surrogateescape')) <= LONGEST_NAME
    reserved = part.partition('.')[0].upper() in DEVICES or part in ('run.json', MANIFEST)
    return part if is_short and not reserved else f'{cut if not is_short else part}~{_hash(part)}'


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]
