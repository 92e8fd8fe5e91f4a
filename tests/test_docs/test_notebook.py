"""The tutorial notebook runs, what it prints is true, and its stored outputs are those of this version."""

import copy
import os
import re
import shutil
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmdet.apis import init_detector
from nbclient import NotebookClient

from mmdet_featviz.benchmarks.demo_data import make_scene

NOTEBOOK = ROOT / 'demo' / 'featviz_tutorial.ipynb'
STRIDES = (8, 16, 32, 64, 128)  # of the neck
NUMBER = r'-?\d+(?:\.\d+)?'


@pytest.fixture(scope='module')
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope='module')
def repository(tmp_path_factory):
    """What the notebook needs of the repository, in another place."""
    folder = tmp_path_factory.mktemp('a copy')
    shutil.copytree(ROOT / 'configs' / 'demo', folder / 'configs' / 'demo')
    (folder / 'demo').mkdir()
    return folder


def execute(notebook, folder):
    """Run a notebook in a fresh kernel of this environment that starts in a folder; any error is raised."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            cell.outputs, cell.execution_count = [], None
    own = dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', IPYTHONDIR=str(folder / '.ipython'))
    client = NotebookClient(notebook, timeout=120, kernel_name='python3', resources=dict(metadata=dict(path=folder)))
    return client.execute(env={**os.environ, **own})


@pytest.fixture(scope='module')
def executed(stored, repository):
    return execute(stored, repository / 'demo')


def printed(cell):
    """What a cell printed; nothing for a cell of text."""
    return ''.join(output.text for output in cell.get('outputs', []) if output.output_type == 'stream')


@pytest.fixture(scope='module')
def text(executed):
    return '\n'.join(map(printed, executed.cells))


@pytest.fixture(scope='module')
def model():
    folder = ROOT / 'configs' / 'demo'
    return init_detector(str(folder / 'atss_shapes.py'), str(folder / 'atss_shapes.pth'), device='cpu')


@torch.no_grad()
def neck_outputs(model, image):
    """Feature maps (C, rows, columns) of a BGR image, from backbone and neck without mmdet's pipeline."""
    rgb = torch.from_numpy(image[..., ::-1].astype(np.float32)).permute(2, 0, 1)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    batch = ((rgb - mean[:, None, None]) / std[:, None, None])[None]
    return [level[0].numpy() for level in model.neck(model.backbone(batch))]


def share_inside(values, stride, boxes):
    """Share of the heat above its 5th percentile in boxes (x, y, w, h), where cell i sits at pixel i * stride."""
    rows, columns = (np.arange(size) / stride for size in (480, 640))
    wide = np.stack([np.interp(columns, np.arange(values.shape[1]), row) for row in values])
    heat = np.stack([np.interp(rows, np.arange(values.shape[0]), column) for column in wide.T], axis=1)
    y, x = np.mgrid[:480, :640] + 0.5
    inside = np.any([(x >= x0) & (x < x0 + w) & (y >= y0) & (y < y0 + h) for x0, y0, w, h in boxes], axis=0)
    floor = np.sort(heat, axis=None)[int(0.05 * (heat.size - 1))]  # the 5th percentile, as the metric's
    heat = np.clip(heat - floor, 0, None)
    return heat[inside].sum() / heat.sum()


def test_the_printed_shapes_and_strides_are_those_of_the_network(text, model):
    levels = neck_outputs(model, make_scene('val', 5)[0])
    assert len(levels) == len(STRIDES)
    tree = ', '.join('{} x {} x {} ({})'.format(*level.shape, stride) for level, stride in zip(levels, STRIDES))
    assert f'* neck  FPN  {tree}\n' in text
    rows, columns = levels[1].shape[1:]
    assert f'neck_1 48 ({480 / rows}, {640 / columns}) ({rows}, {columns})\n' in text
    for number in (1, 4):
        heat = levels[number].max(0)
        assert f'neck_{number}: values from {heat.min():.2f} to {heat.max():.2f}\n' in text


def test_the_printed_channels_have_the_largest_means(text, model):
    means = neck_outputs(model, make_scene('val', 5)[0])[1].mean((1, 2))
    assert f'channels {np.argsort(-means)[:6].tolist()} as (6, 30, 40)\n' in text


def test_the_printed_share_of_heat_is_that_of_a_plain_computation(text, model, repository):
    scenes = repository / 'work_dirs' / 'tutorial' / 'scenes' / 'val'
    shares = np.empty((6, len(STRIDES)))
    for index in range(6):
        levels = neck_outputs(model, cv2.imread(str(scenes / f'scene_{index:04d}.jpg')))
        boxes = [box for _, box in make_scene('val', index)[1]]
        shares[index] = [share_inside(level.max(0), stride, boxes) for level, stride in zip(levels, STRIDES)]
    lines = re.findall(rf'^neck_\d +({NUMBER})(?: +{NUMBER}){{5}}$', text, re.MULTILINE)
    np.testing.assert_allclose(np.array(lines, float), shares.mean(0), atol=6e-4)


def test_a_trained_detector_beats_random_weights_as_the_text_says(text):
    lines = re.findall(rf'^neck_\d((?: +{NUMBER}){{6}})$', text, re.MULTILINE)
    table = np.array([line.split() for line in lines], float)  # energy, gain, hit; trained, then random weights
    assert table.shape == (5, 6)
    assert (table[:, 1] > table[:, 4]).all()
    assert (table[:, 4] > 1).all()  # and random weights beat chance


@pytest.mark.parametrize('start', ['.', 'demo', 'configs/demo'])
def test_it_finds_the_root_from_any_folder_of_the_repository(stored, repository, monkeypatch, start):
    setup = next(cell.source for cell in stored.cells if cell.cell_type == 'code')
    (line,) = re.findall(r'^os\.chdir\(.*\)$', setup, re.MULTILINE)
    monkeypatch.chdir(repository / start)
    exec(line, dict(os=os, Path=Path, CONFIG='configs/demo/atss_shapes.py'))
    assert Path.cwd() == repository


def test_the_stored_outputs_are_those_of_this_version(stored, executed):
    """Else run it again: `jupyter execute --inplace demo/featviz_tutorial.ipynb`."""
    for old, new in zip(stored.cells, executed.cells):
        old_text, new_text = printed(old), printed(new)
        assert re.sub(NUMBER, '#', old_text) == re.sub(NUMBER, '#', new_text)
        numbers = [np.array(re.findall(NUMBER, said), float) for said in (old_text, new_text)]
        np.testing.assert_allclose(*numbers, atol=0.02, err_msg=new_text)
        kinds = [[output.output_type for output in cell.get('outputs', [])] for cell in (old, new)]
        assert kinds[0].count('display_data') == kinds[1].count('display_data')


def test_the_stored_outputs_are_clean(stored):
    cells = [cell for cell in stored.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} == {'stream', 'display_data'}
    assert {output.name for output in outputs if output.output_type == 'stream'} == {'stdout'}
    pictures = [output.data for output in outputs if output.output_type == 'display_data']
    assert len(pictures) >= 8
    assert all(set(data) == {'image/jpeg', 'text/plain'} for data in pictures)
    everything = '\n'.join(map(printed, cells))
    assert not re.search(r'(?<![\w.])/\w|[A-Z]:\\|Traceback|Warning', everything)  # paths of the machine
    assert NOTEBOOK.stat().st_size < 1_500_000
