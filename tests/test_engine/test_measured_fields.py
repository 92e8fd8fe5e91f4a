"""Receptive fields measured in a test or validation, against receptive_fields() on the same images."""

import csv
import json
from argparse import Namespace

import cv2
import numpy as np
import pytest
import torch
from conftest import (
    manifest,
    noise,
    pictures,
    resnet_detector,
    runner_config,
    test_predictions,
    train_config,
    write_dataset,
)
from explained import narrow_retinanet, with_config
from mmdet.models.backbones import ResNet
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdet_featviz import FeatureVisualizer, look, receptive_fields
from mmdet_featviz.cli.render import _style_of
from mmdet_featviz.explanation import field_measurement, receptive_field
from mmdet_featviz.runs import field_files, writer
from mmdet_featviz.runs.reader import Run

SIZES = [(90, 120), (64, 200), (77, 77)]
NAMES = [f'backbone_{n}' for n in range(4)]


@pytest.fixture(autouse=True)
def two_images(monkeypatch):
    monkeypatch.setattr(writer, 'FIELD_IMAGES', 2)
    monkeypatch.setattr(receptive_field, 'LONG', (512,))  # long enough for the backbone


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    return write_dataset(folder, {f'{n}.png': noise(*size, seed=n) for n, size in enumerate(SIZES)})


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    model = Runner.from_cfg(runner_config('', path.parent, resnet_detector())).model
    torch.save(dict(state_dict=with_config(model).state_dict(), meta={}), path)
    return str(path)


def config(data, tmp_path, weights, name='run', type='SingleStageDetector', **options):
    """Config of a test of three images, in batches of two, that measures receptive fields."""
    own = dict(layers='backbone', save='receptive_field', image_format='png', **options, out_dir=str(tmp_path / name))
    model, hook = (resnet_detector(type, featviz=own), None) if type.endswith('Hp') else (resnet_detector(), own)
    cfg = runner_config(data, tmp_path / f'work of {name}', model, batch_size=2, hook=hook)
    cfg.load_from, cfg.log_level = weights, 'WARNING'
    return cfg


def expected_fields(runner, data):
    """What receptive_fields() returns for the first two images."""
    model = runner.model
    dataset = runner.test_dataloader.dataset
    pipeline = [step for step in dataset_config(runner)['pipeline'] if 'Annotations' not in step['type']]
    model.cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    return receptive_fields(model, [dataset.get_data_info(n)['img_path'] for n in (0, 1)], layers='backbone')


def dataset_config(runner):
    return runner.cfg.test_dataloader.dataset


def folder_of(entry):
    return entry['files'][0].rpartition('/')[0]


