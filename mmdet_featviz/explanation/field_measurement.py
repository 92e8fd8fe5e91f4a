"""Field measurement: the receptive field of a cell of each level, as the mean over images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Callable, Mapping, Sequence

import cv2
import numpy as np
from torch import nn

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.nested_passes import nested_passes
from mmdet_featviz.explanation.receptive_field import (
    CellField,
    TheoreticalField,
    cell_fields,
    effective_size,
    theoretical_fields,
)
from mmdet_featviz.structures.placement import Placement, placement_from_metas
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Views

SMOOTHING = 1 / 4  # standard deviation of the smoothing in pictures, in strides; sizes are not smoothed
RECTANGLE = (255, 255, 255)
LOOK = dict(normalize='max', border=0)  # what differs from other pictures: no gradient has the first color


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
        views = Views(replace(style or Style(), **LOOK))
        smooth = cv2.GaussianBlur(self.gradient, (0, 0), max(1.0, SMOOTHING * max(self.stride)))
        level = Level('field', 0, 1, (1.0, 1.0), smooth.astype(np.float32))  # one cell per pixel of the input
        placed = views.place_level(level, self.snapshot.placement)
        picture = views.overlay_level(self.snapshot.image(), placed, [placed])
        return picture if self.box is None else _with_rectangle(picture, self.box, self.snapshot.placement)


def _with_rectangle(picture: np.ndarray, box: Sequence[float], placement: Placement) -> np.ndarray:
    """Draw a box of the network's input on the image; sides that are infinite are those of the input."""
    height, width = placement.input_size
    left, top, right, bottom = box
    left, right = (left, right) if math.isfinite(right - left) else (0, width)
    top, bottom = (top, bottom) if math.isfinite(bottom - top) else (0, height)
    corners = np.array([[left, right, right, left], [top, top, bottom, bottom], [1, 1, 1, 1]], np.float64)
    x, y, w = np.linalg.inv(placement.matrix) @ corners
    line = max(2, max(picture.shape) // 300)
    corners = np.round(np.stack([x / w, y / w], 1)).astype(np.int32)
    return cv2.polylines(np.ascontiguousarray(picture), [corners], True, RECTANGLE, line, cv2.LINE_AA)


class FieldMeasurement:
    """Measures the receptive field of one cell of each level, one image after the other.

    Gradients are added up, so that memory does not grow with the number of images. The detector is not kept.

    Attributes:
        images: Number of images so far.
        has_ended: Whether no further image is to be added, because of an error.
    """

    def __init__(self) -> None:
        self.images = 0
        self.has_ended = False
        self._sums: dict[str, _Sum] = {}
        self._theory: dict[str, TheoreticalField] = {}
        self._snapshot: Snapshot | None = None  # of the first image

    def add(
        self,
        model: nn.Module,
        data: Mapping[str, Any],
        layers: Sequence[str] | None,
        snapshot: Callable[[Pass], Snapshot],
        at: tuple[float, float] | None = None,
        quiet: bool = False,
    ) -> None:
        """Add an image; the detector predicts it once more, and nothing of it is changed.

        Args:
            model: The detector, or a wrapper around it.
            data: A batch of this image as a data loader returns it.
            layers: Module paths or globs; None is the layers that are drawn by default.
            snapshot: Given the pass over the image, returns the image; called for the first one only.
            at: (x, y) in pixels of the image: the nearest cell is taken. None is the middle of the image.
            quiet: Whether to skip outputs that are no feature maps without a warning.

        Raises:
            ValueError: If `at` is outside the image, a layer does not exist or returns no feature map, or no gradient
                reaches the image.
        """
        with nested_passes():
            found, pass_ = cell_fields(model, data, layers, lambda pass_: _place(pass_, at), quiet or self.images > 0)
        if not self.images:
            names = list(dict.fromkeys(field.activation.layer for field in found))
            self._theory = theoretical_fields(model, names, pass_)
            # The placement in the network's input is that of this pass: batches may be padded to another size.
            first = replace(snapshot(pass_), placement=_placement(pass_), levels=[], attention=[])
            self._snapshot = first
        for field in found:
            name = field.activation.name
            if name in self._sums:
                self._sums[name].add(field)
            else:
                self._sums[name] = _Sum(field)
        self.images += 1

    def fields(self) -> list[ReceptiveField]:
        """Return the receptive field of each level, in forward order; the effective ones are means over the images."""
        return [self._field_of(name, one) for name, one in self._sums.items()]

    def _field_of(self, name: str, one: _Sum) -> ReceptiveField:
        theory, stride, cell = self._theory.get(name), one.first.activation.stride, one.first.cell
        box = None if theory is None else theory.box(cell, stride)
        return ReceptiveField(
            name, stride, cell, box, effective_size(one.total), one.over_first_image() / one.images, self._snapshot
        )


class _Sum:
    """The sum of the gradients of cells in several images, laid on each other at the centers of the cells.

    Args:
        first: The field in the first image.
    """

    def __init__(self, first: CellField) -> None:
        self.first = replace(first, gradient=np.zeros(0))  # not kept
        self.images = 1
        self.total = first.gradient.copy()
        self._first_size = first.gradient.shape
        self._center = np.round(first.center).astype(int)  # (row, column) of the cells' centers in the total
        self._first_center = self._center

    def add(self, field: CellField) -> None:
        center, size = np.round(field.center).astype(int), np.array(field.gradient.shape)
        before = np.maximum(center - self._center, 0)
        after = np.maximum(size - center - (self.total.shape - self._center), 0)
        if before.any() or after.any():
            self.total = np.pad(self.total, list(zip(before, after)))
        self._center = self._center + before
        (top, left), (height, width) = self._center - center, size
        self.total[top : top + height, left : left + width] += field.gradient
        self.images += 1

    def over_first_image(self) -> np.ndarray:
        """(H, W) of the first image's input: the part of the total that lies over it."""
        (top, left), (height, width) = self._center - self._first_center, self._first_size
        return self.total[top : top + height, left : left + width]


def _placement(pass_: Pass) -> Placement:
    return placement_from_metas(pass_.samples[0].metainfo, pass_.inputs[0])


def _place(pass_: Pass, at: tuple[float, float] | None) -> tuple[float, float]:
    """A place in an image, or its middle, as (x, y) in pixels of the network's input."""
    placement = _placement(pass_)
    height, width = placement.image_size
    x, y = (width / 2, height / 2) if at is None else at
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(f'at={(x, y)} is outside an image of {width} x {height} pixels')
    x, y, w = placement.matrix @ (x, y, 1)
    return x / w, y / w
