"""Unseen pixels: hatches the parts of a picture that the network did not see, as the pipeline cropped them away."""

from __future__ import annotations

import numpy as np

UNSEEN = 'hatched: not seen by the network'  # for captions
LINES = 40  # along the longer side of a picture


def hatch_unseen(
    picture: np.ndarray, seen: np.ndarray, image: np.ndarray | None = None, alpha: float = 0.5
) -> np.ndarray:
    """Replace unseen pixels of a heatmap or overlay by those of the image, with light and dark diagonal lines over it.

    Args:
        picture: (H, W, 3), uint8; changed in place.
        seen: (H, W), bool.
        image: (H, W, 3), uint8; None leaves unseen pixels white.
        alpha: Weight of the lines, 0 to 1.

    Returns:
        The picture.
    """
    if seen.all():
        return picture
    period = max(8, round(max(seen.shape) / LINES))
    width = max(1, period // 8)
    diagonal = np.add.outer(np.arange(seen.shape[0]), np.arange(seen.shape[1])) % period
    picture[~seen] = 255 if image is None else image[~seen]
    # Two shades, one of which is visible on any image.
    for first, shade in ((0, 255), (width, 0)):
        line = ~seen & (first <= diagonal) & (diagonal < first + width)
        picture[line] = (1 - alpha) * picture[line] + alpha * shade
    return picture


def unseen_caption(seen: np.ndarray) -> list[str]:
    """The line of a caption that explains the hatching; none if the network saw the whole image."""
    return [] if seen.all() else [UNSEEN]
