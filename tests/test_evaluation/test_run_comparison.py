"""Two runs compared: figures against NumPy's, pictures by their pixels, and what goes wrong told in a sentence."""

import json
import math
import os
import subprocess
import sys
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, keep_ratio_pipeline, manifest, noise, pictures, pool_detector, read
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_featviz import FeatureVisualizer, Style
from mmdet_featviz.capture.activation_map import ActivationMap, Pass
from mmdet_featviz.evaluation import run_comparison
from mmdet_featviz.evaluation.comparison_pictures import draw_difference, draw_pair
from mmdet_featviz.evaluation.comparison_scores import ComparisonScores, HeatmapPair, reference_boxes, score_pair
from mmdet_featviz.evaluation.heat_measures import correlation, energy_inside, heat_on_image, inside_boxes
from mmdet_featviz.evaluation.level_matching import LevelPair, match_levels
from mmdet_featviz.evaluation.run_comparison import RunComparison
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.placement import Placement, identity_placement
from mmdet_featviz.structures.snapshot import Level

SIZE = (64, 96)


def level(layer='neck', number=0, stride=8.0, values=None):
    values = np.zeros((8, 12)) if values is None else values
    return Level(layer, number, 16, (stride, stride), np.asarray(values, np.float32))


def image_files(folder, *names, size=SIZE):
    """Paths of new images."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        (folder / name).write_bytes(cv2.imencode('.png', noise(*size, seed=seed))[1].tobytes())
    return [str(folder / name) for name in names]


def saved_run(folder, images, root, truth=None, found=None, size=SIZE, save='maps'):
    """A run over unpadded, unscaled images, given as {path: [values of each level of the layer `neck`, stride 8]}."""
    visualizer = FeatureVisualizer(out_dir=str(folder), save=save)
    visualizer.open(MODELS.build(pool_detector()), image_root=str(root))
    for path, levels in images.items():
        maps = [
            ActivationMap(
                'neck', number, 16, (8.0, 8.0), torch.as_tensor(np.asarray(values), dtype=torch.float32)[None]
            )
            for number, values in enumerate(levels)
        ]
        sample = DetDataSample(metainfo=dict(ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0), img_path=path))
        if truth is not None:
            boxes = torch.tensor(truth)
            sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
        result = DetDataSample()
        if found is not None:
            boxes, scores = torch.tensor(found[0]), torch.tensor(found[1])
            labels = torch.zeros(len(boxes), dtype=torch.long)
            result.pred_instances = InstanceData(bboxes=boxes, labels=labels, scores=scores)
        visualizer.draw([Pass(torch.zeros(1, 3, *size), [sample], maps)], [result])
    return str(folder)


def compared(tmp_path, run_a, run_b, **options):
    one = RunComparison(Run(run_a), Run(run_b), str(tmp_path / 'out'), Style(image_format='png'), **options)
    one.run()
    return one, json.loads((tmp_path / 'out' / 'compare.json').read_text(encoding='utf-8'))


RANDOM = np.random.default_rng(0).normal(size=(8, 12))


# Partners


def test_partners_are_of_one_stride_and_as_near_by_name_as_can_be():
    a = [level('backbone', 0, 4), level('backbone', 1, 8), level('neck', 0, 8), level('neck', 1, 16), level('x', 0, 64)]
    b = [
        level('x', 1, 8),
        level('neck', 0, 4),
        level('neck', 1, 8),
        level('stem', 0, 16),
        level('backbone', 1, 8),
        level('x', 0, 32),
    ]
    pairs, alone_a, alone_b = match_levels(a, b)
    assert [pair.names for pair in pairs] == [
        ('backbone_0', 'neck_0'),  # by stride
        ('backbone_1', 'backbone_1'),  # by name
        ('neck_0', 'neck_1'),  # by layer and stride, though x_1 comes first
        ('neck_1', 'stem_0'),
    ]
    assert [one.name for one in alone_a] == ['x_0']
    assert [one.name for one in alone_b] == ['x_1', 'x_0']


# Figures


def test_figures_equal_independent_ones_in_float64():
    rng = np.random.default_rng(1)
    for offset in (0, 300):
        a, b = (rng.normal(offset, 2, size=(37, 53)).astype(np.float32) for _ in range(2))
        b += a / 2
        inside = rng.random((37, 53)) < 0.3
        assert correlation(a, b) == pytest.approx(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])
        lowest = min(float(value) for value in a.flat)
        shares = [(float(value) - lowest) * at for value, at in zip(a.flat, inside.flat)]
        assert energy_inside(a, inside) == pytest.approx(sum(shares) / sum(float(value) - lowest for value in a.flat))


def test_known_cases():
    heat = np.zeros(SIZE, np.float32)
    inside = inside_boxes(np.array([[10.0, 20.0, 40.0, 50.0]]), SIZE)
    heat[inside] = 3
    heat[30, 30] = 7
    assert correlation(heat, heat) == pytest.approx(1, abs=1e-12)
    assert correlation(heat, 2 * heat + 5) == pytest.approx(1, abs=1e-6)
    assert correlation(heat, -heat) == pytest.approx(-1, abs=1e-12)
    assert energy_inside(heat, inside) == 1.0
    assert energy_inside(heat - 9, inside) == 1.0  # energy counts from the smallest value
    assert energy_inside(heat.max() - heat, inside) < inside.mean()


@pytest.mark.parametrize('constant', [0.0, 0.1, -3e7])
def test_constant_heat_has_no_figures(constant):
    # As interpolation leaves it: not quite constant.
    heat = np.full((40, 40), constant, np.float32) * (1 + 1e-7 * np.arange(40, dtype=np.float32) / 40)
    assert math.isnan(correlation(heat, np.arange(1600.0).reshape(40, 40)))
    assert math.isnan(energy_inside(heat, np.ones((40, 40), bool)))


def test_without_boxes_there_is_a_correlation_and_nothing_else():
    heat = np.arange(12, dtype=np.float32).reshape(3, 4)
    figures = score_pair(HeatmapPair(heat, heat, np.ones((3, 4), bool)), None)
    assert figures.correlation == pytest.approx(1)
    assert all(map(math.isnan, (figures.inside_a, figures.inside_b, figures.chance)))


def test_only_what_both_networks_saw_is_judged():
    seen = np.zeros((4, 4), bool)
    seen[:2] = True
    a, b = np.arange(16, dtype=np.float32).reshape(4, 4), np.arange(16, dtype=np.float32).reshape(4, 4)
    b[2:] = -100
    inside = np.zeros((4, 4), bool)
    inside[:, 0] = inside[3] = True
    figures = score_pair(HeatmapPair(a, b, seen), inside)
    assert figures.correlation == pytest.approx(1)
    assert figures.inside_a == figures.inside_b == 4 / 28
    assert figures.chance == 2 / 8
    assert not HeatmapPair(a, b, seen).difference.any()
    nothing = score_pair(HeatmapPair(a, b, np.zeros((4, 4), bool)), inside)
    assert all(map(math.isnan, vars(nothing).values()))


def test_pixels_are_inside_a_box_by_their_centre():
    """Overlaps count once; what lies beyond the image counts nothing."""
    corners = np.array([[1.6, 0.0, 3.6, 2.0], [-9.0, 1.0, 1.0, 99.0], [0.0, 1.0, 1.0, 2.0], [-5.0, -5.0, -1.0, -1.0]])
    x, y = np.meshgrid(np.arange(6) + 0.5, np.arange(4) + 0.5)
    expected = np.zeros((4, 6), bool)
    for left, top, right, bottom in corners:
        expected |= (left <= x) & (x < right) & (top <= y) & (y < bottom)
    np.testing.assert_array_equal(inside_boxes(corners, (4, 6)), expected)
    assert expected.sum() == 7


def boxes(*scores):
    corners = np.arange(4 * len(scores), dtype=float).reshape(-1, 4)
    return Boxes(corners, np.zeros(len(scores), np.int64), np.array(scores, float))


@pytest.mark.parametrize(
    ('a', 'b', 'rows', 'source'),
    [
        (boxes(0.9, np.nan), boxes(np.nan), [1], 'ground truth'),
        (boxes(0.9, 0.8), boxes(np.nan, 0.9), [0], 'ground truth'),
        (boxes(0.2, 0.3), boxes(0.9), [1], 'predictions of A with a score of at least 0.3'),
        (boxes(0.2), boxes(0.9), [], 'none'),
        (None, boxes(0.9), [], 'none'),
    ],
)
def test_ground_truth_comes_before_predictions_of_a(a, b, rows, source):
    corners, told = reference_boxes(a, b, 0.3)
    assert told == source
    np.testing.assert_array_equal(corners, np.arange(8.0).reshape(2, 4)[rows])


def test_what_is_not_finite_or_was_cut_away_is_cold():
    values = np.full((8, 12), 5.0)
    values[2, 3], values[4, 5] = 4.0, np.inf
    shifted = Placement(np.array([[1, 0, -32], [0, 1, 0], [0, 0, 1.0]]), SIZE, SIZE)  # the left 32 columns are cut away
    whole = identity_placement(SIZE, SIZE)
    heat = heat_on_image(level(values=values), whole, 'center')
    assert whole.seen.all()
    assert 4 < heat.min() == heat[36, 44] < 4.2  # half a pixel from the centre of the cell that is not finite
    assert heat.max() == 5
    heat = heat_on_image(level(values=values), shifted, 'center')
    np.testing.assert_array_equal(shifted.seen, np.broadcast_to(np.arange(96) >= 32, SIZE))
    assert (heat[:, :32] == 4).all()
    assert heat[0, 40] == 5


# Pictures


def tiles_of(a, b, image=None):
    pair, placement = LevelPair(level(values=a), level(values=b)), identity_placement(SIZE, SIZE)
    heats = HeatmapPair(*(heat_on_image(one, placement, 'center') for one in (pair.a, pair.b)), np.ones(SIZE, bool))
    return draw_pair(pair, heats, ComparisonScores(0.5, 0.25, 0.125, 0.1), image, Style(colormap='gray', alpha=1.0))


def test_a_and_b_share_one_scale():
    low, high = np.zeros((8, 12)), np.zeros((8, 12))
    low[:, 6:], high[:, 6:] = 1, 4
    (caption, a), (_, b), (difference_caption, difference) = tiles_of(low, high)
    assert caption == ['A: neck_0', '16 channels, stride 8', '25.0% inside boxes (chance 10.0%)']
    assert difference_caption == ['B - A', 'correlation 0.500']
    assert abs(int(a[100, 300, 0]) - 255 / 4) <= 1
    assert b[100, 300, 0] == 255
    assert a[100, 10, 0] == b[100, 10, 0] == 0
    blue, _, red = difference[100, 300].astype(int)
    assert red > blue + 50
    assert np.ptp(difference[100, 10].astype(int)) <= 2  # white: zero


@pytest.mark.parametrize('image', [None, noise(*SIZE)])
def test_equal_runs_differ_nowhere(image):
    difference = tiles_of(RANDOM, RANDOM, image)[2][1][:, :320].astype(int)
    assert np.ptp(difference, axis=2).max() <= 2
    assert difference.min() > 100


def test_less_is_blue_and_more_is_red_by_as_much():
    values = np.zeros((32, 64))
    values[:, :20], values[:, -20:] = -2, 2
    tile = draw_difference(values, None).astype(int)
    less, zero, more = tile[80, 20], tile[80, 160], tile[80, 300]
    assert less[0] > less[2] + 50
    assert more[2] > more[0] + 50
    assert zero.min() > 240


# Whole runs


def test_tables_and_manifest(tmp_path):
    """Level 0 is the same in both, level 1 twice as hot, level 2 constant in B, level 3 in A alone."""
    paths = image_files(tmp_path / 'images', '1.png', '二 2.png')
    inside = np.zeros((8, 12))
    inside[3:6, 3:6] = 1
    box = [[16.0, 16.0, 56.0, 56.0]]  # a cell around the hot ones, too: interpolation spreads by half a cell and less
    a = saved_run(tmp_path / 'a', {path: [RANDOM, inside, RANDOM, RANDOM] for path in paths}, tmp_path / 'images', box)
    b = saved_run(tmp_path / 'b', {path: [RANDOM, 2 * inside, RANDOM * 0] for path in paths}, tmp_path / 'images')
    one, data = compared(tmp_path, a, b)

    assert (
        one.summary()
        == f'2 images compared in {tmp_path / "out"}; levels without a partner of their stride: neck_3 of A'
    )
    assert (data['images'], data['boxes']) == (2, {'ground truth': 2})
    same, twice, constant = data['levels']
    assert (same['level_a'], same['level_b'], same['stride'], same['images']) == ('neck_0', 'neck_0', '8', 2)
    assert same['correlation'] == dict(mean=pytest.approx(1), images=2)
    assert same['inside_a'] == same['inside_b']
    assert same['chance'] == dict(mean=pytest.approx(40 * 40 / (64 * 96)), images=2)
    assert twice['correlation']['mean'] == pytest.approx(1)
    assert twice['inside_a'] == twice['inside_b'] == dict(mean=pytest.approx(1.0), images=2)
    assert constant['correlation'] == constant['inside_b'] == dict(mean=None, images=0)
    assert constant['inside_a'] == same['inside_a']

    table = (tmp_path / 'out' / 'compare.md').read_text(encoding='utf-8')
    assert '| neck_1 | neck_1 | 8 | 1.000 (2) | 100.0% (2) | 100.0% (2) | 26.0% (2) |' in table
    assert '| neck_2 | neck_2 | 8 | - (0) |' in table
    assert pictures(tmp_path / 'out') == ['1/compare.png', 'compare.json', 'compare.md', '二 2/compare.png']
    assert {file for entry in manifest(tmp_path / 'out') for file in entry['files']} == set(pictures(tmp_path / 'out'))
    assert [entry['correlation'] for entry in manifest(tmp_path / 'out')][2] is None


def test_many_levels_fill_several_sheets(tmp_path):
    (path,) = image_files(tmp_path / 'images', '1.png')
    levels = [RANDOM * 10**number for number in range(18)]  # the numbers beside the color bars differ in length
    a = saved_run(tmp_path / 'a', {path: levels}, tmp_path / 'images')
    assert len(compared(tmp_path, a, a)[1]['levels']) == 18
    assert pictures(tmp_path / 'out')[:2] == ['1/compare_1.png', '1/compare_2.png']
    assert [entry['files'][0] for entry in manifest(tmp_path / 'out')] == ['1/compare_1.png'] * 16 + [
        '1/compare_2.png'
    ] * 2
    first, second = (read(tmp_path / 'out' / '1' / f'compare_{page}.png') for page in (1, 2))
    assert 5 * len(second) < len(first) < 9 * len(second)


def test_images_enter_only_the_figures_that_are_defined_for_them(tmp_path):
    paths = image_files(tmp_path / 'images', '1.png', '2.png', '3.png')
    images = dict(zip(paths, ([RANDOM], [RANDOM * 0], [-RANDOM])))
    found = [[0.0, 0.0, 48.0, 64.0], [0.0, 0.0, 96.0, 64.0]], [0.9, 0.1]
    a = saved_run(tmp_path / 'a', images, tmp_path / 'images', found=found)
    b = saved_run(tmp_path / 'b', {path: [RANDOM] for path in paths}, tmp_path / 'images')
    data = compared(tmp_path, a, b)[1]
    assert data['boxes'] == {'predictions of A with a score of at least 0.3': 3}
    figures = data['levels'][0]
    assert figures['correlation'] == dict(mean=pytest.approx(0), images=2)
    assert (figures['inside_a']['images'], figures['inside_b']['images']) == (2, 3)
    assert figures['chance'] == dict(mean=pytest.approx(0.5), images=3)


def pooled(brightness, stride):
    """Block means (rows, columns), float64."""
    height, width = brightness.shape
    return brightness.reshape(height // stride, stride, width // stride, stride).mean(axis=(1, 3))


def bilinear(cells, size):
    """The classical formula src = (dst + 0.5) * in / out - 0.5 with borders clamped, float64, one axis at a time."""
    for axis in (0, 1):
        at = (np.arange(size[axis]) + 0.5) * cells.shape[axis] / size[axis] - 0.5
        cells = np.apply_along_axis(lambda line, at=at: np.interp(at, np.arange(len(line)), line), axis, cells)
    return cells


def real_run(folder, strides, scale, path, root):
    """A run of the brightness pools at an input size (width, height) of its own; and its network input."""
    torch.manual_seed(0)
    model = MODELS.build(pool_detector(strides)).eval()
    data = Compose(keep_ratio_pipeline(scale))(dict(img_path=path, img_id=0))
    visualizer = FeatureVisualizer(out_dir=str(folder), save='maps', image_root=str(root))
    visualizer.open(model)
    batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
    with visualizer.taps as taps, torch.no_grad():
        results = model.test_step(batch)
    visualizer.draw(taps.take(), results)
    return str(folder), data['inputs'].numpy().astype(np.float64).mean(axis=0)


def test_other_input_sizes_and_other_levels_meet_on_the_image(tmp_path):
    size = (96, 128)
    (path,) = image_files(tmp_path / 'images', '1.png', size=size)
    a, input_a = real_run(tmp_path / 'a', (4, 8, 16), (128, 96), path, tmp_path / 'images')
    b, input_b = real_run(tmp_path / 'b', (8, 16, 32), (256, 192), path, tmp_path / 'images')
    assert (input_a.shape, input_b.shape) == ((96, 128), (192, 256))
    one, data = compared(tmp_path, a, b)
    names = [(row['level_a'], row['level_b'], row['stride']) for row in data['levels']]
    assert names == [('backbone_1', 'backbone_0', '8'), ('backbone_2', 'backbone_1', '16')]
    assert (data['alone_in_a'], data['alone_in_b']) == (['backbone_0'], ['backbone_2'])
    for row, stride in zip(data['levels'], (8, 16)):
        heats = [bilinear(pooled(brightness, stride), size) for brightness in (input_a, input_b)]
        expected = np.corrcoef(*(heat.ravel() for heat in heats))[0, 1]
        assert 0.5 < expected < 0.999
        assert row['correlation'] == dict(mean=pytest.approx(expected, abs=1e-5), images=1)
    assert read(tmp_path / 'out' / '1' / 'compare.png').shape[1] > 3 * 320


def test_what_cannot_be_compared_is_named(tmp_path):
    root = tmp_path / 'images'
    paths = image_files(root, 'a.png', 'both.png', 'broken.png', 'gone.png', 'b.png')
    large = image_files(root, 'size.png', size=(64, 128))
    small = [np.zeros((8, 16))]
    a = saved_run(tmp_path / 'a', {path: [RANDOM] for path in paths[:4]}, root)
    b = saved_run(tmp_path / 'b', {path: [RANDOM] for path in paths[1:]}, root)
    for run, size in ((a, (64, 128)), (b, (64, 256))):  # as if the image had been replaced between the runs
        saved = saved_run(tmp_path / f'size {size[1]}', {large[0]: small}, root, size=size)
        (tmp_path / run / 'size').mkdir()
        (tmp_path / run / 'size' / 'maps.npz').write_bytes((tmp_path / saved / 'size' / 'maps.npz').read_bytes())
        with open(tmp_path / run / 'manifest.jsonl', 'a', encoding='utf-8') as lines:
            lines.write((tmp_path / saved / 'manifest.jsonl').read_text(encoding='utf-8'))
    (tmp_path / 'b' / 'broken' / 'maps.npz').write_bytes(b'PK')
    (root / 'gone.png').unlink()
    one, data = compared(tmp_path, a, b)
    assert one.summary() == (
        f'2 images compared in {tmp_path / "out"}; 1 image only in A (a); 1 image only in B (b); '
        '1 image drawn without the image, which is not readable (gone); '
        '1 image skipped, maps not readable (broken); 1 image skipped, images of different sizes (size)'
    )
    assert (data['only_in_a'], data['only_in_b'], data['without_image']) == (['a'], ['b'], ['gone'])
    assert data['levels'][0]['images'] == 2
    assert pictures(tmp_path / 'out') == ['both/compare.png', 'compare.json', 'compare.md', 'gone/compare.png']


def test_file_names_that_are_no_utf_8(tmp_path):
    name = os.fsdecode(b'\xff 1.png')
    try:
        (path,) = image_files(tmp_path / 'images', name)
    except (OSError, UnicodeError):
        pytest.skip('this file system has no such names')
    a = saved_run(tmp_path / 'a', {path: [RANDOM]}, tmp_path / 'images')
    (tmp_path / 'images' / name).unlink()
    RunComparison(Run(a), Run(a), str(tmp_path / 'out')).run()
    text = (tmp_path / 'out' / 'compare.json').read_text(encoding='utf-8', errors='surrogateescape')
    assert json.loads(text)['without_image'] == [name[:-4]]


def test_each_run_places_its_maps_by_its_own_alignment(tmp_path):
    (path,) = image_files(tmp_path / 'images', '1.png')
    a = saved_run(tmp_path / 'a', {path: [RANDOM]}, tmp_path / 'images')
    b = saved_run(tmp_path / 'b', {path: [RANDOM]}, tmp_path / 'images')
    info = json.loads((tmp_path / 'b' / 'run.json').read_text())
    info['style']['align'] = 'corner'
    (tmp_path / 'b' / 'run.json').write_text(json.dumps(info))
    heats = [
        heat_on_image(level(values=RANDOM), identity_placement(SIZE, SIZE), align) for align in ('center', 'corner')
    ]
    expected = np.corrcoef(*(heat.ravel().astype(float) for heat in heats))[0, 1]
    assert expected < 0.9
    assert compared(tmp_path, a, b)[1]['levels'][0]['correlation']['mean'] == pytest.approx(expected)


def test_values_of_two_kinds_are_told_of(tmp_path):
    (path,) = image_files(tmp_path / 'images', '1.png')
    a, b = (saved_run(tmp_path / name, {path: [RANDOM]}, tmp_path / 'images') for name in 'ab')
    for run, reduction in ((a, 'max'), (b, 'mean')):
        info = Path(run) / 'run.json'
        info.write_text(json.dumps({**json.loads(info.read_text()), 'reduction': reduction}))
    one = RunComparison(Run(a), Run(b), str(tmp_path / 'out'))
    one.run()
    assert 'values of two kinds: channels were reduced by max in A and by mean in B' in one.summary()
    assert 'reduction `mean`' in (tmp_path / 'out' / 'compare.md').read_text()


def test_one_image_is_held_at_a_time(tmp_path, monkeypatch):
    paths = image_files(tmp_path / 'images', *(f'{number}.png' for number in range(4)))
    runs = [saved_run(tmp_path / name, {path: [RANDOM] for path in paths}, tmp_path / 'images') for name in 'ab']
    loaded, alive, load = [], [], run_comparison.load_with_image

    def watched(*args):
        alive.append(sum(reference() is not None for reference in loaded))
        snapshot = load(*args)
        loaded.append(weakref.ref(snapshot))
        return snapshot

    monkeypatch.setattr(run_comparison, 'load_with_image', watched)
    compared(tmp_path, *runs)
    assert alive == [0, 1] * 4


def test_mistakes_say_what_to_do(tmp_path):
    first, second = image_files(tmp_path / 'images', '1.png', '2.png')
    a = saved_run(tmp_path / 'a', {first: [RANDOM]}, tmp_path / 'images')
    b = saved_run(tmp_path / 'b', {second: [RANDOM]}, tmp_path / 'images')
    drawn = saved_run(tmp_path / 'drawn', {first: [RANDOM]}, tmp_path / 'images', save='heatmap')
    with pytest.raises(FileNotFoundError, match='images is no run: .*name the out_dir of a run'):
        Run(str(tmp_path / 'images'))
    with pytest.raises(ValueError, match=r"drawn holds no maps to draw from: run with save=\('maps',\)"):
        Run(drawn)
    with pytest.raises(ValueError, match="no image in common: .*a has '1', .*b has '2'. .*image_root"):
        RunComparison(Run(a), Run(b), str(tmp_path / 'out'))
    with pytest.raises(FileExistsError, match='holds the pictures of another run'):
        RunComparison(Run(a), Run(a), drawn)
    with pytest.raises(ValueError, match='is one of the runs: choose another folder'):
        RunComparison(Run(a), Run(a), a, overwrite=True)
    assert Run(a).paths == [str(tmp_path / 'a' / '1' / 'maps.npz')]


def test_a_former_comparison_is_replaced_only_on_request(tmp_path):
    (path,) = image_files(tmp_path / 'images', '1.png')
    a = saved_run(tmp_path / 'a', {path: [RANDOM]}, tmp_path / 'images')
    compared(tmp_path, a, a)
    with pytest.raises(ValueError, match='holds no maps'):
        Run(str(tmp_path / 'out'))
    with pytest.raises(FileExistsError):
        compared(tmp_path, a, a)
    RunComparison(Run(a), Run(a), str(tmp_path / 'out'), overwrite=True)
    assert pictures(tmp_path / 'out') == []
    compared(tmp_path, a, a, overwrite=True)


# The tool


def run_tool(*arguments, cwd):
    command = [sys.executable, str(ROOT / 'tools' / 'compare.py'), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding='utf-8')


def test_the_tool_runs_two_detectors_and_compares_their_runs(tmp_path):
    image_files(tmp_path / 'my images', '猫 1.png', '2.png', size=(96, 128))
    (tmp_path / 'my images' / 'broken.jpg').write_bytes(b'no image')
    demo = ROOT / 'configs' / 'demo'
    result = run_tool(
        '--config-a', demo / 'atss_shapes_hp.py', '--config-b', demo / 'faster_rcnn_shapes_hook.py',
        '--images', 'my images', '--layers', 'neck', '--out-dir', 'out', cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f'skipped: {tmp_path / "my images" / "broken.jpg"} is no readable image' in result.stdout
    assert result.stdout.strip().splitlines()[-1] == (
        f'Feature maps: 2 images compared in {tmp_path / "out"}; '
        'levels without a partner of their stride: neck_4 of A, neck_0 of B'
    )
    data = json.loads((tmp_path / 'out' / 'compare.json').read_text(encoding='utf-8'))
    assert [(row['level_a'], row['level_b']) for row in data['levels']] == [
        (f'neck_{n}', f'neck_{n + 1}') for n in range(4)
    ]
    assert data['b']['checkpoint'].endswith('faster_rcnn_shapes.pth')
    assert (tmp_path / 'out' / '猫 1' / 'compare.jpg').exists()

    again = run_tool('out/a', 'out/b', '--out-dir', 'again', cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / 'again' / 'compare.json').read_text(encoding='utf-8')) == data
    refused = run_tool('out/a', 'my images', '--out-dir', 'third', cwd=tmp_path)
    assert refused.returncode != 0
    assert 'my images is no run: it has no manifest.jsonl' in refused.stderr.strip().splitlines()[-1]
