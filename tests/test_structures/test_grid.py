import tracemalloc

import numpy as np
import pytest

from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement


@pytest.mark.parametrize(('align', 'shift'), [('center', 0.5), ('corner', 0.0)])
def test_alignments_equal_the_usual_resize_formulas(align, shift):
    cells, size = (5, 7), (61, 83)
    values = np.random.default_rng(0).normal(size=cells)
    stride = 16.0
    placement = Placement(
        np.diag([cells[1] * stride / size[1], cells[0] * stride / size[0], 1.0]),
        size,
        tuple(int(c * stride) for c in cells),
    )
    heat = Grid(cells, (stride, stride), placement, align).heatmap(values.astype(np.float32))
    source = [(np.arange(out) + shift) * n / out - shift for n, out in zip(cells, size)]
    wide = np.array([np.interp(source[1], np.arange(cells[1]), row) for row in values])
    expected = np.array([np.interp(source[0], np.arange(cells[0]), column) for column in wide.T]).T
    np.testing.assert_allclose(heat, expected, atol=1e-5)


@pytest.mark.parametrize('offset', [(8, 8), (0.5, 0.5), (3.0, -2.5)])
def test_cells_at_an_offset_equal_float64_interpolation(offset):
    cells, size, stride = (5, 7), (80, 112), 16
    values = np.random.default_rng(0).normal(size=cells).astype(np.float32)
    placement = Placement(np.eye(3), size, size)
    heat = Grid(cells, (stride, stride), placement, 'auto', offset).heatmap(values)
    places = [start + stride * np.arange(count) for start, count in zip(offset, cells)]
    pixels = [np.arange(count) + 0.5 for count in size]
    wide = np.array([np.interp(pixels[1], places[1], row) for row in values])
    expected = np.array([np.interp(pixels[0], places[0], column) for column in wide.T]).T
    np.testing.assert_allclose(heat, expected, atol=1e-5)
    if offset == (8, 8):
        assert np.array_equal(heat, Grid(cells, (stride, stride), placement, 'center').heatmap(values))


def test_padding_does_not_count_at_an_offset():
    """The image ends at 24 pixels; cells from 32.5 pixels on look at padding only."""
    values = np.array([[1, 2, 100, 100]], np.float32)
    placement = Placement(np.eye(3), (16, 24), (16, 64))
    heat = Grid((1, 4), (16, 16), placement, 'auto', (8, 0.5)).heatmap(values)
    np.testing.assert_allclose(heat[0], np.interp(np.arange(24) + 0.5, [0.5, 16.5], [1, 2]), atol=1e-6)


@pytest.mark.parametrize('align', ['center', 'corner'])
@pytest.mark.parametrize('shift', [0.0, 7.3])
@pytest.mark.parametrize('cells', [(7, 9), (9, 12)])
@pytest.mark.parametrize('size', [(61, 83), (33, 131), (130, 170)])
def test_padded_content_equals_float64_interpolation(align, shift, cells, size):
    stride, scale = 16.0, (0.93, 1.07)  # down and along
    values = np.random.default_rng(3).normal(size=cells)
    matrix = np.array([[scale[1], 0, shift], [0, scale[0], shift], [0, 0, 1]])
    input_size = tuple(int(c * stride) for c in cells)
    heat = Grid(cells, (stride, stride), Placement(matrix, size, input_size), align).heatmap(values.astype(np.float32))
    sources, seen = [], []
    for out, n, factor in zip(size, cells, scale):
        positions = factor * (np.arange(out) + 0.5) + shift
        before = 0.5 if align == 'center' else factor / 2 / stride
        first, last = np.floor(shift / stride), min(np.ceil((factor * out + shift) / stride) - 1, n - 1)
        sources.append(np.clip(positions / stride - before, first, last))
        seen.append(positions <= n * stride)
    wide = np.array([np.interp(sources[1], np.arange(cells[1]), row) for row in values])
    expected = np.array([np.interp(sources[0], np.arange(cells[0]), column) for column in wide.T]).T
    expected[~(seen[0][:, None] & seen[1])] = 0
    np.testing.assert_allclose(heat, expected, atol=2e-5)


def test_homography_equals_separable_placement_and_hand_computed_positions():
    values = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    straight = Placement(np.array([[0.8, 0, 3.0], [0, 0.7, 5.0], [0, 0, 1]]), (50, 60), (96, 128))
    turned = Placement(straight.matrix + [[0, 1e-9, 0], [0, 0, 0], [0, 0, 0]], (50, 60), (96, 128))
    assert straight.is_separable
    assert not turned.is_separable
    expected = Grid((6, 8), (16, 16), straight).heatmap(values)
    np.testing.assert_allclose(Grid((6, 8), (16, 16), turned).heatmap(values), expected, atol=1e-5)

    quarter = Placement(np.array([[0, -1.0, 50], [1.0, 0, 0], [0, 0, 1]]), (50, 60), (60, 50))
    ramp = np.tile(np.arange(50, dtype=np.float32), (60, 1))  # each input pixel holds its column
    heat = Grid((60, 50), (1, 1), quarter).heatmap(ramp)
    np.testing.assert_allclose(heat, np.tile(49 - np.arange(50)[:, None], (1, 60)), atol=1e-4)


