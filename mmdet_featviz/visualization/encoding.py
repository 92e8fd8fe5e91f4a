"""Encoding: pictures to the bytes of JPEG, PNG or WebP files."""

from __future__ import annotations

import os.path as osp

import cv2
import numpy as np

ENCODINGS = {
    'jpg': [],
    'png': [cv2.IMWRITE_PNG_COMPRESSION, 1],  # takes a third of the default's time; files are about 10 % larger
    'webp': [cv2.IMWRITE_WEBP_QUALITY, 90],
}


def encode_picture(picture: np.ndarray, name: str) -> bytes:
    """Encode a BGR picture in the format that the ending of the file name stands for.

    Raises:
        OSError: If the format does not support the picture, for example because of its size.
    """
    ending = osp.splitext(name)[1]
    try:
        succeeded, encoded = cv2.imencode(ending, picture, ENCODINGS[ending[1:]])
    except cv2.error:
        succeeded = False
    if not succeeded:
        height, width = picture.shape[:2]
        raise OSError(f'{name}: a picture of {width}x{height} pixels cannot be encoded as {ending[1:]}; try png')
    return encoded
