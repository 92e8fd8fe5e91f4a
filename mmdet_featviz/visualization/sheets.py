"""Sheets: tiles with captions, titles and color bars."""

from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np

from mmdet_featviz.visualization.text import (
    CAPTION_SIZE,
    LEADING,
    TITLE_SIZE,
    Text,
    draw_texts,
    text_width,
    wrap_lines,
)

TILE_SIZE, MIN_PITCH, GAP, MAX_COLUMNS = 320, 240, 6, 6
INK, BAR_WIDTH = (30, 30, 30), 14


def shrink_to_tile(picture: np.ndarray, longest: int = TILE_SIZE) -> np.ndarray:
    """The picture as a tile whose longer side has so many pixels."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def make_sheet(
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
    captions = [[wrap_lines(caption, pitch - GAP - 6) for caption, _ in line] for line in lines]
    whole_width = GAP + pitch * max(map(len, lines))
    top = make_heading(title, whole_width)
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


def make_heading(title: str, width: int) -> np.ndarray:
    """A white strip (h, width, 3) with a title, in as many lines as it takes."""
    lines = wrap_lines([title], width - 2 * GAP - 6, TITLE_SIZE) if title else []
    texts = [Text(text, (GAP, GAP + k * (TITLE_SIZE + LEADING)), TITLE_SIZE, INK) for k, text in enumerate(lines)]
    return draw_texts(np.full((GAP + len(lines) * (TITLE_SIZE + LEADING), width, 3), 255, np.uint8), texts)


def add_colorbar(picture: np.ndarray, colormap: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """The picture with a bar of the colors beside it, and the values that its ends and its middle stand for."""
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
