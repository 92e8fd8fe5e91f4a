"""RTMDet-tiny of mmdet's model zoo, with heatmaps of its backbone and neck."""

_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'

custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
default_hooks = dict(featviz=dict(type='FeatVizHook', save=('overlay', 'panel')))
load_from = (
    'https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet_tiny_8xb32-300e_coco/'
    'rtmdet_tiny_8xb32-300e_coco_20220902_112414-78e30dcc.pth'
)
