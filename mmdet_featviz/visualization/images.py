"""Images: reads original images from their files, or rebuilds them from the network's input."""

from __future__ import annotations

import math
import os.path as osp
import struct
from functools import lru_cache
from typing import Callable

import cv2
import numpy as np
from torch import Tensor, nn

from mmdet_featviz.structures.input_match import agreement
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.utils.regular_files import read_file

# Three channels (gray is repeated, alpha is dropped), at the bit depth of the file.
READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
ORIENTATION_TAG = 0x0112
EXIF = b'Exif\0\0'
# Start of a file: what precedes its EXIF block, and how many bytes lie between.
EXIF_MARKERS = {b'\x89PNG': (b'eXIf', 0), b'RIFF': (b'EXIF', 4), b'II*\0': (b'', 0), b'MM\0*': (b'', 0)}


class ImageError(Exception):
    """An image that cannot be shown: missing, corrupt, or of another size than the one that the network saw."""


def read_image(
    path: str, size: tuple[int, int], backend_args: dict | None = None, seen: Callable[[], np.ndarray] | None = None
) -> np.ndarray:
    """Read the original image in the way the test pipeline does.

    Args:
        path: Path or URL that one of mmengine's file backends can read.
        size: (height, width) of the image in the pipeline (``ori_shape``).
        backend_args: Arguments of the file backend.
        seen: Returns the image as the network saw it. For a file with an EXIF orientation, the comparison with it
            decides whether the pipeline rotated the image (mmcv's default) or not.

    Returns:
        BGR (height, width, 3), uint8.

    Raises:
        ImageError: If the file cannot be read, is not an image, or has another size than `size`.
    """
    try:
        data = read_file(path, backend_args)
    except Exception as error:  # each backend raises its own types
        raise ImageError(f'{path}: the image cannot be read ({type(error).__name__}: {error})') from error
    image = _decode(data, READ_FLAGS)
    if image is None:
        raise ImageError(f'{path}: the image cannot be decoded: the file is corrupt or not an image')
    candidates = [turned for turned in _turned_images(image, _orientation(data)) if turned.shape[:2] == size]
    if len(candidates) > 1 and seen is not None:
        reference = seen()
        shown = reference.any(axis=2)  # it is black where the pipeline cropped the image
        if shown.any():
            reference = reference[shown].astype(np.float32)
            candidates.sort(key=lambda candidate: np.abs(candidate[shown] - reference).mean())
    image = np.ascontiguousarray(candidates[0]) if candidates else image
    if image.shape[:2] != size:
        raise ImageError(
            f'{path}: the image has {image.shape[1]}x{image.shape[0]} pixels, '
            f'but in the pipeline it had {size[1]}x{size[0]} (ori_shape): has the file changed?'
        )
    return image


def is_upright(path: str) -> bool:
    """Whether an image is a file on disk that states no turn: it can be read without the image that the network saw."""
    if not osp.isfile(path):
        return False
    try:
        with open(path, 'rb') as file:
            return _orientation(file.read()) == 1
    except OSError:
        return False


def match_with_image(
    image: str | np.ndarray | None, inputs: Tensor, backend_args: dict | None = None
) -> Callable[[Placement], float]:
    """Return a function that measures how well the network's input shows an image under a placement.

    Args:
        image: Path or URL of the image, or the image itself (H, W, 3); None if it is not known.
        inputs: The network's input (C, H, W), normalized and padded.
        backend_args: Arguments of the file backend.

    Returns:
        A function from a placement to :func:`mmdet_featviz.structures.input_match.agreement`, NaN if the image cannot
        be read. It is read at the first call, once.
    """

    @lru_cache(maxsize=None)
    def image_of(size: tuple[int, int]) -> np.ndarray | None:
        if image is None or isinstance(image, np.ndarray):
            return image
        try:
            return read_image(image, size, backend_args)
        except ImageError:  # reported when it should be drawn
            return None

    def match(placement: Placement) -> float:
        shown = image_of(placement.image_size)
        return math.nan if shown is None else agreement(inputs.detach().float().cpu().numpy(), shown, placement)

    return match


