import pytest
from conftest import pool_detector
from mmdet.models import DetTTAModel
from mmdet.registry import MODELS
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.capture.detector import unwrap_detector


def test_unwrap_detector_handles_nested_wrappers():
    inner = nn.Conv2d(3, 4, 1)
    assert unwrap_detector(nn.DataParallel(nn.DataParallel(inner))) is inner


class PlainDetector(nn.Module):
    """A detector with a part called `module`."""

    def __init__(self):
        super().__init__()
        self.backbone, self.module = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)


class DetectorOfOnePart(BaseModel):
    """A detector whose only part is called `module`."""

    def __init__(self):
        super().__init__()
        self.module = nn.Conv2d(3, 4, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.module(inputs)


@pytest.mark.parametrize('kind', [PlainDetector, DetectorOfOnePart])
def test_a_detector_with_a_part_called_module_is_not_taken_for_a_wrapper(kind):
    detector = kind()
    assert unwrap_detector(detector) is detector
    assert unwrap_detector(nn.DataParallel(detector)) is detector
    visualizer = FeatureVisualizer(layers='module')
    assert list(visualizer.make_taps(detector).modules) == ['module']


def test_models_for_test_time_augmentation_and_averaged_models_are_wrappers():
    detector = MODELS.build(pool_detector())
    assert unwrap_detector(DetTTAModel(module=detector)) is detector
    averaged = ExponentialMovingAverage(detector)
    assert unwrap_detector(averaged) is averaged.module
    detector.module = nn.Conv2d(3, 4, 1)
    assert unwrap_detector(nn.DataParallel(DetTTAModel(module=detector))) is detector


def test_a_registered_wrapper_may_have_parts_of_its_own():
    @MODEL_WRAPPERS.register_module(force=True)
    class Sharded(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.flat = module, nn.Identity()

    detector = PlainDetector()
    assert unwrap_detector(Sharded(detector)) is detector
