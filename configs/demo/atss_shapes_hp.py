"""The demo's single-stage detector as one that draws by itself, with the bundled weights."""

_base_ = './atss_shapes.py'

load_from = '{{ fileDirname }}/atss_shapes.pth'
model = dict(type='SingleStageDetectorHp', featviz=dict(save=('overlay', 'panel'), boxes='pred'))