@pytest.mark.parametrize('type', ['SingleStageDetector', 'SingleStageDetectorHp'])
def test_the_fields_of_a_test(tmp_path, data, weights, type):
    plain = runner_config(data, tmp_path / 'plain work', resnet_detector(), batch_size=2)
    plain.load_from = weights
    (plain, metrics, _), (found, own_metrics, runner) = map(
        test_predictions, (plain, config(data, tmp_path, weights, type=type, report=True))
    )
    assert metrics == own_metrics
    for one, other in zip(plain, found):
        assert len(one['scores'])
        for field in one:
            np.testing.assert_array_equal(one[field], other[field])
    if type.endswith('Hp'):
        runner.model.featviz.close()
    folder = tmp_path / 'run'
    facts = json.loads((folder / 'run.json').read_text(encoding='utf-8'))['receptive_fields']['test']
    fields = expected_fields(runner, data)
    assert facts['images'] == 2
    assert [level['name'] for level in facts['levels']] == [field.name for field in fields] == NAMES
    for level, field in zip(facts['levels'], fields):
        assert tuple(level['theoretical']) == field.theoretical_size
        assert level['effective'] == pytest.approx(field.effective_size, rel=1e-6)
    with (folder / 'receptive_fields.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['level'] for row in rows] == NAMES
    for row, field in zip(rows, fields):
        assert (float(row['theoretical_width']), float(row['theoretical_height'])) == field.theoretical_size
        assert float(row['effective_size']) == pytest.approx(field.effective_size, abs=0.06)
        assert (float(row['vertical_stride']), row['images']) == (field.stride[0], '2')
    shown = f'{fields[0].theoretical_size[0]:g} x {fields[0].theoretical_size[1]:g}'
    row = ['backbone_0', '4', shown, f'{fields[0].effective_size:.0f}']
    assert f'| {" | ".join(row)} |' in (folder / 'receptive_fields.md').read_text().splitlines()
    page = (folder / 'report' / 'index.html').read_text(encoding='utf-8')
    assert '<caption>Receptive fields: mean over 2 images</caption>' in page
    assert f'<th scope="row">backbone_0</th><td>4</td><td>{shown}</td><td>{row[-1]}</td>' in page
    entries = [entry for entry in manifest(folder) if 'effective_size' in entry]
    drawn = [name for name in pictures(folder) if name.endswith('.receptive_field.png')]
    assert sorted(name for entry in entries for name in entry['files']) == drawn
    assert {folder_of(entry) for entry in entries} == {drawn[0].rpartition('/')[0]}
    for entry, field in zip(entries, fields):
        assert (entry['level'], entry['cell']) == (field.name, list(field.cell))
        np.testing.assert_array_equal(cv2.imread(str(folder / entry['files'][0])), field.draw())


def test_a_stopped_run_measures_again_and_a_complete_one_does_not(tmp_path, data, weights, monkeypatch):
    @HOOKS.register_module(force=True)
    class StopAtSecondBatch(Hook):
        def before_test_iter(self, runner, batch_idx, data_batch=None):
            if batch_idx == 1:
                raise KeyboardInterrupt

    calls, cell_fields = [], field_measurement.cell_fields
    monkeypatch.setattr(
        field_measurement, 'cell_fields', lambda *args, **kwargs: calls.append(1) or cell_fields(*args, **kwargs)
    )
    monkeypatch.setattr(writer, 'FIELD_IMAGES', 20)  # more than there are
    stopped = config(data, tmp_path, weights, 'stopped')
    stopped.custom_hooks = [dict(type='StopAtSecondBatch')]
    with pytest.raises(KeyboardInterrupt):
        Runner.from_cfg(stopped).test()
    assert not pictures(tmp_path / 'stopped') and len(calls) == 2
    for name, resume, measured in (('stopped', True, 3), ('whole', False, 3), ('whole', True, 0)):
        calls.clear()
        Runner.from_cfg(config(data, tmp_path, weights, name, resume=resume)).test()
        assert len(calls) == measured
    for name in ('receptive_fields.csv', 'receptive_fields.md', *pictures(tmp_path / 'whole')):
        assert (tmp_path / 'stopped' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()
    assert (tmp_path / 'whole' / 'receptive_fields.csv').read_text().split(',')[-1].strip() == '3'


def test_without_gradients_there_is_one_sentence_and_the_rest_of_the_run(tmp_path, data, weights, monkeypatch):
    monkeypatch.setattr(ResNet, 'forward', torch.no_grad()(ResNet.forward))
    plain = runner_config(data, tmp_path / 'plain work', resnet_detector(), batch_size=2)
    plain.load_from = weights
    plain = test_predictions(plain)
    messages = []
    monkeypatch.setattr(writer, 'print_log', lambda message, *args: messages.append(message))
    found, metrics, runner = test_predictions(config(data, tmp_path, weights, report=True))
    assert metrics == plain[1]
    for one, other in zip(plain[0], found):
        np.testing.assert_array_equal(one['bboxes'], other['bboxes'])
    (message,) = messages
    assert message.startswith('no gradient reaches the image from backbone_0: ') and '\n' not in message
    assert message.endswith('Choose other layers. Receptive fields are not measured further')
    visualizer = next(hook for hook in runner.hooks if hasattr(hook, 'visualizer')).visualizer
    assert visualizer.summary().endswith('skipped: 1 image, receptive fields: ValueError (0.png)')
    assert 'receptive_fields' not in json.loads((tmp_path / 'run' / 'run.json').read_text(encoding='utf-8'))
    assert 'Receptive fields' not in (tmp_path / 'run' / 'report' / 'index.html').read_text(encoding='utf-8')
    with pytest.raises(ValueError, match='no gradient reaches the image from backbone_0'):
        Runner.from_cfg(config(data, tmp_path, weights, 'strict', strict=True)).test()


def test_other_ranks_do_not_measure(tmp_path, data, weights, monkeypatch):
    monkeypatch.setattr(writer, 'is_main_process', lambda: False)
    Runner.from_cfg(config(data, tmp_path, weights)).test()
    assert not pictures(tmp_path / 'run')


def test_each_validation_has_its_own(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'run'), layers='backbone', stages='val', save=('receptive_field', 'maps'))
    Runner.from_cfg(train_config(data, tmp_path / 'work', resnet_detector(), hook=hook)).train()
    run = Run(str(tmp_path / 'run'))
    assert list(run.info['receptive_fields']) == ['epoch_1', 'epoch_2']
    assert sorted(run.evaluation_files) == [
        f'epoch_{epoch}/receptive_fields.{ending}' for epoch in (1, 2) for ending in ('csv', 'md')
    ]
    assert list(Run(str(tmp_path / 'run' / 'epoch_1')).info['receptive_fields']) == ['epoch_1']
    assert _style_of(run, Namespace()).save == ('overlay',)
    with pytest.raises(ValueError, match='receptive fields are found in the detector, not in saved maps'):
        _style_of(run, Namespace(save='receptive_field'))


def test_bad_options():
    with pytest.raises(ValueError, match="save='receptive_field' needs 'val' or 'test' among the stages"):
        FeatureVisualizer(save='receptive_field', stages='train')
    with pytest.raises(ValueError, match=r'look\(\) has no .*: call receptive_fields\(\)'):
        look(narrow_retinanet(), np.zeros((64, 96, 3), np.uint8), save=('overlay', 'receptive_field'))


def test_sizes_that_are_not_found_or_infinite():
    levels = [dict(name='a', stride=(4.0, 8.0), theoretical=None, effective=3.2)]
    levels += [dict(levels[0], name='b', theoretical=[None, 7.0]), dict(levels[0], name='c', theoretical=[None, None])]
    facts = dict(images=1, levels=levels)
    assert [row[2] for row in field_files.field_rows(facts)] == ['not found', 'all x 7', 'whole image']
    lines = field_files.field_files(facts)['receptive_fields.csv'].decode().splitlines()
    assert lines[1:] == ['a,4.0,8.0,,,3.2,1', 'b,4.0,8.0,inf,7,3.2,1', 'c,4.0,8.0,inf,inf,3.2,1']
