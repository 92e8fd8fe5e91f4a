"""Page data: levels, boxes and colormaps in the form that the page's scripts read."""

from __future__ import annotations

import base64
import math
from dataclasses import replace

import cv2
import numpy as np

from mmdet_featviz.runs.component_fit import Components
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.colors import get_colormap
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.value_ranges import visible_range
from mmdet_featviz.visualization.views import Views, variance_text

IMAGE_SIZE = 1000  # longest side, in pixels, of an image on the page
MAX_CELLS = 1000  # of a map, along each axis


def level_data(level: Level, placement: Placement, align: str, most: int = MAX_CELLS) -> dict:
    """A level as the page draws it: the values of the cells over the image, and where they are.

    Args:
        level: The level.
        placement: Where the image is in the network's input.
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.
        most: Most cells of the map along each axis; more are averaged.

    Returns:
        Among others: ``cells``, the values as little-endian float32 in base64, row by row (the page interpolates before
        it cuts them to a range of the reader's choice, and any coarser step would show in a narrow range); ``matrix``,
        nine numbers that map image coordinates to columns and rows of the map; ``bounds`` (left, top, right, bottom),
        the area that the network saw, in columns and rows; ``range``, the smallest and largest value visible in the
        image.
    """
    grid = Grid(level.values.shape, level.stride, placement, align, level.offset)
    cells = _shrink(level.values[grid.window()], most)
    return dict(
        name=level.name,
        layer=level.layer,
        content=level.content,
        channels=0 if level.score_of is not None else level.channels,
        stride=level.stride_text,
        range=visible_range(level.values, grid),
        cells=_encode(cells),
        **place_cells(grid, cells.shape),
    )


def place_cells(grid: Grid, size: tuple[int, int]) -> dict:
    """Where the cells over an image are.

    Args:
        grid: All cells of the level.
        size: Rows and columns that those over the image are shown as.

    Returns:
        ``rows``, ``columns``, ``matrix`` and ``bounds``, as in :func:`level_data`.
    """
    rows, columns = grid.window()
    scales = size[1] / (columns.stop - columns.start), size[0] / (rows.stop - rows.start)
    to_window = np.diag([*scales, 1.0])
    to_window[:2, 2] = [(0.5 - window.start) * scale - 0.5 for window, scale in zip((columns, rows), scales)]
    to_cells = to_window @ grid.input_to_cells
    height, width = grid.placement.input_size
    corners = to_cells @ np.array([[0, 0, 1], [width, height, 1]], np.float64).T
    return dict(
        rows=size[0],
        columns=size[1],
        matrix=(to_cells @ grid.placement.matrix).ravel().tolist(),
        bounds=corners[:2].T.ravel().tolist(),
    )


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(values.astype('<f4').tobytes()).decode('ascii')


def page_levels(snapshot: Snapshot, style: Style, components: Components | None = None) -> list[dict]:
    """All levels of an image as :func:`level_data`, with the ranges of their pictures in the style.

    Besides ``range``, which leaves out the border of the style, they have the percentiles of the style as
    ``percentiles``. Score maps have the same limits as both. With principal components, levels have ``colors``: red,
    green and blue of the cells, 0 to 1, as ``cells`` one after the other, and ``facts`` for captions.
    """
    levels = [level_data(level, snapshot.placement, style.align) for level in snapshot.levels]
    for kind, normalize in (('range', 'image'), ('percentiles', 'percentile')):
        views = Views(replace(style, normalize=normalize), components=components)
        placed = views.place(snapshot)
        for data, one in zip(levels, placed):
            data[kind] = views.limits_of(one, placed)
    for data, one in zip(levels, placed):
        if one.colors is not None:
            data['colors'] = [_encode(_shrink(plane[one.grid.window()], MAX_CELLS)) for plane in one.colors]
            data['facts'] = f'{variance_text(one.shares)} of {data["content"]}, stride {data["stride"]} px'
    return levels


def _shrink(cells: np.ndarray, most: int) -> np.ndarray:
    """Cells (rows, columns) averaged to at most `most` along each axis: the mean of passes has one per pixel.

    NaN and infinite values do not count, unless there are no others.
    """
    size = tuple(min(cells.shape[axis], most) for axis in (1, 0))
    if size == cells.shape[::-1]:
        return cells
    finite = np.isfinite(cells)
    # In float64, in which the sum of float32 values does not overflow.
    total, share = (
        cv2.resize(values.astype(np.float64), size, interpolation=cv2.INTER_AREA)
        for values in (np.where(finite, cells, 0), finite)
    )
    return np.divide(total, share, out=np.full(total.shape, np.nan), where=share > 0).astype(np.float32)


def shrink_placement(placement: Placement, longest: int) -> tuple[Placement, float]:
    """The placement of the image scaled down so that no side is longer than `longest` pixels.

    Returns:
        The placement, and the scale: 1 if the image is small enough already.
    """
    height, width = placement.image_size
    scale = min(1.0, longest / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    matrix = placement.matrix @ np.diag([width / size[1], height / size[0], 1.0])
    return (Placement(matrix, size, placement.input_size), scale) if scale < 1 else (placement, 1.0)


def box_rows(boxes: Boxes | None) -> list[list]:
    """Left, top, right, bottom, label and score (None for ground truth) of each box."""
    if boxes is None:
        return []
    corners = np.round(boxes.corners, 2).tolist()
    return [[*box, int(label), rounded(score)] for box, label, score in zip(corners, boxes.labels, boxes.scores)]


def colormap_data(name: str) -> str:
    """The 256 RGB colors of a colormap, as bytes in base64."""
    return base64.b64encode(get_colormap(name)[:, 0, ::-1].tobytes()).decode('ascii')


def rounded(value: float) -> float | None:
    """The value with five significant digits, which tiny shares need; None if it is not finite."""
    return float(f'{value:.5g}') if math.isfinite(value) else None
