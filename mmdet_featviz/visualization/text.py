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
        background: BGR color behind the text; None for none.
    """

    text: str
    position: tuple[int, int]
    size: int
    color: tuple[int, int, int]
    background: tuple[int, int, int] | None = None


# Common system fonts for letters that DejaVu Sans lacks, mainly Chinese, Japanese and Korean.
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


BASELINE, LINE_HEIGHT = 0.93, 1.2  # of DejaVu Sans, in font sizes below the top of a line


def _font_for(text: str, size: int):
    return _font(size, not text.isascii() and not _dejavu_letters().issuperset(map(ord, text)))


@lru_cache(maxsize=None)
def _font(size: int, beyond_dejavu: bool = False):
    """Load DejaVu Sans, which comes with matplotlib, or for letters that it lacks a font of the system."""
    from PIL import ImageFont  # has smooth fonts; OpenCV only has stroke fonts

    return ImageFont.truetype((beyond_dejavu and _system_font()) or _dejavu_path(), size)


def _dejavu_path() -> str:
    import matplotlib  # imported here because it is slow to import

    return osp.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')


@lru_cache(maxsize=None)
def _dejavu_letters() -> frozenset[int]:
    """Code points of the letters of DejaVu Sans: Latin, Greek, Cyrillic and more, but no Chinese."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_dejavu_path()).get_charmap())


@lru_cache(maxsize=None)
def _system_font() -> str | None:
    """The first of `FALLBACK_FONTS` that the system has; None, with a warning, if it has none."""
    from PIL import ImageFont

    for name in FALLBACK_FONTS:
        try:
            ImageFont.truetype(name, CAPTION_SIZE)
            return name
        except OSError:
            continue
    print_log(
        f'no font has all letters of the labels: install one of {", ".join(FALLBACK_FONTS[:5])}',
        'current',
        logging.WARNING,
    )
    return None


def text_size(picture: np.ndarray) -> int:
    """Font size in pixels of text on a picture (H, W, 3), by which it is read where the whole picture is seen."""
    return max(SMALLEST_TEXT, round(min(picture.shape[:2]) / 36))


def draw_texts(picture: np.ndarray, texts: Sequence[Text]) -> np.ndarray:
    """Draw lines of text on a copy of the picture; text that would cross an edge is moved inside."""
    from PIL import Image, ImageDraw

    picture = picture.copy()
    for text in texts:
        width, height = text_width(text.text, text.size), line_height(text.size)
        left = max(0, min(text.position[0], picture.shape[1] - width))
        top = max(0, min(text.position[1], picture.shape[0] - height))
        place = picture[top : top + height, left : left + width]
        if text.background is not None:
            place[:] = text.background
        image, font = Image.fromarray(np.ascontiguousarray(place[..., ::-1])), _font_for(text.text, text.size)
        baseline = 3, 1 + round(BASELINE * text.size)  # fonts differ in how far it is below the top
        ImageDraw.Draw(image).text(baseline, _one_line(text.text), tuple(text.color[::-1]), font, 'ls')
        place[:] = np.asarray(image)[..., ::-1]
    return picture


def text_width(text: str, size: int) -> int:
    """Width of a drawn line of text, in pixels."""
    text = _one_line(text)
    return math.ceil(_font_for(text, size).getlength(text)) + 6


def _one_line(text: str) -> str:
    """The text without the ends of lines that a name may have; Pillow raises an error for some of them."""
    return ' '.join(text.splitlines())


def line_height(size: int) -> int:
    """Height of a drawn line of text, in pixels."""
    return math.ceil(LINE_HEIGHT * size) + 2


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
