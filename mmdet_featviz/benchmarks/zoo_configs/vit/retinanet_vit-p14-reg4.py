"""RetinaNet on a small vision transformer with patches of 14 pixels, a class token and four registers."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_featviz.benchmarks.plain_vit'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type='PlainViT', channels=96, blocks=4, patch=14, registers=4),
    neck=dict(_delete_=True, type='FPN', in_channels=[96], out_channels=256, num_outs=1),
    bbox_head=dict(anchor_generator=dict(strides=[14])),
)
coverage_layers = ['backbone.blocks.3', 'backbone', 'neck']
