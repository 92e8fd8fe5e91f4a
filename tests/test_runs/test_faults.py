"""Faults in real runs: the rest is still drawn, and predictions and metrics do not change."""

import errno
import shutil
import signal
import subprocess

import cv2
import numpy as np
import pytest
from conftest import (
    BrightnessPools,
    manifest,
    noise,
    pictures,
    pool_detector,
    read,
    resnet_detector,
    runner_config,
    same_files,
    test_predictions,
    test_project,
    write_dataset,
    write_project,
)
from mmdet.registry import MODELS
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdet_featviz.apis import snapshot_builder
from mmdet_featviz.report import builder
from mmdet_featviz.runs.manifest import read_entries
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.storage import DiskStorage, get_storage
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.placement import placement_from_metas
from mmdet_featviz.visualization.colors import get_colormap
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Views

IMAGES = 6


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(IMAGES)})


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    made = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=200k', 'none', str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip('file systems cannot be mounted here')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


def fault_at(batch, action):
    """A hook that calls `action` at one batch, after the pipeline has read the image and before it is drawn."""

    @HOOKS.register_module(name='Fault', force=True)
    class Fault(Hook):
        def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if batch_idx == batch:
                action()

    return dict(type='Fault', priority='VERY_HIGH')


def summary_of_run(tmp_path, data, fault=None, out_dir=None, model=None, **options):
    """Test with and without the hook, check that the results are the same, and return the hook's summary."""
    results, model = [], model or pool_detector()
    for hook in (None, dict(out_dir=str(out_dir or tmp_path / 'out'), **options)):
        cfg = runner_config(data, tmp_path / f'work_{hook is None}', model, hook=hook)
        cfg.custom_hooks = [fault] if fault is not None and hook is not None else []
        cfg.experiment_name = f'run_{hook is None}'
        results.append(test_predictions(cfg))
    (plain, plain_metrics, _), (drawn, metrics, runner) = results
    assert len(plain) == len(drawn) == IMAGES
    for one, other in zip(plain, drawn):
        for field in one:
            np.testing.assert_array_equal(one[field], other[field])
    assert plain_metrics == metrics
    return next(hook for hook in runner.hooks if type(hook).__name__ == 'FeatVizHook').visualizer.summary()


@pytest.mark.parametrize('workers', [0, 2])
def test_a_full_disk(tmp_path, data, small_disk, workers):
    line = summary_of_run(tmp_path, data, out_dir=small_disk / 'out', image_format='png', workers=workers)
    assert 'No space left on device (' in line
    written = pictures(small_disk / 'out')
    assert 0 < len(written) < 6 * IMAGES
    assert all(read(small_disk / 'out' / name).shape == (90, 120, 3) for name in written)
    assert {file for entry in read_entries(get_storage(small_disk / 'out')) for file in entry['files']} <= set(written)


@MODELS.register_module()
class NonFinitePools(BrightnessPools):
    """BrightnessPools with NaN in the top left corner of level 0, and infinity in one cell of level 1."""

    def forward(self, x):
        levels = super().forward(x)
        levels[0][..., :2, :2] = float('nan')
        levels[1][..., 1, 0] = float('inf')
        return levels


def test_feature_maps_with_nan_and_infinity(tmp_path, data):
    model = pool_detector((8, 16))
    model['backbone']['type'] = 'NonFinitePools'
    line = summary_of_run(tmp_path, data, model=model, save=('heatmap',))
    assert line == f'{2 * IMAGES} pictures of {IMAGES} images in {tmp_path / "out"}'
    assert [entry['not_finite'] for entry in manifest(tmp_path / 'out')] == [4, 1] * IMAGES
    colors = get_colormap('jet')[:, 0]
    for number in range(IMAGES):
        first, second = (read(tmp_path / f'out/{number}/backbone_{level}.heatmap.png') for level in range(2))
        # The pipeline enlarges by 4/3: the last NaN cell of stride 8 has its center at 12 * 3/4.
        assert (first[:9, :9] == colors[0]).all()
        assert (second[18, 0] == colors[:13]).all(1).any()
        for picture in (first, second):  # the finite values use the whole range of colors
            assert (picture[:, :, None] == colors[220:]).all(3).any()


