"""Small detectors of all kinds of heads on random features, and captures of their class-score maps."""

import copy

import torch
from conftest import TEST_CFG, head_config
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from torch import nn

from mmdet_featviz.capture.reductions import get_reduction
from mmdet_featviz.capture.score_maps import ScoreMaps, predicted_classes
from mmdet_featviz.capture.taps import Taps

STRIDES = (8, 16)
SIZE = (64, 96)


@MODELS.register_module()
class Pyramid(nn.Module):
    """A backbone: for each stride a map of 8 channels of random noise that depends on the image."""

    def __init__(self, strides=STRIDES):
        super().__init__()
        self.strides = strides
        self.weight = nn.Parameter(torch.randn(8, 3, 1, 1))

    def init_weights(self):
        pass

    def forward(self, images):
        features = nn.functional.conv2d(images, self.weight)
        levels = (nn.functional.avg_pool2d(features, stride) for stride in self.strides)
        return tuple(nn.functional.instance_norm(level) for level in levels)


ANCHORS = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=list(STRIDES))
SMALL = dict(num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1)
ATSS = dict(
    SMALL, anchor_generator=ANCHORS, norm_cfg=None, loss_cls=dict(type='FocalLoss', use_sigmoid=True, activated=False)
)
RETINA = head_config(8, STRIDES)
TWO_ANCHORS = dict(ANCHORS, ratios=[0.5, 2.0])
RTMDET = dict(
    SMALL,
    anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=list(STRIDES)),
    bbox_coder=dict(type='DistancePointBBoxCoder'),
    norm_cfg=dict(type='BN'),
)
FEW_CONVS = {name: value for name, value in RETINA.items() if name != 'stacked_convs'}
HEADS = {
    'retina': dict(RETINA, anchor_generator=TWO_ANCHORS),
    'softmax': dict(RETINA, anchor_generator=TWO_ANCHORS, loss_cls=dict(type='CrossEntropyLoss')),
    'ssd': dict(
        type='SSDHead',
        num_classes=2,
        in_channels=(8, 8),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            strides=list(STRIDES),
            ratios=[[2], [2, 3]],
            min_sizes=[16, 32],
            max_sizes=[32, 64],
        ),
    ),
    'fcos': dict(SMALL, type='FCOSHead', strides=STRIDES, norm_cfg=None),
    'autoassign': dict(SMALL, type='AutoAssignHead', strides=STRIDES, norm_cfg=None),
    'foveabox': dict(SMALL, type='FoveaHead', strides=STRIDES, norm_cfg=None),
    'reppoints': dict(SMALL, type='RepPointsHead', point_feat_channels=8, point_strides=STRIDES, norm_cfg=None),
    'atss': dict(ATSS, type='ATSSHead'),
    'ddod': dict(ATSS, type='DDODHead', norm_cfg=dict(type='GN', num_groups=2)),
    'gfl': dict(ATSS, type='GFLHead', loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True)),
    'paa': dict(ATSS, type='PAAHead', score_voting=False),
    'tood': dict(
        ATSS,
        type='TOODHead',
        num_dcn=0,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=2),
        initial_loss_cls=dict(type='FocalLoss', use_sigmoid=True, activated=True),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, activated=True),
    ),
    'yolox': dict(SMALL, type='YOLOXHead', strides=STRIDES),
    'yolov3': dict(
        type='YOLOV3Head',
        num_classes=2,
        in_channels=(8, 8),
        out_channels=(8, 8),
        featmap_strides=list(STRIDES),
        anchor_generator=dict(
            type='YOLOAnchorGenerator', base_sizes=[[(10, 13), (16, 30)], [(30, 61), (62, 45)]], strides=list(STRIDES)
        ),
    ),
    'rtmdet': dict(RTMDET, type='RTMDetHead'),
    'rtmdet apart': dict(RTMDET, type='RTMDetSepBNHead', with_objectness=False, share_conv=False),
    'vfnet': dict(
        SMALL, type='VFNetHead', strides=STRIDES, anchor_generator=dict(ANCHORS, center_offset=0.0), norm_cfg=None
    ),
    'yolof': dict(FEW_CONVS, type='YOLOFHead', anchor_generator=TWO_ANCHORS, num_cls_convs=1, num_reg_convs=1),
    'sabl': dict(
        SMALL,
        type='SABLRetinaHead',
        approx_anchor_generator=dict(ANCHORS, scales_per_octave=3, ratios=[0.5, 1.0, 2.0]),
        square_anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], scales=[4], strides=list(STRIDES)),
        bbox_coder=dict(type='BucketingBBoxCoder', num_buckets=14, scale_factor=3.0),
    ),
    'yolact': dict(
        FEW_CONVS,
        type='YOLACTHead',
        num_protos=4,
        anchor_generator=TWO_ANCHORS,
        loss_cls=dict(type='CrossEntropyLoss'),
    ),
    'centernet': dict(type='CenterNetHead', num_classes=2, in_channels=8, feat_channels=8),
    'cornernet': dict(type='CornerHead', num_classes=2, in_channels=8, num_feat_levels=2, corner_emb_channels=1),
}

PREPROCESSOR = dict(type='DetDataPreprocessor', mean=[127.0] * 3, std=[50.0] * 3)
SEVERAL_ANCHORS = {'retina', 'softmax', 'ssd', 'yolov3', 'yolof'}


def make_detector(head, strides=STRIDES, **test_cfg):
    """A detector of a head on random features, whose scores are spread over the whole range."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='SingleStageDetector',
            data_preprocessor=PREPROCESSOR,
            backbone=dict(type='Pyramid', strides=strides),
            bbox_head=copy.deepcopy(head),
            test_cfg=ConfigDict(TEST_CFG, max_per_img=30, nms_pre=1000, **test_cfg),
        )
    )
    for name, weight in model.bbox_head.named_parameters():
        if 'scale' not in name:  # a negative size is no box
            nn.init.normal_(weight, std=0.15)
    if head['type'] == 'SSDHead':
        model.bbox_head.loss_cls = None  # mmdet 3.3 reads it when predicting, but SSDHead does not set it
    return model.eval()


def make_batch(images=1):
    metas = dict(ori_shape=SIZE, img_shape=SIZE, batch_input_shape=SIZE, scale_factor=(1.0, 1.0), border=(0, 0, 0, 0))
    generator = torch.Generator().manual_seed(0)
    return dict(
        inputs=[torch.randint(0, 256, (3, *SIZE), generator=generator, dtype=torch.uint8) for _ in range(images)],
        data_samples=[DetDataSample(metainfo=dict(metas, img_id=n, img_path=f'{n}.jpg')) for n in range(images)],
    )


def capture(model, batch, names=('cat', 'dog'), choose=None, **options):
    """The pass of a test step, and the predictions."""
    choose = choose or (lambda sample, result: predicted_classes(0.0, sample, result))
    score_maps = ScoreMaps(model, names, choose)
    taps = Taps(model, (), get_reduction('max'), score_maps=score_maps, **options)
    with taps, torch.no_grad():
        results = model.test_step(copy.deepcopy(batch))
    (seen,) = taps.take()
    return seen, results, taps
