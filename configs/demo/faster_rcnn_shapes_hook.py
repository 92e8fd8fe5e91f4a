"""The demo's two-stage detector, unchanged, drawn by the hook, with the bundled weights."""

_base_ = './faster_rcnn_shapes.py'

load_from = '{{ fileDirname }}/faster_rcnn_shapes.pth'
# align: strided 3x3 convolutions look at the corner of their block, not at its centre.
default_hooks = dict(featviz=dict(type='FeatVizHook', align='corner', save=('overlay', 'panel'), boxes='pred'))
