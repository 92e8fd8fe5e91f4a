"""Similarity: how similar the cells of a run are to one of them, from the embeddings that the run saved."""

from __future__ import annotations

import logging
import os
import os.path as osp
from dataclasses import dataclass
from typing import Sequence

import numpy as np
from mmengine.logging import print_log

from mmdet_featviz.runs.embeddings_file import load_embeddings
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.embedding import cosines
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.snapshot import Level
from mmdet_featviz.utils.arguments import check_whole_number
from mmdet_featviz.utils.messages import first_names


@dataclass(frozen=True)
class SimilarCell:
    """A cell of another image.

    Attributes:
        image: Key of its image.
        x, y: Where it is, in pixels of this image.
        cosine: How similar it is, -1 to 1.
    """

    image: str
    x: float
    y: float
    cosine: float


@dataclass(frozen=True, eq=False)
class Similarity:
    """How similar cells are to one cell.

    Attributes:
        heatmap: (H, W) float32, -1 to 1: similarity to the cells of the same image, interpolated at each pixel.
        values: (rows, columns) float32: the same on the grid of the level.
        cell: Row and column of the one cell.
        others: The most similar cell of each other image, the most similar first.
    """

    heatmap: np.ndarray
    values: np.ndarray
    cell: tuple[int, int]
    others: Sequence[SimilarCell]


def similarity(run: str | os.PathLike, image: str, level: str, x: float, y: float, most: int = 10) -> Similarity:
    """Compare the cell at a place of an image with all cells of this image, and with those of other images of a run.

    The similarity is the cosine of the angle between the vectors of the first 16 principal components, which the run
    saved in eight bits: at most 0.031 from that of the components themselves. It is 0 for cells that have the mean
    features of the run, or values that are not finite. Of test-time augmentation, the first pass counts.

    Args:
        run: Folder of a run with ``save=('embeddings',)``, or of one epoch of a training in it, such as
            ``run/epoch_3``. Images with other components, such as those of other epochs, are not compared.
        image: Key of the image, which names its folder in the run.
        level: Name of the level, such as ``neck_0``.
        x, y: The place, in pixels of the image; the first pixel is from 0 to 1. The cell whose position is nearest to
            it is compared.
        most: How many other images to return.

    Raises:
        ValueError: If the run has no embeddings, no such image or level, or the place is outside the image or was
            cropped from the network's input.
    """
    check_whole_number('most', most)
    opened = Run(os.fspath(run))
    align = opened.info.get('style', {}).get('align', 'center')
    entries = _entries(opened, level)
    if image not in entries:
        raise ValueError(
            f'{opened.folder} has no embeddings of the image {image!r}, but of {first_names(list(entries))}'
        )
    embedded, grid, fit = _load(opened, entries.pop(image), level, align)
    row, column = grid.cell_at(x, y)
    vector = embedded.embedding[:, row, column]
    found = ((key, _load_or_skip(opened, entry, level, align)) for key, entry in entries.items())
    cells = [_best_cell(key, *other[:2], vector) for key, other in found if other is not None and other[2] == fit]
    cells = sorted(filter(None, cells), key=_order)
    values = cosines(embedded.embedding, vector).astype(np.float32)
    return Similarity(grid.heatmap(values), values, (row, column), cells[:most])


def _order(cell: SimilarCell) -> tuple:
    return -cell.cosine, cell.image


def _entries(run: Run, level: str) -> dict[str, dict]:
    """{image key: manifest entry} of the images that have embeddings of a level.

    Raises:
        ValueError: If there are none.
    """
    found = [entry for entry in run.entries.values() if not entry['augmentation'] and _file_of(entry)]
    if not found:
        raise ValueError(f"{run.folder} has no embeddings: run with save=('embeddings',)")
    entries = {entry['key']: entry for entry in found if f'{entry["layer"]}_{entry["level"]}' == level}
    if not entries:
        names = dict.fromkeys(f'{entry["layer"]}_{entry["level"]}' for entry in found)
        raise ValueError(f'no level {level!r}: choose from {", ".join(names)}')
    return entries


def _file_of(entry: dict) -> str | None:
    """The embeddings file in a manifest entry of a first pass."""
    return next((file for file in entry['files'] if osp.basename(file) == 'embeddings.npz'), None)


def _load(run: Run, entry: dict, level: str, align: str) -> tuple[Level, Grid, str]:
    """The embedded level of an image, its cells on the image, and the name of the fit."""
    path = f'{run.root}/{_file_of(entry)}'
    snapshot, fit = load_embeddings(path)
    found = next((one for one in snapshot.levels if one.name == level), None)
    if found is None:
        raise ValueError(f'{path} has no level {level!r}')
    return found, Grid(found.values.shape, found.stride, snapshot.placement, align, found.offset), fit


def _load_or_skip(run: Run, entry: dict, level: str, align: str) -> tuple[Level, Grid, str] | None:
    """The same; None, with a warning, if it cannot be read."""
    try:
        return _load(run, entry, level, align)
    except ValueError as error:
        print_log(f'{error}. It is not compared.', 'current', logging.WARNING)
        return None


def _best_cell(image: str, level: Level, grid: Grid, vector: np.ndarray) -> SimilarCell | None:
    """The most similar cell of an image, among those that cover part of it and have a direction; None without any."""
    counts = grid.covers_image() & level.embedding.any(0)
    if len(vector) != len(level.embedding) or not counts.any():
        return None
    found = np.where(counts, cosines(level.embedding, vector), -np.inf)
    row, column = np.unravel_index(found.argmax(), found.shape)
    x, y = np.clip(grid.to_image(np.array([[column, row]]))[0], 0, grid.placement.image_size[::-1])
    return SimilarCell(image, float(x), float(y), float(found[row, column]))
