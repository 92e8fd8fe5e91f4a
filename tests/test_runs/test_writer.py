"""Writer: pictures drawn later from saved maps are those drawn at once."""

import numpy as np
import pytest
from conftest import manifest, pictures, read
from drawn_run import draw

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.visualization.style import Style

EVERY_PICTURE = ('overlay', 'heatmap', 'panel', 'channels', 'overview', 'attention')


def render(run, out_dir, **style):
    """Draw a run again from its saved maps, as `featviz render` does."""
    saved = Run(str(run))
    writer = RunWriter(RunFolder(str(out_dir)), Style(**style), saved.info_to_copy)
    for snapshot in saved.snapshots():
        writer.write(snapshot)
    writer.finish()
    return writer


@pytest.mark.parametrize('images', [True, False], ids=['files', 'arrays'])
@pytest.mark.parametrize('kept', ['maps', 'raw'])
def test_pictures_drawn_later_from_saved_maps_are_identical(pool_model, tmp_path, images, kept):
    style = dict(boxes='pred', colorbar=True, channels='top 2', attention_channels=2)
    draw(pool_model, tmp_path, save=(*EVERY_PICTURE, kept), images=images, **style)
    render(tmp_path / 'run', tmp_path / 'later', save=EVERY_PICTURE, image_format='png', **style)
    names = pictures(tmp_path / 'later')
    assert len(names) == 3 * (4 * 3 + 2)
    for name in names:
        assert (tmp_path / 'later' / name).read_bytes() == (tmp_path / 'run' / name).read_bytes(), name
    others = {name.rpartition('/')[2] for name in set(pictures(tmp_path / 'run')) - set(names)}
    expected = {'maps.npz'} | ({'photo.png'} if not images else set())
    if kept == 'raw':
        expected |= {f'backbone_{number}.raw.npy' for number in range(3)}
    assert others == expected


def test_half_precision_maps_give_almost_the_same_picture(pool_model, tmp_path):
    draw(pool_model, tmp_path, save=('heatmap', 'maps'), maps_dtype='float16', colormap='gray')
    render(tmp_path / 'run', tmp_path / 'later', save='heatmap', colormap='gray')
    for name in pictures(tmp_path / 'later'):
        now, later = (read(tmp_path / folder / name).astype(int) for folder in ('run', 'later'))
        assert np.abs(now - later).max() <= 2
    path = Run(str(tmp_path / 'run')).paths[0]
    with np.load(path) as arrays:
        assert arrays['backbone_0'].dtype == np.float16


def test_raw_feature_maps_are_the_outputs_of_the_layer(pool_model, tmp_path):
    seen = []
    handle = pool_model.backbone.register_forward_hook(lambda module, args, output: seen.append(output))
    draw(pool_model, tmp_path, save='raw', count=2)
    handle.remove()
    for number, levels in enumerate(seen):
        for level, features in enumerate(levels):
            saved = np.load(tmp_path / 'run' / f'图 {number}' / f'backbone_{level}.raw.npy')
            np.testing.assert_array_equal(saved, features[0].numpy())
    assert Run(str(tmp_path / 'run')).snapshots().__next__().boxes.corners.tolist() == [[20, 10, 80, 60]]


def test_a_run_killed_before_its_end_can_be_drawn_from_its_maps(pool_model, tmp_path):
    """With normalize='run' pictures are drawn at the end; before it, only the maps are saved."""
    visualizer = FeatureVisualizer(out_dir=str(tmp_path / 'run'))
    visualizer.close = lambda: None
    draw(pool_model, tmp_path, save=('heatmap',), normalize='run', count=2)
    with open(tmp_path / 'run' / 'manifest.jsonl', 'a') as file:
        file.write('{"image": "half a li')
    render(tmp_path / 'run', tmp_path / 'later', save='heatmap', normalize='image')
    assert len(pictures(tmp_path / 'later')) == 6


def test_a_missing_image_loses_only_its_overlays_and_is_counted(pool_model, tmp_path):
    draw(pool_model, tmp_path, save='maps', count=2)
    (tmp_path / '图 0.png').unlink()
    writer = render(tmp_path / 'run', tmp_path / 'later', save=('overlay', 'heatmap'))
    assert 'skipped: 1 image, image not readable (图 0.png)' in writer.summary()
    names = pictures(tmp_path / 'later')
    assert len(names) == 3 + 6
    assert {file for entry in manifest(tmp_path / 'later') for file in entry['files']} == set(names)
