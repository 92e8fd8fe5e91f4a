"""Storage: reads and writes the files of a folder on disk, or of a URL through mmengine's file backends."""

from __future__ import annotations

import atexit
import errno
import itertools
import os
import os.path as osp
import re
import tempfile
import threading
import uuid
from typing import Union

from mmengine import fileio

from mmdet_featviz.utils.regular_files import check_no_device

PARTIAL_FILE = re.compile(r'\..+\.\d+\.part', re.DOTALL)  # .NAME.PROCESS.THREAD.COUNT.part, while it is written
PROBE = 'writable.{}.probe'
PUT_EVERY = 100  # appends
_write_count = itertools.count()


def get_storage(folder: str) -> Storage:
    """Return the storage of a folder.

    Args:
        folder: A path, or a URL such as ``s3://bucket/run``.

    Raises:
        ValueError: If mmengine has no file backend for the URL, or one that cannot write.
    """
    folder = os.fspath(folder)
    return BackendStorage(folder) if '://' in folder else DiskStorage(folder)


def is_inside(name: str) -> bool:
    """Whether a file name, which may come from outside, stays inside its folder, on any system.

    Args:
        name: Relative to the folder, with slashes. Backslashes count as slashes, as they are these on Windows.
    """
    parts = name.replace('\\', '/').split('/')
    has_drive = name[:1].isalpha() and name[1:2] == ':'  # such as C:
    return bool(parts[0]) and not has_drive and '..' not in parts and '\0' not in name


def check_no_link(path: str) -> None:
    """Raise ValueError if a file that is to be appended to is a link, which may lead out of its folder."""
    if osp.islink(path):
        raise ValueError(f'{path} is a link, and its target is no file of the run: remove the link')
    check_no_device(path)


def _checked(name: str, folder: str) -> str:
    if not is_inside(name):
        raise ValueError(f'{name!r} is no name of a file inside {folder}')
    return name


