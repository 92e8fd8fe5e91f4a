"""Sinks: the files of a run, and the manifest that lists them."""

from __future__ import annotations

import hashlib
import json
import os
import os.path as osp
import tempfile
from typing import Any, Sequence

import cv2
import numpy as np
from mmengine.dist import is_main_process

MANIFEST = 'manifest.jsonl'
ENCODINGS = {
    'jpg': [],
    'png': [cv2.IMWRITE_PNG_COMPRESSION, 1],  # a third of the time of the default, about a tenth larger
    'webp': [cv2.IMWRITE_WEBP_QUALITY, 90],
}


class ImageKeys:
    """Names the output folder of every image: its path relative to a root, without its ending.

    Args:
        root: Folder of the images. A path outside it, or any path if it is None, gives a key from the whole path, so
            that no key can climb out of the output folder.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = None if root is None else _normalise(root)
        self._paths: dict[str, str] = {}
        self._arrays = 0

    def key_of(self, path: str | None) -> str:
        """The key of an image path; an image without a path (an array) gets a number."""
        if path is None:
            self._arrays += 1
            return f'array_{self._arrays - 1:06d}'
        path = _normalise(path)
        inside = self.root is not None and path.startswith(self.root.rstrip('/') + '/')
        relative = (path[len(self.root) :] if inside else path).lstrip('/')
        key = osp.splitext(relative)[0]
        if self._paths.setdefault(key, path) != path:  # a.jpg beside a.png
            key = f'{key}~{hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:8]}'
            self._paths[key] = path
        return key


class FileSink:
    """Writes pictures and manifest of one run below a folder.

    Every file is written under a temporary name and then renamed, so that none is ever half there.

    Args:
        out_dir: Folder of the run, made where it does not exist.
        overwrite: Whether another run's pictures there may be replaced.

    Raises:
        FileExistsError: If the folder holds the manifest of another run and `overwrite` is not set.
        OSError: If the folder cannot be made or written to.
    """

    def __init__(self, out_dir: str, overwrite: bool = False) -> None:
        self.out_dir = osp.abspath(osp.expanduser(out_dir))
        self._manifest = osp.join(self.out_dir, MANIFEST)
        try:
            os.makedirs(self.out_dir, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.out_dir):
                pass
        except OSError as error:
            raise type(error)(
                f'out_dir {self.out_dir!r} cannot be written to ({error.strerror or error}): '
                'choose another folder with out_dir, or --featviz-dir of tools/test.py'
            ) from error
        # Another rank of this run may have written already: the first one looks for another run's.
        if is_main_process() and osp.exists(self._manifest):
            if not overwrite:
                raise FileExistsError(
                    f'{self.out_dir!r} holds the pictures of another run: choose another out_dir '
                    '(--featviz-dir of tools/test.py), remove that one, or set overwrite=True to replace them'
                )
            self._remove_run()

    def _remove_run(self) -> None:
        """Remove the pictures that the manifest lists, and the manifest; nothing else that lies there."""
        with open(self._manifest, encoding='utf-8', errors='surrogateescape') as lines:
            for line in lines:
                try:
                    files = json.loads(line)['files']
                except (ValueError, KeyError):  # the last line of a run that was killed
                    continue
                for name in files:
                    path = osp.normpath(osp.join(self.out_dir, name))
                    if path.startswith(self.out_dir + os.sep) and osp.isfile(path):
                        os.remove(path)
        os.remove(self._manifest)

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
        """Add lines to the manifest, in one write: ranks that share the folder never mix their lines."""
        lines = ''.join(json.dumps(entry, ensure_ascii=False) + '\n' for entry in entries)
        with open(self._manifest, 'ab', buffering=0) as file:
            file.write(lines.encode('utf-8', 'surrogateescape'))


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
