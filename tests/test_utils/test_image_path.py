"""Image path: text for any kind of path, and nothing for what is no path."""

from pathlib import PurePosixPath

import numpy as np
import pytest

from mmdet_featviz.utils.image_path import image_path


@pytest.mark.parametrize(
    'path',
    ['a/猫.png', PurePosixPath('a/猫.png'), 'a/猫.png'.encode(), ['a/猫.png', 'b.png'], (PurePosixPath('a/猫.png'),)],
)
def test_a_path_of_any_kind_is_text(path):
    assert image_path(dict(img_path=path)) == 'a/猫.png'


@pytest.mark.parametrize('path', [None, [], [None], 7, dict(a='b'), [['a.png']], np.array(['a.png'])])
def test_what_is_no_path_stands_for_an_array(path):
    assert image_path(dict(img_path=path)) is None
    assert image_path({}) is None
