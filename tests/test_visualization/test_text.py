from mmdet_featviz.visualization.text import text_width, wrap_lines


def test_long_lines_are_wrapped_at_a_dot_without_loss():
    line = 'backbone.stages.2.blocks.17.attention.window.projection_layer_of_a_very_long_name_0'
    wrapped = wrap_lines([line, 'short'], 200)
    assert ''.join(wrapped[:-1]) == line
    assert wrapped[-1] == 'short'
    assert len(wrapped) > 2
    assert all(text_width(part, 14) <= 200 for part in wrapped)
    assert all(part[-1] in '._' for part in wrapped[:-2])
