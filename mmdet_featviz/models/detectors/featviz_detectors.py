"""Drawing siblings of mmdet's detectors: registers RetinaNetHp for RetinaNet, and so on."""

from __future__ import annotations

from mmdet.models.detectors import BaseDetector, SingleStageDetector, TwoStageDetector
from mmdet.registry import MODELS

from mmdet_featviz.models.detectors.featviz_mixin import FeatVizMixin


@MODELS.register_module()
class SingleStageDetectorHp(FeatVizMixin, SingleStageDetector):
    """SingleStageDetector that draws its feature maps whenever it predicts.

    Stands in for detectors that add nothing to their base class, such as RetinaNet, ATSS, YOLOX or RTMDet.
    """


@MODELS.register_module()
class TwoStageDetectorHp(FeatVizMixin, TwoStageDetector):
    """TwoStageDetector that draws its feature maps whenever it predicts.

    Stands in for detectors that add nothing to their base class, such as Faster R-CNN or Mask R-CNN.
    """


def _register_siblings() -> None:
    """Register a drawing sibling of each detector of mmdet, such as ``DINOHp`` for ``DINO``."""
    for name, detector in list(MODELS.module_dict.items()):
        # Not for users' own detectors: whether they are registered by now depends on the order of imports.
        is_of_mmdet = isinstance(detector, type) and detector.__module__.startswith('mmdet.')
        if is_of_mmdet and issubclass(detector, BaseDetector) and f'{name}Hp' not in MODELS.module_dict:
            doc = f'{name} that draws its feature maps whenever it predicts.'
            sibling = type(f'{name}Hp', (FeatVizMixin, detector), {'__doc__': doc, '__module__': __name__})
            globals()[sibling.__name__] = MODELS.register_module(module=sibling)


_register_siblings()
