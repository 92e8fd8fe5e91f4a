"""Page data: what the page's scripts read."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import cv2
import numpy as np

from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level
from mmdet_featviz.visualization.colors import get_colormap
from mmdet_featviz.visualization.value_ranges import finite_range, visible_range

MOST_CELLS = 1000  # of a map on each axis
STEPS = 254  # grey levels above 0, which stands for what is not finite


def level_data(level: Level, placement: Placement, align: str) -> dict:
    """A level as the page draws it: an 8-bit map of the cells that the image shows, and where they lie.

    In the map 0 is what is not finite, and 1 to 255 are `low` to `high`. `matrix` leads from image coordinates to
    columns and rows of the map; what lies within `bounds` (left, top, right, bottom, in the same) the network saw.
    `range` is the smallest and largest value that the image shows.
    """
    grid = Grid(level.values.shape, level.stride, placement, align)
    rows, columns = grid.window()
    cells = level.values[rows, columns]
    low, high = finite_range(cells)
    grey = _grey(cells, low, high)
    shrunk = [min(1.0, MOST_CELLS / cells.shape[axis]) for axis in (1, 0)]
    if min(shrunk) < 1:  # the mean of passes has a cell for each pixel
        size = [max(1, round(cells.shape[1 - axis] * shrunk[axis])) for axis in (0, 1)]
        shrunk = [size[axis] / cells.shape[1 - axis] for axis in (0, 1)]
        grey = cv2.resize(grey, tuple(size), interpolation=cv2.INTER_AREA)
    to_window = np.diag([*shrunk, 1.0])
    to_window[:2, 2] = [(0.5 - start.start) * scale - 0.5 for start, scale in zip((columns, rows), shrunk)]
    to_cells = to_window @ grid.input_to_cells
    height, width = placement.input_size
    corners = to_cells @ np.array([[0, 0, 1], [width, height, 1]], np.float64).T
    return dict(
        name=level.name,
        layer=level.layer,
        channels=level.channels,
        stride=level.stride_text,
        rows=grey.shape[0],
        columns=grey.shape[1],
        low=low,
        high=high,
        range=visible_range(level.values, grid),
        matrix=(to_cells @ placement.matrix).ravel().tolist(),
        bounds=corners[:2].T.ravel().tolist(),
        png=base64.b64encode(cv2.imencode('.png', grey)[1]).decode('ascii'),
    )


def _grey(cells: np.ndarray, low: float, high: float) -> np.ndarray:
    """Cells as bytes: 0 for what is not finite, 1 to 255 for low to high."""
    finite = np.isfinite(cells)
    unit = (np.where(finite, cells, low).astype(np.float64) - low) / ((high - low) or 1.0)
    return np.where(finite, 1 + np.round(unit * STEPS), 0).astype(np.uint8)


def placement_at_most(placement: Placement, longest: int) -> tuple[Placement, float]:
    """The placement of the image scaled down to a size, and by how much: figures need no more pixels."""
    height, width = placement.image_size
    scale = min(1.0, longest / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    matrix = placement.matrix @ np.diag([width / size[1], height / size[0], 1.0])
    return (Placement(matrix, size, placement.input_size), scale) if scale < 1 else (placement, 1.0)


def box_rows(boxes: Boxes | None) -> list[list]:
    """Left, top, right, bottom, label, and score (None for ground truth) of each box."""
    if boxes is None:
        return []
    corners = np.round(boxes.corners, 2).tolist()
    return [[*box, int(label), rounded(score)] for box, label, score in zip(corners, boxes.labels, boxes.scores)]


def colormap_data(name: str) -> str:
    """The 256 colors of a map, RGB, as base64."""
    return base64.b64encode(get_colormap(name)[:, 0, ::-1].tobytes()).decode('ascii')


def rounded(value: float) -> float | None:
    """A number of five digits: the boxes' share of a image may be tiny, and gains divide by it."""
    return float(f'{value:.5g}') if math.isfinite(value) else None


def script_call(function: str, *values: Any) -> bytes:
    """A call of one of the page's functions; harmless even where it is put into a page."""
    texts = (json.dumps(value, allow_nan=False, separators=(',', ':')) for value in values)
    return f'featviz.{function}({",".join(texts)});\n'.replace('<', '\\u003c').encode('ascii')
