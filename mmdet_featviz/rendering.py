"""Rendering: ranges, colour maps, overlays, boxes and panels. Pictures are BGR uint8."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Callable, Sequence

import cv2
import numpy as np
from mmengine.logging import print_log

TILE_SIZE, MIN_PITCH, LABEL_HEIGHT, GAP, MAX_COLUMNS = 320, 240, 24, 6, 6


def finite_range(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value; (0, 0) if there is none."""
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


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


def quantise(heat: np.ndarray) -> np.ndarray:
    """Heat 0-1 as grey levels 0-255, uint8, cut off as the published recipes do it (``np.uint8(255 * heat)``)."""
    return (heat * np.float32(255)).astype(np.uint8)


def get_colormap(name: str) -> np.ndarray:
    """Look-up table (256, 1, 3) of an OpenCV colour map or, where OpenCV has none of that name, a matplotlib one.

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
    raise ValueError(f'unknown colour map {name!r}: OpenCV and matplotlib have, among others, {close}')


def overlay(photo: np.ndarray, heat: np.ndarray, alpha: float, blend: str) -> np.ndarray:
    """Lay coloured heat over a photo of the same size.

    Args:
        photo: (H, W, 3).
        heat: (H, W, 3).
        alpha: Weight of the heat, 0 to 1.
        blend: ``alpha`` is ``(1 - alpha) * photo + alpha * heat``, ``add`` is ``photo + alpha * heat``, saturated.
    """
    return cv2.addWeighted(photo, 1.0 if blend == 'add' else 1 - alpha, heat, alpha, 0)


@dataclass(frozen=True)
class Text:
    """A line of text.

    Attributes:
        text: The line.
        position: Its top left corner (x, y).
        size: Height in pixels.
        colour: BGR.
        background: BGR of a darkened area behind it, if any.
        max_width: Pixels that it may take; a longer line loses its beginning.
    """

    text: str
    position: tuple[int, int]
    size: int
    colour: tuple[int, int, int]
    background: tuple[int, int, int] | None = None
    max_width: int | None = None


# Fonts that systems bring along for what the built-in one lacks, Chinese, Japanese and Korean above all.
WIDE_FONTS = (
    'NotoSansCJK-Regular.ttc',
    'NotoSansSC-Regular.otf',
    'SourceHanSansSC-Regular.otf',
    'wqy-microhei.ttc',
    'wqy-zenhei.ttc',
    'DroidSansFallbackFull.ttf',
    'msyh.ttc',
    'simhei.ttf',
    'PingFang.ttc',
    'Arial Unicode.ttf',
)


@lru_cache(maxsize=None)
def _font(size: int, wide: bool = False):
    """The built-in font, or for letters beyond Latin one of the system's, if it has any."""
    from PIL import ImageFont  # comes with mmcv; smooth letters, where OpenCV's are strokes

    for name in WIDE_FONTS if wide else ():
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    if wide:
        print_log(
            f'no font for letters beyond Latin: install one of {", ".join(WIDE_FONTS[:5])}', 'current', logging.WARNING
        )
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow before 10.1, or without FreeType: one size only
        return ImageFont.load_default()


def draw_texts(picture: np.ndarray, texts: Sequence[Text]) -> np.ndarray:
    """A copy of the picture with lines of text, each moved inside where it would cross the edge."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))
    draw = ImageDraw.Draw(image)
    for text in texts:
        font, line = _font(text.size, wide=max(map(ord, text.text), default=0) > 0x24F), text.text
        while text.max_width and len(line) > 3 and draw.textlength(line, font=font) > text.max_width:
            line = f'..{line[3:]}'
        x = max(0, min(text.position[0], image.width - int(draw.textlength(line, font=font)) - 6))
        y = max(0, min(text.position[1], image.height - text.size - 5))
        if text.background is not None:
            left, _, right, _ = draw.textbbox((x + 3, y), line, font=font)
            shade = tuple(int(value * 0.55) for value in text.background[::-1])
            draw.rectangle((left - 3, y, right + 2, y + text.size + 4), fill=shade)
        draw.text((x + 3, y + 1), line, fill=tuple(text.colour[::-1]), font=font)
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


def panel(
    rows: Sequence[Sequence[tuple[str, np.ndarray]]],
    decorate: Callable[[np.ndarray, float], np.ndarray] = lambda tile, scale: tile,
) -> np.ndarray:
    """A contact sheet of captioned pictures.

    Args:
        rows: Captions and pictures (H, W, 3), all of one size. A row of more than six tiles goes on in the next line.
        decorate: Draws onto a tile, given its scale: what would become too small if drawn before.

    Returns:
        White sheet (H, W, 3).
    """
    lines = [row[start : start + MAX_COLUMNS] for row in rows for start in range(0, len(row), MAX_COLUMNS)]
    height, width = rows[0][0][1].shape[:2]
    scale = TILE_SIZE / max(height, width)
    tile_height, tile_width = max(1, round(height * scale)), max(1, round(width * scale))
    pitch_x, pitch_y = max(tile_width, MIN_PITCH) + GAP, tile_height + LABEL_HEIGHT + GAP
    columns = max(len(line) for line in lines)
    sheet = np.full((GAP + len(lines) * pitch_y, GAP + columns * pitch_x, 3), 255, np.uint8)
    texts = []
    for number, line in enumerate(lines):
        for column, (caption, picture) in enumerate(line):
            x, y = GAP + column * pitch_x, GAP + number * pitch_y
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            tile = cv2.resize(picture, (tile_width, tile_height), interpolation=method)
            sheet[y + LABEL_HEIGHT : y + LABEL_HEIGHT + tile_height, x : x + tile_width] = decorate(tile, scale)
            texts.append(Text(caption, (x, y + 2), 14, (30, 30, 30), max_width=pitch_x - GAP - 6))
    return draw_texts(sheet, texts)
