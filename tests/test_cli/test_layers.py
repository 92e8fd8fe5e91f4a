"""featviz layers: the tree of layers that can be drawn."""

import os
import subprocess
import sys

import cv2
import torch
from commands import featviz
from conftest import ROOT, noise, resnet_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from mmdet_featviz.capture.layer_tree import layer_tree


def test_a_config_alone_prints_the_tree(pools_project):
    """With `python -m mmdet_featviz`, without a checkpoint and without an image."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT / 'tests'), str(ROOT)])}
    command = [sys.executable, '-m', 'mmdet_featviz', 'layers', 'pools.py']
    done = subprocess.run(command, capture_output=True, text=True, cwd=pools_project, env=environment)
    assert done.returncode == 0, done.stderr
    assert '* backbone  BrightnessPools  2 x 8 x 12 (8), 2 x 4 x 6 (16)' in done.stdout.splitlines()


def test_shapes_are_those_of_the_image(pools_project, tmp_path):
    (tmp_path / 'tall.png').write_bytes(cv2.imencode('.png', noise(96, 64))[1].tobytes())
    done = featviz('layers', 'pools.py', 'pools.pth', '--image', tmp_path / 'tall.png', cwd=pools_project)
    assert '* backbone  BrightnessPools  2 x 12 x 8 (8), 2 x 6 x 4 (16)' in done.stdout.splitlines()


def test_an_image_that_cannot_be_read_is_an_error(pools_project):
    done = featviz('layers', 'pools.py', '--image', 'none.jpg', cwd=pools_project)
    assert done.returncode == 1
    assert 'none.jpg cannot be read as an image' in done.stderr.strip().splitlines()[-1]


def test_the_layer_tree_has_shapes_and_joins_equal_siblings():
    model = MODELS.build(resnet_detector()).eval()

    def run():
        image = torch.zeros(3, 64, 96, dtype=torch.uint8)
        data = model.data_preprocessor(dict(inputs=[image], data_samples=[DetDataSample()]))
        model(**data, mode='tensor')

    lines = layer_tree(model, run).splitlines()
    assert lines[1] == '* backbone  ResNet  8 x 16 x 24 (4), 16 x 8 x 12 (8), 32 x 4 x 6 (16), 64 x 2 x 3 (32)'
    assert '    layer2  ResLayer  16 x 8 x 12 (8)' in lines
    assert '      0-1  BasicBlock  8 x 16 x 24 (4)' in lines  # equal siblings
    assert '      1  BasicBlock  16 x 8 x 12 (8)' in lines  # differs: the first of layer2 has a downsample
    assert '    fpn_convs  ModuleList  its parts only' in lines
    assert '    cls_convs  ModuleList  its parts only' in lines  # equal, but with another name
    assert '    reg_convs  ModuleList  its parts only' in lines
    assert not any('conv1' in line for line in layer_tree(model, run, depth=1).splitlines())
    assert any('conv2' in line for line in layer_tree(model, run, depth=4).splitlines())


def test_receptive_fields_are_listed_and_drawn(tmp_path):
    (tmp_path / 'images').mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / 'images' / f'{number}.png'), noise(64, 96, seed=number))
    config = ROOT / 'configs' / 'demo' / 'atss_shapes.py'
    command = [
        'layers',
        config,
        '--receptive-field',
        '--image',
        'images',
        '--layers',
        'backbone',
        '--out-dir',
        'fields',
    ]
    done = featviz(*command, '--cfg-options', 'load_from=None', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = [line.split('  ') for line in done.stdout.splitlines()]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in table]
    header = rows.index(['level', 'stride', 'theoretical', 'effective'])
    # ResNet-18 by the formula of chains.
    assert [row[:3] for row in rows[header + 1 : header + 5]] == [
        [f'backbone_{n}', str(4 * 2**n), f'{size} x {size}'] for n, size in enumerate((43, 99, 211, 435))
    ]
    assert 'mean over 2 images; pixels of the input' in done.stdout
    assert '4 pictures in fields' in done.stdout
    assert len(list((tmp_path / 'fields' / '0').glob('backbone_*.receptive_field.jpg'))) == 4
    done = featviz(*command, cwd=tmp_path)
    assert done.returncode == 1 and 'overwrite' in done.stderr
    assert 'level' not in done.stdout  # refused before anything is measured


def test_receptive_fields_need_an_image_and_their_options_need_them(tmp_path):
    config = ROOT / 'configs' / 'demo' / 'atss_shapes.py'
    done = featviz('layers', config, '--receptive-field', cwd=tmp_path)
    assert done.returncode == 2 and '--receptive-field needs --image' in done.stderr
    done = featviz('layers', config, '--at', 3, 4, cwd=tmp_path)
    assert done.returncode == 2 and 'need --receptive-field' in done.stderr
