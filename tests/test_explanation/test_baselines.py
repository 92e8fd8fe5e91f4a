"""Baselines and shuffled weights: what a method must beat, and what a map must not survive."""

import copy

import numpy as np
import pytest
import torch
from conftest import pool_detector
from explained import narrow_retinanet, state_of, write_image
from mmdet.registry import MODELS

from mmdet_featviz import explain
from mmdet_featviz.apis.explain import batch_of
from mmdet_featviz.explanation.baselines import random
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.random_weights import parts_of, shuffled_weights


@pytest.fixture(scope='module')
def model():
    return narrow_retinanet()


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    return write_image(tmp_path_factory.mktemp('image'))


def test_the_box_is_hot_and_nothing_else(model, image):
    for one in explain(model, image, 'box', 'top 5'):
        left, top, right, bottom = np.round(one.bbox).astype(int)
        expected = np.zeros((64, 96), np.float32)
        expected[top:bottom, left:right] = 1
        difference = np.abs(one.heatmap - expected)
        assert (difference > 0.01).sum() <= 2 * (right - left + bottom - top)  # the edges of pixels


def test_a_box_in_a_scaled_and_padded_input(model):
    target = explain(model, np.zeros((64, 96, 3), np.uint8), 'box', 'top 1')[0].target
    sample = batch_of(model, np.zeros((64, 96, 3), np.uint8))
    metas = dict(ori_shape=(32, 48), scale_factor=(2.0, 2.0), img_shape=(64, 96))
    sample['data_samples'][0].set_metainfo(metas)
    batch = DetectorBatch(model, sample)
    moved = copy.copy(target)
    object.__setattr__(moved, 'bbox', (10.0, 5.0, 20.0, 12.0))
    from mmdet_featviz.explanation.baselines import box

    ((level,),) = box(batch, [moved])
    rows, columns = np.nonzero(level.values)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (20, 10, 39, 23)


def test_the_centre_is_a_bell_in_the_middle_of_the_image(model, image):
    heat = explain(model, image, 'centre', 'top 1')[0].heatmap
    rows, columns = np.mgrid[:64, :96] + 0.5
    expected = np.exp(-(((rows - 32) / 16) ** 2 + ((columns - 48) / 24) ** 2) / 2)
    np.testing.assert_allclose(heat, expected, atol=1e-5)


def test_random_heat_depends_on_the_seed_and_the_target_alone(model, image):
    batch = DetectorBatch(model, batch_of(model, image))
    first, second = (one.target for one in explain(model, image, 'random', 'top 2'))
    maps = [random(batch, [target], seed=seed)[0][0].values for target, seed in ((first, 0), (second, 0), (first, 1))]
    np.testing.assert_array_equal(maps[0], random(batch, [second, first])[1][0].values)
    assert maps[0].shape == (64, 96)
    for other in maps[1:]:
        assert abs(np.corrcoef(maps[0].ravel(), other.ravel())[0, 1]) < 0.3


def test_weights_are_shuffled_in_themselves_and_come_back_after_an_error(model):
    before, state = copy.deepcopy(model.state_dict()), state_of(model)
    assert parts_of(model) == ['head', 'neck', 'backbone']
    with pytest.raises(KeyError), shuffled_weights(model, ['head', 'neck'], seed=3):
        shuffled = copy.deepcopy(model.state_dict())
        raise KeyError
    assert state_of(model) == state
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
        assert torch.equal(shuffled[name].flatten().sort().values, weight.flatten().sort().values)
        is_mixed = not name.startswith('backbone') and weight.unique().numel() > 2  # two may stay as they are
        if is_mixed or name.startswith('backbone'):
            assert torch.equal(shuffled[name], weight) != is_mixed, name


def test_a_detector_without_a_neck_has_two_parts():
    assert parts_of(MODELS.build(pool_detector())) == ['head', 'backbone']


def test_the_head_is_all_that_is_neither_neck_nor_backbone():
    names = ('backbone', 'neck', 'rpn_head', 'roi_head', 'data_preprocessor')
    parts = torch.nn.ModuleDict({name: torch.nn.Linear(9, 9) for name in names[:-1]})
    parts['data_preprocessor'] = torch.nn.Identity()
    before = copy.deepcopy(parts.state_dict())
    with shuffled_weights(parts, ['head'], seed=0):
        changed = {name for name, weight in parts.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {f'{name}.{kind}' for name in ('rpn_head', 'roi_head') for kind in ('weight', 'bias')}
