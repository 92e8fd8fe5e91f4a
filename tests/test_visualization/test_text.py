import os.path as osp

import matplotlib
import numpy as np
import pytest
from PIL import ImageFont

from mmdet_featviz.visualization import text
from mmdet_featviz.visualization.text import Text, draw_texts, line_height, text_width, wrap_lines

FONTS = osp.join(matplotlib.get_data_path(), 'fonts', 'ttf')


@pytest.fixture
def fonts(monkeypatch):
    """Sets which fonts the system has."""

    def use(*names):
        monkeypatch.setattr(text, 'FALLBACK_FONTS', names)

    caches = text._font, text._system_font
    for cache in caches:
        cache.cache_clear()
    yield use
    for cache in caches:
        cache.cache_clear()


def ink(line, size=20):
    """What is drawn of a line, in gray."""
    picture = np.full((line_height(size), text_width(line, size), 3), 255, np.uint8)
    return draw_texts(picture, [Text(line, (0, 0), size, (0, 0, 0))])[..., 0]


def test_long_lines_are_wrapped_at_a_dot_without_loss():
    line = 'backbone.stages.2.blocks.17.attention.window.projection_layer_of_a_very_long_name_0'
    wrapped = wrap_lines([line, 'short'], 200)
    assert ''.join(wrapped[:-1]) == line
    assert wrapped[-1] == 'short'
    assert len(wrapped) > 2
    assert all(text_width(part, 14) <= 200 for part in wrapped)
    assert all(part[-1] in '._' for part in wrapped[:-2])


def test_latin_greek_and_cyrillic_letters_need_no_font_of_the_system(fonts, capsys):
    fonts()
    letters = 'aßÅøłőčığñçÜαβΩψЖЯжёщ'
    drawn = [ink(letter) for letter in letters]
    missing = ink('\U0010ffff')
    for number, one in enumerate(drawn):
        assert not any(np.array_equal(one, other) for other in (missing, *drawn[:number]))
    assert 'install one of' in capsys.readouterr().out  # for the last one only, which has no letter
    for letter in letters:
        ink(letter, 21)
    assert capsys.readouterr().out == ''


def test_other_letters_are_of_the_first_font_that_the_system_has(fonts):
    fonts('none.ttf', osp.join(FONTS, 'STIXGeneral.ttf'), osp.join(FONTS, 'DejaVuSerif.ttf'))
    assert text._font_for('狗', 20).path.endswith('STIXGeneral.ttf')
    assert text._font_for('Straße', 20).path.endswith('DejaVuSans.ttf')


@pytest.mark.parametrize('size', [11, 30, 111])
def test_nothing_of_a_line_is_cut(size):
    line = 'Åg|jqŐ_Ж'
    picture = np.full((3 * size, 12 * size, 3), 255, np.uint8)
    drawn = draw_texts(picture, [Text(line, (size, size), size, (0, 0, 0))])[..., 0] < 128
    font = ImageFont.truetype(osp.join(FONTS, 'DejaVuSans.ttf'), size)
    mask = font.getmask(line)
    expected = np.array(mask).reshape(mask.size[::-1]) >= 128
    rows = np.flatnonzero(drawn.any(1))
    assert abs(int(drawn.sum()) - int(expected.sum())) <= 0.01 * expected.sum()
    assert rows[0] >= size
    assert rows[-1] < size + line_height(size)


def test_text_that_would_cross_an_edge_is_moved_inside():
    line = 'a line'
    for place in ((-50, -50), (500, 500)):
        drawn = draw_texts(np.full((60, 100, 3), 255, np.uint8), [Text(line, place, 12, (0, 0, 0), (200, 220, 240))])
        ground = (drawn != 255).any(2)
        assert ground.sum() == text_width(line, 12) * line_height(12)
        assert ground[0, 0] == (place[0] < 0)
        assert ground[-1, -1] == (place[0] > 0)


@pytest.mark.parametrize('end', ['\n', '\r', '\r\n', '\u2028', '\x0b', '\x85'])
def test_the_name_of_a_class_may_have_several_lines(end):
    """It is drawn as one: Pillow cannot measure all of these."""
    drawn = ink(f'traffic{end}light')
    np.testing.assert_array_equal(drawn, ink('traffic light'))
    assert (drawn < 128).any()
