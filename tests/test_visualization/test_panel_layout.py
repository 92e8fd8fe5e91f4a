import numpy as np
import pytest

from mmdet_featviz.structures.snapshot import Level
from mmdet_featviz.visualization.panel_layout import arrange_panel


def layers(*strides):
    """The levels of layers a, b, ... with these strides."""
    values = np.zeros((2, 2), np.float32)
    return [
        [Level(letter, number, 1, (float(stride), float(stride)), values) for number, stride in enumerate(of_layer)]
        for letter, of_layer in zip('abcdefghijklmnopqrstuvwxyz', strides)
    ]


def table(*strides):
    """The panel as text: a layer and a stride at each place, dots where it is empty."""
    rows = arrange_panel(layers(*strides))
    return [' '.join(f'{level.layer}{level.stride[0]:g}' if level else '.' for level in row) for row in rows]


@pytest.mark.parametrize(
    ('strides', 'rows'),
    [
        ([[4, 8, 16, 32], [8, 16, 32, 64, 128]], ['. a4 a8 a16 a32', '. . b8 b16 b32 b64 b128']),
        ([[8, 16, 32], [32, 16, 8]], ['. a8 a16 a32', '. b8 b16 b32']),  # the neck of YOLOv3
        ([[4], [8], [16], [8, 16]], ['. a4 b8 c16', '. . d8 d16']),
        ([[8], [16], [32], [8], [16], [32], [64]], ['. a8 b16 c32', '. d8 e16 f32 g64']),
        ([[4]] * 13, ['. a4 b4 c4 d4 e4', 'f4 g4 h4 i4 j4 k4', 'l4 m4']),
        ([[16] * 4, [8, 16]], ['. a16 a16 a16 a16', '. b8 b16']),
        ([[2, 4, 8, 16, 32, 64, 128], [4] * 9], ['. a2 a4 a8 a16 a32 a64 a128', f'{"b4 " * 7}b4', 'b4']),
        ([range(1, 9), [8]], ['. a1 a2 a3 a4 a5', 'a6 a7 a8', 'b8']),  # too many strides for columns
    ],
)
def test_levels_of_a_stride_stand_above_each_other_and_single_levels_share_rows(strides, rows):
    assert table(*strides) == rows


def test_each_level_has_one_place():
    random = np.random.default_rng(0)
    for _ in range(200):
        strides = [2 ** random.integers(1, 9, random.integers(1, 7)) for _ in range(random.integers(1, 12))]
        given = [level for layer in layers(*strides) for level in layer]
        rows = arrange_panel(layers(*strides))
        placed = [level for row in rows for level in row if level]
        assert sorted((one.name, one.stride) for one in placed) == sorted((one.name, one.stride) for one in given)
        assert rows[0][0] is None
        assert max(map(len, rows)) <= 8
