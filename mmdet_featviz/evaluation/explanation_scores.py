"""Explanation scores: explains detections by several methods, and measures each heatmap."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Iterator, Sequence

import numpy as np

from mmdet_featviz.evaluation.detection_errors import pairwise_overlaps
from mmdet_featviz.evaluation.explanation_measures import (
    area,
    blank_scores,
    discrimination,
    energy_in_box,
    kept_score,
    perturbation_curves,
    pixel_order,
    pointing_game,
    rank_correlation,
)
from mmdet_featviz.evaluation.focus import SIZES, sizes_of
from mmdet_featviz.explanation.baselines import target_rng
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.explanation import merged_heat
from mmdet_featviz.explanation.random_weights import parts_of, shuffled_weights
from mmdet_featviz.explanation.request import get_explainer
from mmdet_featviz.explanation.targets import Target, best_candidate, parse_targets
from mmdet_featviz.structures.boxes import Boxes, collect_boxes
from mmdet_featviz.structures.placement import Placement, identity_placement, placement_from_metas
from mmdet_featviz.structures.snapshot import Level
from mmdet_featviz.utils.arguments import check_bool, check_names, check_whole_number
from mmdet_featviz.utils.image_path import image_path
from mmdet_featviz.visualization.images import match_with_image

METHODS = ('odam', 'layercam', 'gradcam', 'random', 'centre', 'box')
TARGETS = 'score 0.3, top 5'
ALIGN = 'auto'
FOUND_OVERLAP = 0.5  # of a detection with the ground-truth box of its class that it has found


@dataclass(frozen=True)
class Protocol:
    """How explanations are evaluated.

    Args:
        methods: Names of registered explainers.
        targets: Which detections of each image are explained, as in :func:`mmdet_featviz.explain`.
        layers: Layers to explain at: module paths or globs. None is the neck.
        steps: Steps of insertion and of deletion: that many predictions each, for each box and method.
        batch_size: Images per prediction.
        seed: Seed of the choice of images, of the order of pixels of equal heat, and of the shuffled weights.
        randomise: Whether to explain again with shuffled weights.

    Raises:
        TypeError, ValueError: If a name does not exist, or a number is out of range.
    """

    methods: Sequence[str] = METHODS
    targets: str | int | Sequence[str | int] = TARGETS
    layers: Sequence[str] | None = None
    steps: int = 30
    batch_size: int = 8
    seed: int = 0
    randomise: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, 'methods', tuple(dict.fromkeys(check_names('methods', self.methods))))
        for method in self.methods:
            get_explainer(method)
        if self.layers is not None:
            object.__setattr__(self, 'layers', check_names('layers', self.layers))
        if not all(selection.suppressed for selection in parse_targets(self.targets, 'score', None)):
            raise ValueError('only detections can be evaluated: targets may not be gt or drawn boxes')
        check_whole_number('steps', self.steps, least=2)
        check_whole_number('batch_size', self.batch_size)
        check_whole_number('seed', self.seed, least=0)
        check_bool('randomise', self.randomise)

    def settings(self) -> dict[str, Any]:
        """The arguments, as JSON holds them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Scene:
    """An image of a batch in which detections are explained.

    Attributes:
        index: Index of the image in its batch.
        placement: Where the image lies in the network's input.
        content: (H, W) bool: the pixels of the input that show the image, of one image without the batch's padding.
        truth: The ground truth.
    """

    index: int
    placement: Placement
    content: np.ndarray
    truth: Boxes

    def heat(self, levels: Sequence[Level]) -> np.ndarray:
        """The heatmap on the image: (H, W) float32, at least 0."""
        return merged_heat(levels, self.placement, ALIGN)

    def heat_of_input(self, levels: Sequence[Level]) -> np.ndarray:
        """The heatmap on the network's input: (H, W) float32, at least 0."""
        size = self.content.shape
        return merged_heat(levels, identity_placement(size, size), ALIGN)