def test_a_read_only_disk(small_disk):
    subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
    with pytest.raises(OSError, match='cannot be written to .Read-only file system.: choose another folder'):
        RunFolder(str(small_disk))


def test_a_disk_that_becomes_read_only(tmp_path, data, small_disk):
    def remount():
        subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)

    line = summary_of_run(tmp_path, data, fault_at(2, remount), small_disk / 'out', workers=0, layers='backbone')
    assert '12 pictures of 2 images' in line
    assert 'skipped: 4 images, picture not written, Read-only file system (2.png, 3.png, 4.png, ...)' in line


def test_resuming_draws_the_picture_that_failed(tmp_path, data, monkeypatch):
    write, style = DiskStorage.write, dict(save=('overlay', 'panel'), layers='backbone')

    def fail(self, name, picture):
        if name == '3/panel.jpg':
            raise OSError(errno.ENOSPC, 'No space left on device')
        write(self, name, picture)

    monkeypatch.setattr(DiskStorage, 'write', fail)
    line = summary_of_run(tmp_path, data, **style)
    assert 'skipped: 1 image, picture not written, No space left on device (3.png)' in line
    monkeypatch.undo()
    summary_of_run(tmp_path / 'again', data, out_dir=tmp_path / 'out', resume=True, **style)
    summary_of_run(tmp_path / 'whole', data, out_dir=tmp_path / 'whole' / 'out', **style)
    assert pictures(tmp_path / 'out') == pictures(tmp_path / 'whole' / 'out')
    assert sum(bool(entry.get('incomplete')) for entry in manifest(tmp_path / 'out')) == 6


def test_an_output_folder_removed_during_the_run(tmp_path, data):
    line = summary_of_run(tmp_path, data, fault_at(3, lambda: shutil.rmtree(tmp_path / 'out')), workers=0)
    assert 'skipped' not in line
    assert {name.split('/')[0] for name in pictures(tmp_path / 'out')} == set('345')


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('harm', [lambda path: path.unlink(), lambda path: path.write_bytes(b'no image')])
def test_an_image_deleted_or_corrupted_during_the_run(tmp_path, data, harm, workers):
    fault = fault_at(1, lambda: harm(data / 'images' / '1.png'))
    line = summary_of_run(tmp_path, data, fault, workers=workers)
    assert '30 pictures of 5 images' in line
    assert line.endswith('skipped: 1 image, image not readable (1.png)')


@pytest.mark.parametrize('workers', [0, 2])
def test_an_error_while_drawing(tmp_path, data, workers, monkeypatch):
    paint, calls = Views.paint, []

    def raises_once(self, *args):
        calls.append(1)
        if len(calls) == 13:
            raise ValueError('the thirteenth level')
        return paint(self, *args)

    monkeypatch.setattr(Views, 'paint', raises_once)
    line = summary_of_run(tmp_path, data, workers=workers)
    assert 'skipped: 1 image, ValueError while drawing (' in line
    assert len(pictures(tmp_path / 'out')) >= 5 * 6


def test_an_error_while_building_a_snapshot(tmp_path, data, monkeypatch):
    def fails_once(meta, *args):
        if meta['img_path'].endswith('2.png'):
            raise ValueError('no place for it')
        return placement_from_metas(meta, *args)

    monkeypatch.setattr(snapshot_builder, 'placement_from_metas', fails_once)
    line = summary_of_run(tmp_path, data)
    assert line.startswith(f'{6 * (IMAGES - 1)} pictures of {IMAGES - 1} images in ')
    assert line.endswith('skipped: 1 image, ValueError while drawing (2.png)')


