"""Rendering: ranges, colour maps, overlays, boxes and panels. Pictures are BGR uint8."""

from __future__ import annotations

import difflib
import logging
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence

import cv2
import numpy as np
from mmengine.logging import print_log

TILE_SIZE, MIN_PITCH, GAP, MAX_COLUMNS = 320, 240, 6, 6
CAPTION_SIZE, TITLE_SIZE, LEADING = 14, 20, 6
INK, BAR_WIDTH = (30, 30, 30), 14


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
    grey = np.empty(heat.shape, np.uint8)
    # Cast piece by piece, without a second float picture in memory.
    return np.multiply(heat, np.float32(255), out=grey, casting='unsafe')


@lru_cache(maxsize=None)
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
    """

    text: str
    position: tuple[int, int]
    size: int
    colour: tuple[int, int, int]
    background: tuple[int, int, int] | None = None


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


def _font_for(text: str, size: int):
    return _font(size, wide=max(map(ord, text), default=0) > 0x24F)


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
        font, line = _font_for(text.text, text.size), text.text
        x = max(0, min(text.position[0], image.width - int(draw.textlength(line, font=font)) - 6))
        y = max(0, min(text.position[1], image.height - text.size - 5))
        if text.background is not None:
            left, _, right, _ = draw.textbbox((x + 3, y), line, font=font)
            shade = tuple(int(value * 0.55) for value in text.background[::-1])
            draw.rectangle((left - 3, y, right + 2, y + text.size + 4), fill=shade)
        draw.text((x + 3, y + 1), line, fill=tuple(text.colour[::-1]), font=font)
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


def shrink(picture: np.ndarray, longest: int = TILE_SIZE) -> np.ndarray:
    """The picture as a tile whose longer side has so many pixels."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def sheet(
    rows: Sequence[Sequence[tuple[Sequence[str], np.ndarray]]], title: str = '', columns: int = MAX_COLUMNS
) -> np.ndarray:
    """A contact sheet of captioned tiles.

    Args:
        rows: Lines of a caption and tile (h, w, 3), all tiles of one size. A row of more tiles than columns goes on in
            the next line. A caption's line that is too wide is broken, at a dot or comma where there is one.
        title: Above all tiles.

    Returns:
        White sheet (H, W, 3).
    """
    lines = [row[start : start + columns] for row in rows for start in range(0, len(row), columns)]
    height, width = rows[0][0][1].shape[:2]
    pitch = max(width, MIN_PITCH) + GAP
    captions = [[_broken(caption, pitch - GAP - 6) for caption, _ in line] for line in lines]
    whole_width = GAP + pitch * max(map(len, lines))
    top = heading(title, whole_width)
    texts, strips, y = [], [], 0
    for line, wrapped in zip(lines, captions):
        label_height = max(map(len, wrapped)) * (CAPTION_SIZE + LEADING) + 2
        strip = np.full((label_height + height + GAP, whole_width, 3), 255, np.uint8)
        for column, ((_, tile), words) in enumerate(zip(line, wrapped)):
            x = GAP + column * pitch
            strip[label_height : label_height + height, x : x + width] = tile
            for number, text in enumerate(words):
                texts.append(Text(text, (x - 3, y + number * (CAPTION_SIZE + LEADING)), CAPTION_SIZE, INK))
        strips.append(strip)
        y += len(strip)
    return np.concatenate([top, draw_texts(np.concatenate(strips), texts)])


def heading(title: str, width: int) -> np.ndarray:
    """A white strip (h, width, 3) with a title, in as many lines as it takes."""
    lines = _broken([title], width - 2 * GAP - 6, TITLE_SIZE) if title else []
    texts = [Text(text, (GAP, GAP + k * (TITLE_SIZE + LEADING)), TITLE_SIZE, INK) for k, text in enumerate(lines)]
    return draw_texts(np.full((GAP + len(lines) * (TITLE_SIZE + LEADING), width, 3), 255, np.uint8), texts)


def with_colorbar(picture: np.ndarray, colormap: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """The picture with a bar of the colours beside it, and the values that its ends and its middle stand for."""
    height = len(picture)
    size = min(CAPTION_SIZE, max(8, height // 8))
    ends = [f'{value:.4g}' for value in (limits[1], sum(limits) / 2, limits[0])]
    width = 3 * GAP + BAR_WIDTH + max(text_width(text, size) for text in ends)
    strip = np.full((height, width, 3), 255, np.uint8)
    top, bottom = size // 2 + 2, height - size // 2 - 4
    steps = np.linspace(255, 0, max(bottom - top, 1)).round().astype(np.uint8)
    strip[top : top + len(steps), GAP : GAP + BAR_WIDTH] = colormap[steps]
    marks = [(top, ends[0]), ((top + bottom) // 2, ends[1]), (bottom, ends[2])]
    texts = [Text(text, (GAP + BAR_WIDTH + 2, y - size // 2 - 2), size, INK) for y, text in marks]
    return np.concatenate([picture, draw_texts(strip, texts)], axis=1)


def text_width(text: str, size: int) -> int:
    """Pixels that a line of text takes."""
    return math.ceil(_font_for(text, size).getlength(text)) + 6


def _broken(lines: Sequence[str], width: int, size: int = CAPTION_SIZE) -> list[str]:
    """The lines, each broken into as many as it takes to fit a width."""
    broken = []
    for line in lines:
        while text_width(line, size) > width and len(line) > 1:
            fits = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or text_width(line[:n], size) <= width)
            at = max(line.rfind(sign, 0, fits) for sign in '.,_/ ') + 1
            at = at if at > fits // 3 else fits
            broken.append(line[:at])
            line = line[at:]
        broken.append(line)
    return broken
