"""receptive_fields(): which part of an image one cell of each level depends on."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Sequence

import cv2
import numpy as np
from mmengine.infer import BaseInferencer
from torch import nn
from tqdm import tqdm

from mmdet_featviz.apis.explain import batch_of, snapshots_of
from mmdet_featviz.apis.inference import check_detector
from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.capture.nested_passes import nested_passes
from mmdet_featviz.explanation.receptive_field import (
    CellField,
    TheoreticalField,
    cell_fields,
    effective_size,
    mean_gradient,
    theoretical_fields,
)
from mmdet_featviz.runs.image_keys import ImageKeys
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.structures.placement import placement_from_metas
from mmdet_featviz.structures.snapshot import Level, Snapshot, format_stride
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Views

SMOOTHING = 1 / 4  # standard deviation of the smoothing in pictures, in strides; sizes are not smoothed
RECTANGLE = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """The receptive field of one cell of a level. Lengths are in pixels of the network's input.

    Attributes:
        name: Name of the level, such as ``neck_0``.
        stride: (vertical, horizontal) distance of neighboring cells.
        cell: (row, column) of the cell in the first image.
        box: Theoretical field in the first image: left, top, right, bottom. Infinite where it is the whole image; None
            if it was not found.
        effective_size: Side of a square as large as the smallest area that holds 95.45 % of the gradient.
        gradient: (H, W) of the first image's input: the mean absolute gradient over the images, at the cell's place.
        snapshot: The first image.
    """

    name: str
    stride: tuple[float, float]
    cell: tuple[int, int]
    box: tuple[float, float, float, float] | None
    effective_size: float
    gradient: np.ndarray
    snapshot: Snapshot

    @property
    def theoretical_size(self) -> tuple[float, float] | None:
        """(width, height) of the theoretical field; infinite for the whole image, None if it was not found."""
        return None if self.box is None else (self.box[2] - self.box[0], self.box[3] - self.box[1])

    def overlay(self) -> np.ndarray:
        """Return the effective field as heat on the first image, and the theoretical one as a rectangle: RGB.

        Raises:
            ImageError: If the image cannot be read.
        """
        return np.ascontiguousarray(self.draw()[..., ::-1])

    def draw(self, style: Style | None = None) -> np.ndarray:
        """As :meth:`overlay`, in BGR: for writing it to a file."""
        views = Views(style or Style(normalize='max'))
        smooth = cv2.GaussianBlur(self.gradient, (0, 0), max(1.0, SMOOTHING * max(self.stride)))
        level = Level('field', 0, 1, (1.0, 1.0), smooth.astype(np.float32))  # one cell per pixel of the input
        placed = views.place_level(level, self.snapshot.placement)
        picture = views.overlay_level(self.snapshot.image(), placed, [placed])
        return picture if self.box is None else _with_rectangle(picture, self.box, self.snapshot)


def _with_rectangle(picture: np.ndarray, box: Sequence[float], snapshot: Snapshot) -> np.ndarray:
    """Draw a box of the network's input on the image; sides that are infinite are those of the input."""
    height, width = snapshot.placement.input_size
    left, top, right, bottom = box
    left, right = (left, right) if math.isfinite(right - left) else (0, width)
    top, bottom = (top, bottom) if math.isfinite(bottom - top) else (0, height)
    corners = np.array([[left, right, right, left], [top, top, bottom, bottom], [1, 1, 1, 1]], np.float64)
    x, y, w = np.linalg.inv(snapshot.placement.matrix) @ corners
    line = max(2, max(picture.shape) // 300)
    corners = np.round(np.stack([x / w, y / w], 1)).astype(np.int32)
    return cv2.polylines(np.ascontiguousarray(picture), [corners], True, RECTANGLE, line, cv2.LINE_AA)


def receptive_fields(
    model: nn.Module | BaseInferencer,
    images: Sequence[str | os.PathLike | np.ndarray],
    layers: str | Sequence[str] | None = None,
    at: tuple[float, float] | None = None,
) -> list[ReceptiveField]:
    """Return the receptive field of one cell of each level: in theory, and in effect, as the mean over images.

    Args:
        model: A detector from ``mmdet.apis.init_detector``, or a ``DetInferencer``.
        images: One or several images: paths, URLs or arrays (H, W, 3), BGR. A gradient of one image shows what this
            image made pass; ten or more give the field of the weights.
        layers: Module paths or globs. Default: those that are drawn by default.
        at: (x, y), in pixels of each image: the nearest cell is taken. Default: the middle of each image.

    Returns:
        One field for each level, in forward order.

    Raises:
        ValueError: If there is no image or it cannot be used, `at` is outside an image, a layer does not exist or
            returns no feature map, or no gradient reaches the image.
        TypeError: If the model is no detector.

    Example:
        >>> for field in receptive_fields(model, images):
        ...     print(field.name, field.stride, field.theoretical_size, field.effective_size)
    """
    detector = unwrap_detector(check_detector(model, 'receptive_fields()'))
    images = [images] if isinstance(images, (str, os.PathLike, np.ndarray)) else list(images)
    if not images:
        raise ValueError('receptive fields need at least one image')
    layers = [layers] if isinstance(layers, str) else layers
    by_level: dict[str, list[CellField]] = {}
    first = None
    with nested_passes():
        for image in tqdm(images, unit='image', leave=False, disable=None):
            fields, pass_ = cell_fields(detector, batch_of(detector, image), layers, lambda pass_: _place(pass_, at))
            first = first or pass_
            for field in fields:
                by_level.setdefault(field.activation.name, []).append(field)
    names = list(dict.fromkeys(fields[0].activation.layer for fields in by_level.values()))
    theory = theoretical_fields(detector, names, first)
    (snapshot,) = snapshots_of(detector, first, getattr(detector, 'dataset_meta', None))
    return [_field_of(name, fields, theory.get(name), snapshot) for name, fields in by_level.items()]


def _place(pass_: Pass, at: tuple[float, float] | None) -> tuple[float, float]:
    """A place in an image, or its middle, as (x, y) in pixels of the network's input."""
    placement = placement_from_metas(pass_.samples[0].metainfo, pass_.inputs[0])
    height, width = placement.image_size
    x, y = (width / 2, height / 2) if at is None else at
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(f'at={(x, y)} is outside an image of {width} x {height} pixels')
    x, y, w = placement.matrix @ (x, y, 1)
    return x / w, y / w


def _field_of(
    name: str, fields: Sequence[CellField], theory: TheoreticalField | None, snapshot: Snapshot
) -> ReceptiveField:
    first, (mean, (top, left)) = fields[0], mean_gradient(fields)
    height, width = first.gradient.shape
    stride = first.activation.stride
    box = None if theory is None else theory.box(first.cell, stride)
    here = mean[top : top + height, left : left + width]
    return ReceptiveField(name, stride, first.cell, box, effective_size(mean), here, snapshot)


def field_table(fields: Sequence[ReceptiveField]) -> str:
    """Format receptive fields as a table: level, stride, theoretical and effective size."""
    rows = [('level', 'stride', 'theoretical', 'effective')]
    rows += [
        (field.name, format_stride(field.stride), _size_text(field.theoretical_size), f'{field.effective_size:.0f}')
        for field in fields
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join('  '.join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def _size_text(size: tuple[float, float] | None) -> str:
    if size is None:
        return 'not found'
    if not any(map(math.isfinite, size)):
        return 'whole image'
    return ' x '.join('all' if math.isinf(length) else f'{length:g}' for length in size)


def write_fields(
    fields: Sequence[ReceptiveField], image: str, root: str, run_folder: RunFolder, style: Style | None = None
) -> int:
    """Write a picture of each field, as ``{image key}/neck_0.receptive_field.jpg``, with an entry in the manifest.

    Args:
        fields: The fields.
        image: Path of the first image.
        root: Folder that its key is relative to.
        run_folder: Folder that the pictures are written to.
        style: Colors of the heat.

    Returns:
        The number of pictures.
    """
    key = ImageKeys(root).key_of(image)
    for field in fields:
        file = f'{key}/{field.name}.receptive_field.jpg'
        run_folder.write(file, encode_picture(field.draw(style), file))
        box = None if field.box is None else [edge if math.isfinite(edge) else None for edge in field.box]
        entry = dict(image=image, key=key, level=field.name, stride=field.stride, cell=field.cell)
        entry.update(theoretical_box=box, effective_size=field.effective_size, files=[file])
        run_folder.record([entry])
    run_folder.flush()
    run_folder.release()
    return len(fields)
