"""Gradient methods: explain detections by the feature maps of a layer and the gradients of a target there."""

from __future__ import annotations

import logging
from typing import Callable, Sequence

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from mmdet_featviz.capture.activation_map import ActivationMap
from mmdet_featviz.explanation.detections import Detections, overlaps
from mmdet_featviz.explanation.detector_batch import DetectorBatch, TappedPass
from mmdet_featviz.explanation.differentiable import gradients_of, is_finite, precise
from mmdet_featviz.explanation.targets import SIDES, Target
from mmdet_featviz.registry import EXPLAINERS
from mmdet_featviz.structures.snapshot import Level

Formula = Callable[[Tensor, Tensor], Tensor]


def from_gradients(formula: Formula) -> Callable[[DetectorBatch, Sequence[Target]], list[list[Level]]]:
    """Make an explainer of a formula.

    The detector runs once for all targets. If a target is several numbers (the sides of a box), their maps are divided
    by their largest value, since pixels and scores have no common unit, and merged by maximum, as in ODAM (Zhao & Chan,
    ICLR 2023).

    Args:
        formula: Function from a feature map A (C, H, W) and the gradient of the target there G (C, H, W), both float32
            or float64, to a map (H, W). What is negative or not finite in the map becomes 0.
    """

    def explainer(batch: DetectorBatch, targets: Sequence[Target]) -> list[list[Level]]:
        with batch.tapped_pass() as graph:
            numbers = [_numbers(target, graph.detections[target.image], batch) for target in targets]
            maps = [
                [_maps(formula, number, target.image, graph) for number in numbers_of_target]
                for target, numbers_of_target in zip(targets, numbers)
            ]
            _check_dependence(maps, graph, targets)
            return [_merge(maps_of_target, graph) for maps_of_target in maps]

    explainer.__name__, explainer.__doc__ = formula.__name__, formula.__doc__
    return explainer


def _numbers(target: Target, detections: Detections, batch: DetectorBatch) -> list[Tensor]:
    """Return the predicted numbers that a target consists of, with their graph."""
    score, box = detections.scores[target.index], detections.bboxes[target.index]
    if target.wanted is not None:
        score = score * overlaps(box[None], box.new_tensor(target.wanted))[0]
    named = dict(score=score, **dict(zip(SIDES, box)))
    numbers = [named[part] for part in target.parts]
    if not all(number.requires_grad for number in numbers):
        what = 'score' if not score.requires_grad else 'box'
        advice = "method='drise' needs none" if what == 'score' else "of='score' explains the score"
        raise ValueError(f'the {what} that {type(batch.model).__name__} predicts carries no gradient: {advice}')
    return numbers


def _maps(formula: Formula, number: Tensor, image: int, graph: TappedPass) -> list[Tensor | None]:
    """Return the map of one predicted number at each level; None where it does not depend on the level."""
    tapped = graph.taps.tapped
    gradients = gradients_of([number], [one.tensor for one in tapped])
    maps = []
    for one, gradient in zip(tapped, gradients):
        # Zero where scores and boxes were only joined in one tensor, or a side was clipped at the border of the image.
        if gradient is None or not gradient.any():
            maps += [None] * len(one.maps)
            continue
        if not is_finite(gradient) and not gradient.isfinite().any():
            raise ValueError(f"the gradient at layer {one.layer!r} is not finite: method='drise' needs none")
        for pair in graph.taps.feature_maps(one, graph.pass_, one.tensor.detach(), gradient):
            features, gradient_of_level = (precise(part[image]) for part in pair)
            maps.append(finite_heat(formula(features, gradient_of_level)))
    return maps


def _check_dependence(
    maps: Sequence[Sequence[Sequence[Tensor | None]]], graph: TappedPass, targets: Sequence[Target]
) -> None:
    """Raise ValueError if no target depends on any level of a layer."""
    levels = [level for one in graph.taps.tapped for level in one.maps]
    for layer in dict.fromkeys(level.layer for level in levels):
        used = (
            heat is not None
            for of_target in maps
            for of_number in of_target
            for level, heat in zip(levels, of_number)
            if level.layer == layer
        )
        if not any(used):
            parts = ' and '.join(dict.fromkeys(part for target in targets for part in target.parts))
            raise ValueError(
                f'the {parts} of the detections does not depend on layer {layer!r}: choose a layer that it is computed '
                'from, such as the neck (a side clipped at the border of the image depends on none)'
            )


def _merge(maps: Sequence[Sequence[Tensor | None]], graph: TappedPass) -> list[Level]:
    """Return the levels of a target from the maps of each of its numbers."""
    levels = [level for one in graph.taps.tapped for level in one.maps]
    if len(maps) > 1:
        maps = [_to_unit(of_number) for of_number in maps]
    merged = []
    for level, *heats in zip(levels, *maps):
        there = [heat for heat in heats if heat is not None]
        heat = torch.stack(there).amax(0).cpu().numpy() if there else np.zeros(level.values.shape[1:])
        merged.append(level_of(level, heat))
    return merged


