"""Every detector class of mmdet that can be built here: its drawing sibling has the same keys and predictions."""

import copy
import difflib
import inspect
from functools import lru_cache

import cv2
import pytest
import torch
from conftest import noise, pictures
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_featviz import FeatVizMixin
from mmdet_featviz.benchmarks import patch_placement
from mmdet_featviz.benchmarks.patch_placement import PICTURE, level_placements, settle_weights
from mmdet_featviz.benchmarks.zoo_coverage import NO_DETECTORS, configs_of, same, zoo
from mmdet_featviz.benchmarks.zoo_models import LARGER, build, packed, pipeline_of, small

CLASSES = sorted(
    name
    for name, detector in MODELS.module_dict.items()
    if inspect.isclass(detector)
    and issubclass(detector, BaseDetector)
    and not issubclass(detector, FeatVizMixin)
    and not inspect.isabstract(detector)
    and detector.__module__.startswith('mmdet.')
)
# Classes that cannot be built or run here, with or without this package.
NOT_BUILDABLE = {
    'CrowdDet': 'needs torchvision',
    'Detectron2Wrapper': 'needs detectron2',
    'KnowledgeDistillationSingleStageDetector': 'loads a teacher',
    'SingleStageDetector': 'is the base of others',
    'SingleStageInstanceSegmentor': 'is the base of others',
    'TwoStageDetector': 'is the base of others',
    'TwoStagePanopticSegmentor': 'is the base of others',
    'SemiBaseDetector': 'is the base of others',
}


def config_of(name):
    """A config of a detector class: of the folder with the most similar name that has one among its first four."""

    def unlike(folder):
        return -difflib.SequenceMatcher(None, folder.name.replace('_', ''), name.lower()).ratio()

    families = (path for path in zoo().iterdir() if path.name not in NO_DETECTORS and path.name[0] != '_')
    for family in sorted(sorted(families), key=unlike):
        for path in configs_of(family)[:4]:
            if model_type(path) == name:
                return path
    raise LookupError(f'no config of {name}')


@lru_cache(maxsize=None)
def model_type(path):
    """The class of the detector of a config; None where the config needs another package, or has none."""
    try:
        return Config.fromfile(path).get('model', {}).get('type')
    except ImportError:
        return None


@pytest.mark.parametrize('name', CLASSES)
def test_the_drawing_sibling_has_the_same_keys_and_predictions(tmp_path, monkeypatch, name):
    if name in NOT_BUILDABLE:
        pytest.skip(f'{name} {NOT_BUILDABLE[name]}')
    monkeypatch.chdir(zoo().parent)  # some configs name others relative to it
    try:
        cfg = Config.fromfile(config_of(name))
        plain = build(cfg.model)
    except ImportError as error:  # some need further packages
        pytest.skip(f'{name} cannot be built: {error}')
    featviz = dict(out_dir=str(tmp_path / 'out'), save='heatmap', image_root=str(tmp_path))
    drawing = build({**cfg.model, 'type': f'{name}Hp', 'featviz': featviz})
    assert list(drawing.state_dict()) == list(plain.state_dict())
    drawing.load_state_dict(plain.state_dict())

    image = tmp_path / 'image.png'
    cv2.imwrite(str(image), noise(240, 320))
    pipeline = small(pipeline_of(cfg), LARGER.get(name, (320, 240)))
    results = []
    for model in (plain, drawing):
        torch.manual_seed(0)
        with torch.no_grad():
            try:
                results.append(copy.deepcopy(model.test_step(packed(pipeline, image))[0]))
            except (ImportError, TypeError, RuntimeError) as error:  # QueryInst's mask head, with untrained boxes
                if model is plain:
                    pytest.skip(f'{name} does not predict here without this package either: {error}')
                raise
    assert same(*results)
    assert len(pictures(tmp_path / 'out')) > 0