def rebuild_image(inputs: Tensor, preprocessor: nn.Module | None, placement: Placement) -> np.ndarray:
    """Rebuild an image from the network's input: undo normalization, padding, flip and scaling.

    Args:
        inputs: The network's input (C, H, W), normalized and padded.
        preprocessor: The detector's data preprocessor, which has mean, std and channel order.
        placement: Where the image lies in the input.

    Returns:
        BGR (height, width, 3), uint8, of the size of the original image. Details lost by scaling down stay lost. Black
        where the pipeline cropped the image.
    """
    preprocessor = getattr(preprocessor, 'data_preprocessor', preprocessor)  # that of a teacher and its student
    pixels = inputs.detach().float().cpu()
    if getattr(preprocessor, '_enable_normalize', False):
        pixels = pixels * preprocessor.std.cpu() + preprocessor.mean.cpu()
    pixels = pixels.numpy().transpose(1, 2, 0)
    if pixels.shape[2] not in (1, 3):  # other sensors than cameras: show the first channel
        pixels = pixels[..., :1]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    elif getattr(preprocessor, '_channel_conversion', False):  # mmcv reads BGR, so this network sees RGB
        pixels = pixels[..., ::-1]
    height, width = placement.image_size
    image = cv2.warpPerspective(
        np.ascontiguousarray(pixels),
        placement.opencv_matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        # Up to half a pixel of the image may lie beyond the outermost pixel centers of the input.
        borderMode=cv2.BORDER_REPLICATE,
    )
    image = np.clip(np.round(image, out=image), 0, 255, out=image).astype(np.uint8)
    image[~placement.seen] = 0
    return image


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    """Decode an image to BGR (H, W, 3), uint8; None if it cannot be decoded."""
    encoded = np.frombuffer(data, np.uint8)
    for attempt in (flags, cv2.IMREAD_UNCHANGED):  # OpenCV cannot read gray float TIFFs as color
        try:
            image = cv2.imdecode(encoded, attempt)
        except cv2.error:  # an empty file, or a header with a size that does not fit into memory
            return None
        if image is not None:
            break
    else:
        return None
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    image = np.ascontiguousarray(image[..., :3])
    return image if image.dtype == np.uint8 else _to_8_bit(image)


def _to_8_bit(image: np.ndarray) -> np.ndarray:
    """Scale 16-bit and float pixels to 0-255.

    Cameras store 10, 12 or 14 bits in 16: white is the largest value of the smallest depth that fits the image.
    """
    largest = float(image.max())
    if image.dtype == np.uint16:
        white = next(2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if largest < 2**bits)
    else:
        white = largest if largest > 0 else 1.0
    return np.clip(np.round(image * (255 / white)), 0, 255).astype(np.uint8)


def _turned_images(image: np.ndarray, orientation: int) -> list[np.ndarray]:
    """Return an image as decoded, and as a pipeline may have it that turned it where OpenCV did not, or vice versa.

    Which of them do depends on the format, on the library and its version, and on ``color_type``.
    """
    turns = {
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: image[::-1].transpose(1, 0, 2),
        7: image[::-1, ::-1].transpose(1, 0, 2),
        8: image[:, ::-1].transpose(1, 0, 2),
    }
    if orientation not in turns:
        return [image]
    undone = {6: 8, 8: 6}.get(orientation, orientation)
    return [image, turns[undone]] + [turns[orientation]] * (undone != orientation)


def _orientation(data: bytes) -> int:
    """Return the EXIF orientation that an image file states; 1 is upright, as is a file that states none.

    Read from its bytes, as image libraries refuse a file that claims very many pixels.
    """
    marker, gap = next((value for start, value in EXIF_MARKERS.items() if data.startswith(start)), (EXIF, 0))
    start = data.find(marker)
    if start < 0:
        return 1
    start += len(marker) + gap
    if data.startswith(EXIF, start):  # some programs write it again
        start += len(EXIF)
    order = {b'II': '<', b'MM': '>'}.get(data[start : start + 2])
    if order is None:
        return 1
    try:
        tags = start + struct.unpack_from(f'{order}I', data, start + 4)[0]
        (count,) = struct.unpack_from(f'{order}H', data, tags)
        for number in range(count):
            tag, _, _, value = struct.unpack_from(f'{order}HHIH', data, tags + 2 + 12 * number)
            if tag == ORIENTATION_TAG:
                return value
    except struct.error:  # the file ends before
        pass
    return 1
