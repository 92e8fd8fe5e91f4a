"""Page data: levels, boxes and colormaps in the form that the page's scripts read."""

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

IMAGE_SIZE = 1000  # longest side, in pixels, of an image on the page
MAX_CELLS = 1000  # of a map, along each axis
STEPS = 254  # from gray level 1 to 255; gray level 0 marks values that are not finite


def level_data(level: Level, placement: Placement, align: str) -> dict:
    """A level as the page draws it: an 8-bit map of the cells over the image, and where they are.

    Args:
        level: The level.
        placement: Where the image is in the network's input.
        align: Where the value of a cell sits: ``center`` of its block, or its top left ``corner``.

    Returns:
        Among others: ``png``, the map as a gray PNG in base64, in which 0 is not finite and 1 to 255 are ``low`` to
        ``high``; ``matrix``, nine numbers that map image coordinates to columns and rows of the map; ``bounds`` (left,
        top, right, bottom), the area that the network saw, in columns and rows; ``range``, the smallest and largest
        value visible in the image.
    """
    grid = Grid(level.values.shape, level.stride, placement, align)
    rows, columns = grid.window()
    cells = level.values[rows, columns]
    low, high = finite_range(cells)
    gray = _to_gray(cells, low, high)
    scales = [min(1.0, MAX_CELLS / cells.shape[axis]) for axis in (1, 0)]
    if min(scales) < 1:  # the mean of several passes has one cell per pixel
        size = [max(1, round(cells.shape[1 - axis] * scales[axis])) for axis in (0, 1)]
        scales = [size[axis] / cells.shape[1 - axis] for axis in (0, 1)]
        gray = cv2.resize(gray, tuple(size), interpolation=cv2.INTER_AREA)
    to_window = np.diag([*scales, 1.0])
    to_window[:2, 2] = [(0.5 - window.start) * scale - 0.5 for window, scale in zip((columns, rows), scales)]
    to_cells = to_window @ grid.input_to_cells
    height, width = placement.input_size
    corners = to_cells @ np.array([[0, 0, 1], [width, height, 1]], np.float64).T
    return dict(
        name=level.name,
        layer=level.layer,
        channels=level.channels,
        stride=level.stride_text,
        rows=gray.shape[0],
        columns=gray.shape[1],
        low=low,
        high=high,
        range=visible_range(level.values, grid),
        matrix=(to_cells @ placement.matrix).ravel().tolist(),
        bounds=corners[:2].T.ravel().tolist(),
        png=base64.b64encode(cv2.imencode('.png', gray)[1]).decode('ascii'),
    )


def _to_gray(cells: np.ndarray, low: float, high: float) -> np.ndarray:
    """Gray levels of cells, uint8: 0 for values that are not finite, 1 to 255 for low to high."""
    finite = np.isfinite(cells)
    unit = (np.where(finite, cells, low).astype(np.float64) - low) / ((high - low) or 1.0)
    return np.where(finite, 1 + np.round(unit * STEPS), 0).astype(np.uint8)


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


def script_call(function: str, *values: Any) -> bytes:
    """A script that calls one of the page's functions, such as ``featviz.run``, with values as JSON.

    ``<`` is escaped, so that the script is safe inside HTML as well.
    """
    texts = (json.dumps(value, allow_nan=False, separators=(',', ':')) for value in values)
    return f'featviz.{function}({",".join(texts)});\n'.replace('<', '\\u003c').encode('ascii')
