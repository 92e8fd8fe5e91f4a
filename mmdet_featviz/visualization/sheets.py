"""Sheets: contact sheets of captioned tiles, headings, and color bars beside a picture."""

from __future__ import annotations

from typing import Sequence, Tuple

import cv2
import numpy as np

from mmdet_featviz.visualization.round_ticks import round_ticks
from mmdet_featviz.visualization.text import (
    BASELINE,
    CAPTION_SIZE,
    LINE_SPACING,
    TITLE_SIZE,
    Text,
    draw_texts,
    line_height,
    text_size,
    text_width,
    wrap_lines,
)

TILE_SIZE, MIN_TILE_WIDTH, GAP, MAX_COLUMNS = 320, 240, 6, 6
TEXT_COLOR, BAR_WIDTH, TICK, MAX_TICKS = (30, 30, 30), 14, 3, 6
CaptionedTile = Tuple[Sequence[str], np.ndarray]


def shrink_to_tile(picture: np.ndarray, longest: int = TILE_SIZE) -> np.ndarray:
    """Resize a picture to a tile whose longer side has `longest` pixels."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def make_sheet(
    rows: Sequence[Sequence[CaptionedTile | None]], title: str = '', columns: int = MAX_COLUMNS, scale: float = 1.0
) -> np.ndarray:
    """Arrange captioned tiles on a contact sheet.

    Args:
        rows: Rows of (lines of the caption, tile (h, w, 3)); all tiles have the same size. None leaves a place empty. A
            row with more places than `columns` continues on the next line. A line of a caption that is too wide is
            wrapped.
        title: Heading above all tiles.
        columns: Largest number of tiles side by side.
        scale: Size of the text, relative to that beside tiles of `TILE_SIZE`.

    Returns:
        (H, W, 3), BGR, uint8, with a white background.
    """
    lines = [row[start : start + columns] for row in rows for start in range(0, len(row), columns)]
    height, width = next(place for line in lines for place in line if place)[1].shape[:2]
    size, pitch_down = round(CAPTION_SIZE * scale), round((CAPTION_SIZE + LINE_SPACING) * scale)
    pitch = max(width, round(MIN_TILE_WIDTH * scale)) + GAP
    captions = [[wrap_lines(place[0], pitch - GAP - 6, size) if place else [] for place in line] for line in lines]
    sheet_width = GAP + pitch * max(map(len, lines))
    top = make_heading(title, sheet_width, scale)
    texts, strips, y = [], [], 0
    for line, wrapped in zip(lines, captions):
        caption_height = max(map(len, wrapped)) * pitch_down + 2
        strip = np.full((caption_height + height + GAP, sheet_width, 3), 255, np.uint8)
        for column, (place, words) in enumerate(zip(line, wrapped)):
            x = GAP + column * pitch
            if place:
                strip[caption_height : caption_height + height, x : x + width] = place[1]
            for number, text in enumerate(words):
                texts.append(Text(text, (x - 3, y + number * pitch_down), size, TEXT_COLOR))
        strips.append(strip)
        y += len(strip)
    return np.concatenate([top, draw_texts(np.concatenate(strips), texts)])


def make_heading(title: str, width: int, scale: float = 1.0) -> np.ndarray:
    """A white strip (h, width, 3) with a title, wrapped to as many lines as it needs."""
    size, pitch = round(TITLE_SIZE * scale), round((TITLE_SIZE + LINE_SPACING) * scale)
    lines = wrap_lines([title], width - 2 * GAP - 6, size) if title else []
    texts = [Text(text, (GAP, GAP + k * pitch), size, TEXT_COLOR) for k, text in enumerate(lines)]
    return draw_texts(np.full((GAP + len(lines) * pitch, width, 3), 255, np.uint8), texts)


def add_colorbar(
    picture: np.ndarray,
    colormap: np.ndarray,
    limits: tuple[float, float],
    font_size: float | None = None,
    room: str = '',
) -> np.ndarray:
    """Put a color bar to the right of a picture, with ticks at round numbers.

    Args:
        picture: (H, W, 3), BGR, uint8.
        colormap: (256, 1, 3), BGR.
        limits: Values at its ends.
        font_size: Size of its numbers in pixels, and so of the whole bar; None follows the size of the picture.
        room: A number for which there is room in any case.
    """
    height, (low, high) = len(picture), limits
    size = min(round(font_size or max(CAPTION_SIZE, text_size(picture))), max(8, height // 8))
    gap, bar, tick, line = (max(1, round(length * size / CAPTION_SIZE)) for length in (GAP, BAR_WIDTH, TICK, 1))
    ticks = round_ticks(low, high, min(max(height // (3 * size), 2), MAX_TICKS))
    width = 3 * gap + bar + tick + max(text_width(text, size) for text in [room, *(text for _, text in ticks)])
    strip = np.full((height, width, 3), 255, np.uint8)
    middle = round(BASELINE * size) + 1 - round(0.365 * size)  # of digits, below the top of their line
    top, bottom = middle, height - line_height(size) + middle
    steps = np.linspace(255, 0, max(bottom - top, 1)).round().astype(np.uint8)
    strip[top : top + len(steps), gap : gap + bar] = colormap[steps]
    texts = []
    for value, text in ticks:
        share = (value - low) / (high - low) if high > low else 0.0
        y = top + round((1 - share) * (len(steps) - 1))
        strip[y - line // 2 : y - line // 2 + line, gap + bar : gap + bar + tick] = TEXT_COLOR
        texts.append(Text(text, (gap + bar + tick, y - middle), size, TEXT_COLOR))
    return np.concatenate([picture, draw_texts(strip, texts)], axis=1)
