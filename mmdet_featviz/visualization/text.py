"""Text: draws, measures and wraps lines of text on pictures."""

from __future__ import annotations

import logging
import math
import os.path as osp
from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence

import numpy as np
from mmengine.logging import print_log

CAPTION_SIZE, TITLE_SIZE, LINE_SPACING, SMALLEST_TEXT = 14, 20, 6, 11  # pixels


@dataclass(frozen=True)
class Text:
    """A line of text.

    Attributes:
        text: The line.
        position: Top left corner (x, y), in pixels.
        size: Font size in pixels.
        color: BGR.
        background: BGR color that is darkened and drawn behind the text; None for no background.
    """

    text: str
    position: tuple[int, int]
    size: int
    color: tuple[int, int, int]
    background: tuple[int, int, int] | None = None


# Common system fonts for letters that the built-in font lacks, mainly Chinese, Japanese and Korean.
FALLBACK_FONTS = (
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
    return _font(size, beyond_latin=max(map(ord, text), default=0) > 0x24F)


@lru_cache(maxsize=None)
def _font(size: int, beyond_latin: bool = False):
    """Load the built-in font or, for letters beyond Latin, the first of `FALLBACK_FONTS` that the system has."""
    from PIL import ImageFont  # has smooth fonts; OpenCV only has stroke fonts

    for name in FALLBACK_FONTS if beyond_latin else ():
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    if beyond_latin:
        print_log(
            f'no font for letters beyond Latin: install one of {", ".join(FALLBACK_FONTS[:5])}',
            'current',
            logging.WARNING,
        )
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow before 10.1 or without FreeType has one size only
        return _matplotlib_font(size) or ImageFont.load_default()


def _matplotlib_font(size: int):
    """Load the font that comes with matplotlib; None if Pillow cannot read it."""
    import matplotlib
    from PIL import ImageFont

    try:
        return ImageFont.truetype(osp.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf'), size)
    except (ImportError, OSError):
        return None


def text_size(picture: np.ndarray) -> int:
    """Font size in pixels of text on a picture (H, W, 3), by which it is read where the whole picture is seen."""
    return max(SMALLEST_TEXT, round(min(picture.shape[:2]) / 36))


def draw_texts(picture: np.ndarray, texts: Sequence[Text]) -> np.ndarray:
    """Draw lines of text on a copy of the picture; text that would cross an edge is moved inside."""
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
    """Width of a drawn line of text, in pixels."""
    return math.ceil(_font_for(text, size).getlength(text)) + 6


def wrap_lines(lines: Sequence[str], width: int, size: int = CAPTION_SIZE) -> list[str]:
    """Wrap lines to a width in pixels, after a dot, comma, underscore, slash or blank if possible."""
    wrapped = []
    for line in lines:
        while text_width(line, size) > width and len(line) > 1:
            fits = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or text_width(line[:n], size) <= width)
            split = max(line.rfind(sign, 0, fits) for sign in '.,_/ ') + 1
            split = split if split > fits // 3 else fits
            wrapped.append(line[:split])
            line = line[split:]
        wrapped.append(line)
    return wrapped
