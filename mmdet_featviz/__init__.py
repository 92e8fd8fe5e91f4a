"""Heatmaps of what an mmdetection detector responds to, drawn while it runs."""

from importlib import import_module
from typing import Any

from mmdet_featviz.utils.dependencies import check_dependencies

check_dependencies()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from mmdet_featviz.apis.visualizer import FeatureVisualizer  # noqa: E402
from mmdet_featviz.engine.hooks.featviz_hook import FeatVizHook  # noqa: E402
from mmdet_featviz.evaluation.feature_focus_metric import FeatureFocusMetric  # noqa: E402
from mmdet_featviz.registry import REDUCTIONS  # noqa: E402
from mmdet_featviz.utils.checkpoints import allow_training_checkpoints  # noqa: E402
from mmdet_featviz.version import __version__  # noqa: E402
from mmdet_featviz.visualization.style import Style  # noqa: E402

allow_training_checkpoints()

# Makes `_base_ = 'mmdet_featviz::...'` known to mmengine. It asks for a distribution, and would look for the configs
# beside that one's metadata, where an editable install has none; by the path of a module it finds the package.
MODULE2PACKAGE.setdefault('mmdet_featviz', 'mmdet_featviz.version')

# Imported on first use: look() needs mmdet.apis, and the detectors need all of mmdet's models.
_LAZY = {
    'Look': 'mmdet_featviz.apis.look',
    'look': 'mmdet_featviz.apis.look',
    'FeatVizMixin': 'mmdet_featviz.models.detectors.featviz_mixin',
    'SingleStageDetectorHp': 'mmdet_featviz.models.detectors.featviz_detectors',
    'TwoStageDetectorHp': 'mmdet_featviz.models.detectors.featviz_detectors',
}

__all__ = [
    'REDUCTIONS',
    'FeatVizHook',
    'FeatVizMixin',
    'FeatureFocusMetric',
    'FeatureVisualizer',
    'Look',
    'SingleStageDetectorHp',
    'Style',
    'TwoStageDetectorHp',
    '__version__',
    'look',
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