def _to_unit(maps: Sequence[Tensor | None]) -> list[Tensor | None]:
    largest = max((float(heat.max()) for heat in maps if heat is not None), default=0.0)
    return [heat if heat is None or not largest else heat / largest for heat in maps]


def features_of(observed: TappedPass, image: int) -> list[tuple[ActivationMap, Tensor]]:
    """Return each level of a pass with the feature map (C, H, W) of one image, in float32 or float64."""
    return [
        (level, precise(features[image]))
        for one in observed.taps.tapped
        for level, (features,) in zip(one.maps, observed.taps.feature_maps(one, observed.pass_, one.tensor.detach()))
    ]


def level_of(activation: ActivationMap, heat: np.ndarray) -> Level:
    """Return the level of one image with this heat (H, W)."""
    heat = np.ascontiguousarray(heat, np.float32)
    facts = activation.layer, activation.level, activation.channels, activation.stride
    return Level(*facts, heat, offset=activation.offset)


def finite_heat(heat: Tensor) -> Tensor:
    """Return heat with negative values, NaN and infinity set to 0."""
    return heat.detach().nan_to_num(0, 0, 0).clamp(min=0)


@EXPLAINERS.register_module(name='odam')
@from_gradients
def odam(features: Tensor, gradient: Tensor) -> Tensor:
    """ODAM: the sum over channels of gradient times feature (Zhao & Chan, ICLR 2023), not smoothed."""
    return (gradient * features).sum(0)


@EXPLAINERS.register_module(name='layercam')
@from_gradients
def layercam(features: Tensor, gradient: Tensor) -> Tensor:
    """LayerCAM: as ODAM, with positive gradients only (Jiang et al., TIP 2021)."""
    return (gradient.relu() * features).sum(0)


@EXPLAINERS.register_module(name='gradcam')
@from_gradients
def gradcam(features: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM: channels weighted by their mean gradient (Selvaraju et al., ICCV 2017).

    The mean loses the place, so it shows all objects of a class.
    """
    return (gradient.mean((1, 2), keepdim=True) * features).sum(0)


@EXPLAINERS.register_module(name='gradcam++')
@from_gradients
def gradcam_plus_plus(features: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM++: channels weighted by their positive gradients (Chattopadhay et al., WACV 2018, eq. 19).

    The target is the exponential of the score, as in the paper: its second and third derivatives are powers of the
    gradient, and its common factor is left out.
    """
    return (_plus_plus_weights(features, gradient) * features).sum(0)


@EXPLAINERS.register_module(name='ssgradcam++')
@from_gradients
def ssgradcam_plus_plus(features: Tensor, gradient: Tensor) -> Tensor:
    """SSGrad-CAM++: Grad-CAM++ times the absolute gradient of each cell, divided by the largest of its channel.

    Yamauchi, "Spatial Sensitive Grad-CAM++", CVPR Workshops 2024.
    """
    sensitivity = gradient.abs()
    sensitivity = sensitivity / sensitivity.amax((1, 2), keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
    return (_plus_plus_weights(features, gradient) * sensitivity * features).sum(0)


def _plus_plus_weights(features: Tensor, gradient: Tensor) -> Tensor:
    """The weight of each channel in Grad-CAM++, (C, 1, 1)."""
    square, cube = gradient**2, gradient**3
    divisor = 2 * square + (features * cube).sum((1, 2), keepdim=True)
    shares = torch.where(divisor == 0, torch.zeros_like(square), square / divisor)
    return (shares * gradient.relu()).sum((1, 2), keepdim=True)


@EXPLAINERS.register_module(name='eigencam')
def eigencam(batch: DetectorBatch, targets: Sequence[Target]) -> list[list[Level]]:
    """EigenCAM: the first principal component of the features (Muhammad & Yeasin, IJCNN 2020).

    It knows no target: all detections of an image get the same map.
    """
    print_log(
        'eigencam knows no target: it shows what is strongest in the features, the same for every detection',
        'current',
        logging.WARNING,
    )
    with batch.tapped_pass(gradients=False) as observed:
        of_image = {
            image: [
                level_of(level, finite_heat(_first_component(features)).cpu().numpy())
                for level, features in features_of(observed, image)
            ]
            for image in {target.image for target in targets}
        }
    return [of_image[target.image] for target in targets]


def _first_component(features: Tensor) -> Tensor:
    """Project each cell of (C, H, W) on the first principal direction, with the sign that makes most heat positive."""
    cells = features.flatten(1).T
    _, vectors = torch.linalg.eigh(cells.T @ cells)
    projected = cells @ vectors[:, -1]
    return (projected * projected.sum().sign()).reshape(features.shape[1:])
