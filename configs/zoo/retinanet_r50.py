"""RetinaNet with ResNet-50 of mmdet's model zoo, with heatmaps of its backbone and neck."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
default_hooks = dict(featviz=dict(type='FeatVizHook', save=('overlay', 'panel')))
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r50_fpn_1x_coco/'
    'retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth'
)
