"""Text on pictures."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence

import numpy as np
from mmengine.logging import print_log

CAPTION_SIZE, TITLE_SIZE, LEADING = 14, 20, 6  # pixels


@dataclass(frozen=True)
class Text:
    """A line of text.

    Attributes:
        text: The line.
        position: Its top left corner (x, y).
        size: Height in pixels.
        color: BGR.
        background: BGR of a darkened area behind it, if any.
    """

    text: str
    position: tuple[int, int]
    size: int
    color: tuple[int, int, int]
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
        draw.text((x + 3, y + 1), line, fill=tuple(text.color[::-1]), font=font)
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


def text_width(text: str, size: int) -> int:
    """Pixels that a line of text takes."""
    return math.ceil(_font_for(text, size).getlength(text)) + 6


def wrap_lines(lines: Sequence[str], width: int, size: int = CAPTION_SIZE) -> list[str]:
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
