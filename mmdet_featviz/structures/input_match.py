"""Input match: measures how well the network's input shows the original image under a placement."""

from __future__ import annotations

import cv2
import numpy as np

from mmdet_featviz.structures.placement import Placement

LONGER_SIDE = 64  # of the coarse grid on which input and image are compared
LEAST_CELLS = 32  # with fewer, any fit is good by chance
LEAST_CONTRAST = 1.0  # gray levels: standard deviation of an image that can be compared


def agreement(inputs: np.ndarray, image: np.ndarray, placement: Placement) -> float:
    """Return how much of the input's variation the original image explains, if it lies where a placement says.

    The image is brought into the input with the placement, and both are averaged over the cells of a coarse grid. Each
    channel of the input is then fitted by a linear combination of the image's channels and a constant, with least
    squares. The result is the coefficient of determination R² of the fit. So it does not depend on normalization, on
    brightness and contrast of each channel, on the order of the channels or on a conversion to gray.

    Args:
        inputs: The network's input (C, H, W), padding included; any numbers.
        image: The original image (height, width, 3), uint8.
        placement: Where the image lies in the input.

    Returns:
        From 0, nothing in common, to 1; NaN if what the input has of the image is uniform or less than 32 cells, so
        that nothing can be compared.
    """
    seen, expected, inside = on_grid(inputs, image, placement, LONGER_SIDE)
    if not can_compare(expected, inside):
        return float('nan')
    known, targets = expected[inside].astype(np.float64), seen[inside].astype(np.float64)
    spread = targets.std(axis=0)
    varying = spread > 1e-6 * np.abs(targets).max()
    if not varying.any():
        return 0.0
    targets = (targets - targets.mean(axis=0))[:, varying] / spread[varying]
    known = known - known.mean(axis=0)
    residuals = targets - known @ np.linalg.lstsq(known, targets, rcond=None)[0]
    return float(1 - np.mean(residuals**2))


def on_grid(
    inputs: np.ndarray, image: np.ndarray, placement: Placement, longer_side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the input, and the image that a placement brings into it, over the cells of a coarse grid.

    Args:
        inputs: As for :func:`agreement`, like the next two.
        image: The original image.
        placement: Where it lies in the input.
        longer_side: Number of cells along the longer side; not more than the input has pixels.

    Returns:
        The input (rows, columns, C) float32, the image (rows, columns, 3) float32, and which cells lie entirely in the
        image (rows, columns), bool.
    """
    height, width = placement.input_size
    expected, covered = (
        cv2.warpPerspective(pixels, placement.opencv_matrix, (width, height), flags=cv2.INTER_LINEAR)
        for pixels in (image, np.full(image.shape[:2], 255, np.uint8))
    )
    shrink = min(1.0, longer_side / max(height, width))
    grid = max(1, round(width * shrink)), max(1, round(height * shrink))
    seen, expected, covered = (
        cv2.resize(np.ascontiguousarray(pixels, np.float32), grid, interpolation=cv2.INTER_AREA)
        for pixels in (inputs.transpose(1, 2, 0), expected, covered)
    )
    inside = covered > 254
    return seen.reshape(*inside.shape, -1), expected, inside


def can_compare(expected: np.ndarray, inside: np.ndarray) -> bool:
    """Whether an image on a grid, as :func:`on_grid` returns it, has enough cells and enough contrast."""
    known = expected[inside]
    return len(known) >= LEAST_CELLS and bool(known.std(axis=0).max() >= LEAST_CONTRAST)
