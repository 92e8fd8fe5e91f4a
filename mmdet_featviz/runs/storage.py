"""Storage of files: on a disk, or behind a file backend of mmengine."""

from __future__ import annotations

import atexit
import errno
import os
import os.path as osp
import re
import tempfile
import threading
from typing import Union

from mmengine import fileio

HALF = re.compile(r'\..+\.\d+\.part', re.DOTALL)  # a name, and the process that writes it
PROBE = 'writable.probe'
PUT_EVERY = 100


def get_storage(folder: str) -> Storage:
    """The store of a folder: that of a path, or of a URL such as ``s3://bucket/run``.

    Raises:
        ValueError: If mmengine has no file backend for the URL, or one that cannot write.
    """
    folder = os.fspath(folder)
    return BackendStorage(folder) if '://' in folder else DiskStorage(folder)


class DiskStorage:
    """Files below a folder. Each is written under a temporary name and then renamed, so that none is ever half there.

    Attributes:
        folder: Its whole path.
    """

    def __init__(self, folder: str) -> None:
        self.folder = osp.abspath(osp.expanduser(folder))
        self._torn: set[str] = set()  # files that end within a line

    def path(self, name: str) -> str:
        """Where the file of that name lies."""
        return osp.join(self.folder, name)

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            OSError: If it cannot be made or written to.
        """
        os.makedirs(self.folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    def names(self) -> list[str]:
        """Names of the files in the folder itself."""
        if not osp.isdir(self.folder):
            return []
        return sorted(name for name in os.listdir(self.folder) if osp.isfile(self.path(name)))

    def all_names(self) -> set[str]:
        """Names of all files, those in folders below included."""
        return {
            osp.relpath(osp.join(folder, name), self.folder).replace(os.sep, '/')
            for folder, _, names in os.walk(self.folder)
            for name in names
        }

    def remove_partial_files(self) -> None:
        """Remove the files that a process was killed in; nobody may be writing."""
        for name in self.all_names():
            if HALF.fullmatch(osp.basename(name)):
                os.remove(self.path(name))

    def read(self, name: str) -> bytes:
        with open(self.path(name), 'rb') as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file.

        Raises:
            OSError: If it cannot be written; what was there before stays.
        """
        path = self.path(name)
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

    def append(self, name: str, lines: bytes) -> None:
        """Add lines to a file, in one write: threads never mix their lines.

        Raises:
            OSError: If they cannot be written, or not all of them.
        """
        data = b'\n' * (name in self._torn) + lines
        with open(self.path(name), 'ab', buffering=0) as file:
            written = file.write(data)
        self._torn.discard(name)
        if written < len(data):
            self._torn.add(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path(name))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if osp.isfile(self.path(name)):
            os.remove(self.path(name))

    def flush(self) -> None:
        """All that was appended is there already."""


class BackendStorage:
    """Files below a URL. A backend puts whole files, so what is appended is kept here and put now and then.

    Attributes:
        folder: The URL.
    """

    def __init__(self, url: str) -> None:
        self.folder = url.rstrip('/')
        self._tails: dict[str, bytes] = {}
        self._waiting = 0  # pieces that were appended and not yet put
        self._lock = threading.Lock()
        try:
            self._backend = fileio.get_file_backend(url)
        except KeyError:
            raise ValueError(f'mmengine has no file backend for {url!r}: register one, or use a path') from None
        if not all(hasattr(self._backend, method) for method in ('put', 'remove', 'list_dir_or_file')):
            raise ValueError(f'{url!r} cannot be written to: {type(self._backend).__name__} only reads')

    def path(self, name: str) -> str:
        return f'{self.folder}/{name}'

    def prepare(self) -> None:
        self.write(PROBE, b'')
        self.remove(PROBE)

    def names(self) -> list[str]:
        return sorted(self._backend.list_dir_or_file(self.folder, list_dir=False))

    def all_names(self) -> set[str]:
        return set(self._backend.list_dir_or_file(self.folder, list_dir=False, recursive=True))

    def remove_partial_files(self) -> None:
        """A backend that puts whole files leaves none."""

    def read(self, name: str) -> bytes:
        return bytes(self._backend.get(self.path(name)))

    def write(self, name: str, data: bytes) -> None:
        self._backend.put(data, self.path(name))

    def append(self, name: str, lines: bytes) -> None:
        with self._lock:
            if not self._tails:  # a run that is stopped lists what it has drawn, as on a disk
                atexit.register(self.flush)
            if name not in self._tails:
                self._tails[name] = self.read(name) if self._backend.exists(self.path(name)) else b''
            self._tails[name] += lines
            self._waiting += 1
            if self._waiting >= PUT_EVERY:
                self._put_tails()

    def remove(self, name: str) -> None:
        if self._backend.exists(self.path(name)):
            self._backend.remove(self.path(name))

    def flush(self) -> None:
        """Put all that was appended; from now on others may change these files."""
        with self._lock:
            self._put_tails()
            self._tails.clear()
            atexit.unregister(self.flush)

    def _put_tails(self) -> None:
        for name, data in self._tails.items():
            self.write(name, data)
        self._waiting = 0


Storage = Union[DiskStorage, BackendStorage]
