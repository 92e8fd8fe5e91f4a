"""Faster R-CNN with ResNet-50 of mmdet's model zoo, with heatmaps of its backbone and neck."""

_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
default_hooks = dict(featviz=dict(type='FeatVizHook', save=('overlay', 'panel')))
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/'
    'faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'
)
