"""Loading: which part of a config the drawing options reach."""

import argparse

import torch
from commands import featviz
from mmdet.models import ATSS
from mmengine.config import Config

from mmdet_featviz import FeatVizHook
from mmdet_featviz.cli.image import add_arguments
from mmdet_featviz.cli.loading import add_heatmaps, load_detector

load = torch.load


def test_options_reach_a_hook_whose_type_is_a_class():
    """As in pure Python configs."""
    options = dict(out_dir='there', max_images=3)
    cfg = Config(dict(model=dict(type=ATSS), default_hooks=dict(mine=dict(type=FeatVizHook, boxes='pred'))))
    add_heatmaps(cfg, options)
    assert dict(cfg.default_hooks) == dict(mine=dict(type=FeatVizHook, boxes='pred', out_dir='there', max_images=3))


def test_options_reach_a_detector_that_draws_by_itself():
    cfg = Config(dict(model=dict(type='mmdet.RetinaNetHp', featviz=dict(boxes='pred'))))
    add_heatmaps(cfg, dict(max_images=3))
    assert dict(cfg.model) == dict(type='mmdet.RetinaNetHp', featviz=dict(boxes='pred', max_images=3))


def test_images_without_a_data_set_have_no_ground_truth(pools_project):
    arguments = ['image', 'images/a.jpg', 'pools.py', 'pools.pth', '--boxes']
    done = featviz(*arguments, 'gt', cwd=pools_project)
    assert done.returncode == 1
    assert done.stderr.strip().endswith('have no ground truth; choose pred, or use featviz test')
    assert featviz(*arguments, 'pred', cwd=pools_project).returncode == 0


def test_the_checkpoint_is_read_once_and_loaded(pools_project, tmp_path, monkeypatch):
    reads = []

    def count(path, *args, **kwargs):
        reads.append(path)
        return load(path, *args, **kwargs)

    monkeypatch.setattr(torch, 'load', count)
    arguments = ['image', 'images/a.jpg', 'pools.py', 'pools.pth', '--out-dir', tmp_path / 'out']
    done = featviz(*arguments, cwd=pools_project)
    assert done.returncode == 0, done.stderr
    assert len(reads) == 1
    assert 'random weights' not in done.stdout
    weights = load(pools_project / 'pools.pth')['state_dict']
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(list(map(str, arguments[1:])))
    monkeypatch.chdir(pools_project)
    model = load_detector(args)[1].state_dict()
    assert weights.keys() == model.keys()
    assert all(torch.equal(weight, model[name]) for name, weight in weights.items())