@pytest.mark.parametrize('factor', [2.0, 0.25, -1.0, -3.0])
@pytest.mark.parametrize('turn', [0.0, 0.01])
def test_a_multiple_of_a_homography_is_the_same_placement(factor, turn):
    """`diag(2, 2, 2)` leaves each pixel where it is; without its last entry, it would double the image."""
    values = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    matrix = np.array([[0.8, turn, 3.0], [0, 0.7, 5.0], [turn / 100, 0, 1]])
    one, other = (Placement(m, (50, 60), (96, 128)) for m in (matrix, factor * matrix))
    assert one.is_separable == other.is_separable == (not turn)
    np.testing.assert_allclose(other.content_box, one.content_box)
    np.testing.assert_array_equal(other.seen, one.seen)
    one, other = (Grid((6, 8), (16, 16), placement).heatmap(values) for placement in (one, other))
    np.testing.assert_allclose(other, one, atol=1e-6)


@pytest.mark.parametrize('last', [[0, 0.002, 1], [0.002, 0, 1], [0, 0.02, -1]])
def test_a_tilt_alone_is_not_separable(last):
    placement = Placement(np.array([[1.0, 0, 0], [0, 1, 0], last]), (90, 90), (96, 96))
    assert not placement.is_separable
    seen = np.zeros((90, 90), bool)
    for row in range(90):
        for column in range(90):
            u, v, w = placement.matrix @ [column + 0.5, row + 0.5, 1]
            seen[row, column] = w > 0 and u <= 96 * w and v <= 96 * w
    np.testing.assert_array_equal(placement.seen, seen)


def test_cropped_parts_have_no_heat():
    values = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    # The input is the middle 40 x 40 pixels of an image of 80 x 80.
    placement = Placement(np.array([[1.0, 0, -20], [0, 1.0, -20], [0, 0, 1]]), (80, 80), (40, 40))
    heat = Grid((4, 4), (10, 10), placement).heatmap(values)
    assert not heat[:20].any()
    assert not heat[:, 60:].any()
    assert heat[20, 20] == 1
    assert heat[59, 59] == 16
    outside = Placement(np.array([[1.0, 0, 500], [0, 1.0, 500], [0, 0, 1]]), (80, 80), (40, 40))
    assert Grid((4, 4), (10, 10), outside).visible(values).size == 0
    assert not Grid((4, 4), (10, 10), outside).heatmap(values).any()


