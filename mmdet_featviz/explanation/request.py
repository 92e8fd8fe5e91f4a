"""Explanation request: what is explained of each image and how, checked before the first image."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable, Mapping, Sequence

from torch import nn

from mmdet_featviz.capture.layer_selection import find_layers
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.targets import PARTS, NoTargetError, Target, is_found, parse_targets
from mmdet_featviz.registry import EXPLAINERS
from mmdet_featviz.structures.snapshot import Level
from mmdet_featviz.utils.arguments import check_choice, check_names, check_number, check_whole_number
from mmdet_featviz.utils.image_path import image_path
from mmdet_featviz.visualization.style import STYLE_OPTIONS

REQUEST_OPTIONS = ('method', 'targets', 'layers', 'of')  # the others are those of the method
CHECKS = {  # of the options of this package's methods, by name
    **dict.fromkeys(('masks', 'cells', 'batch_size'), check_whole_number),
    'seed': partial(check_whole_number, least=0),
    'visible': partial(check_number, low=0, high=1),
}


@dataclass(frozen=True)
class ExplanationRequest:
    """What is explained of each image, and how.

    Args:
        method: Name of a registered explainer.
        targets: What to explain, as :func:`mmdet_featviz.explanation.targets.parse_targets` reads it.
        layers: Layers to explain at: module paths or globs. None is the neck, or the pixel decoder or backbone of
            detectors without a neck.
        of: What is explained of each target: a key of `PARTS`.
        options: Arguments of the method.

    Raises:
        TypeError, ValueError: If a name does not exist, or a target cannot be understood.
    """

    method: str = 'odam'
    targets: str | int | Sequence[str | int] = 'top 5'
    layers: str | Sequence[str] | None = None
    of: str = 'score'
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        explainer = get_explainer(self.method)
        check_choice('of', self.of, tuple(PARTS))
        object.__setattr__(self, 'layers', None if self.layers is None else check_names('layers', self.layers))
        object.__setattr__(self, 'options', dict(self.options or {}))
        _check_options(self.method, explainer, self.options)
        parse_targets(self.targets, self.of, None)

    def check(self, model: nn.Module, names: Sequence[str]) -> None:
        """Raise ValueError if the detector lacks a layer, or the data set a class.

        Args:
            model: The detector, without wrappers.
            names: Names of the classes, if known.
        """
        parse_targets(self.targets, self.of, names)
        if self.layers is not None:
            find_layers(model, self.layers)

    def explain(
        self, batch: DetectorBatch, names: Sequence[str], images: Sequence[int] | None = None
    ) -> dict[Target, list[Level]]:
        """Explain images of a batch.

        Args:
            batch: The detector and the batch, with the layers of this request.
            names: Names of the classes, if known.
            images: Indices of the images that are explained; None is all.

        Returns:
            The levels of each target, in the order of the targets.

        Raises:
            NoTargetError: If no image has a target.
            ValueError: If the method cannot explain this detector.
            RuntimeError: If the detector predicts other boxes while it is explained.
        """
        chosen = self._choose(batch, names, range(len(batch)) if images is None else images)
        maps: dict[Target, list[Level]] = {}
        for source in (batch, batch.candidates):
            own = list(dict.fromkeys(target for target, of_batch in chosen if of_batch is source))
            maps.update(zip(own, get_explainer(self.method)(source, own, **self.options) if own else []))
        return {target: maps[target] for target, _ in chosen}

    def _choose(
        self, batch: DetectorBatch, names: Sequence[str], images: Sequence[int]
    ) -> list[tuple[Target, DetectorBatch]]:
        """Return the targets in the images, each with the batch that it is predicted in: detections or candidates."""
        chosen, reasons = [], []
        for selection in parse_targets(self.targets, self.of, names):
            source = batch if selection.suppressed else batch.candidates
            for image in images:
                sample = batch.data['data_samples'][image]
                targets, reason = selection.choose(image, source.detections[image], sample)
                if targets and targets[0].kind == 'ground truth':
                    targets = [replace(target, found=is_found(target, batch.detections[image])) for target in targets]
                chosen += [(target, source) for target in targets]
                reasons += [] if targets else [f'{image_path(sample.metainfo) or "the image"}: {reason}']
        if not chosen:
            raise NoTargetError('; '.join(reasons))
        return chosen


def get_explainer(name: str) -> Callable[..., list[list[Level]]]:
    """Look up a registered explainer by name.

    Raises:
        ValueError: If no explainer of this name is registered.
    """
    EXPLAINERS.import_from_location()
    explainer = EXPLAINERS.module_dict.get(name) if isinstance(name, str) else None
    if explainer is None:
        names = sorted(EXPLAINERS.module_dict)
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f'did you mean {close[0]!r}? ' if close else ''
        raise ValueError(f'unknown method {name!r}: {hint}Registered are {", ".join(names)}')
    return explainer


def _check_options(method: str, explainer: Callable, options: Mapping[str, Any]) -> None:
    """Raise TypeError if the method does not take an option, and ValueError if its value is out of range."""
    known = dict(list(inspect.signature(explainer).parameters.items())[2:])
    for name, value in options.items():
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *STYLE_OPTIONS], n=1)
            hint = f'did you mean {close[0]!r}? ' if close else ''
            own = f'{method} takes {", ".join(known)}' if known else f'{method} takes no options'
            raise TypeError(f'unknown option {name!r}: {hint}{own}; the others are those of Style')
        if name in CHECKS and explainer.__module__.startswith(f'{__package__}.'):  # users' methods check their own
            CHECKS[name](name, value)
