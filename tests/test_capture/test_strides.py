import pytest
import torch

from mmdet_featviz.capture.strides import nominal_stride, stride_of


@pytest.mark.parametrize(
    ('cells', 'pixels', 'stride'),
    [
        ((13, 17), (800, 1067), (64, 64)),  # P6 covers 832 x 1088
        ((8, 10), (240, 320), (32, 32)),
        ((2, 3), (240, 320), (128, 128)),
        ((52, 52), (416, 416), (8, 8)),
        ((38, 38), (300, 300), (8, 8)),
        ((3, 5), (240, 320), (64, 64)),  # pooled without padding, as in HRFPN
        ((13, 17), (800, 1090), (64, 64)),  # patches, and an extra level of an FPN: up on one axis, down on the other
        ((17, 13), (1090, 800), (64, 64)),
        ((100, 100), (300, 300), (3, 3)),
        ((20, 27), (300, 400), (15, 400 / 27)),
        ((7, 7), (480, 640), None),  # RoI crops
        ((40, 40), (480, 640), None),  # SOLOv2's grids
    ],
)
def test_nominal_stride(cells, pixels, stride):
    assert nominal_stride(cells, pixels) == stride


def test_stride_of_crops_and_of_indices_is_none():
    inputs = torch.zeros(2, 3, 64, 64)
    assert stride_of(torch.zeros(100, 8, 7, 7), inputs) is None
    assert stride_of(torch.zeros(0, 8, 7, 7), inputs) is None
    assert stride_of(torch.zeros(2, 8, 16, 16, dtype=torch.long), inputs) is None
    assert stride_of(torch.zeros(2, 8, 16, 16), inputs) == (4, 4)
