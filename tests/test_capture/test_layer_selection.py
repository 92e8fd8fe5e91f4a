import pytest
import torch
from conftest import pool_detector, resnet_detector
from mmdet.models.layers import ChannelAttention
from mmdet.registry import MODELS
from torch import nn

from mmdet_featviz.capture.channel_selection import DetailRecorder
from mmdet_featviz.capture.layer_selection import find_layers
from mmdet_featviz.capture.layer_tree import layer_tree
from mmdet_featviz.capture.reductions import get_reduction
from mmdet_featviz.capture.taps import Taps


def test_default_layers_are_backbone_and_neck_if_present():
    assert list(find_layers(MODELS.build(resnet_detector()), None)) == ['backbone', 'neck']
    assert list(find_layers(MODELS.build(pool_detector()), None)) == ['backbone']
    with pytest.raises(ValueError, match='Sequential has neither backbone nor neck: choose layers from its parts, 0'):
        find_layers(nn.Sequential(nn.ReLU()), None)


def aliased_detector():
    """A detector whose backbone was registered under another name first, and whose neck under another name later."""

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Sequential(nn.Conv2d(3, 4, 2, 2), ChannelAttention(4))
            self.backbone = self.trunk
            self.neck = nn.MaxPool2d(2)
            self.pyramid = self.neck
            self.data_preprocessor = nn.Identity()

        def forward(self, x):
            data = self.data_preprocessor(dict(inputs=x, data_samples=[None]))
            return self.neck(self.backbone(data['inputs']))

    return Detector()


def test_a_module_registered_under_a_second_name_is_a_default_layer_all_the_same():
    model, inputs = aliased_detector(), torch.rand(1, 3, 16, 16)
    taps = Taps(model, None, get_reduction('max'), detail_recorder=DetailRecorder(pooled=1), attention=True)
    with taps, torch.no_grad():
        model(inputs)
    (pass_,) = taps.take()
    assert [activation.name for activation in pass_.maps] == ['backbone_0', 'neck_0']
    assert [activation.name for activation in pass_.attention] == ['backbone.1_0']
    lines = layer_tree(model, lambda: model(inputs)).splitlines()
    assert [line.split()[:2] for line in lines if line.startswith('*')] == [['*', 'trunk'], ['*', 'neck']]


def test_each_name_of_a_module_can_be_chosen_and_a_glob_takes_one():
    model = aliased_detector()
    assert list(find_layers(model, ['backbone', 'pyramid'])) == ['backbone', 'pyramid']
    assert list(find_layers(model, ['trunk.0'])) == ['trunk.0']
    assert list(find_layers(model, ['backbone.*'])) == ['backbone.0', 'backbone.1']
    assert list(find_layers(model, ['*'])) == ['trunk', 'neck', 'data_preprocessor']
    modules = find_layers(model, ['**']).values()
    assert len(set(modules)) == len(modules)


def test_star_matches_one_part_and_double_star_any_parts():
    model = MODELS.build(resnet_detector())
    assert list(find_layers(model, ['backbone.layer*'])) == [f'backbone.layer{n}' for n in (1, 2, 3, 4)]
    convolutions = list(find_layers(model, ['backbone.**.conv2']))
    assert convolutions == [f'backbone.layer{n}.{block}.conv2' for n in (1, 2, 3, 4) for block in (0, 1)]


def test_unknown_layer_suggests_the_closest():
    model = MODELS.build(resnet_detector())
    with pytest.raises(ValueError, match=r"unknown layer 'bakcbone.layer3': the closest are backbone.layer3"):
        find_layers(model, ['backbone', 'bakcbone.layer3'])
    with pytest.raises(ValueError, match='the detector has .*backbone, neck, bbox_head and their parts'):
        find_layers(model, ['?????'])


def test_container_is_refused_and_its_parts_are_suggested():
    with pytest.raises(ValueError, match="layer 'parts' never fires: a ModuleList is a container.*parts.0"):
        find_layers(nn.ModuleDict({'parts': nn.ModuleList([nn.Conv2d(4, 4, 1)])}), ['parts'])


def test_modules_of_a_base_class_and_of_a_missing_class():
    model = MODELS.build(resnet_detector())
    assert list(Taps(model, ['backbone.layer1'], get_reduction('max'), layer_type='BasicBlock').modules) == [
        'backbone.layer1.0',
        'backbone.layer1.1',
    ]
    assert 'backbone' in Taps(model, None, get_reduction('max'), layer_type='BaseModule').modules
    with pytest.raises(ValueError, match='there is no Conv3d in backbone, neck; they contain BatchNorm2d, Conv2d'):
        Taps(model, None, get_reduction('max'), layer_type='Conv3d')
