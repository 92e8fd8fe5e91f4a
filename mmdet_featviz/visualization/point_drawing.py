"""Point drawing: dots on pictures, whose areas stand for weights."""

from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np

SUBPIXEL = 4  # bits of OpenCV's fixed-point positions and radii
INNER, OUTER = (255, 255, 255), (0, 0, 0)


def draw_points(picture: np.ndarray, size: tuple[int, int], points: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """Draw points on a copy of a picture; those outside the image are left out.

    Args:
        picture: (H, W, 3), BGR, uint8; the image is at its top left.
        size: (height, width) of the image.
        points: (x, y, weight) of each, in pixels of the image.
    """
    picture, (height, width) = picture.copy(), size
    seen = [point for point in points if 0 <= point[0] <= width and 0 <= point[1] <= height]
    largest = max((weight for *_, weight in seen), default=0.0)
    if not largest:
        return picture
    radius = max(3.0, min(size) / 80)
    image = picture[:height, :width]
    for x, y, weight in sorted(seen, key=lambda point: point[2]):  # the largest weights on top
        own = max(radius * (weight / largest) ** 0.5, 0.75)
        # OpenCV counts from the middle of the first pixel.
        center = tuple(round((place - 0.5) * 2**SUBPIXEL) for place in (x, y))
        for color, rim in ((OUTER, 1), (INNER, 0)):  # a dark rim keeps a dot visible on any color
            cv2.circle(image, center, round((own + rim) * 2**SUBPIXEL), color, cv2.FILLED, cv2.LINE_AA, SUBPIXEL)
    return picture
