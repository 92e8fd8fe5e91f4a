"""run.json: the settings of a run, and its metrics."""

import binascii
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from drawn_run import draw

from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_info import (
    check_backend_args,
    check_same_settings,
    jsonable_dataset_meta,
    numeric_metrics,
    read_run_info,
    to_json,
    weights_checksum,
)
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.visualization.style import Style


def test_run_json_says_how_the_run_was_drawn(pool_model, tmp_path):
    draw(pool_model, tmp_path, save=('overlay', 'maps'), alpha=0.3, reduction='l2')
    info = json.loads((tmp_path / 'run' / 'run.json').read_text(encoding='utf-8'))
    assert info['style']['alpha'] == 0.3
    assert info['reduction'] == 'l2'
    assert info['layers'] == ['backbone']
    assert info['dataset_meta']['classes'] == ['猫', 'dog']
    assert Style(**info['style']) == Style(alpha=0.3, save=('overlay', 'maps'), image_format='png')


def test_metrics_are_kept_as_finite_numbers_or_none():
    metrics = dict(
        mAP=np.float32(0.5), loss=torch.tensor([0.25]), count=3, bad=float('nan'), name='x', two=torch.ones(2)
    )
    assert numeric_metrics(metrics) == dict(mAP=0.5, loss=0.25, count=3.0, bad=None)


def test_names_and_colors_of_classes_may_be_arrays():
    meta = dict(classes=np.array(['猫', 'dog']), palette=np.array([[1, 2, 3], [4, 5, 6]]), other=1)
    kept = json.loads(to_json(jsonable_dataset_meta(meta)))
    assert kept == dict(classes=['猫', 'dog'], palette=[[1, 2, 3], [4, 5, 6]])
    assert jsonable_dataset_meta(dict(classes='cat', palette='coco')) is None


@pytest.mark.parametrize('name', ['config', 'checkpoint'])
def test_a_run_of_another_checkpoint_or_config_is_not_resumed(tmp_path, name):
    before = {'style': {}, 'working_dir': str(tmp_path), name: 'a.pth'}
    check_same_settings('run', before, {**before, name: str(tmp_path / 'a.pth'), 'working_dir': '/'})
    with pytest.raises(ValueError, match=f"other settings \\({name} was 'a.pth' and is 'b.pth' now"):
        check_same_settings('run', before, {**before, name: 'b.pth'})


def test_a_checkpoint_that_was_written_anew_is_another_one(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4).half())
    values = b''.join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    assert weights_checksum(model) == f'{binascii.crc32(values):08x}'
    before = dict(style={}, checkpoint='a.pth', weights_crc32=weights_checksum(model))
    with torch.no_grad():
        model[0].bias[1] += 1e-6
    now = dict(before, weights_crc32=weights_checksum(model))
    with pytest.raises(ValueError, match='weights_crc32 was'):
        check_same_settings('run', before, now)
    check_same_settings('run', {**before, 'weights_crc32': None}, now)


@pytest.mark.parametrize(('name', 'values'), [('layers', (['neck'], ['backbone'])), ('reduction', ('max', 'mean'))])
def test_a_run_of_other_layers_or_another_reduction_is_not_resumed(name, values):
    before, now = ({name: value} for value in values)
    check_same_settings('run', before, before)
    with pytest.raises(ValueError, match=f'other settings \\({name} was '):
        check_same_settings('run', before, now)


def test_options_that_only_one_version_knows_do_not_stop_a_resumed_run():
    now = json.loads(json.dumps(dict(style=asdict(Style(alpha=0.3)))))
    missing = {name: value for name, value in now['style'].items() if name != 'blend'}
    check_same_settings('run', dict(style={**missing, 'of_later_versions': 1}), now)
    with pytest.raises(ValueError, match='style.alpha was 0.4 and is 0.3'):
        check_same_settings('run', dict(style={}), now)


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        ('{"id": ', 'it is no JSON'),
        ('[' * 100_000, 'it is no JSON'),
        ('[]', 'it holds no settings'),
        ('{"style": ["jet"]}', r"style is \['jet'\]"),
        ('{"dataset_meta": "cat"}', "dataset_meta is 'cat'"),
        ('{"working_dir": 5}', 'working_dir is 5'),
        ('{"layers": {}}', 'layers is {}'),
        ('{"layers": ["neck", 5]}', 'a metric or layer is 5'),
        ('{"metrics": {"test": {"mAP": "0.5"}}}', "a metric or layer is '0.5'"),
        ('{"metrics": {"test": {"mAP": 1%s}}}' % ('0' * 400), r'a metric or layer is 10+\.\.\.0+'),
        ('{"metrics": {"test": [1]}}', 'its metrics are no numbers by name'),
        ('{"id": %s}' % ('[' + '5,' * 10_000 + '5]'), r'id is \[5, 5, 5, 5, 5, 5, \.\.\.\]$'),
    ],
)
def test_a_file_from_outside_is_refused_with_one_sentence(tmp_path, content, problem):
    (tmp_path / 'run.json').write_text(content)
    with pytest.raises(ValueError, match=f'run.json was not written by this package, or is damaged: {problem}'):
        read_run_info(get_storage(tmp_path))


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        (dict(backend='memcached', server_list_cfg='a', client_cfg='b', sys_path='.'), 'sys_path'),
        (dict(backend='lmdb', db_path='a', readonly=False), 'readonly'),
        (dict(backend='local', x=1), 'x'),
    ],
)
def test_a_run_cannot_choose_a_backend_that_does_more_than_read(pool_model, tmp_path, arguments, name):
    """mmengine's backend for memcached imports a library from any folder that its sys_path names."""
    draw(pool_model, tmp_path, count=1, save='maps')
    path = tmp_path / 'run' / 'run.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'backend_args': arguments}))
    with pytest.raises(ValueError, match=f"run.json asks for the file backend '.*' with '{name}', which only a config"):
        Run(str(tmp_path / 'run'))


@pytest.mark.parametrize(
    'arguments',
    [
        None,
        {},
        dict(backend='local'),
        dict(backend='petrel', path_mapping={'a': 's3://b'}),
        dict(backend='lmdb', db_path='images.lmdb'),
        dict(backend='my own', anything=1),
        dict(path_mapping={'a': 's3://b'}),
    ],
)
def test_arguments_of_file_backends_that_say_where_to_read_are_kept(arguments):
    check_backend_args(arguments, 'run.json')


def test_what_json_does_not_know_is_no_value(tmp_path):
    (tmp_path / 'run.json').write_text('{"metrics": {"test": {"a": NaN, "b": -Infinity, "c": 0.5}}}')
    assert read_run_info(get_storage(tmp_path))['metrics']['test'] == dict(a=None, b=None, c=0.5)
