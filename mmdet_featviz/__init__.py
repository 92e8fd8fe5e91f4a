"""Heatmaps of what an mmdetection detector responds to, drawn while it runs."""

from importlib import import_module
from typing import Any

from .stack import check_stack

check_stack()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from .checkpoints import allow_training_checkpoints  # noqa: E402
from .hooks import FeatVizHook  # noqa: E402
from .looks import Look, look  # noqa: E402
from .metrics import FeatureFocusMetric  # noqa: E402
from .registry import REDUCTIONS  # noqa: E402
from .style import Style  # noqa: E402
from .version import __version__  # noqa: E402
from .visualizer import FeatureVisualizer  # noqa: E402

allow_training_checkpoints()

# Makes `_base_ = 'mmdet_featviz::...'` known to mmengine. It asks for a distribution, and would look for the configs
# beside that one's metadata, where an editable install has none; by the path of a module it finds the package.
MODULE2PACKAGE.setdefault('mmdet_featviz', 'mmdet_featviz.version')

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
    """The detectors come on demand: with them come all of mmdet's models."""
    if name in ('FeatVizMixin', 'SingleStageDetectorHp', 'TwoStageDetectorHp'):
        return getattr(import_module('.detectors', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
