"""Regular files: reads files whose paths may come from outside, but no device or pipe, which may have no end."""

from __future__ import annotations

import os.path as osp

from mmengine import fileio


def read_file(path: str, backend_args: dict | None = None) -> bytes:
    """Read a whole file.

    Args:
        path: Path, or URL that one of mmengine's file backends can read.
        backend_args: Arguments of the file backend.

    Raises:
        OSError: If the path is that of a device or pipe: some never end, and others wait forever.
        Exception: Each file backend raises errors of its own.
    """
    check_no_device(path)
    return bytes(fileio.get(path, backend_args=backend_args))


def check_no_device(path: str) -> None:
    """Raise OSError if a path is that of a device or pipe."""
    if osp.exists(path) and not osp.isfile(path) and not osp.isdir(path):
        raise OSError(f'{path} is a device or pipe: only regular files are read and written')
