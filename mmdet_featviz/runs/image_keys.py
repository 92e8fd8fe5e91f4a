"""Image keys: names of the output folders of images."""

from __future__ import annotations

import hashlib
import os
import os.path as osp
from collections import Counter
from typing import Iterable

from mmdet_featviz.runs.manifest import MANIFEST

LONGEST_NAME = 180  # bytes; file systems take 255, and endings are added
DEVICES = {'CON', 'PRN', 'AUX', 'NUL', *(f'{port}{number}' for port in ('COM', 'LPT') for number in range(1, 10))}


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
        self.root = None if root is None else _normalize(root)
        self._paths: dict[str, str] = {}
        self._arrays = 0
        counts = Counter(self._short_key(path).casefold() for path in {_normalize(path) for path in paths})
        self._ambiguous = {key for key, count in counts.items() if count > 1}

    def key_of(self, path: str | None) -> str:
        """The key of an image path; an image without a path (an array) gets a number."""
        if path is None:
            self._arrays += 1
            return f'array_{self._arrays - 1:06d}'
        path = _normalize(path)
        key = self._short_key(path)
        if key.casefold() in self._ambiguous or self._paths.setdefault(key.casefold(), path) != path:
            key = f'{key}~{_hash(path)}'
        return key

    def _short_key(self, path: str) -> str:
        inside = self.root is not None and path.startswith(self.root.rstrip('/') + '/')
        relative = (path[len(self.root) :] if inside else path).lstrip('/')
        return '/'.join(map(_safe, osp.splitext(relative)[0].split('/')))


def _normalize(path: str) -> str:
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
