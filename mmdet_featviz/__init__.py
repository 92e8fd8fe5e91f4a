"""Draws heatmaps of an mmdetection detector's feature maps over the original images, while the detector runs."""

from importlib import import_module
from typing import Any

from mmdet_featviz.utils.dependencies import check_dependencies, is_command

try:
    check_dependencies()
except ImportError as error:
    if is_command():  # it could not catch the error, because its module is imported after this one
        raise SystemExit(str(error)) from error
    raise

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from mmdet_featviz.apis.visualizer import FeatureVisualizer  # noqa: E402
from mmdet_featviz.engine.hooks.featviz_hook import FeatVizHook  # noqa: E402
from mmdet_featviz.evaluation.detection_error_metric import DetectionErrorMetric  # noqa: E402
from mmdet_featviz.evaluation.explanation_metric import ExplanationMetric  # noqa: E402
from mmdet_featviz.evaluation.feature_focus_metric import FeatureFocusMetric  # noqa: E402
from mmdet_featviz.registry import EXPLAINERS, REDUCTIONS  # noqa: E402
from mmdet_featviz.utils.checkpoints import allow_training_checkpoints  # noqa: E402
from mmdet_featviz.version import __version__  # noqa: E402
from mmdet_featviz.visualization.style import Style  # noqa: E402

allow_training_checkpoints()

# Lets configs use `_base_ = 'mmdet_featviz::...'`. mmengine expects the name of a distribution here and looks for the
# configs next to its metadata, where an editable install has none. With a module's path it finds the package folder.
MODULE2PACKAGE.setdefault('mmdet_featviz', 'mmdet_featviz.version')

# Imported on first use, as look() imports mmdet.apis and the detectors import all of mmdet's models.
_LAZY = {
    'draw_figure': 'mmdet_featviz.apis.figure',
    'Explanation': 'mmdet_featviz.explanation.explanation',
    'explain': 'mmdet_featviz.apis.explain',
    'level_statistics': 'mmdet_featviz.apis.level_statistics',
    'Look': 'mmdet_featviz.apis.look',
    'look': 'mmdet_featviz.apis.look',
    'ReceptiveField': 'mmdet_featviz.explanation.field_measurement',
    'receptive_fields': 'mmdet_featviz.apis.receptive_field',
    'similarity': 'mmdet_featviz.apis.similarity',
    'FeatVizMixin': 'mmdet_featviz.models.detectors.featviz_mixin',
    'SingleStageDetectorHp': 'mmdet_featviz.models.detectors.featviz_detectors',
    'TwoStageDetectorHp': 'mmdet_featviz.models.detectors.featviz_detectors',
}

__all__ = [
    'EXPLAINERS',
    'REDUCTIONS',
    'DetectionErrorMetric',
    'Explanation',
    'ExplanationMetric',
    'FeatVizHook',
    'FeatVizMixin',
    'FeatureFocusMetric',
    'FeatureVisualizer',
    'Look',
    'ReceptiveField',
    'SingleStageDetectorHp',
    'Style',
    'TwoStageDetectorHp',
    '__version__',
    'draw_figure',
    'explain',
    'level_statistics',
    'look',
    'receptive_fields',
    'similarity',
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
