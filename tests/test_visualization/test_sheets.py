import numpy as np
import pytest
from conftest import noise

from mmdet_featviz.visualization.colors import get_colormap
from mmdet_featviz.visualization.sheets import GAP, MIN_TILE_WIDTH, TILE_SIZE, add_colorbar, make_sheet, shrink_to_tile
from mmdet_featviz.visualization.text import text_width, wrap_lines


@pytest.mark.parametrize('shape', [(480, 640), (640, 160), (20, 30)])
def test_sheet_arranges_tiles_in_rows_and_keeps_their_proportions(shape):
    def tile(value):
        return shrink_to_tile(np.full((*shape, 3), (value, 255 - value, 77), np.uint8))

    rows = [
        [(['image'], tile(10)), (['a_0'], tile(20))],
        [(['b_0'], tile(30)), (['b_1'], tile(40)), (['b_2'], tile(50))],
    ]
    picture = make_sheet(rows)
    scale = TILE_SIZE / max(shape)
    for value, row, column in [(10, 0, 0), (20, 0, 1), (30, 1, 0), (40, 1, 1), (50, 1, 2)]:
        y, x = np.nonzero((picture == (value, 255 - value, 77)).all(-1))
        assert np.abs(np.subtract((np.ptp(y) + 1, np.ptp(x) + 1), np.array(shape) * scale)).max() <= 1
        assert x.min() // max(round(shape[1] * scale), MIN_TILE_WIDTH) == column
        assert y.min() // (shape[0] * scale) == row
    assert (picture[0] == 255).all()
    assert (picture[6:30] < 100).any()  # captions above the first row


def test_long_row_continues_on_the_next_line():
    tile = np.zeros((60, 80, 3), np.uint8)
    one, six, seven = (make_sheet([[(['x'], tile)] * count]).shape for count in (1, 6, 7))
    assert seven == (2 * one[0] - GAP, *six[1:])


def test_captions_are_close_above_their_tiles():
    tile = np.full((20, 300, 3), (50, 100, 200), np.uint8)
    picture = make_sheet([[([f'row {number}'], tile)] for number in range(12)])
    ink = np.flatnonzero((picture < 100).all(-1).any(1))
    tops = np.flatnonzero((picture == (50, 100, 200)).all(-1).any(1))[::20]
    for top, above in zip(tops, [0, *tops]):
        inside = ink[(ink > above) & (ink < top)]
        assert 2 <= top - inside.max() <= 9
        assert 8 <= np.ptp(inside) <= 14


def test_long_captions_are_broken_at_a_dot_and_nothing_is_cut():
    line = 'backbone.stages.2.blocks.17.attention.window.projection_layer_of_a_very_long_name_0'
    broken = wrap_lines([line, 'short'], 200)
    assert ''.join(broken[:-1]) == line
    assert broken[-1] == 'short'
    assert len(broken) > 2
    assert all(text_width(part, 14) <= 200 for part in broken)
    assert all(part[-1] in '._' for part in broken[:-2])
    tile = np.full((60, 80, 3), (50, 100, 200), np.uint8)
    high, low = make_sheet([[([line], tile), (['a'], tile)]]), make_sheet([[(['a'], tile), (['a'], tile)]])
    assert high.shape[0] > low.shape[0]
    assert ((high == (50, 100, 200)).all(-1)).sum() == 2 * 60 * 80  # no letter lies on a tile


def test_wrapped_captions_make_the_sheet_higher():
    line = 'backbone.stages.2.blocks.17.attention.window.projection_layer_of_a_very_long_name_0'
    tile = np.full((60, 80, 3), (50, 100, 200), np.uint8)
    high, low = make_sheet([[([line], tile), (['a'], tile)]]), make_sheet([[(['a'], tile), (['a'], tile)]])
    assert high.shape[0] > low.shape[0]
    assert ((high == (50, 100, 200)).all(-1)).sum() == 2 * 60 * 80  # no letter lies on a tile


