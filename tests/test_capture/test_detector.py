from torch import nn

from mmdet_featviz.capture.detector import unwrap_detector


def test_unwrap_detector_handles_nested_wrappers():
    inner = nn.Conv2d(3, 4, 1)
    assert unwrap_detector(nn.DataParallel(nn.DataParallel(inner))) is inner
