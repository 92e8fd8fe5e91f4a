"""Image keys: name the output folder of each image after the path of the image."""

from __future__ import annotations

import hashlib
import os
import os.path as osp
from collections import Counter
from typing import Iterable

from mmdet_featviz.runs.manifest import MANIFEST

MAX_NAME_BYTES = 180  # file systems allow 255, and suffixes are added
WINDOWS_DEVICES = {
    'CON',
    'PRN',
    'AUX',
    'NUL',
    *(f'{port}{number}' for port in ('COM', 'LPT') for number in range(1, 10)),
}


class ImageKeys:
    """Gives each image its key: its path relative to a root folder, without the file extension.

    Where several images would get the same key (``a.jpg`` and ``a.png``, or ``a.jpg`` and ``A.jpg``, which are one name
    on some file systems), a hash of the path is appended.

    Args:
        root: Folder of the images. The key of an image outside it is made from the whole path, so that no key leads
            out of the output folder. None makes every key from the whole path.
        paths: Paths of all images, if known. Keys then do not depend on the order of the images; otherwise the first
            of several equal keys gets no hash.
    """

    def __init__(self, root: str | None = None, paths: Iterable[str] = ()) -> None:
        self.root = None if root is None else _normalize(root)
        self._path_of: dict[str, str] = {}  # case-folded key: path of the image that has it
        self._array_count = 0
        counts = Counter(self._short_key(path).casefold() for path in {_normalize(path) for path in paths})
        self._ambiguous = {key for key, count in counts.items() if count > 1}

    def key_of(self, path: str | None) -> str:
        """Return the key of an image path; an array, which has no path (None), gets a running number."""
        if path is None:
            self._array_count += 1
            return f'array_{self._array_count - 1:06d}'
        path = _normalize(path)
        key = self._short_key(path)
        if key.casefold() in self._ambiguous or self._path_of.setdefault(key.casefold(), path) != path:
            key = f'{key}~{_hash(path)}'
        return key

    def _short_key(self, path: str) -> str:
        inside = self.root is not None and path.startswith(self.root.rstrip('/') + '/')
        relative = (path[len(self.root) :] if inside else path).lstrip('/')
        return '/'.join(map(_safe_name, osp.splitext(relative)[0].split('/')))


def _normalize(path: str) -> str:
    """Return an absolute path with forward slashes, without the colon of a drive or URL scheme."""
    path = os.fspath(path)
    if '://' in path:
        path = '/' + path.replace('://', '/', 1)
    drive, rest = osp.splitdrive(osp.abspath(path))
    return drive.replace(':', '') + rest.replace(os.sep, '/')


def _safe_name(part: str) -> str:
    """Return one part of a path as a folder name that every file system accepts and that no file of a run has."""
    encoded = part.encode('utf-8', 'surrogateescape')
    is_short = len(encoded) <= MAX_NAME_BYTES
    is_reserved = part.partition('.')[0].upper() in WINDOWS_DEVICES or part in ('run.json', MANIFEST)
    if is_short and not is_reserved:
        return part
    start = part if is_short else encoded[:MAX_NAME_BYTES].decode('utf-8', 'ignore')
    return f'{start}~{_hash(part)}'


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]
