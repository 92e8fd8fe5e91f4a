from PIL import ImageFont

from mmdet_featviz.visualization import text
from mmdet_featviz.visualization.text import text_width, wrap_lines


def test_long_lines_are_wrapped_at_a_dot_without_loss():
    line = 'backbone.stages.2.blocks.17.attention.window.projection_layer_of_a_very_long_name_0'
    wrapped = wrap_lines([line, 'short'], 200)
    assert ''.join(wrapped[:-1]) == line
    assert wrapped[-1] == 'short'
    assert len(wrapped) > 2
    assert all(text_width(part, 14) <= 200 for part in wrapped)
    assert all(part[-1] in '._' for part in wrapped[:-2])


def test_pillow_before_10_1_draws_text_in_the_size_that_is_asked_for(monkeypatch):
    """Its built-in font has one size."""
    one_size = ImageFont.load_default

    def load_default(*size):
        if size:
            raise TypeError('load_default() takes 0 positional arguments but 1 was given')
        return one_size()

    monkeypatch.setattr(ImageFont, 'load_default', load_default)
    text._font.cache_clear()
    try:
        small, large = (text.text_width('a caption', size) - 6 for size in (14, 42))
    finally:
        text._font.cache_clear()
    assert abs(large / small - 3) < 0.1
