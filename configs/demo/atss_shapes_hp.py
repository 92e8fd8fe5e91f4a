"""The demo's single-stage detector as one that draws by itself, with the bundled weights."""

_base_ = './atss_shapes.py'

load_from = '{{ fileDirname }}/atss_shapes.pth'
# align: strided 3x3 convolutions look at the corner of their block, not at its centre.
model = dict(type='SingleStageDetectorHp', featviz=dict(align='corner', save=('overlay', 'panel'), boxes='pred'))
