"""Saved maps bring back what was drawn, and one range for all images of a run."""

import json

import cv2
import numpy as np
import pytest
from conftest import manifest, pictures, pool_detector, read
from drawn_run import draw
from mmdet.registry import MODELS

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.runs.maps_file import dump_snapshot, load_snapshot
from mmdet_featviz.runs.percentiles import run_ranges
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style

EVERY_PICTURE = ('overlay', 'heatmap', 'panel', 'channels', 'overview', 'attention')


@pytest.fixture
def model():
    return MODELS.build(pool_detector((8, 16, 32))).eval()


def render(run, out_dir, **style):
    """What tools/render.py does."""
    kept = Run(str(run))
    writer = RunWriter(RunFolder(str(out_dir)), Style(**style), kept.info_to_copy)
    for snapshot in kept.snapshots():
        writer.write(snapshot)
    writer.finish()
    return writer


@pytest.mark.parametrize('images', [True, False], ids=['files', 'arrays'])
@pytest.mark.parametrize('kept', ['maps', 'raw'])
def test_drawn_later_is_drawn_at_once(model, tmp_path, images, kept):
    style = dict(boxes='pred', colorbar=True, channels='top 2', attention_channels=2)
    draw(model, tmp_path, save=(*EVERY_PICTURE, kept), images=images, **style)
    render(tmp_path / 'run', tmp_path / 'later', save=EVERY_PICTURE, image_format='png', **style)
    names = pictures(tmp_path / 'later')
    assert len(names) == 3 * (4 * 3 + 2)
    for name in names:
        assert (tmp_path / 'later' / name).read_bytes() == (tmp_path / 'run' / name).read_bytes(), name
    others = {name.rpartition('/')[2] for name in set(pictures(tmp_path / 'run')) - set(names)}
    expected = {'maps.npz'} | ({'image.png'} if not images else set())
    if kept == 'raw':
        expected |= {f'backbone_{number}.raw.npy' for number in range(3)}
    assert others == expected


def test_half_precision_maps_give_almost_the_same_picture(model, tmp_path):
    draw(model, tmp_path, save=('heatmap', 'maps'), maps_dtype='float16', colormap='gray')
    render(tmp_path / 'run', tmp_path / 'later', save='heatmap', colormap='gray')
    for name in pictures(tmp_path / 'later'):
        now, later = (read(tmp_path / folder / name).astype(int) for folder in ('run', 'later'))
        assert np.abs(now - later).max() <= 2
    path = Run(str(tmp_path / 'run')).paths[0]
    with np.load(path) as arrays:
        assert arrays['backbone_0'].dtype == np.float16


def test_raw_feature_maps_are_what_the_layer_put_out(model, tmp_path):
    seen = []
    handle = model.backbone.register_forward_hook(lambda module, args, output: seen.append(output))
    draw(model, tmp_path, save='raw', count=2)
    handle.remove()
    for number, levels in enumerate(seen):
        for level, features in enumerate(levels):
            saved = np.load(tmp_path / 'run' / f'图 {number}' / f'backbone_{level}.raw.npy')
            np.testing.assert_array_equal(saved, features[0].numpy())
    assert Run(str(tmp_path / 'run')).snapshots().__next__().boxes.corners.tolist() == [[20, 10, 80, 60]]


def test_the_range_of_a_run_is_that_of_percentiles_over_all_images(model, tmp_path):
    visualizer = draw(model, tmp_path, save=('heatmap',), normalize='run', colormap='gray', count=4)
    assert visualizer.summary().startswith('12 pictures and 4 files of maps of 4 images in')
    run = Run(str(tmp_path / 'run'))
    for level in range(3):
        values, shots = [], [load_snapshot(path) for path in run.paths]
        for shot in shots:
            one = shot.levels[level]
            grid = Grid(one.values.shape, one.stride, shot.placement)
            values.append(grid.visible(one.values).ravel())
        low, high = np.percentile(np.concatenate(values), (0.5, 99.5), method='nearest')
        for shot in shots:
            one = shot.levels[level]
            unit = np.clip((one.values - low) / (high - low), 0, 1)
            expected = Grid(one.values.shape, one.stride, shot.placement).heatmap(unit) * 255
            found = read(tmp_path / 'run' / shot.key / f'backbone_{level}.heatmap.png')[..., 0]
            assert np.abs(found - expected).max() <= 1.5
    entries = run.entries.values()
    assert len(entries) == 12
    assert all(any(file.endswith('.heatmap.png') for file in entry['files']) for entry in entries)