@pytest.mark.parametrize('stride', [4, 32, 64])
def test_visible_values_bound_the_heatmap_without_padding(stride):
    cells = tuple(-(-128 // stride) for _ in range(2))
    values = np.random.default_rng(2).normal(size=cells).astype(np.float32)
    placement = Placement(np.diag([0.5, 0.5, 1.0]), (101, 140), (128, 128))  # content is 50.5 x 70
    grid = Grid(cells, (stride, stride), placement)
    heat, visible = grid.heatmap(values), grid.visible(values)
    assert visible.min() <= heat.min() + 1e-6
    assert visible.max() >= heat.max() - 1e-6
    values[int(np.ceil(50.5 / stride + 0.5)) :] = 1e6
    values[:, int(np.ceil(70 / stride + 0.5)) :] = 1e6
    assert grid.visible(values).max() < 10
    assert grid.heatmap(values).max() < 10


def test_rounding_error_does_not_include_padding():
    size = 265
    scale = 400 / size
    assert size * scale > 400  # by 6e-14
    grid = Grid((26, 26), (16, 16), Placement(np.diag([scale, scale, 1.0]), (size, size), (416, 416)))
    values = np.ones((26, 26), np.float32)
    values[25] = values[:, 25] = 1e6  # 400 is where the last cell begins
    assert grid.visible(values).max() == 1
    assert grid.heatmap(values).max() == 1


@pytest.mark.parametrize('stride', [8, 64])
def test_cropped_rows_stay_zero_even_if_cells_cover_them(stride):
    """The pipeline kept 800 of 820 rows; 13 cells of stride 64 reach row 832, beyond what the network saw."""
    placement = Placement(np.eye(3), (820, 100), (800, 128))
    cells = -(-800 // stride), -(-128 // stride)
    heat = Grid(cells, (stride, stride), placement).heatmap(np.ones(cells, np.float32))
    assert (heat[:800] == 1).all()
    assert (heat[800:] == 0).all()
    assert np.array_equal(placement.seen, heat == 1)


TILTED = np.array([[0.9, 0.1, 5.03], [0.05, 0.8, -20.37], [0, 0.002, 1.0]])
TO_HORIZON = np.array([[0.9, 0.1, 5.03], [0.05, 0.8, -20.37], [0, -0.012, 1.0]])
MIRRORED_BEHIND = np.array([[0.9, 0.1, -100.03], [0.05, -0.8, 60.37], [0, -0.012, 1.0]])


@pytest.mark.parametrize('height', [63, 64, 65, 200])
@pytest.mark.parametrize('matrix', [TILTED, TO_HORIZON, MIRRORED_BEHIND])
def test_a_homography_equals_float64_interpolation_at_each_pixel(height, matrix):
    """Also where a block of rows ends, and behind the horizon (row 83 of 200)."""
    placement, stride = Placement(matrix, (height, 150), (160, 200)), 16
    values = np.random.default_rng(0).normal(size=(10, 13)).astype(np.float32)
    expected, seen = np.zeros((height, 150)), np.zeros((height, 150), bool)
    for row in range(height):
        for column in range(150):
            u, v, w = placement.matrix @ [column + 0.5, row + 0.5, 1]
            seen[row, column] = w > 0 and 0 <= u / w <= 200 and 0 <= v / w <= 160
            if seen[row, column]:
                x, y = np.clip(u / w / stride - 0.5, 0, 12), np.clip(v / w / stride - 0.5, 0, 9)
                left, top = min(int(x), 11), min(int(y), 8)
                cells = values[top : top + 2, left : left + 2].astype(np.float64)
                expected[row, column] = [1 - (y - top), y - top] @ cells @ [1 - (x - left), x - left]
    assert seen.any()
    assert not seen.all()
    np.testing.assert_array_equal(placement.seen, seen)
    grid = Grid((10, 13), (stride, stride), placement)
    np.testing.assert_allclose(grid.heatmap(values), expected, atol=1e-5)
    np.testing.assert_allclose(np.sort(grid.visible(values)), np.sort(expected[seen]), atol=1e-5)


def test_the_memory_of_a_homography_is_that_of_its_heatmap():
    """A heatmap of float32 has 4 bytes per pixel; positions of all pixels took 200."""
    size = (2400, 1600)
    grid = Grid((10, 13), (16, 16), Placement(TILTED, size, (160, 200)))
    values = np.ones((10, 13), np.float32)
    tracemalloc.start()
    grid.visible(values)
    grid.heatmap(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 4 < peak / (size[0] * size[1]) < 20


@pytest.mark.parametrize('align', ['auto', 'center', 'corner'])
@pytest.mark.parametrize(
    'matrix',
    [
        [[2.0, 0, 3], [0, 1.5, 1], [0, 0, 1]],
        [[-2.0, 0, 63], [0, 1.5, 1], [0, 0, 1]],
        [[1.2, 0.3, 4], [-0.2, 1.1, 9], [0.002, -0.001, 1]],
    ],
)
def test_cells_are_brought_to_the_image_where_the_heatmap_has_them(align, matrix):
    """The heatmap of the column numbers of the cells is, at a position in the image, the column there; so for rows."""
    grid = Grid((12, 16), (4.0, 4.0), Placement(np.array(matrix), (24, 30), (48, 64)), align, (1.5, 2.5))
    columns, rows = np.meshgrid(np.arange(16.0), np.arange(12.0))
    cells = np.stack([grid.heatmap(columns), grid.heatmap(rows)], -1)
    inside = (cells > 0).all(-1) & (cells < (15, 11)).all(-1) & grid.placement.seen
    assert inside.sum() > 100
    y, x = np.nonzero(inside)
    np.testing.assert_allclose(grid.to_image(cells[inside]), np.stack([x, y], 1) + 0.5, atol=1e-6)
    nearest = np.array([grid.nearest_cell(*place) for place in zip(x + 0.5, y + 0.5)])
    used = [(part.start, part.stop - 1) for part in grid.window()]
    assert np.abs(nearest - np.clip(cells[inside][:, ::-1], *np.transpose(used))).max() <= 0.5 + 1e-6


def test_cells_behind_the_horizon_are_nowhere():
    """The input's (x, y) is (1, x) / (y - 2) of the image: rows above 2 have a negative depth."""
    placement = Placement(np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, -2]]), (6, 6), (4, 4))
    grid = Grid((4, 4), (1.0, 1.0), placement, 'corner')
    x, y = grid.to_image(np.array([[0.5, 1.5], [-1.5, 1.5]])).T
    # A corner is half a pixel before its cell's index.
    np.testing.assert_allclose([1 / (y[0] - 2), x[0] / (y[0] - 2)], [1.0, 2.0])
    assert np.isnan([x[1], y[1]]).all()
