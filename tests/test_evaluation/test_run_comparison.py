"""Two whole runs compared: pictures, tables, what is skipped, and errors."""

import csv
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from comparison_samples import RANDOM_MAP, SIZE, make_level, save_run, write_images
from conftest import ROOT, keep_ratio_pipeline, manifest, pictures, pool_detector, read
from mmcv.transforms import Compose
from mmdet.registry import MODELS

from mmdet_featviz import FeatureVisualizer, Style
from mmdet_featviz.evaluation import run_comparison
from mmdet_featviz.evaluation.comparison_table import escape_latex
from mmdet_featviz.evaluation.heat_measures import heat_on_image
from mmdet_featviz.evaluation.run_comparison import RunComparison
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.placement import identity_placement

TABLES = [f'compare.{ending}' for ending in ('csv', 'json', 'md', 'tex')]


def compare(tmp_path, run_a, run_b, **options):
    """Compare two runs; returns the comparison and the content of compare.json."""
    comparison = RunComparison([Run(run_a), Run(run_b)], str(tmp_path / 'out'), Style(image_format='png'), **options)
    comparison.run()
    return comparison, json.loads((tmp_path / 'out' / 'compare.json').read_text(encoding='utf-8'))


def test_tables_and_manifest(tmp_path):
    """Level 0 is equal in both runs, level 1 is doubled, level 2 is constant in B, level 3 is only in A."""
    paths = write_images(tmp_path / 'images', '1.png', '二 2.png')
    inside = np.zeros((8, 12))
    inside[3:6, 3:6] = 1
    box = [[16.0, 16.0, 56.0, 56.0]]  # with one cell around the hot ones: interpolation spreads heat by half a cell
    levels_a = [RANDOM_MAP, inside, RANDOM_MAP, RANDOM_MAP]
    levels_b = [RANDOM_MAP, 2 * inside, RANDOM_MAP * 0]
    a = save_run(tmp_path / 'a', dict.fromkeys(paths, levels_a), tmp_path / 'images', box)
    b = save_run(tmp_path / 'b', dict.fromkeys(paths, levels_b), tmp_path / 'images')
    comparison, data = compare(tmp_path, a, b)

    assert (
        comparison.summary() == f'2 images compared in {tmp_path / "out"}; '
        'levels without a level of the same stride in the other run: neck_3 of A'
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
    assert pictures(tmp_path / 'out') == ['1/compare.png', *TABLES, '二 2/compare.png']
    assert {file for entry in manifest(tmp_path / 'out') for file in entry['files']} == set(pictures(tmp_path / 'out'))
    assert [entry['correlation'] for entry in manifest(tmp_path / 'out')][2] is None


def test_many_levels_fill_several_sheets(tmp_path):
    (path,) = write_images(tmp_path / 'images', '1.png')
    levels = [RANDOM_MAP * 10**number for number in range(18)]  # the numbers at the color bars differ in length
    a = save_run(tmp_path / 'a', {path: levels}, tmp_path / 'images')
    assert len(compare(tmp_path, a, a)[1]['levels']) == 18
    assert pictures(tmp_path / 'out')[:2] == ['1/compare_1.png', '1/compare_2.png']
    assert [entry['files'][0] for entry in manifest(tmp_path / 'out')] == ['1/compare_1.png'] * 16 + [
        '1/compare_2.png'
    ] * 2
    first, second = (read(tmp_path / 'out' / '1' / f'compare_{page}.png') for page in (1, 2))
    assert 5 * len(second) < len(first) < 9 * len(second)


def test_means_leave_out_undefined_scores(tmp_path):
    paths = write_images(tmp_path / 'images', '1.png', '2.png', '3.png')
    images = dict(zip(paths, ([RANDOM_MAP], [RANDOM_MAP * 0], [-RANDOM_MAP])))
    predictions = [[0.0, 0.0, 48.0, 64.0], [0.0, 0.0, 96.0, 64.0]], [0.9, 0.1]
    a = save_run(tmp_path / 'a', images, tmp_path / 'images', predictions=predictions)
    b = save_run(tmp_path / 'b', {path: [RANDOM_MAP] for path in paths}, tmp_path / 'images')
    data = compare(tmp_path, a, b)[1]
    assert data['boxes'] == {'predictions of A with a score of at least 0.3': 3}
    scores = data['levels'][0]
    assert scores['correlation'] == dict(mean=pytest.approx(0), images=2)
    assert (scores['inside_a']['images'], scores['inside_b']['images']) == (2, 3)
    assert scores['chance'] == dict(mean=pytest.approx(0.5), images=3)


def pool(brightness, stride):
    """Block means (rows, columns), float64."""
    height, width = brightness.shape
    return brightness.reshape(height // stride, stride, width // stride, stride).mean(axis=(1, 3))


def resize_bilinearly(cells, size):
    """Resize by src = (dst + 0.5) * in / out - 0.5 with borders clamped, in float64, one axis at a time."""
    for axis in (0, 1):
        at = (np.arange(size[axis]) + 0.5) * cells.shape[axis] / size[axis] - 0.5
        cells = np.apply_along_axis(lambda line, at=at: np.interp(at, np.arange(len(line)), line), axis, cells)
    return cells


def run_detector(folder, strides, scale, path, root):
    """Run the brightness pools at an input size (width, height); returns the run folder and the network's input."""
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


def test_detectors_with_other_input_sizes_and_levels_are_compared(tmp_path):
    size = (96, 128)
    (path,) = write_images(tmp_path / 'images', '1.png', size=size)
    a, input_a = run_detector(tmp_path / 'a', (4, 8, 16), (128, 96), path, tmp_path / 'images')
    b, input_b = run_detector(tmp_path / 'b', (8, 16, 32), (256, 192), path, tmp_path / 'images')
    assert (input_a.shape, input_b.shape) == ((96, 128), (192, 256))
    comparison, data = compare(tmp_path, a, b)
    names = [(row['level_a'], row['level_b'], row['stride']) for row in data['levels']]
    assert names == [('backbone_1', 'backbone_0', '8'), ('backbone_2', 'backbone_1', '16')]
    assert (data['alone_in_a'], data['alone_in_b']) == (['backbone_0'], ['backbone_2'])
    for row, stride in zip(data['levels'], (8, 16)):
        heats = [resize_bilinearly(pool(brightness, stride), size) for brightness in (input_a, input_b)]
        expected = np.corrcoef(*(heat.ravel() for heat in heats))[0, 1]
        assert 0.5 < expected < 0.999
        assert row['correlation'] == dict(mean=pytest.approx(expected, abs=1e-5), images=1)
    assert read(tmp_path / 'out' / '1' / 'compare.png').shape[1] > 3 * 320


def test_the_summary_names_images_that_are_not_compared(tmp_path):
    root = tmp_path / 'images'
    paths = write_images(root, 'a.png', 'both.png', 'broken.png', 'gone.png', 'b.png')
    large = write_images(root, 'size.png', size=(64, 128))
    small = [np.zeros((8, 16))]
    a = save_run(tmp_path / 'a', {path: [RANDOM_MAP] for path in paths[:4]}, root)
    b = save_run(tmp_path / 'b', {path: [RANDOM_MAP] for path in paths[1:]}, root)
    for run, size in ((a, (64, 128)), (b, (64, 256))):  # as if the image file had changed between the runs
        saved = save_run(tmp_path / f'size {size[1]}', {large[0]: small}, root, size=size)
        (tmp_path / run / 'size').mkdir()
        (tmp_path / run / 'size' / 'maps.npz').write_bytes((tmp_path / saved / 'size' / 'maps.npz').read_bytes())
        with open(tmp_path / run / 'manifest.jsonl', 'a', encoding='utf-8') as lines:
            lines.write((tmp_path / saved / 'manifest.jsonl').read_text(encoding='utf-8'))
    (tmp_path / 'b' / 'broken' / 'maps.npz').write_bytes(b'PK')
    (root / 'gone.png').unlink()
    comparison, data = compare(tmp_path, a, b)
    assert comparison.summary() == (
        f'2 images compared in {tmp_path / "out"}; 1 image only in A (a); 1 image only in B (b); '
        '1 image drawn as heat only, because the image file cannot be read (gone); '
        '1 image skipped, images of different sizes (size); 1 image skipped, maps not readable (broken)'
    )
    assert (data['only_in_a'], data['only_in_b'], data['without_photo']) == (['a'], ['b'], ['gone'])
    assert data['levels'][0]['images'] == 2
    assert pictures(tmp_path / 'out') == ['both/compare.png', *TABLES, 'gone/compare.png']


def test_passes_over_an_image_count_as_one_image(tmp_path):
    paths = write_images(tmp_path / 'images', '1.png', 'gone.png', 'broken.png')
    options = dict(root=tmp_path / 'images', truth=[[0.0, 0, 48, 64]], passes=3)
    a = save_run(tmp_path / 'a', {path: [RANDOM_MAP] for path in paths}, **options)
    values = {path: [RANDOM_MAP * (-1) ** number] for number, path in enumerate(paths)}
    b = save_run(tmp_path / 'b', values, **options)
    (tmp_path / 'images' / 'gone.png').unlink()
    for maps in (tmp_path / 'b' / 'broken').iterdir():
        maps.write_bytes(b'PK')
    comparison, data = compare(tmp_path, a, b)
    assert comparison.summary() == (
        f'2 images compared in {tmp_path / "out"}; '
        '1 image drawn as heat only, because the image file cannot be read (gone); '
        '1 image skipped, maps not readable (broken)'
    )
    assert (data['images'], data['skipped'], data['without_photo']) == (2, {'maps not readable': ['broken']}, ['gone'])
    assert list(data['boxes'].values()) == [2]
    assert data['levels'][0]['images'] == 2
    assert data['levels'][0]['correlation'] == dict(mean=pytest.approx(0), images=2)
    assert len(manifest(tmp_path / 'out')) == 2 * 3


def test_file_names_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b'\xff 1.png')
    try:
        (path,) = write_images(tmp_path / 'images', name)
    except (OSError, UnicodeError):
        pytest.skip('this file system does not allow names that are not UTF-8')
    a = save_run(tmp_path / 'a', {path: [RANDOM_MAP]}, tmp_path / 'images')
    (tmp_path / 'images' / name).unlink()
    RunComparison([Run(a), Run(a)], str(tmp_path / 'out')).run()
    text = (tmp_path / 'out' / 'compare.json').read_text(encoding='utf-8', errors='surrogateescape')
    assert json.loads(text)['without_photo'] == [name[:-4]]


def test_each_run_places_its_maps_by_its_own_alignment(tmp_path):
    (path,) = write_images(tmp_path / 'images', '1.png')
    a = save_run(tmp_path / 'a', {path: [RANDOM_MAP]}, tmp_path / 'images')
    b = save_run(tmp_path / 'b', {path: [RANDOM_MAP]}, tmp_path / 'images')
    info = json.loads((tmp_path / 'b' / 'run.json').read_text())
    info['style']['align'] = 'corner'
    (tmp_path / 'b' / 'run.json').write_text(json.dumps(info))
    heats = [
        heat_on_image(make_level(values=RANDOM_MAP), identity_placement(SIZE, SIZE), align)
        for align in ('center', 'corner')
    ]
    expected = np.corrcoef(*(heat.ravel().astype(float) for heat in heats))[0, 1]
    assert expected < 0.9
    assert compare(tmp_path, a, b)[1]['levels'][0]['correlation']['mean'] == pytest.approx(expected)


def test_different_reductions_are_reported(tmp_path):
    (path,) = write_images(tmp_path / 'images', '1.png')
    a, b = (save_run(tmp_path / name, {path: [RANDOM_MAP]}, tmp_path / 'images') for name in 'ab')
    for run, reduction in ((a, 'max'), (b, 'mean')):
        info = Path(run) / 'run.json'
        info.write_text(json.dumps({**json.loads(info.read_text()), 'reduction': reduction}))
    comparison = RunComparison([Run(a), Run(b)], str(tmp_path / 'out'))
    comparison.run()
    assert 'values are not comparable: channels were reduced by max in A and by mean in B' in comparison.summary()
    assert comparison.summary().endswith('A and B are each drawn in their own range')
    assert 'reduction `mean`' in (tmp_path / 'out' / 'compare.md').read_text()
    asked = RunComparison([Run(a), Run(b)], str(tmp_path / 'common'), share_range=True)
    asked.run()
    assert 'their own range' not in asked.summary()
    drawn, common = (read(tmp_path / name / '1' / 'compare.jpg') for name in ('out', 'common'))
    assert drawn.shape == common.shape  # equal maps: both ranges are the same
    assert np.abs(drawn.astype(int) - common).max() > 50  # but for the name of B - A


def test_runs_of_different_configs_have_their_own_ranges(tmp_path):
    (path,) = write_images(tmp_path / 'images', '1.png')
    a = save_run(tmp_path / 'a', {path: [RANDOM_MAP]}, tmp_path / 'images')
    b = save_run(tmp_path / 'b', {path: [100 * RANDOM_MAP]}, tmp_path / 'images')
    pictures_of = {}
    for config in (None, 'other.py'):
        info = Path(b) / 'run.json'
        info.write_text(json.dumps({**json.loads(info.read_text()), 'config': config}))
        out = tmp_path / f'out {config}'
        comparison = RunComparison([Run(a), Run(b)], str(out), Style(image_format='png', colormap='gray', alpha=1.0))
        comparison.run()
        assert ('their own range' in comparison.summary()) == (config is not None)
        pictures_of[config] = read(out / '1' / 'compare.png')[-200:, :320]  # A
    assert np.ptp(pictures_of[None][20:-20, 20:300].astype(int)) < 30  # next to 100 times as much
    assert np.ptp(pictures_of['other.py'][20:-20, 20:300].astype(int)) > 200


def test_one_image_is_held_at_a_time(tmp_path, monkeypatch):
    paths = write_images(tmp_path / 'images', *(f'{number}.png' for number in range(4)))
    runs = [save_run(tmp_path / name, {path: [RANDOM_MAP] for path in paths}, tmp_path / 'images') for name in 'ab']
    loaded, alive, load = [], [], run_comparison.load_with_image

    def watched(*args):
        alive.append(sum(reference() is not None for reference in loaded))
        snapshot = load(*args)
        loaded.append(weakref.ref(snapshot))
        return snapshot

    monkeypatch.setattr(run_comparison, 'load_with_image', watched)
    compare(tmp_path, *runs)
    assert alive == [0, 1] * 4


def test_mistakes_say_what_to_do(tmp_path):
    first, second = write_images(tmp_path / 'images', '1.png', '2.png')
    a = save_run(tmp_path / 'a', {first: [RANDOM_MAP]}, tmp_path / 'images')
    b = save_run(tmp_path / 'b', {second: [RANDOM_MAP]}, tmp_path / 'images')
    drawn = save_run(tmp_path / 'drawn', {first: [RANDOM_MAP]}, tmp_path / 'images', save='heatmap')
    with pytest.raises(FileNotFoundError, match='images is no run: .*name the out_dir of a run'):
        Run(str(tmp_path / 'images'))
    with pytest.raises(ValueError, match=r"drawn holds no maps to draw from: run with save=\('maps',\)"):
        Run(drawn)
    with pytest.raises(ValueError, match="no image in common: .*a has '1', .*b has '2'. .*image_root"):
        RunComparison([Run(a), Run(b)], str(tmp_path / 'out'))
    with pytest.raises(FileExistsError, match='holds the pictures of another run'):
        RunComparison([Run(a), Run(a)], drawn)
    with pytest.raises(ValueError, match='is one of the runs: choose another folder'):
        RunComparison([Run(a), Run(a)], a, overwrite=True)
    assert Run(a).paths == [str(tmp_path / 'a' / '1' / 'maps.npz')]


def test_an_earlier_comparison_is_replaced_only_with_overwrite(tmp_path):
    (path,) = write_images(tmp_path / 'images', '1.png')
    a = save_run(tmp_path / 'a', {path: [RANDOM_MAP]}, tmp_path / 'images')
    compare(tmp_path, a, a)
    with pytest.raises(ValueError, match='holds no maps'):
        Run(str(tmp_path / 'out'))
    with pytest.raises(FileExistsError):
        compare(tmp_path, a, a)
    RunComparison([Run(a), Run(a)], str(tmp_path / 'out'), overwrite=True)
    assert pictures(tmp_path / 'out') == []
    compare(tmp_path, a, a, overwrite=True)


def test_boxes_of_chosen_classes_have_the_wanted_lines(tmp_path):
    paths = write_images(tmp_path / 'images', '1.png')
    run = Run(save_run(tmp_path / 'a', {paths[0]: [RANDOM_MAP]}, tmp_path / 'images', [[8.0, 8.0, 40.0, 56.0]]))

    def sheet(name, **look):
        style = Style(image_format='png', labels='none', **look)
        RunComparison([run, run], str(tmp_path / name), style).run()
        return cv2.imread(str(tmp_path / name / '1' / 'compare.png')).astype(int)

    plain = sheet('plain')
    thin, wide = (
        np.count_nonzero((sheet(f'{width}', boxes='gt', line_width=width) != plain).any(2)) for width in (1, 4)
    )
    assert wide > 2 * thin > 0
    np.testing.assert_array_equal(sheet('other', boxes='gt', classes=['1']), plain)
    with pytest.raises(ValueError, match='unicorn'):
        sheet('no class', boxes='gt', classes=['unicorn'])
    assert not (tmp_path / 'no class').exists()


def test_three_runs_are_compared_with_the_first(tmp_path):
    """B is A upside down and has one level; C is A three times as large, and lacks an image."""
    paths = write_images(tmp_path / 'images', '1.png', '2.png')
    box = [[0.0, 0.0, 48.0, 64.0]]
    a = save_run(tmp_path / 'a', dict.fromkeys(paths, [RANDOM_MAP, RANDOM_MAP]), tmp_path / 'images', box)
    b = save_run(tmp_path / 'b', dict.fromkeys(paths, [RANDOM_MAP[::-1]]), tmp_path / 'images')
    c = save_run(tmp_path / 'c', {paths[0]: [3 * RANDOM_MAP] * 2}, tmp_path / 'images', predictions=(box, [0.9]))
    names = ['Base & line', 'Ours_1', '50%']
    options = dict(names=names, original=True)
    comparison = RunComparison([Run(a), Run(b), Run(c)], str(tmp_path / 'out'), Style(boxes='both'), **options)
    comparison.run()
    data = json.loads((tmp_path / 'out' / 'compare.json').read_text(encoding='utf-8'))
    assert comparison.summary() == (
        f'1 image compared in {tmp_path / "out"}; 1 image in Base & line, but not in all runs (2); '
        '1 image in Ours_1, but not in all runs (2)'
    )
    assert (data['names'], data['only_in_b'], data['only_in_c']) == (names, ['2'], [])
    first, second = data['levels']
    assert [first[f'level_{letter}'] for letter in 'abc'] == ['neck_0'] * 3
    assert [second[f'level_{letter}'] for letter in 'abc'] == ['neck_1', None, 'neck_1']
    heats = [resize_bilinearly(cells.astype(float), SIZE) for cells in (RANDOM_MAP, RANDOM_MAP[::-1])]
    expected = np.corrcoef(*(heat.ravel() for heat in heats))[0, 1]
    assert first['correlation_b']['mean'] == pytest.approx(expected, abs=1e-5)
    assert first['correlation_c']['mean'] == second['correlation_c']['mean'] == pytest.approx(1)
    assert first['inside_a'] == second['inside_a']
    assert first['inside_c']['mean'] == pytest.approx(first['inside_a']['mean'])
    assert second['correlation_b'] == second['inside_b'] == dict(mean=None, images=0)
    with open(tmp_path / 'out' / 'compare.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['run'], row['level'], row['level_of_run']) for row in rows] == [
        *((name, 'neck_0', 'neck_0') for name in names),
        *((name, 'neck_1', partner) for name, partner in zip(names, ('neck_1', '', 'neck_1'))),
    ]
    assert [row['correlation'] for row in rows[::3]] == ['', '']
    assert float(rows[1]['correlation']) == first['correlation_b']['mean']
    assert float(rows[1]['inside']) == first['inside_b']['mean']
    shares = [100 * first[f'inside_{letter}']['mean'] for letter in 'abc']
    latex = (tmp_path / 'out' / 'compare.tex').read_text(encoding='utf-8')
    lines = latex.splitlines()
    assert lines[1:3] == [r'\begin{tabular}{lrrrrrrr}', r'\toprule']
    assert r'Correlation of Ours\_1 with Base \& line & Correlation of 50\% with Base \& line' in lines[3]
    numbers = ' & '.join(f'{share:.1f}' for share in shares)
    assert lines[5] == rf'neck\_0 & 8 & {expected:.3f} & 1.000 & {numbers} & 50.0 \\'
    assert lines[6].startswith(r'neck\_1 & 8 & -- & 1.000 & ')
    table = (tmp_path / 'out' / 'compare.md').read_text(encoding='utf-8')
    assert table.startswith('# Base & line, Ours_1 and 50% compared')
    assert '| neck_1 | - | neck_1 | 8 | - (0) | 1.000 (1) |' in table
    assert read(tmp_path / 'out' / '1' / 'compare.jpg').shape[1] > 4 * 320
    assert {file for entry in manifest(tmp_path / 'out') for file in entry['files']} == {'1/compare.jpg', *TABLES}


def test_latex_prints_each_sign_of_a_name():
    assert escape_latex('<50%> of\na|d ü') == r'\textless{}50\%\textgreater{} of a\textbar{}d ü'
    assert escape_latex('\\_~{}$#&^') == r'\textbackslash{}\_\textasciitilde{}\{\}\$\#\&\textasciicircum{}'


def test_epochs_of_one_training_are_compared(tmp_path):
    """Values of epoch 3 are those of epoch 1 with the other sign; only the wanted level is drawn."""
    paths = write_images(tmp_path / 'images', '1.png', '2.png')
    epochs = dict(epoch_1=1, epoch_3=-1)
    levels = [RANDOM_MAP, RANDOM_MAP]
    trained = Path(save_run(tmp_path / 'run', dict.fromkeys(paths, levels), tmp_path / 'images', epochs=epochs))
    info = json.loads((trained / 'run.json').read_text())
    info['metrics'] = {'epoch_1': {'mAP': 0.1}, 'epoch_3': {'mAP': 0.3}}
    (trained / 'run.json').write_text(json.dumps(info))
    runs = [Run(str(trained / epoch)) for epoch in epochs]
    assert [run.info['metrics'] for run in runs] == [{'epoch_1': {'mAP': 0.1}}, {'epoch_3': {'mAP': 0.3}}]
    comparison = RunComparison(runs, str(tmp_path / 'out'), Style(image_format='png'), levels=['neck_1'])
    comparison.run()
    data = comparison.data()
    assert [(row['level_a'], row['images']) for row in data['levels']] == [('neck_1', 2)]
    assert data['levels'][0]['correlation']['mean'] == pytest.approx(-1)
    assert comparison.share_range
    assert pictures(tmp_path / 'out') == ['1/compare.png', '2/compare.png', *TABLES]
    assert [entry['key'] for entry in manifest(tmp_path / 'out')] == ['1', '2']
    for wrong in (trained / 'epoch_2', trained / 'epoch_1' / '1'):
        with pytest.raises(FileNotFoundError, match=f'{wrong.name} is no run: it has no manifest.jsonl'):
            Run(str(wrong))
    with pytest.raises(FileNotFoundError, match='run has epoch_1, epoch_3'):
        Run(str(trained / 'epoch_2'))
    with pytest.raises(ValueError, match=r"levels \['fpn_\*'\] match none of .*epoch_1: it has neck_0, neck_1"):
        RunComparison(runs, str(tmp_path / 'third'), levels=['fpn_*'])
    for names in (['one'], ['same', 'same'], ['', 'two']):
        with pytest.raises(ValueError, match='for 2 runs: give each run a name of its own'):
            RunComparison(runs, str(tmp_path / 'third'), names=names)
    with pytest.raises(ValueError, match='is one of the runs'):
        RunComparison(runs, str(trained), overwrite=True)
    with pytest.raises(ValueError, match='1 runs cannot be compared: name 2 to 26'):
        RunComparison(runs[:1], str(tmp_path / 'third'))
    assert not (tmp_path / 'third').exists()


# The command


def run_command(*arguments, cwd):
    command = [sys.executable, str(ROOT / 'tools' / 'compare.py'), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding='utf-8')


def test_compare_command_runs_two_detectors(tmp_path):
    write_images(tmp_path / 'my images', '猫 1.png', '2.png', size=(96, 128))
    (tmp_path / 'my images' / 'broken.jpg').write_bytes(b'no image')
    demo = ROOT / 'configs' / 'demo'
    result = run_command(
        '--config-a', demo / 'atss_shapes_hp.py', '--config-b', demo / 'faster_rcnn_shapes_hook.py',
        '--images', 'my images', '--layers', 'neck', '--out-dir', 'out', cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f'skipped: {tmp_path / "my images" / "broken.jpg"} is no readable image' in result.stdout
    assert result.stdout.strip().splitlines()[-1] == (
        f'Feature maps: 2 images compared in {tmp_path / "out"}; '
        'A and B are each drawn in their own range; '
        'levels without a level of the same stride in the other run: neck_4 of A, neck_0 of B'
    )
    data = json.loads((tmp_path / 'out' / 'compare.json').read_text(encoding='utf-8'))
    assert [(row['level_a'], row['level_b']) for row in data['levels']] == [
        (f'neck_{n}', f'neck_{n + 1}') for n in range(4)
    ]
    assert data['b']['checkpoint'].endswith('faster_rcnn_shapes.pth')
    assert (tmp_path / 'out' / '猫 1' / 'compare.jpg').exists()

    again = run_command('out/a', 'out/b', '--out-dir', 'again', cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / 'again' / 'compare.json').read_text(encoding='utf-8')) == data
    refused = run_command('out/a', 'my images', '--out-dir', 'third', cwd=tmp_path)
    assert refused.returncode != 0
    assert 'my images is no run: it has no manifest.jsonl' in refused.stderr.strip().splitlines()[-1]
