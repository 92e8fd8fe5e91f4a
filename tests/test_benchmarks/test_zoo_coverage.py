"""Configs are tried in processes of their own."""

import argparse

import numpy as np
from mmengine.config import Config

from mmdet_featviz.benchmarks import zoo_coverage
from mmdet_featviz.benchmarks.patch_placement import level_placements
from mmdet_featviz.benchmarks.zoo_coverage import OWN_CONFIGS, find_families, rows_of, run_child, zoo
from mmdet_featviz.benchmarks.zoo_models import build, packed, pipeline_of, small


def test_a_config_that_fails_or_times_out_has_its_reason(tmp_path):
    config, image = tmp_path / 'nothing.py', tmp_path / 'image.png'
    row = run_child(config, image, timeout=100)
    assert row['error'].startswith('FileNotFoundError: ')
    assert str(tmp_path) not in row['error']
    assert run_child(config, image, timeout=0) == dict(error='took more than 0 s')


def test_families_that_have_results_are_not_tried_again(tmp_path, monkeypatch):
    tried = []

    def try_family(family, args):
        tried.append(family.name)
        return [(family / 'config_r50.py', dict(seconds=1.5))]

    monkeypatch.setattr(zoo_coverage, 'try_family', try_family)
    args = argparse.Namespace(results=tmp_path / 'results')
    for family in (tmp_path / 'atss', tmp_path / 'detr', tmp_path / 'atss'):
        assert rows_of(family, args) == [(family / 'config_r50.py', dict(seconds=1.5))]
    assert tried == ['atss', 'detr']
    rows_of(tmp_path / 'atss', argparse.Namespace(results=None))
    assert tried == ['atss', 'detr', 'atss']


def test_families_are_those_of_the_zoo_and_the_own_ones():
    assert find_families(['vit', 'atss', 'nothing']) == [OWN_CONFIGS / 'vit', zoo() / 'atss', zoo() / 'nothing']
    names = [family.name for family in find_families([])]
    assert names == sorted(names)
    assert {'vit', 'atss'} <= set(names)
    assert not {'common', 'reid'} & set(names)


def test_the_tokens_of_a_vision_transformer_are_placed_behind_class_token_and_registers():
    (path,) = zoo_coverage.configs_of(OWN_CONFIGS / 'vit')
    cfg = Config.fromfile(path)
    pipeline = small(pipeline_of(cfg), (512, 384))
    levels = level_placements(build(cfg.model), lambda picture: packed(pipeline, picture), cfg.coverage_layers)
    assert [level.layer for level in levels] == ['backbone.blocks.3', 'backbone', 'neck']
    for level in levels:
        np.testing.assert_allclose(level.found, 7, atol=0.05)
        assert level.offset < 0.5
