"""Colors: from values to a colored heatmap, and its overlay on the image."""

from __future__ import annotations

import difflib
from functools import lru_cache

import cv2
import numpy as np


def to_unit(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Map the range `limits` to 0-1, float32, values outside cut.

    What is not finite becomes zero heat, and so does everything where the range is empty (a constant map).
    """
    low, high = limits
    if not high > low:
        return np.zeros(values.shape, np.float32)
    # In float64, where the difference of two float32 cannot overflow.
    unit = (np.clip(values.astype(np.float64), low, high) - low) / (high - low)
    return np.where(np.isfinite(values), unit, 0).astype(np.float32)


def quantize(heat: np.ndarray) -> np.ndarray:
    """Heat 0-1 as grey levels 0-255, uint8, cut off as the published recipes do it (``np.uint8(255 * heat)``)."""
    grey = np.empty(heat.shape, np.uint8)
    # Cast piece by piece, without a second float picture in memory.
    return np.multiply(heat, np.float32(255), out=grey, casting='unsafe')


@lru_cache(maxsize=None)
def get_colormap(name: str) -> np.ndarray:
    """Look-up table (256, 1, 3) of an OpenCV color map or, where OpenCV has none of that name, a matplotlib one.

    Raises:
        ValueError: If neither has it.
    """
    opencv = {key[9:].lower(): value for key, value in vars(cv2).items() if key.startswith('COLORMAP_')}
    if str(name).lower() in opencv:
        return cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], opencv[name.lower()])
    from matplotlib import colormaps  # comes with mmdet; slow to import, so only where it is asked for

    if name in colormaps:
        rgb = np.round(colormaps[name](np.arange(256))[:, None, :3] * 255)
        return np.ascontiguousarray(rgb[..., ::-1].astype(np.uint8))
    known = sorted({*opencv, *colormaps})
    close = ', '.join(difflib.get_close_matches(str(name), known, n=5)) or ', '.join(sorted(opencv))
    raise ValueError(f'unknown color map {name!r}: OpenCV and matplotlib have, among others, {close}')


def overlay(image: np.ndarray, heat: np.ndarray, alpha: float, blend: str) -> np.ndarray:
    """Lay colored heat over a image of the same size.

    Args:
        image: (H, W, 3).
        heat: (H, W, 3).
        alpha: Weight of the heat, 0 to 1.
        blend: ``alpha`` is ``(1 - alpha) * image + alpha * heat``, ``add`` is ``image + alpha * heat``, saturated.
    """
    return cv2.addWeighted(image, 1.0 if blend == 'add' else 1 - alpha, heat, alpha, 0)
