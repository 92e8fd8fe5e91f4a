"""Image path: the path of an image in mmdet's meta information, as text."""

from __future__ import annotations

import os
from typing import Any, Mapping


def image_path(meta: Mapping[str, Any]) -> str | None:
    """Return the path or URL of an image; None for an array, or for anything that is no path.

    Args:
        meta: Meta information of the image. Its ``img_path`` may be a ``pathlib.Path`` or bytes, or a list: the files
            of a multi-channel image, of which the first stands for the image.
    """
    path = meta.get('img_path')
    if isinstance(path, (list, tuple)):
        path = path[0] if path else None
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else None
