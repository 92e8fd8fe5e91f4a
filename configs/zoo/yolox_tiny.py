"""YOLOX-tiny of mmdet's model zoo, with heatmaps of its backbone and neck."""

_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'

custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
default_hooks = dict(featviz=dict(type='FeatVizHook', save=('overlay', 'panel')))
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/yolox/yolox_tiny_8x8_300e_coco/'
    'yolox_tiny_8x8_300e_coco_20211124_171234-b4047906.pth'
)
