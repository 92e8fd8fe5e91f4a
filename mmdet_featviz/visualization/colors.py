"""Colors: scales values to heat of 0-1, looks up color maps, lays a colored heatmap over an image."""

from __future__ import annotations

import difflib
from functools import lru_cache

import cv2
import numpy as np

FLOAT32_REACH = 64  # up to here, float32 and OpenCV's resize are exact to a small part of a gray level
FARTHEST = 1e9  # beyond, the error of a position in float64, about 1e-13 cells, would become visible


def to_unit(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Scale values so that `limits` become 0 and 1, to be interpolated and then cut by :func:`quantize`.

    Values outside the limits stay outside: cut before the interpolation, they would move the edges of the heat between
    two cells. NaN and infinite values become 0. If the range is empty (a constant map), all values become 0.

    Returns:
        float32, or float64 if a value is far outside the limits.
    """
    low, high = limits
    if not high > low:
        return np.zeros(values.shape, np.float32)
    # In float64, as the difference of two float32 values may overflow float32.
    finite = np.where(np.isfinite(values), values.astype(np.float64), low)
    with np.errstate(over='ignore'):
        unit = np.clip((finite - low) / (high - low), -FARTHEST, FARTHEST)
    return unit if np.abs(unit).max(initial=0) > FLOAT32_REACH else unit.astype(np.float32)


def quantize(heat: np.ndarray, is_cut: bool = False) -> np.ndarray:
    """Cut heat to 0-1 and convert it to gray levels 0-255, uint8.

    They are rounded down, as published code does (``np.uint8(255 * heat)``).

    Args:
        heat: Heat, of any shape.
        is_cut: Whether it lies between 0 and 1, except for rounding errors.
    """
    if not is_cut:
        heat = np.clip(heat, 0, 1)
    gray = np.empty(heat.shape, np.uint8)
    # Writing into `gray` avoids a second float array of the size of the picture.
    return np.multiply(heat, np.float32(255), out=gray, casting='unsafe')


@lru_cache(maxsize=None)
def get_colormap(name: str) -> np.ndarray:
    """Lookup table (256, 1, 3), BGR, uint8, of an OpenCV color map or, if OpenCV lacks it, a matplotlib one.

    Raises:
        ValueError: If neither library has a color map of this name.
    """
    opencv = {key[9:].lower(): value for key, value in vars(cv2).items() if key.startswith('COLORMAP_')}
    if str(name).lower() in opencv:
        return cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], opencv[name.lower()])
    from matplotlib import colormaps  # imported here because it is slow to import

    if name in colormaps:
        # As numbers from 0 to 1: whole numbers would count the colors of the map, of which there may be 10 or 510.
        rgb = np.round(colormaps[name](np.linspace(0, 1, 256))[:, None, :3] * 255)
        return np.ascontiguousarray(rgb[..., ::-1].astype(np.uint8))
    known = sorted({*opencv, *colormaps})
    examples = ', '.join(difflib.get_close_matches(str(name), known, n=5)) or ', '.join(sorted(opencv))
    raise ValueError(f'unknown color map {name!r}: use one of OpenCV or matplotlib, for example {examples}')


def overlay(
    image: np.ndarray,
    heat: np.ndarray,
    alpha: float,
    blend: str,
    out: np.ndarray | None = None,
    gray: np.ndarray | None = None,
) -> np.ndarray:
    """Lay a colored heatmap over an image of the same size.

    Args:
        image: (H, W, 3), uint8.
        heat: (H, W, 3), uint8.
        alpha: Weight of the heatmap, 0 to 1.
        blend: ``alpha`` for ``(1 - alpha) * image + alpha * heat``, ``fade`` for the same with the weight ``alpha *
            gray / 255`` at each pixel, or ``add`` for ``image + alpha * heat``, clipped.
        out: (H, W, 3), uint8, contiguous; the result is written there. None makes a new array.
        gray: (H, W), uint8: the heat before it was colored, for ``fade``.
    """
    if blend == 'fade':
        weight = gray * np.float32(alpha / 255)
        return cv2.blendLinear(image, heat, 1 - weight, weight, out)
    return cv2.addWeighted(image, 1.0 if blend == 'add' else 1 - alpha, heat, alpha, 0, out)
