"""Writer: pictures drawn later from saved maps are those drawn at once."""

import numpy as np
import pytest
from conftest import manifest, pictures, read
from drawn_run import draw

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.runs import writer as writing
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Views

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


def test_skipped_images_have_names_of_their_own_where_pictures_wait_for_the_range_of_the_run(tmp_path):
    """A level without finite values costs no picture; an image that is gone is named in the summary."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    levels = [Level('neck', 0, 4, (8.0, 8.0), values), Level('neck', 1, 4, (8.0, 8.0), values * np.nan)]
    writer = RunWriter(RunFolder(str(tmp_path / 'run')), Style(normalize='run', save=('overlay', 'heatmap')), {})
    for name in ('street/a', 'street/b'):
        path = str(tmp_path / f'{name}.png')
        writer.write(Snapshot(name, path, 0, identity_placement((16, 24), (16, 24)), levels))
    writer.finish()
    assert writer.summary().endswith('skipped: 2 images, image not readable (a, b)')
    heatmaps = [name for name in pictures(tmp_path / 'run') if name.endswith('heatmap.png')]
    assert heatmaps == [f'street/{name}/neck_{level}.heatmap.png' for name in 'ab' for level in (0, 1)]
    assert np.ptp(read(tmp_path / 'run' / heatmaps[0])) > 100
    assert np.ptp(read(tmp_path / 'run' / heatmaps[1])[..., 0]) == 0


def test_no_connection_to_remote_images_is_shared_by_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, 'do_in_processes', None)
    level = Level('neck', 0, 4, (8.0, 8.0), np.arange(6, dtype=np.float32).reshape(2, 3))
    writer = RunWriter(RunFolder(str(tmp_path / 'run')), Style(normalize='run', save='heatmap'), {}, workers=2)
    for name in ('a', 'b'):
        path = f'petrel://images/{name}.png'
        writer.write(Snapshot(name, path, 0, identity_placement((16, 24), (16, 24)), [level]))
    writer.finish()
    assert '2 pictures' in writer.summary() and 'skipped' not in writer.summary()


def test_what_was_written_is_recorded_where_drawing_and_encoding_both_fail(pool_model, tmp_path, monkeypatch):
    draw(pool_model, tmp_path, save=('maps',), count=1)
    saved = Run(str(tmp_path / 'run'))
    views_draw, encode = Views.draw, writing.encode_picture

    def draw_two(self, *args, **options):
        drawn = views_draw(self, *args, **options)
        yield next(drawn)
        yield next(drawn)
        raise ValueError('the third picture')

    def encode_first(pixels, name):
        if 'backbone_0' not in name:
            raise OSError(name)
        return encode(pixels, name)

    monkeypatch.setattr(Views, 'draw', draw_two)
    monkeypatch.setattr(writing, 'encode_picture', encode_first)
    writer = RunWriter(RunFolder(str(tmp_path / 'later')), Style(), saved.info_to_copy, encodes_beside=True)
    writer.write(next(saved.snapshots()))
    writer.finish()
    assert 'ValueError while drawing' in writer.summary()
    (entry,) = manifest(tmp_path / 'later')
    assert entry['incomplete']
    assert [name.rpartition('/')[2] for name in entry['files']] == ['backbone_0.jpg']
