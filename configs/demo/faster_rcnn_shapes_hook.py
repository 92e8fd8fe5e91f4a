"""The demo's two-stage detector, unchanged, drawn by the hook, with the bundled weights."""

_base_ = './faster_rcnn_shapes.py'

load_from = '{{ fileDirname }}/faster_rcnn_shapes.pth'
default_hooks = dict(featviz=dict(type='FeatVizHook', save=('overlay', 'panel'), boxes='pred'))
