"""Registries of this package, under its own scope."""

from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import Registry

REDUCTIONS = Registry('reduction', scope='mmdet_featviz', locations=['mmdet_featviz.capture.reductions'])
"""Named reductions. A function of one's own joins with ``@REDUCTIONS.register_module()``.

It gets a feature map (N, C, H, W) of any floating type, on the features' device, and returns (N, H, W). The feature map
is the network's own tensor: a reduction must not change it.
"""

# mmengine looks here for what a config inherited as `mmdet_featviz::...` names. The hook itself is registered with
# mmengine, so that configs of every scope find it.
HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, scope='mmdet_featviz', locations=['mmdet_featviz.engine.hooks.featviz_hook']
)

# Makes the drawing detectors known to mmdet without importing its models already now: a registry imports its locations
# before its first look-up, here once more should that be past. (No default list of locations may be appended to.)
MMDET_MODELS._locations = [*MMDET_MODELS._locations, 'mmdet_featviz.models.detectors.featviz_detectors']
MMDET_MODELS._imported = False
