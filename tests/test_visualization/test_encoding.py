"""Encoding of pictures as files."""

import cv2
import numpy as np
import pytest
from conftest import noise

from mmdet_featviz.visualization.encoding import encode_picture


@pytest.mark.parametrize(('extension', 'error'), [('jpg', 4), ('png', 0), ('webp', 4)])
def test_a_picture_survives_encoding(extension, error):
    picture = noise()
    decoded = cv2.imdecode(encode_picture(picture, f'a/b.{extension}'), cv2.IMREAD_COLOR)
    assert np.abs(decoded.astype(int) - picture).mean() <= error


@pytest.mark.parametrize(('extension', 'width'), [('jpg', 70000), ('webp', 17000)])
def test_a_picture_too_large_for_its_format_is_an_oserror_with_advice(extension, width):
    with pytest.raises(OSError, match=f'1 pixels cannot be encoded as {extension}; try png'):
        encode_picture(np.zeros((1, width, 3), np.uint8), f'a/b.{extension}')
