"""Box sprite: the crops of boxes on one picture, which TensorBoard's projector shows as their points."""

from __future__ import annotations

import math
import os.path as osp

import numpy as np
from tqdm import tqdm

from mmdet_featviz.report.box_table import BoxTable
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.sheets import shrink_to_tile

LARGEST = 8192  # pixels along each side that the projector reads
CROP = 64  # pixels along each side of a crop, if so many fit
GROUND = 128  # gray level beside a crop, and of one whose image cannot be read


def draw_box_sprite(run: Run, table: BoxTable) -> tuple[np.ndarray, int] | None:
    """Draw the crop of each box, row by row in a square.

    Args:
        run: A run.
        table: Its boxes.

    Returns:
        The picture (H, H, 3), BGR, and the side of each crop in pixels; None if the run saved no maps, which know
        where its images are.
    """
    if not run.paths:
        return None
    maps = {osp.dirname(path): path for path in run.paths}
    columns = math.ceil(math.sqrt(len(table.boxes)))
    side = min(CROP, LARGEST // columns)
    sprite = np.full((columns * side, columns * side, 3), GROUND, np.uint8)
    for number, file in enumerate(tqdm(table.files, unit='image', leave=False, disable=None)):
        image = _read(maps.get(osp.dirname(file.path)), run)
        for row in np.flatnonzero(table.images == number).tolist() if image is not None else ():
            crop = _crop(image, table.boxes.corners[row], side)
            top, left = (side * place for place in divmod(row, columns))
            top, left = top + (side - crop.shape[0]) // 2, left + (side - crop.shape[1]) // 2
            sprite[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return sprite, side


def _read(path: str | None, run: Run) -> np.ndarray | None:
    """The image of saved maps; None if it cannot be read."""
    if path is None:
        return None
    try:
        return load_with_image(path, run.info).image()
    except (ValueError, ImageError):
        return None


def _crop(image: np.ndarray, corners: np.ndarray, longest: int) -> np.ndarray:
    """The part of an image inside a box, at least one pixel, with its longer side as given."""
    height, width = image.shape[:2]
    left, top = (int(np.clip(corner, 0, size - 1)) for corner, size in zip(corners[:2], (width, height)))
    right, bottom = (math.ceil(min(max(corner, 0), size)) for corner, size in zip(corners[2:], (width, height)))
    return shrink_to_tile(image[top : max(bottom, top + 1), left : max(right, left + 1)], longest)
