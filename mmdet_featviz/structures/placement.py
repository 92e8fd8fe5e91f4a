"""Placement: where the original image lies in the network's input (scale, flip, padding, crop, homography).

All coordinates are continuous and in pixels: the first pixel covers 0 to 1, and its center is at 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable, Iterator, Mapping

import numpy as np
from torch import Tensor

BLOCK_ROWS = 64


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the image lies in the network's input.

    Attributes:
        matrix: (3, 3) float64, from homogeneous image coordinates (x, y, 1) to input coordinates. Any multiple of it
            is the same placement, so it is divided by its last entry.
        image_size: (height, width) of the image.
        input_size: (height, width) of the network's input, padding included.
    """

    matrix: np.ndarray
    image_size: tuple[int, int]
    input_size: tuple[int, int]

    def __post_init__(self) -> None:
        height, width = self.image_size
        depths = self.matrix[2] @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
        # By its absolute value, as the first pixel may be behind the horizon; but not all of the image can be.
        factor = (abs(self.matrix[2, 2]) or 1.0) * (-1 if (depths < 0).all() else 1)
        object.__setattr__(self, 'matrix', self.matrix / factor)

    @property
    def opencv_matrix(self) -> np.ndarray:
        """The matrix for OpenCV, which counts from the center of the first pixel, not from its corner."""
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        return np.linalg.inv(half) @ self.matrix @ half

    @cached_property
    def is_separable(self) -> bool:
        """Whether the placement only scales, shifts and flips, so that x and y can be handled separately."""
        scales, shifts = np.diag(self.matrix)[:2], self.matrix[:2, 2]
        separable = np.diag([*scales, 1.0])
        separable[:2, 2] = shifts
        return np.array_equal(self.matrix, separable)

    @cached_property
    def content_box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge of the image in the input (separable placements)."""
        height, width = self.image_size
        corners = self.matrix @ np.array([[0, 0, 1], [width, height, 1]], np.float64).T
        (left, right), (top, bottom) = np.sort(corners[:2], axis=1)
        return left, top, right, bottom

    @cached_property
    def axis_positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Input coordinates of the centers of the image's rows (y) and columns (x) (separable placements)."""
        matrix, (height, width) = self.matrix, self.image_size
        rows = matrix[1, 1] * (np.arange(height) + 0.5) + matrix[1, 2]
        columns = matrix[0, 0] * (np.arange(width) + 0.5) + matrix[0, 2]
        return rows, columns

    @cached_property
    def seen_ranges(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the network saw (separable placements)."""
        rows, columns = (
            _range_inside(positions, size) for positions, size in zip(self.axis_positions, self.input_size)
        )
        return rows, columns

    @cached_property
    def all_seen(self) -> bool:
        """Whether the network saw the whole image, so nothing was cropped (separable placements)."""
        return self.seen_ranges == tuple(slice(0, size) for size in self.image_size)

    def row_blocks(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Iterate over blocks of the image's rows, as positions of all pixels would take a lot of memory.

        Yields:
            The rows, and the input coordinates x and y (rows, width) of the centers of their pixels; NaN behind the
            horizon of a homography.
        """
        height, width = self.image_size
        columns = np.arange(width) + 0.5
        for start in range(0, height, BLOCK_ROWS):
            block = slice(start, min(start + BLOCK_ROWS, height))
            rows = np.arange(block.start, block.stop)[:, None] + 0.5
            u, v, w = (along * columns + down * rows + shift for along, down, shift in self.matrix)
            w = np.where(w > 0, w, np.nan)
            yield block, u / w, v / w

    @cached_property
    def seen(self) -> np.ndarray:
        """(height, width) bool: which pixels of the image the network saw; pipelines may crop the image."""
        seen = np.zeros(self.image_size, bool)
        if self.is_separable:
            seen[self.seen_ranges] = True
            return seen
        height, width = self.input_size
        for block, x, y in self.row_blocks():
            seen[block] = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
        return seen


def identity_placement(size: tuple[int, int], input_size: tuple[int, int]) -> Placement:
    """The image of `size` (height, width) lies unscaled at the top left of the input."""
    return Placement(np.eye(3), size, input_size)


def placement_from_metas(
    meta: Mapping[str, Any], image: Tensor, match: Callable[[Placement], float] | None = None
) -> Placement:
    """Work out the placement of an image from its meta information.

    A packed ``homography_matrix`` is used unchanged. Otherwise the placement is computed from scale, flip and padding.
    ``img_shape`` does not give the size of the content, as mmdet's ``Pad`` overwrites it with the padded size. No meta
    key says whether the flip came before or after the padding. If this matters, the pixels of the input decide: padding
    is uniform. So may be the margins of an image that was scanned or filmed; then the image file decides.

    Args:
        meta: Meta information of the image, as mmdet packs it.
        image: The network's input for this image (C, H, W), including padding.
        match: Returns how well the input shows the image file under a placement, 0 to 1 or NaN if that is unknown. It
            is called only if the file decides.

    Raises:
        ValueError: If the meta information lacks ``ori_shape``.
    """
    if 'ori_shape' not in meta:
        raise ValueError(
            "the meta information has no 'ori_shape', so heatmaps cannot be placed on the original image: "
            'add it to meta_keys of PackDetInputs in the test pipeline'
        )
    image_size = tuple(int(v) for v in meta['ori_shape'][:2])
    input_size = tuple(image.shape[-2:])
    homography = meta.get('homography_matrix')
    if homography is not None:
        return Placement(np.asarray(homography, np.float64), image_size, input_size)

    scale = np.array(meta.get('scale_factor', (1.0, 1.0))[:2], np.float64)
    content = scale * image_size[::-1]  # (width, height), like all sizes below
    top, bottom, left, right = (float(v) for v in meta.get('pad_param', (0, 0, 0, 0)))
    offset = removed_offset(meta)
    if 'pad_param' in meta:
        padded = offset + content + (right, bottom)
    else:
        padded = np.array(meta.get('img_shape', image_size)[1::-1], np.float64)

    flipped = np.array(flipped_axes(meta))
    matrix = np.diag([*np.where(flipped, -scale, scale), 1.0])
    matrix[:2, 2] = np.where(flipped, offset + content, offset)
    flipped_first = Placement(matrix, image_size, input_size)

    matrix = matrix.copy()
    matrix[:2, 2] = np.where(flipped, padded - offset, offset)
    padded_first = Placement(matrix, image_size, input_size)
    if np.abs(flipped_first.matrix - padded_first.matrix).max() < 1:
        return flipped_first
    candidates = flipped_first, padded_first
    variations = [_variation_around(placement, image, padded) for placement in candidates]
    if match is not None and (not any(variations) or all(variations)):
        matches = np.nan_to_num([match(placement) for placement in candidates])
        if matches[0] != matches[1]:
            return candidates[int(matches.argmax())]
    return candidates[int(np.argmin(variations))]


def removed_offset(meta: Mapping[str, Any]) -> np.ndarray:
    """Where the content begins in the input (x, y), if the meta information says so. Boxes are without it."""
    if 'border' in meta:  # RandomCenterCropPad: (top, bottom, left, right) edge of the unscaled content in the input
        return np.array(meta['border'], np.float64)[[2, 0]]
    top, _, left, _ = meta.get('pad_param', (0, 0, 0, 0))
    return np.array([left, top], np.float64)


def flipped_axes(meta: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the image was flipped along x and along y."""
    if not meta.get('flip'):
        return False, False
    direction = meta.get('flip_direction') or 'horizontal'
    return direction in ('horizontal', 'diagonal'), direction in ('vertical', 'diagonal')


def _variation_around(placement: Placement, image: Tensor, padded: np.ndarray) -> float:
    """How much the input (C, H, W) varies around the content, where the pipeline's padding should be uniform: 0.

    Only the part that the pipeline padded, (width, height) large, is measured: the preprocessor may add more padding,
    with another value.
    """
    width, height = np.round(padded).astype(int)
    left, top, right, bottom = (max(0, int(round(edge))) for edge in placement.content_box)
    around = np.ones(image.shape[-2:], bool)[:height, :width]
    around[top:bottom, left:right] = False
    if not around.any():
        return 0.0
    return float(np.ptp(image.detach().float().cpu().numpy()[:, :height, :width][:, around], axis=1).sum())


def _range_inside(positions: np.ndarray, size: int) -> slice:
    """Range of the indices of monotonic input coordinates that lie inside an input of `size` pixels."""
    inside = np.flatnonzero((positions >= 0) & (positions <= size))
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)