def test_ranks_whose_manifests_cannot_be_merged(tmp_path, monkeypatch):
    """A file backend may raise an error of any type."""

    def fail(self):
        raise RuntimeError('the bucket is gone')

    writer = RunWriter(RunFolder(str(tmp_path)), Style(), {})
    monkeypatch.setattr(RunFolder, 'merge', fail)
    monkeypatch.setattr('mmdet_featviz.runs.writer.all_gather_object', lambda outcome: [outcome, outcome])
    writer.finish(in_run=True)
    assert writer.summary().endswith('skipped: 1 image, RuntimeError while drawing (manifest.jsonl)')


def test_a_report_that_cannot_be_written(tmp_path, data, monkeypatch):
    def fail(*args):
        raise cv2.error('no such level')

    monkeypatch.setattr(builder, 'page_levels', fail)
    summary_of_run(tmp_path, data, report=True, save='maps')
    monkeypatch.undo()
    summary = builder.write_report(str(tmp_path / 'out'))
    assert summary.startswith(f'report of {IMAGES} images: ')


def test_strict_stops_at_the_first_error(tmp_path, data):
    cfg = runner_config(data, tmp_path / 'work', pool_detector(), hook=dict(out_dir=str(tmp_path / 'out'), strict=True))
    cfg.custom_hooks = [fault_at(1, lambda: (data / 'images' / '1.png').unlink())]
    cfg.test_evaluator = [dict(type='KeepPredictions')]
    runner = Runner.from_cfg(cfg)
    with pytest.raises(Exception, match=r'1.png: the image cannot be read'):
        runner.test()
    assert {name.split('/')[0] for name in pictures(tmp_path / 'out')} == {'0'}


# Processes started in the background ignore SIGINT otherwise.
ENABLE_INTERRUPTS = 'signal.signal(signal.SIGINT, signal.default_int_handler)'


@pytest.mark.parametrize(
    ('end', 'code', 'error'),
    [
        ('os.kill(os.getpid(), signal.SIGKILL)', -signal.SIGKILL, None),
        ('os.kill(os.getpid(), signal.SIGTERM)', 128 + signal.SIGTERM, ''),
        ("exec('raise KeyError(\\'the first error\\')')", 1, "KeyError: 'the first error'"),
        (f'({ENABLE_INTERRUPTS}, os.kill(os.getpid(), signal.SIGINT))', -signal.SIGINT, 'KeyboardInterrupt'),
    ],
    ids=['killed', 'terminated', 'error', 'interrupted'],
)
def test_a_process_that_ends_early_leaves_complete_files_and_can_be_resumed(tmp_path, end, code, error):
    write_project(tmp_path, IMAGES, f'batch_idx == 3 and {end}')
    ended = test_project(tmp_path, '--featviz-dir', 'out')
    assert ended.returncode == code, ended.stderr
    out = tmp_path / 'out'
    before = {
        name: (out / name).stat().st_mtime_ns for entry in read_entries(get_storage(out)) for name in entry['files']
    }
    assert all(read(out / name).shape == (90, 120, 3) for name in before)
    if error is not None:  # then the workers finish first
        output = (ended.stdout + ended.stderr).strip()
        assert f'Feature maps drawn before the run ended early: 36 pictures of 4 images in {out}' in output
        assert error in ended.stderr
        assert sorted(before) == [name for name in pictures(out) if name[0] in '0123']
        assert len(before) == 4 * 9
    cfg = runner_config(tmp_path / 'data', tmp_path / 'work', resnet_detector())
    cfg.load_from = str(tmp_path / 'weights.pth')
    for name, options in (('out', dict(resume=True)), ('whole', {})):
        cfg.default_hooks = dict(featviz=dict(type='FeatVizHook', out_dir=str(tmp_path / name), **options))
        cfg.experiment_name = name
        test_predictions(cfg.copy())
    assert same_files(out, tmp_path / 'whole')
    assert all((out / name).stat().st_mtime_ns == changed for name, changed in before.items())
    with pytest.raises(ValueError, match=r'other settings \(style.alpha was 0.4 and is 0.5 now\)'):
        cfg.default_hooks.featviz.update(out_dir=str(out), resume=True, alpha=0.5)
        cfg.experiment_name = 'other'
        test_predictions(cfg)
    assert len(manifest(out)) == 9 * IMAGES
