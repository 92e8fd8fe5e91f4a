"""Cell files: the embeddings of the images of a report, which the page reads when it looks for similar cells.

A file has the cells of one level of several images, about a megabyte, so that the page can go through a large run one
file at a time.
"""

from __future__ import annotations

import base64
import os.path as osp
from typing import Any

from mmdet_featviz.report.page_data import place_cells
from mmdet_featviz.report.page_files import PageFolder, SingleFile
from mmdet_featviz.runs.embeddings_file import load_embeddings
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.snapshot import Level, Snapshot

FILE_BYTES = 1_000_000  # of cells; one image alone may have more


class CellFiles:
    """Writes the cell files of a report.

    Args:
        files: The report.
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.

    Attributes:
        index: ``{level: dict(bytes, files)}``: the size of all its files, and of each file its number, its first pass
            and its last.
    """

    def __init__(self, files: PageFolder | SingleFile, align: str) -> None:
        self.index: dict[str, dict[str, Any]] = {}
        self._files = files
        self._align = align
        self._waiting: dict[str, list[dict]] = {}  # by level
        self._written = 0

    @property
    def bytes(self) -> int:
        """Size of all files so far."""
        return sum(of_level['bytes'] for of_level in self.index.values())

    def add(self, number: int, snapshot: Snapshot, path: str, image: int | None) -> None:
        """Add the cells of a pass.

        Args:
            number: Number of the pass.
            snapshot: The pass.
            path: Its maps file.
            image: Number of the file with the original image; None without one.

        Raises:
            MapsError: If its embeddings cannot be read.
        """
        embedded, fit = load_embeddings(osp.join(osp.dirname(path), snapshot.embeddings_file))
        facts = dict(shot=number, photo=image, size=embedded.placement.image_size[::-1], fit=fit)
        for level in embedded.levels:
            grid = Grid(level.values.shape, level.stride, embedded.placement, self._align, level.offset)
            if grid.covers_image().any():
                waiting = self._waiting.setdefault(level.name, [])
                waiting.append({**facts, **_cells(level, grid)})
                if sum(len(one['codes']) for one in waiting) >= FILE_BYTES:
                    self._write(level.name)

    def finish(self) -> None:
        """Write what still waits."""
        for name in list(self._waiting):
            self._write(name)

    def _write(self, name: str) -> None:
        entries = self._waiting.pop(name)
        of_level = self.index.setdefault(name, dict(bytes=0, files=[]))
        of_level['bytes'] += sum(len(one['codes']) for one in entries)
        of_level['files'].append([self._written, entries[0]['shot'], entries[-1]['shot']])
        self._files.add_cells(self._written, entries)
        self._written += 1


def _cells(level: Level, grid: Grid) -> dict:
    """The cells over the image, and where they are; ``codes`` are int8 in base64, cell by cell."""
    codes = level.embedding[(slice(None), *grid.window())]
    text = base64.b64encode(codes.transpose(1, 2, 0).tobytes()).decode('ascii')
    return dict(codes=text, **place_cells(grid, codes.shape[1:]))
