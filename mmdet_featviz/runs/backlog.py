"""Backlog: a file with the maps of images whose pictures are drawn after the loop."""

from __future__ import annotations

import contextlib
import errno
import os
import os.path as osp
import re
import struct
from functools import partial
from typing import Iterator, Sequence

from mmdet_featviz.runs.maps_file import dump_snapshot
from mmdet_featviz.runs.storage import check_no_link
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.images import is_upright

BACKLOG = 'postponed.rank{}.maps'
IS_BACKLOG = re.compile(r'postponed\.rank\d+\.maps')
HEADER = struct.Struct('<?Q')  # of each pass: whether it is the first one of an image, and the length of its maps file


class Backlog:
    """A file with the maps of images that are to be drawn later.

    It is made to be read by the run that wrote it, or by the one that resumes that run. What a killed process did not
    write to its end is left out.

    Args:
        path: Path of the file; it is created with the first image.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def add(self, snapshots: Sequence[Snapshot]) -> None:
        """Add an image.

        Args:
            snapshots: Its passes, for which :func:`can_wait` is True.

        Raises:
            OSError: If it cannot be written completely; the file is then as before.
            ValueError: If the file is a link.
        """
        data = b''
        for number, snapshot in enumerate(snapshots):
            maps = dump_snapshot(snapshot)
            data += HEADER.pack(not number, len(maps)) + maps
        check_no_link(self.path)
        with open(self.path, 'ab', buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
            except BaseException:
                file.truncate(size)
                raise

    def __len__(self) -> int:
        """Number of images."""
        return sum(is_first for is_first, _, _ in self._positions())

    def __iter__(self) -> Iterator[list[bytes]]:
        """Iterate over the images: for each the maps files of its passes, as bytes for ``parse_snapshot``."""
        image: list[bytes] = []
        for is_first, start, length in self._positions():
            if is_first and image:
                yield image
                image = []
            with open(self.path, 'rb') as file:
                file.seek(start)
                image.append(file.read(length))
        if image:
            yield image

    def _positions(self) -> Iterator[tuple[bool, int, int]]:
        """Iterate over the passes: whether it is the first one of an image, and where its maps file is."""
        if not osp.isfile(self.path):
            return
        with open(self.path, 'rb') as file:
            size = osp.getsize(self.path)
            for header in iter(partial(file.read, HEADER.size), b''):
                if len(header) < HEADER.size:
                    return
                is_first, length = HEADER.unpack(header)
                start = file.tell()
                if length > size - start:
                    return
                yield is_first, start, length
                file.seek(start + length)

    def remove(self) -> None:
        """Remove the file, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path)


def can_wait(snapshot: Snapshot) -> bool:
    """Whether a snapshot can be drawn later from a small file, with exactly the same result.

    Not if the file of the image does not suffice: where the image is rebuilt from the network's input, or turned as the
    input shows. And not if the maps take more space than the decoded image, or come with whole feature maps.
    """
    parts = [part for level in (*snapshot.levels, *snapshot.attention) for part in (level.picked, level.pooled)]
    maps = [level.values for level in snapshot.levels] + [part.maps for part in parts if part is not None]
    height, width = snapshot.placement.image_size
    is_small = sum(values.nbytes for values in maps) <= 3 * height * width
    has_raw = any(level.raw is not None for level in snapshot.levels)
    return is_small and not has_raw and snapshot.is_file and is_upright(snapshot.path)
