"""Detectors of mmdet that draw whenever they predict."""

from __future__ import annotations

from mmdet.models.detectors import BaseDetector, SingleStageDetector, TwoStageDetector
from mmdet.registry import MODELS

from mmdet_featviz.models.detectors.featviz_mixin import FeatVizMixin


@MODELS.register_module()
class SingleStageDetectorHp(FeatVizMixin, SingleStageDetector):
    """Any single-stage detector of mmdet that only names its base class's parts, such as RetinaNet, ATSS or YOLOX."""


@MODELS.register_module()
class TwoStageDetectorHp(FeatVizMixin, TwoStageDetector):
    """Any two-stage detector of mmdet that only names its base class's parts, such as Faster or Mask R-CNN."""


def _register_siblings() -> None:
    """Register a drawing sibling of each of mmdet's detectors, such as ``DINOHp`` of ``DINO``."""
    for name, detector in list(MODELS.module_dict.items()):
        # Users' own detectors are theirs to subclass, whenever this module happens to be imported.
        is_mmdets = isinstance(detector, type) and detector.__module__.startswith('mmdet.')
        if is_mmdets and issubclass(detector, BaseDetector) and f'{name}Hp' not in MODELS.module_dict:
            doc = f'{name} that draws its feature maps whenever it predicts.'
            sibling = type(f'{name}Hp', (FeatVizMixin, detector), {'__doc__': doc, '__module__': __name__})
            globals()[sibling.__name__] = MODELS.register_module(module=sibling)


_register_siblings()