# Every kind of backbone, neck, pixel decoder and encoder, each in the cheapest config of its folder. One layer of an
# encoder is enough, and where the backbone is not the point, a ResNet-18.
RESNET18 = {'model.backbone.depth': 18, 'model.neck.in_channels': [64, 128, 256, 512], 'model.neck.out_channels': 64}
ENCODER_OF_RESNET18 = {
    'model.backbone.depth': 18,
    'model.neck.in_channels': [128, 256, 512],
    'model.encoder.num_layers': 1,
}
PIXEL_DECODER_OF_RESNET18 = {'model.backbone.depth': 18, 'model.panoptic_head.in_channels': [64, 128, 256, 512]}
THIN_NECK = {'model.neck.out_channels': 64}
PLACED = {
    'atss/atss_r50_fpn_1x_coco': {},
    'centernet/centernet_r18_8xb16-crop512-140e_coco': {},
    'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco': THIN_NECK,
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco': ENCODER_OF_RESNET18,
    'detr/detr_r18_8xb2-500e_coco': {'model.encoder.num_layers': 1},
    'dino/dino-4scale_r50_8xb2-12e_coco': ENCODER_OF_RESNET18,
    'dyhead/atss_r50-caffe_fpn_dyhead_1x_coco': {
        'model.backbone.depth': 18,
        'model.neck.0.in_channels': [64, 128, 256, 512],
        'model.neck.1.num_blocks': 1,
    },
    'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco': THIN_NECK,
    'empirical_attention/faster-rcnn_r50-attn0010_fpn_1x_coco': THIN_NECK,
    'faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco': {},
    'fpg/retinanet_r50_fpg_crop640_50e_coco': {
        'model.backbone.depth': 18,
        'model.neck.in_channels': [64, 128, 256, 512],
        'model.neck.stack_times': 4,
        'model.neck.paths': ['bu'] * 4,  # as many as its skips
    },
    'gcnet/mask-rcnn_r50-gcb-r4-c3-c5_fpn_1x_coco': THIN_NECK,
    'glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365': THIN_NECK,
    'gn/mask-rcnn_r50_fpn_gn-all_2x_coco': THIN_NECK,
    'grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco': ENCODER_OF_RESNET18,
    'hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco': THIN_NECK,
    'libra_rcnn/libra-retinanet_r50_fpn_1x_coco': {
        'model.backbone.depth': 18,
        'model.neck.0.in_channels': [64, 128, 256, 512],
    },
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco': {
        **PIXEL_DECODER_OF_RESNET18,
        'model.panoptic_head.pixel_decoder.encoder.num_layers': 1,
    },
    'maskformer/maskformer_r50_ms-16xb1-75e_coco': PIXEL_DECODER_OF_RESNET18,
    'nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco': {**RESNET18, 'model.neck.stack_times': 2},
    'pafpn/faster-rcnn_r50_pafpn_1x_coco': RESNET18,
    'pvt/retinanet_pvt-t_fpn_1x_coco': THIN_NECK,
    'pvt/retinanet_pvtv2-b0_fpn_1x_coco': THIN_NECK,
    'regnet/retinanet_regnetx-800MF_fpn_1x_coco': THIN_NECK,
    'res2net/faster-rcnn_res2net-101_fpn_2x_coco': {**THIN_NECK, 'model.backbone.depth': 50},
    'resnest/faster-rcnn_s50_fpn_syncbn-backbone+head_ms-range-1x_coco': THIN_NECK,
    'rtmdet/rtmdet_tiny_8xb32-300e_coco': {},
    'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco': {
        key.replace('model.', 'model.detector.'): value for key, value in RESNET18.items()
    },
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco': {},
    'swin/retinanet_swin-t-p4-w7_fpn_1x_coco': THIN_NECK,
    'yolof/yolof_r50-c5_8xb8-1x_coco': {},
    'yolox/yolox_tiny_8xb8-300e_coco': {},
}
# Attention, deformable or dilated convolutions, norms or pools that cover much of the image: the heat is only near the
# patch, which is right.
BLURRED = {
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
    'dyhead/atss_r50-caffe_fpn_dyhead_1x_coco',
    'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco',
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco',
}


@pytest.mark.parametrize('name', PLACED)
def test_the_heat_is_where_the_picture_changed(monkeypatch, name):
    monkeypatch.chdir(zoo().parent)
    # The other places average noise away, which this verdict does not need.
    monkeypatch.setattr(patch_placement, 'PLACES', patch_placement.PLACES[: patch_placement.MOVED])
    path = zoo() / f'{name}.py'
    if not path.exists():
        pytest.skip(f'this mmdet has no {name}')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(PLACED[name])
    try:
        model = build(cfg.model)
    except ImportError as error:  # some need transformers
        pytest.skip(f'{name} cannot be built: {error}')
    pipeline = small(pipeline_of(cfg), PICTURE[::-1])
    settle_weights(model, packed(pipeline, noise(*PICTURE)))
    levels = level_placements(model, lambda picture: packed(pipeline, picture))
    allowed = {'right', 'blurred'} if name in BLURRED else {'right'}
    assert {level.verdict for level in levels} <= allowed, levels