def test_percentiles_of_known_values(tmp_path):
    """Over two images, with outliers that bound the range but are no part of it."""
    rng, paths, everything = np.random.default_rng(0), [], []
    for number in range(2):
        values = rng.normal(number, 3, (50, 80)).astype(np.float32)
        values[0, 0], values[1, 1] = 1e4 * (1 - 2 * number), np.nan
        shot = Snapshot('a', None, 0, identity_placement((50, 80), (50, 80)), [Level('neck', 0, 4, (1, 1), values)])
        paths.append(tmp_path / f'{number}.npz')
        paths[-1].write_bytes(dump_snapshot(shot))
        everything.append(values[np.isfinite(values)])
    found = run_ranges([str(path) for path in paths], 'center')
    bin_width = 2e4 / 65536
    np.testing.assert_allclose(
        found['neck_0'], np.percentile(np.concatenate(everything), (0.5, 99.5)), atol=2 * bin_width
    )


def test_half_precision_holds_what_it_can_and_cuts_the_rest(tmp_path):
    values = np.array([[0.1, 1e6], [-1e6, np.nan]], np.float32)
    shot = Snapshot('a', None, 0, identity_placement((2, 2), (2, 2)), [Level('neck', 0, 4, (1, 1), values)])
    (tmp_path / 'maps.npz').write_bytes(dump_snapshot(shot, 'float16'))
    found = load_snapshot(str(tmp_path / 'maps.npz')).levels[0].values
    np.testing.assert_allclose(found, [[0.1, 65504], [-65504, np.nan]], rtol=1e-3)


def test_a_run_that_was_killed_before_its_end_can_be_drawn(model, tmp_path):
    """With one range for the run nothing is drawn before the end, but all is there to draw it."""
    visualizer = FeatureVisualizer(out_dir=str(tmp_path / 'run'))
    visualizer.close = lambda: None
    draw(model, tmp_path, save=('heatmap',), normalize='run', count=2)
    with open(tmp_path / 'run' / 'manifest.jsonl', 'a') as file:
        file.write('{"image": "half a li')
    render(tmp_path / 'run', tmp_path / 'later', save='heatmap', normalize='image')
    assert len(pictures(tmp_path / 'later')) == 6


def test_run_json_says_how_the_run_was_drawn(model, tmp_path):
    draw(model, tmp_path, save=('overlay', 'maps'), alpha=0.3, reduction='l2')
    info = json.loads((tmp_path / 'run' / 'run.json').read_text(encoding='utf-8'))
    assert info['style']['alpha'] == 0.3
    assert info['reduction'] == 'l2'
    assert info['layers'] == ['backbone']
    assert info['dataset_meta']['classes'] == ['猫', 'dog']
    assert Style(**info['style']) == Style(alpha=0.3, save=('overlay', 'maps'), image_format='png')


def test_mistakes_are_told(model, tmp_path):
    with pytest.raises(FileNotFoundError, match='is no run: it has no manifest.jsonl'):
        Run(str(tmp_path))
    draw(model, tmp_path, count=1)
    with pytest.raises(ValueError, match=r"holds no maps to draw from: run with save=\('maps',\)"):
        Run(str(tmp_path / 'run'))
    (tmp_path / 'maps.npz').write_bytes(b'PK no')
    with pytest.raises(ValueError, match=r'maps.npz holds no maps of this package'):
        load_snapshot(str(tmp_path / 'maps.npz'))


def test_a_missing_image_costs_only_its_overlays_and_is_counted(model, tmp_path):
    draw(model, tmp_path, save='maps', count=2)
    (tmp_path / '图 0.png').unlink()
    writer = render(tmp_path / 'run', tmp_path / 'later', save=('overlay', 'heatmap'))
    assert 'skipped: 1 image, image not readable (图 0.png)' in writer.summary()
    names = pictures(tmp_path / 'later')
    assert len(names) == 3 + 6
    assert {file for entry in manifest(tmp_path / 'later') for file in entry['files']} == set(names)


def test_images_of_relative_paths_are_found_from_another_folder(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(model, tmp_path, count=1, save=('overlay', 'maps'))
    info = tmp_path / 'run' / 'run.json'
    assert json.loads(info.read_text())['working_dir'] == str(tmp_path)
    path = Run(str(tmp_path / 'run')).paths[0]
    one = load_snapshot(path)
    (tmp_path / 'relative').mkdir()
    relative = tmp_path / 'relative' / 'maps.npz'
    relative.write_bytes(dump_snapshot(Snapshot(**{**vars(one), 'path': '图 0.png'})))
    monkeypatch.chdir(tmp_path / 'relative')
    image = load_with_image(str(relative), json.loads(info.read_text())).image()
    np.testing.assert_array_equal(image, read(tmp_path / '图 0.png'))
    cv2.imwrite('there.png', image)
    (tmp_path / 'relative' / '图 0.png').write_bytes((tmp_path / 'relative' / 'there.png').read_bytes())
    (tmp_path / '图 0.png').write_bytes(cv2.imencode('.png', np.zeros_like(image))[1].tobytes())
    np.testing.assert_array_equal(load_with_image(str(relative), json.loads(info.read_text())).image(), image)


def test_the_folder_of_a_report_is_no_run(model, tmp_path):
    draw(model, tmp_path, count=1, save='maps', report=True)
    with pytest.raises(ValueError, match='report holds no maps to draw from'):
        Run(str(tmp_path / 'run' / 'report'))
