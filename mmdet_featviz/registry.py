"""Registries: reductions, explainers, the scope ``mmdet_featviz``, and the detectors in mmdet's registry."""

import mmdet.registry
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import Registry

REDUCTIONS = Registry('reduction', scope='mmdet_featviz', locations=['mmdet_featviz.capture.reductions'])
"""Reductions by name. Register your own function with ``@REDUCTIONS.register_module()``.

A reduction takes a feature map (N, C, H, W) of any floating type, on the device of the features, and returns (N, H, W).
It must not change the feature map, which is the network's own tensor.
"""

EXPLAINERS = Registry(
    'explainer',
    scope='mmdet_featviz',
    locations=[
        'mmdet_featviz.explanation.gradient_methods',
        'mmdet_featviz.explanation.perturbation_methods',
        'mmdet_featviz.explanation.attention_methods',
        'mmdet_featviz.explanation.baselines',
    ],
)
"""Methods that explain detections, by name. Register your own with ``@EXPLAINERS.register_module(name='mine')``.

An explainer takes a :class:`mmdet_featviz.explanation.detector_batch.DetectorBatch` and a list of targets, and returns
for each target its maps as a list of :class:`mmdet_featviz.structures.snapshot.Level`. For a formula of feature maps
and gradients, put ``@from_gradients`` below the registration.
"""

# Adds the detectors of this package to mmdet's registry without importing mmdet's models now: a registry imports its
# locations at its first lookup. Resetting `_imported` repeats that import if the first lookup has already happened. The
# list is replaced, not appended to, as registries may share a default list.
MMDET_MODELS._locations = [*MMDET_MODELS._locations, 'mmdet_featviz.models.detectors.featviz_detectors']
MMDET_MODELS._imported = False

# mmengine looks up types in this scope for configs inherited as `mmdet_featviz::...`, and then in mmdet's registries,
# whose modules must have been imported. The hook itself is registered with mmengine, so that any scope finds it.
IN_OUR_SCOPE = [
    Registry(parent.name, parent=parent, scope='mmdet_featviz', locations=parent._locations)
    for parent in vars(mmdet.registry).values()
    if isinstance(parent, Registry) and parent.scope == 'mmdet'
]
