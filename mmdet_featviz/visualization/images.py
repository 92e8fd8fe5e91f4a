"""Original images: read from their files, or rebuilt from the network's input."""

from __future__ import annotations

import io
from typing import Callable

import cv2
import numpy as np
from mmengine import fileio
from torch import Tensor, nn

from mmdet_featviz.structures.placement import Placement

# Colour whatever the file holds (grey becomes three channels, alpha is dropped), at the depth of the file.
COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
ORIENTATION_TAG = 0x0112


class ImageError(Exception):
    """A photo that cannot be shown: missing, corrupt, or not the one that the network saw."""


def read_image(
    path: str, size: tuple[int, int], backend_args: dict | None = None, seen: Callable[[], np.ndarray] | None = None
) -> np.ndarray:
    """Read the original image as the pipeline read it.

    Args:
        path: Path or URL, through mmengine's file backends.
        size: (height, width) that the pipeline met: ``ori_shape``.
        backend_args: Arguments of the file backend.
        seen: Gives the photo as the network saw it. It decides for a file with an EXIF orientation whether the pipeline
            had turned it (mmcv's default) or not.

    Returns:
        BGR (height, width, 3), uint8.

    Raises:
        PhotoError: If the file cannot be read, is no image, or is of another size than the pipeline met.
    """
    try:
        data = fileio.get(path, backend_args=backend_args)
    except Exception as error:  # each backend raises errors of its own
        raise ImageError(f'{path}: the photo cannot be read ({type(error).__name__}: {error})') from error
    photo = _decode(data, COLOUR)
    if photo is None:
        raise ImageError(f'{path}: the photo cannot be decoded: the file is corrupt, or no image')
    if _has_orientation(data):
        candidates = [photo, _decode(data, COLOUR | cv2.IMREAD_IGNORE_ORIENTATION)]
        candidates = [candidate for candidate in candidates if candidate.shape[:2] == size]
        if len(candidates) > 1 and seen is not None:
            reference = seen().astype(np.float32)
            candidates.sort(key=lambda candidate: np.abs(candidate - reference).mean())
        photo = candidates[0] if candidates else photo
    if photo.shape[:2] != size:
        raise ImageError(
            f'{path}: the photo is {photo.shape[1]}x{photo.shape[0]} pixels large, '
            f'but the pipeline read {size[1]}x{size[0]} (ori_shape)'
        )
    return photo


def rebuild_image(image: Tensor, preprocessor: nn.Module | None, placement: Placement) -> np.ndarray:
    """Undo what pipeline and preprocessor did to a photo; detail that was scaled away stays lost.

    Args:
        image: Network input (C, H, W), normalised and padded.
        preprocessor: The detector's data preprocessor, for its mean, std and channel order.
        placement: Where the photo lies in the input.

    Returns:
        BGR (height, width, 3), uint8, of the photo's size. Black where the pipeline cut the photo away.
    """
    pixels = image.detach().float().cpu()
    if getattr(preprocessor, '_enable_normalize', False):
        pixels = pixels * preprocessor.std.cpu() + preprocessor.mean.cpu()
    pixels = pixels.numpy().transpose(1, 2, 0)
    if pixels.shape[2] not in (1, 3):  # other sensors: show the first channel
        pixels = pixels[..., :1]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    elif getattr(preprocessor, '_channel_conversion', False):  # mmcv reads BGR, so this network sees RGB
        pixels = pixels[..., ::-1]
    # OpenCV counts from the centre of the first pixel, the placement from its corner.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    photo_to_input = np.linalg.inv(half) @ placement.matrix @ half
    height, width = placement.photo_size
    photo = cv2.warpPerspective(
        np.ascontiguousarray(pixels),
        photo_to_input,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        # Half a pixel of the photo may lie beyond the outermost centres of the input.
        borderMode=cv2.BORDER_REPLICATE if placement.is_separable else cv2.BORDER_CONSTANT,
    )
    return np.clip(np.round(photo), 0, 255).astype(np.uint8)


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    """BGR (H, W, 3) uint8, or None."""
    encoded = np.frombuffer(data, np.uint8)
    for attempt in (flags, cv2.IMREAD_UNCHANGED):  # OpenCV does not turn grey float TIFFs into colour
        try:
            photo = cv2.imdecode(encoded, attempt)
        except cv2.error:  # an empty file, or one whose header promises what no memory holds
            return None
        if photo is not None:
            break
    else:
        return None
    if photo.ndim == 2:
        photo = np.repeat(photo[..., None], 3, axis=2)
    photo = np.ascontiguousarray(photo[..., :3])
    return photo if photo.dtype == np.uint8 else _to_8_bit(photo)


def _to_8_bit(photo: np.ndarray) -> np.ndarray:
    """Bring 16-bit and float pixels to 0-255.

    Sensors store 10, 12 or 14 bits in 16: the smallest such depth that holds the photo is its white.
    """
    largest = float(photo.max())
    if photo.dtype == np.uint16:
        white = next(2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if largest < 2**bits)
    else:
        white = largest if largest > 0 else 1.0
    return np.clip(np.round(photo * (255 / white)), 0, 255).astype(np.uint8)


def _has_orientation(data: bytes) -> bool:
    """Whether the file has an EXIF orientation other than upright."""
    if b'Exif' not in data and b'eXIf' not in data:
        return False
    from PIL import Image, UnidentifiedImageError  # comes with mmcv; only photos with EXIF need it

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(ORIENTATION_TAG, 1) != 1
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return False