def score_explanations(
    batch: DetectorBatch, names: Sequence[str], protocol: Protocol, most: int | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Explain detections in each image of a batch by all methods, and measure the heatmaps.

    Args:
        batch: The detector and the batch, with the layers of the protocol.
        names: Names of the classes, if known.
        protocol: What is explained and how it is measured.
        most: Largest number of boxes; None is any.

    Yields:
        The results in one image: one dict for each box and method. ``pointing``, ``energy`` and ``odi`` are None for a
        detection that has found no ground-truth box, and ``odi`` if there is no other object.
    """
    selections = parse_targets(protocol.targets, 'score', names)
    for index, sample in enumerate(batch.data['data_samples']):
        found = batch.detections[index]
        chosen = [target for selection in selections for target in selection.choose(index, found, sample)[0]]
        # One without a score or an area has no curve.
        targets = [target for target in dict.fromkeys(chosen) if kept_score(target, found) > 0][:most]
        most = None if most is None else most - len(targets)
        yield _score_image(batch, _scene(batch, index), targets, names, protocol) if targets else []


def _scene(batch: DetectorBatch, index: int) -> Scene:
    sample, pixels = batch.data['data_samples'][index], batch.data['inputs'][index]
    match = match_with_image(image_path(sample.metainfo), pixels)
    placement = placement_from_metas(sample.metainfo, pixels, match)
    boxes = collect_boxes(sample, None)
    return Scene(index, placement, content_of(placement), boxes[boxes.are_truth])


def content_of(placement: Placement) -> np.ndarray:
    """The pixels of the network's input that show the image: (H, W) bool."""
    inverse = Placement(np.linalg.inv(placement.matrix), placement.input_size, placement.image_size)
    return inverse.seen


def _score_image(
    batch: DetectorBatch, scene: Scene, targets: Sequence[Target], names: Sequence[str], protocol: Protocol
) -> list[dict[str, Any]]:
    blanks = blank_scores(batch, scene.index, scene.content, targets)
    rows = []
    for method in protocol.methods:
        begin = time.perf_counter()
        maps = get_explainer(method)(batch, targets)
        seconds = (time.perf_counter() - begin) / len(targets)
        survivals: Sequence[dict] = [{}] * len(maps)
        if protocol.randomise:
            survivals = _survivals(batch, scene, targets, maps, method, protocol)
        for target, levels, blank, survival in zip(targets, maps, blanks, survivals):
            # The same order of pixels of equal heat for each method.
            rng = target_rng(batch, target, protocol.seed)
            order = pixel_order(scene.heat_of_input(levels), scene.content, rng)
            curves = perturbation_curves(batch, target, order, protocol.steps, protocol.batch_size, blank)
            rows.append(
                dict(
                    **_facts(target, names),
                    method=method,
                    insertion=area(curves.insertion),
                    deletion=area(curves.deletion),
                    **_on_objects(scene, target, levels),
                    seconds=seconds,
                    **survival,
                    curves={name: curve.tolist() for name, curve in curves._asdict().items()},
                )
            )
    return rows


def _facts(target: Target, names: Sequence[str]) -> dict[str, Any]:
    left, top, right, bottom = target.bbox
    return {
        'box': target.number,
        'class': names[target.label] if 0 <= target.label < len(names) else str(target.label),
        'score': target.score,
        'bbox': [left, top, right, bottom],
        'size': SIZES[sizes_of(np.array([target.bbox]))[0]],
    }


def _on_objects(scene: Scene, target: Target, levels: Sequence[Level]) -> dict[str, float | None]:
    """The measures that need the object that a detection has found; None if it has found none."""
    truth = scene.truth
    fits = pairwise_overlaps(truth.corners, np.array([target.bbox]))[:, 0]
    fits = np.where(truth.labels == target.label, fits, 0)
    if not len(fits) or fits.max() < FOUND_OVERLAP:
        return dict(pointing=None, energy=None, odi=None)
    number = int(fits.argmax())
    heat, own = scene.heat(levels), truth.corners[number]
    measured = dict(
        pointing=pointing_game(heat, own),
        energy=energy_in_box(heat, own),
        odi=discrimination(heat, own, np.delete(truth.corners, number, axis=0)),
    )
    return {name: None if math.isnan(value) else value for name, value in measured.items()}


def _survivals(
    batch: DetectorBatch,
    scene: Scene,
    targets: Sequence[Target],
    maps: Sequence[Sequence[Level]],
    method: str,
    protocol: Protocol,
) -> list[dict[str, float]]:
    """How much of each map survives when more and more weights are shuffled, from the head to the backbone.

    With other weights the box is not predicted any more. Explained is the candidate that fits it best, as for a drawn
    box. Without one, or without heat, nothing survives: 0.
    """
    survivals: list[dict[str, float]] = [{} for _ in targets]
    parts = parts_of(batch.model)
    for number, part in enumerate(parts):
        with shuffled_weights(batch.model, parts[: number + 1], protocol.seed):
            again = DetectorBatch(batch.model, batch.data, batch.named_layers, suppressed=False)
            found = again.detections[scene.index]
            fitting = [best_candidate(t.image, t.number, 'drawn box', found, t.bbox, t.label, 'score') for t in targets]
            others = _explain_what_is_there(method, again, fitting)
        for survival, levels, other in zip(survivals, maps, others):
            alike = 0.0 if other is None else rank_correlation(scene.heat(levels), scene.heat(other))
            survival[f'survives_{part}'] = alike
    return survivals


def _explain_what_is_there(
    method: str, batch: DetectorBatch, targets: Sequence[Target | None]
) -> list[Sequence[Level] | None]:
    there = list(dict.fromkeys(target for target in targets if target is not None))
    try:
        explained = dict(zip(there, get_explainer(method)(batch, there) if there else []))
    except ValueError:  # the score of random weights may depend on nothing
        explained = {}
    return [explained.get(target) for target in targets]
