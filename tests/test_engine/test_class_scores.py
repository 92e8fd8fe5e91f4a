"""Class-score maps in a test, a validation and a training: drawn, saved, rendered, resumed and reported."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import run as command
from conftest import (
    keep_ratio_pipeline,
    manifest,
    noise,
    pictures,
    read,
    resnet_detector,
    runner_config,
    same_files,
    test_predictions,
    train_config,
    write_dataset,
)
from mmengine.runner import Runner

from mmdet_featviz.runs.maps_file import load_snapshot
from mmdet_featviz.runs.reader import Run


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', {'a.png': noise(), 'b.png': noise(seed=1)})


def run(data, folder, **options):
    hook = dict(out_dir=str(folder), workers=0, **options)
    return test_predictions(runner_config(data, folder.parent / 'work', resnet_detector(), batch_size=2, hook=hook))


def render(source, folder, *options, fails=False):
    done = command('render.py', source, '--out-dir', folder, *options, cwd=source.parent)
    assert bool(done.returncode) == fails, done.stderr
    return done.stderr


def test_predictions_are_identical_and_only_scores_are_drawn(data, tmp_path):
    cfg = runner_config(data, tmp_path / 'work', resnet_detector(), batch_size=2)
    plain, _, _ = test_predictions(cfg)
    drawn, _, _ = run(data, tmp_path / 'out', save='scores', score_thr=0.0)
    for one, other in zip(plain, drawn):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    entries = manifest(tmp_path / 'out')
    assert {entry['layer'].split('.')[0] for entry in entries} == {'bbox_head'}
    for key, found in zip('ab', drawn):
        labels = {entry['label'] for entry in entries if entry['key'] == key}
        assert labels == {None, *found['labels'].tolist()}
        merged = [entry for entry in entries if entry['key'] == key and entry['layer'] == 'bbox_head.merged_scores']
        assert merged[0]['max'] == pytest.approx(found['scores'].max(), rel=1e-6)
    assert 'a/bbox_head.scores.cat_0.jpg' in pictures(tmp_path / 'out')


@pytest.mark.parametrize('batch_size', [1, 2])
def test_a_detector_that_draws_by_itself_has_the_scores_of_the_hook(data, tmp_path, batch_size):
    options = dict(save=('scores', 'maps'), classes=['cat', 'dog'])
    run(data, tmp_path / 'hook', **options)
    own = dict(out_dir=str(tmp_path / 'own'), **options)
    model = resnet_detector('SingleStageDetectorHp', featviz=own)
    predictions, _, runner = test_predictions(
        runner_config(data, tmp_path / 'own work', model, batch_size=batch_size, hook=None)
    )
    runner.model.featviz.close()
    plain, _, _ = test_predictions(runner_config(data, tmp_path / 'plain', resnet_detector(), batch_size=batch_size))
    for one, other in zip(predictions, plain):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    snapshots = {Path(one.path).name: one for one in Run(str(tmp_path / 'own')).snapshots()}
    for expected in Run(str(tmp_path / 'hook')).snapshots():
        found = snapshots.pop(Path(expected.path).name)
        assert [level.name for level in found.levels] == [level.name for level in expected.levels]
        assert len(found.levels) == 18  # five levels and all of them, of the best class and of each
        for level, same in zip(found.levels, expected.levels):
            assert (level.score_of, level.label, level.stride) == (same.score_of, same.label, same.stride)
            np.testing.assert_allclose(level.values, same.values, rtol=1e-4)
    assert not snapshots


def test_only_the_classes_that_are_named_are_drawn_with_the_layers(data, tmp_path):
    run(data, tmp_path / 'out', save=('overlay', 'scores'), classes=['dog'], layers='neck')
    names = {name.split('/')[1].rsplit('_', 1)[0] for name in pictures(tmp_path / 'out')}
    layers = {'bbox_head.scores', 'bbox_head.merged_scores'}
    assert names == {'neck', *layers, *(f'{layer}.dog' for layer in layers)}


@pytest.mark.parametrize('classes', [['horse'], [2]])
def test_an_unknown_class_is_an_error_before_the_first_image(data, tmp_path, classes):
    with pytest.raises(ValueError, match=f"unknown class '{classes[0]}'.*cat, dog"):
        run(data, tmp_path / 'out', save='scores', classes=classes)


def test_saved_score_maps_are_rendered_as_they_were_drawn(data, tmp_path):
    run(data, tmp_path / 'out', save=('scores', 'maps'), classes=['cat', 'dog'])
    snapshot = load_snapshot(str(tmp_path / 'out' / 'a' / 'maps.npz'))
    assert {(level.score_of, level.label) for level in snapshot.levels} == {
        ('the best class', None),
        ('cat', 0),
        ('dog', 1),
    }
    render(tmp_path / 'out', tmp_path / 'again')
    drawn = [name for name in pictures(tmp_path / 'out') if name.endswith('jpg')]
    assert drawn == pictures(tmp_path / 'again')
    for name in drawn:
        assert (tmp_path / 'out' / name).read_bytes() == (tmp_path / 'again' / name).read_bytes()
    render(tmp_path / 'out', tmp_path / 'dogs', '--classes', 'dog')
    assert {'dog', 'scores', 'merged_scores'} == {
        name.split('/')[1].rsplit('_', 1)[0].rsplit('.', 1)[1] for name in pictures(tmp_path / 'dogs')
    }


def test_a_run_without_score_maps_cannot_be_rendered_with_them(data, tmp_path):
    run(data, tmp_path / 'out', save='maps')
    message = render(tmp_path / 'out', tmp_path / 'again', '--save', 'scores', fails=True)
    assert message.strip().endswith('the run saved no class-score maps: repeat it with --save scores maps')


def test_a_run_is_resumed(data, tmp_path):
    options = dict(save=('scores', 'heatmap'), layers='neck', score_thr=0.0)
    run(data, tmp_path / 'whole', **options)
    run(data, tmp_path / 'stopped', max_images=1, **options)
    first = {name: (tmp_path / 'stopped' / name).stat().st_mtime_ns for name in pictures(tmp_path / 'stopped')}
    run(data, tmp_path / 'stopped', resume=True, **options)
    assert same_files(tmp_path / 'whole', tmp_path / 'stopped')
    assert all((tmp_path / 'stopped' / name).stat().st_mtime_ns == time for name, time in first.items())


def test_colors_begin_at_zero_and_are_the_same_for_all_levels_of_a_class(data, tmp_path):
    run(data, tmp_path / 'out', save=('scores', 'heatmap'), classes=['dog'])
    entries = [entry for entry in manifest(tmp_path / 'out') if entry['key'] == 'a' and entry.get('label') == 1]
    largest = max(entry['max'] for entry in entries)
    assert len(entries) == 6  # five levels, and all of them
    for entry in entries:
        (name,) = (name for name in entry['files'] if name.endswith('.png'))
        heat = read(tmp_path / 'out' / name)
        assert heat.shape[1] > 120  # a bar beside it
        table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_JET)[0].astype(int)
        colors = np.unique(heat[:90, :120].reshape(-1, 3), axis=0).astype(int)
        hottest = max(np.abs(table - color).sum(1).argmin() for color in colors)
        # On the scale of the class; a pixel is seldom exactly at a cell.
        assert hottest == pytest.approx(255 * entry['max'] / largest, abs=12)


def test_training_shows_the_classes_of_the_ground_truth(data, tmp_path):
    cfg = train_config(data, tmp_path / 'work', resnet_detector())
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks = dict(
        featviz=dict(type='FeatVizHook', out_dir=str(tmp_path / 'out'), save='scores', stages=('train', 'val'))
    )
    Runner.from_cfg(cfg).train()
    entries = manifest(tmp_path / 'out')
    trained = {(entry['key'], entry['label']) for entry in entries if entry['folder'].startswith('iter_')}
    assert trained == {('iter_1/a', None), ('iter_1/a', 0), ('iter_1/b', None), ('iter_1/b', 1)}
    assert any(entry['folder'] == 'epoch_1' for entry in entries)


def test_each_pass_of_test_time_augmentation_has_its_scores(data, tmp_path):
    cfg = runner_config(
        data,
        tmp_path / 'work',
        resnet_detector(),
        hook=dict(out_dir=str(tmp_path / 'out'), save=('scores', 'maps'), classes=[0], average_passes=True),
    )
    flips = [[dict(type='RandomFlip', prob=0.0)], [dict(type='RandomFlip', prob=1.0)]]
    load, resize, *_, pack = keep_ratio_pipeline((160, 120), dict(type='RandomFlip', prob=1.0))
    cfg.test_dataloader.dataset.pipeline = [
        load,
        dict(type='TestTimeAug', transforms=[[resize], *[sum(flips, [])], [pack]]),
    ]
    cfg.model = dict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=5),
        module=cfg.model,
    )
    Runner.from_cfg(cfg).test()
    names = pictures(tmp_path / 'out')
    for ending in ('', '.pass_1', '.mean'):
        assert f'a/bbox_head.merged_scores.cat_0{ending}.jpg' in names


def test_the_report_has_the_score_maps(data, tmp_path):
    pytest.importorskip('jinja2')
    run(data, tmp_path / 'out', save='scores', classes=['cat'], report=True, layers='neck')
    script = (tmp_path / 'out' / 'report' / 'data' / '000000.js').read_text()
    shot = json.loads(script[script.index('(') + 1 : script.rindex(')')].split(',', 1)[1])
    levels = {level['name']: level for level in shot['sides'][0]['levels']}
    cats = [level for name, level in levels.items() if '.cat_' in name]
    assert {level['content'] for level in cats} == {'probability of cat'}
    assert len({tuple(level['range']) for level in cats}) == 1 and cats[0]['range'][0] == 0
    assert levels['neck_0']['content'] == '16 channels'
    index = (tmp_path / 'out' / 'report' / 'data' / 'index.js').read_text()
    assert '"bbox_head.scores_0":' in index  # the energy of the best class
    assert '"bbox_head.scores.cat_0":' not in index.split('"images"')[1]