class DiskStorage:
    """Files in a folder on disk. Each is written under a temporary name and then renamed, so none is ever incomplete.

    Attributes:
        folder: Absolute path.
    """

    def __init__(self, folder: str) -> None:
        self.folder = osp.abspath(osp.expanduser(folder))
        self._torn: set[str] = set()  # files whose last line is incomplete

    def path(self, name: str) -> str:
        """Return the full path of a file.

        Raises:
            ValueError: If the name leads out of the folder.
        """
        return osp.join(self.folder, _checked(name, self.folder))

    def prepare(self) -> None:
        """Create the folder.

        Raises:
            OSError: If it cannot be created or written to.
        """
        os.makedirs(self.folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    def names(self) -> list[str]:
        """Return the names of the files in the folder itself."""
        if not osp.isdir(self.folder):
            return []
        return sorted(name for name in os.listdir(self.folder) if osp.isfile(osp.join(self.folder, name)))

    def all_names(self) -> set[str]:
        """Return the names of all files, including those in subfolders."""
        return {
            osp.relpath(osp.join(folder, name), self.folder).replace(os.sep, '/')
            for folder, _, names in os.walk(self.folder)
            for name in names
        }

    def remove_partial_files(self) -> None:
        """Remove files that a killed process left incomplete. No process may be writing."""
        for name in self.all_names():
            if PARTIAL_FILE.fullmatch(osp.basename(name)):
                os.remove(osp.join(self.folder, name))

    def read(self, name: str) -> bytes:
        check_no_device(self.path(name))
        with open(self.path(name), 'rb') as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file.

        Raises:
            OSError: If it cannot be written; an earlier file of that name is kept.
            ValueError: If a subfolder is a link that leads out of the folder.
        """
        path = self._own_path(name)
        if not osp.isdir(osp.dirname(path)):
            os.makedirs(osp.dirname(path), exist_ok=True)
        writer = f'{os.getpid()}.{threading.get_ident()}.{next(_write_count)}'  # no two writers share a file
        temporary = osp.join(osp.dirname(path), f'.{osp.basename(path)}.{writer}.part')
        try:
            with open(temporary, 'wb') as file:
                file.write(data)
            os.replace(temporary, path)
        except BaseException:
            if osp.exists(temporary):
                os.unlink(temporary)
            raise

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless one of that name exists, and return whether it was written."""
        try:
            with open(self.path(name), 'xb') as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def append(self, name: str, lines: bytes) -> None:
        """Append lines to a file in a single write, so that lines of several threads do not mix.

        Raises:
            OSError: If they cannot be written completely.
            ValueError: If the file is a link.
        """
        check_no_link(self.path(name))
        data = b'\n' * (name in self._torn) + lines
        with open(self.path(name), 'ab', buffering=0) as file:
            written = file.write(data)
        self._torn.discard(name)
        if written < len(data):
            self._torn.add(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path(name))

    def remove(self, name: str) -> None:
        """Remove a file if it exists; not if a subfolder is a link that leads out of the folder."""
        path = self.path(name)
        if osp.isfile(path) and self._is_own(path):
            os.remove(path)

    def _own_path(self, name: str) -> str:
        """Return the full path of a file, unless a subfolder is a link that leads out of the folder."""
        path = self.path(name)
        if not self._is_own(path):
            raise ValueError(f'{osp.dirname(path)} is a link that leads out of {self.folder}: remove the link')
        return path

    def _is_own(self, path: str) -> bool:
        folder = osp.join(osp.realpath(osp.dirname(path)), '')
        return folder.startswith(osp.join(osp.realpath(self.folder), ''))

    def flush(self) -> None:
        """Do nothing: appended lines are on disk already."""


class BackendStorage:
    """Files under a URL.

    File backends can only replace whole files. Files with appended lines are therefore held in memory and written after
    every 100 appends, by :meth:`flush`, and when the process exits.

    Attributes:
        folder: The URL.
    """

    def __init__(self, url: str) -> None:
        self.folder = url.rstrip('/')
        self._appended: dict[str, bytes] = {}  # name: whole content
        self._unwritten = 0  # appends since the last write
        self._lock = threading.Lock()
        try:
            self._backend = fileio.get_file_backend(url)
        except KeyError:
            raise ValueError(f'mmengine has no file backend for {url!r}: register one, or use a path') from None
        if not all(hasattr(self._backend, method) for method in ('put', 'remove', 'list_dir_or_file')):
            raise ValueError(f'{url!r} cannot be written to: {type(self._backend).__name__} only reads')

    def path(self, name: str) -> str:
        return f'{self.folder}/{_checked(name, self.folder)}'

    def prepare(self) -> None:
        probe = PROBE.format(uuid.uuid4().hex)  # ranks probe at the same time
        self.write(probe, b'')
        self.remove(probe)

    def names(self) -> list[str]:
        return sorted(self._backend.list_dir_or_file(self.folder, list_dir=False))

    def all_names(self) -> set[str]:
        return set(self._backend.list_dir_or_file(self.folder, list_dir=False, recursive=True))

    def remove_partial_files(self) -> None:
        """Do nothing: backends write whole files."""

    def read(self, name: str) -> bytes:
        return bytes(self._backend.get(self.path(name)))

    def write(self, name: str, data: bytes) -> None:
        self._backend.put(data, self.path(name))

    def create(self, name: str, data: bytes) -> bool:
        if self._backend.exists(self.path(name)):
            return False
        self.write(name, data)
        return True

    def append(self, name: str, lines: bytes) -> None:
        with self._lock:
            if not self._appended:  # the manifest of a stopped run then lists its pictures, as on a disk
                atexit.register(self.flush)
            if name not in self._appended:
                self._appended[name] = self.read(name) if self._backend.exists(self.path(name)) else b''
            self._appended[name] += lines
            self._unwritten += 1
            if self._unwritten >= PUT_EVERY:
                self._write_appended()

    def remove(self, name: str) -> None:
        if self._backend.exists(self.path(name)):
            self._backend.remove(self.path(name))

    def flush(self) -> None:
        """Write all appended lines. Afterwards other processes may change these files."""
        with self._lock:
            self._write_appended()
            self._appended.clear()
            atexit.unregister(self.flush)

    def _write_appended(self) -> None:
        for name, data in self._appended.items():
            self.write(name, data)
        self._unwritten = 0


Storage = Union[DiskStorage, BackendStorage]