def test_title_is_above_the_tiles_and_a_long_title_is_wrapped():
    tile = np.full((60, 300, 3), (50, 100, 200), np.uint8)
    plain, titled, long = (make_sheet([[(['a'], tile)]], title) for title in ('', 'title', 'a long title ' * 6))
    assert plain.shape[0] < titled.shape[0] < long.shape[0]
    assert ((long == (50, 100, 200)).all(-1)).sum() == 60 * 300


def test_colorbar_is_beside_the_picture_from_high_to_low():
    picture, table = noise(200, 300), get_colormap('gray')
    drawn = add_colorbar(picture, table, (-1.5, 2.25))
    np.testing.assert_array_equal(drawn[:, :300], picture)
    bar = drawn[:, 300 + GAP + 5, 0].astype(int)
    inside = bar[12:185]
    assert (np.diff(inside) <= 0).all()
    assert (inside[0], inside[-1]) == (pytest.approx(255, abs=8), pytest.approx(0, abs=8))


@pytest.mark.parametrize('limits', [(-1.5, 2.25), (0.0, 100.0)])
def test_the_ticks_of_a_colorbar_are_beside_the_color_of_their_values(limits):
    """In gray, the color beside a tick is its share of the range."""
    low, high = limits
    drawn = add_colorbar(noise(200, 300), get_colormap('gray'), limits)
    marks = np.flatnonzero((drawn[:, 300 + GAP + 14 + 1] == 30).all(1))
    values = low + drawn[marks, 300 + GAP + 5, 0] / 255 * (high - low)
    expected = [2, 1, 0, -1] if low < 0 else [100, 50, 0]
    np.testing.assert_allclose(values, expected, atol=0.01 * (high - low))


def test_the_bar_of_a_constant_map_has_its_value():
    drawn = add_colorbar(noise(200, 300), get_colormap('gray'), (7.0, 7.0))
    assert len(np.flatnonzero((drawn[:, 300 + GAP + 14 + 1] == 30).all(1))) == 1


@pytest.mark.parametrize(
    ('height', 'width', 'bar'), [(90, 160, 11), (480, 640, 14), (1080, 1920, 30), (2000, 3000, 56)]
)
def test_a_colorbar_and_its_numbers_are_as_large_as_the_picture_needs(height, width, bar):
    strip = add_colorbar(np.zeros((height, width, 3), np.uint8), get_colormap('gray'), (0.0, 1.0))[:, width:]
    numbers = (strip[: height // 4] < 100).all(2)
    left = strip[height * 3 // 4]  # dark gray, a quarter of the range
    colored = np.flatnonzero((left > 30).all(1) & (left < 130).all(1))
    assert np.ptp(colored) + 1 == bar
    ink = numbers[:, colored[-1] + round(0.3 * bar) :].any(1)
    assert 0.5 * bar < ink[: round(1.5 * bar)].sum() < bar  # the digits of the highest number
    edges = strip[[0, -1]].tolist(), strip[:, [0, -1]].tolist()
    assert np.unique(np.concatenate([np.ravel(edge) for edge in edges])).tolist() == [255]  # nothing is cut


def test_empty_places_and_the_size_of_captions():
    tile = np.full((60, 400, 3), (50, 100, 200), np.uint8)
    usual, large = (make_sheet([[None, (['neck_0'], tile)], [(['x'], tile)]], scale=scale) for scale in (1, 2))
    heights = []
    for sheet in (usual, large):
        tops = np.flatnonzero((sheet == (50, 100, 200)).all(2).any(1))
        assert (sheet[: tops[59] + 1, : sheet.shape[1] // 2] == 255).all()
        ink = np.flatnonzero((sheet[: tops[0]] < 100).all(2).any(1))
        heights.append(np.ptp(ink) + 1)
    assert heights[1] / heights[0] == pytest.approx(2, abs=0.2)
