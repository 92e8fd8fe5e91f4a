"""Misplacement: measures how far the original image is from its place in the network's input."""

from __future__ import annotations

import math

import cv2
import numpy as np

from mmdet_featviz.structures.input_match import LEAST_CELLS, agreement, can_compare, on_grid
from mmdet_featviz.structures.placement import Placement

LONGER_SIDE = 128  # of the grid on which edges are compared
SMALLEST_SIDE = 12  # of a grid that is still searched
BLUR = 5  # cells: so far do edges spread
LEAST_GAIN = 0.5  # another place must leave at most this part of what the edges at the given place leave unexplained
LEAST_DISTANCE = 0.004  # of the longer side; a rotation by one degree moves pixels by 0.006 on average
FAR = 0.02  # of the longer side: edges that fit best so far away fit by chance
LEAST_AGREEMENT = 0.6  # R²; below, the colors do not fit either
AXES = (1, 0), (0, 1)
STOP = cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-4


def misplacement(inputs: np.ndarray, image: np.ndarray, placement: Placement) -> float:
    """Return how far the original image is from where a placement says that it lies in the network's input.

    Edges of the input and of the image are compared on a coarse grid, because changes of color, even inverted ones,
    leave edges in place. The enhanced correlation coefficient (Evangelidis and Psarakis, "Parametric Image Alignment
    Using Enhanced Correlation Coefficient Maximization", 2008) is maximized over affine transforms, beginning at the
    given place, from coarse to fine. A pipeline that scales, crops, rotates or shears without saying so leaves the
    image at a place nearby that fits far better. Where none is found, the image is elsewhere if neither its colors nor
    its edges fit.

    Args:
        inputs: The network's input (C, H, W), padding included; any numbers.
        image: The original image (height, width, 3), uint8.
        placement: Where the image lies in the input.

    Returns:
        Mean distance of pixels from their place, as part of the longer side of the image in the input. 0 if it is below
        0.004, or if nothing can be compared, as the image is tiny or uniform. Infinite if the image was not found.
    """
    seen, expected, inside = on_grid(inputs, image, placement, LONGER_SIDE)
    if not can_compare(expected, inside):
        return 0.0
    seen, expected, inside = _part_with_image(seen, expected, inside)
    seen, expected = (_edges(pixels, inside) for pixels in (seen, expected))
    # Nothing of the padding around a turned image; beside an upright one there is none in this part.
    inside = _without_border(inside.astype(np.uint8), 1)
    seen = seen * inside
    if not seen.any():
        return math.inf
    distance = _distance_to_better_place(seen, expected, inside)
    if distance is None:
        is_elsewhere = _best_shift(seen, expected, inside) > FAR
        return math.inf if is_elsewhere and agreement(inputs, image, placement) < LEAST_AGREEMENT else 0.0
    return distance if distance > LEAST_DISTANCE else 0.0


def _part_with_image(*grids: np.ndarray) -> list[np.ndarray]:
    """The upright part of some grids around the cells of the last one, which says where the image is."""
    rows, columns = (np.flatnonzero(grids[-1].any(axis=axis)) for axis in (1, 0))
    return [grid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for grid in grids]


def _edges(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Strength of edges (rows, columns) float32, over all channels of an image on a grid (rows, columns, channels)."""
    energy = np.zeros(inside.shape, np.float32)
    for channel in np.moveaxis(pixels, 2, 0):
        mean, spread = channel[inside].mean(), channel[inside].std()
        if spread > 1e-6 * np.abs(channel).max():
            smooth = cv2.GaussianBlur((channel - mean) / spread, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)
            across, down = (cv2.Sobel(smooth, cv2.CV_32F, *axis, borderType=cv2.BORDER_REPLICATE) for axis in AXES)
            energy += across**2 + down**2
    return np.sqrt(energy)


def _distance_to_better_place(seen: np.ndarray, expected: np.ndarray, inside: np.ndarray) -> float | None:
    """Mean distance, as part of the longer side, to a place nearby that fits far better; None without one."""
    # A moved image may leave a gap at its old border, filled with a color, whose edge may mislead the first search.
    core = _without_border(inside, 0)
    size, flags = inside.shape[::-1], cv2.WARP_INVERSE_MAP
    for searched in (inside, core):
        warp = _best_warp(seen, expected, searched)
        if warp is None:
            continue
        moved = cv2.warpAffine(expected, warp, size, flags=flags | cv2.INTER_LINEAR)
        overlap = cv2.warpAffine(core, warp, size, flags=flags | cv2.INTER_NEAREST) & inside
        if _unexplained(seen, moved, overlap) < LEAST_GAIN * _unexplained(seen, expected, overlap):
            rows, columns = np.nonzero(inside)
            steps = warp @ np.stack([columns, rows, np.ones_like(rows)]) - np.stack([columns, rows])
            return float(np.hypot(*steps).mean() / max(size))
    return None


def _without_border(inside: np.ndarray, beyond: int) -> np.ndarray:
    """The cells inside that no edge at their border reaches; what is `beyond` the grid is inside (1) or not (0)."""
    return cv2.erode(inside, np.ones((2 * BLUR + 1,) * 2, np.uint8), borderValue=beyond)


def _best_warp(seen: np.ndarray, expected: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    """Affine transform (2, 3) from cells of the input to cells of the image; None if the search does not converge."""
    warp = np.eye(2, 3, dtype=np.float32)
    for shrink in (4, 2, 1):
        size = inside.shape[1] // shrink, inside.shape[0] // shrink
        if min(size) < SMALLEST_SIDE:
            continue
        small_seen, small_expected, covered = (
            cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (seen, expected, inside * 255)
        )
        warp[:, 2] /= shrink
        try:
            _, warp = cv2.findTransformECC(
                templateImage=small_seen,
                inputImage=small_expected,
                warpMatrix=warp,
                motionType=cv2.MOTION_AFFINE,
                criteria=STOP,
                inputMask=(covered > 250).astype(np.uint8),
                gaussFiltSize=5,
            )
        except cv2.error:
            return None
        warp[:, 2] *= shrink
    return warp


def _unexplained(seen: np.ndarray, expected: np.ndarray, inside: np.ndarray) -> float:
    """Part of the variance of the input's edges that those of the image leave unexplained, 0 to 1."""
    cells = inside > 0
    if cells.sum() < LEAST_CELLS:
        return 1.0
    with np.errstate(invalid='ignore'):  # 0 / 0 without edges
        correlation = np.nan_to_num(np.corrcoef(seen[cells], expected[cells])[0, 1])
    return float(1 - max(correlation, 0) ** 2)


def _best_shift(seen: np.ndarray, expected: np.ndarray, inside: np.ndarray) -> float:
    """Distance, as part of the longer side, by which the image has to be shifted so that its edges fit best."""
    cells, size = inside > 0, [2 * side for side in inside.shape]  # so that nothing comes in again on the other side
    spectra = [np.fft.rfft2(np.where(cells, edges - edges[cells].mean(), 0), size) for edges in (seen, expected)]
    correlation = np.fft.irfft2(spectra[0] * np.conj(spectra[1]), size)
    shift = np.unravel_index(correlation.argmax(), correlation.shape)
    return float(np.hypot(*(min(step, side - step) for step, side in zip(shift, size))) / max(inside.shape))
