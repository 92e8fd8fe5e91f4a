"""FeatureFocusMetric: the share of heat inside ground-truth boxes over a whole data set."""

from __future__ import annotations

import math
import weakref
from functools import partial
from typing import Any, Callable, Iterator, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from torch import nn

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.capture.pass_recorder import PassRecorder, is_evaluated
from mmdet_featviz.capture.reductions import get_reduction
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.evaluation.focus import MEASURES, SIZES, TOLERANCE, UNDEFINED, Focus, group_by_size, measure_focus
from mmdet_featviz.structures.boxes import (
    NO_BOXES,
    Boxes,
    class_names,
    collect_boxes,
    has_all,
    ignored_boxes,
    label_name,
)
from mmdet_featviz.structures.grid import ALIGNMENTS
from mmdet_featviz.structures.placement import Placement, placement_from_metas
from mmdet_featviz.utils.arguments import check_bool, check_choice, check_names, check_number
from mmdet_featviz.utils.image_path import image_path
from mmdet_featviz.visualization.images import match_with_image

ALL = ''  # group of all boxes: adds nothing to the keys


@METRICS.register_module()
class FeatureFocusMetric(BaseMetric):
    r"""For each level, reports the share of heat inside ground-truth boxes, averaged over the data set.

    The activation map of a level is brought onto the original image as a heatmap :math:`L`. With :math:`p` running over
    the pixels that count, :math:`B` the set of pixels inside the boxes, and :math:`E_p = \max(L_p - l, 0)` with the
    floor :math:`l`, the 5th percentile of :math:`L`:

    - ``energy`` is :math:`\sum_{p \in B} E_p / \sum_p E_p`, 0 to 1. This is the energy-based pointing game (Wang et
      al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPR Workshops 2020). There
      all heat is positive or 0. A feature map has another zero point, which the floor replaces; with the minimum, one
      cold pixel would change all values.
    - ``gain`` is ``energy`` divided by the share of the image area inside the boxes, :math:`|B| / |\{p\}|`. Uniform
      heat has the gain 1.
    - ``hit`` is 1 if :math:`\arg\max_p L_p` is in a box or at most 15 pixels from one, else 0. This is the pointing
      game (Zhang et al., Top-down Neural Attention by Excitation Backprop, IJCV 2018). If several pixels share the
      maximum, it is the share of them that hits.

    Each value is a mean over the images that have boxes; images without boxes are only counted. Values that end in
    ``_small``, ``_medium`` or ``_large`` use only boxes with an area below 32² pixels of the image, from 32² to 96², or
    larger, and average over the images that have boxes of this size. -1 means that no image has any, as in COCO's
    evaluation.

    Keys are, for example, ``focus/neck_0/energy``, ``focus/neck_0/gain_small``, ``focus/neck_0/hit/cat`` (with
    `classwise`), ``focus/images`` and ``focus/images_without_boxes``.

    Padding does not count. Neither do pixels that are only in ignored boxes (crowds): heat there changes nothing. A
    constant heatmap gets the values of chance. Values that are not finite are replaced by the smallest value. With
    test-time augmentation only the last pass over an image counts; in mmdet's recipes it is the one without a flip.

    The ground truth is taken from the data samples. It must be in pixels of the original image, as everywhere in
    mmdet: put ``LoadAnnotations`` after the transforms that move pixels. The metric finds the detector by itself, and
    works with or without :class:`mmdet_featviz.FeatVizHook`. The detector has to run: predictions from a file cannot be
    evaluated.

    With `scores`, the probabilities that the head gives its cells are measured too, as ``bbox_head.scores_0`` and so on
    for its levels, and ``bbox_head.merged_scores_0`` for their maximum: those of the best class in all boxes. Values of
    a class, with `classwise`, are those of its own probabilities in its boxes.

    Args:
        layers: Modules whose outputs are measured, as in :class:`mmdet_featviz.FeatureVisualizer`. May be empty with
            `scores`.
        layer_type: Measure the modules of this class inside the layers instead.
        reduction: How the channels of a feature map become one map: ``max``, ``mean``, ``sum``, ``l2``, ``select_max``
            or a registered name.
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.
        boxes: ``gt`` for ground truth, or ``pred`` for the detector's own predictions.
        score_thr: Smallest score of a prediction, for ``boxes='pred'``.
        classwise: Whether to report the values of each class as well.
        tolerance: Largest distance of the maximum from a box, in pixels of the image, that still counts as a hit.
        measures: Which measures to report: any of ``energy``, ``gain`` and ``hit``.
        sizes: Which sizes of boxes to report besides all boxes: any of ``small``, ``medium`` and ``large``, or none.
        scores: Whether to measure the class-score maps of the head as well.
        **kwargs: ``prefix``, ``collect_device`` and ``collect_dir``, as in mmengine's ``BaseMetric``.

    Raises:
        ValueError: If an argument is not one of its choices or out of range, or the reduction is not registered.

    Example:
        >>> test_evaluator = [
        ...     dict(type='CocoMetric', ann_file='val.json'),
        ...     dict(type='FeatureFocusMetric', layers=['backbone', 'neck']),
        ... ]
    """

    default_prefix = 'focus'

    def __init__(
        self,
        layers: Sequence[str] | str | None = None,
        layer_type: str | None = None,
        reduction: str = 'max',
        align: str = 'auto',
        boxes: str = 'gt',
        score_thr: float = 0.3,
        classwise: bool = False,
        tolerance: float = TOLERANCE,
        measures: Sequence[str] | str = MEASURES,
        sizes: Sequence[str] | str = SIZES,
        scores: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.align = check_choice('align', align, ALIGNMENTS)
        self.boxes = check_choice('boxes', boxes, ('gt', 'pred'))
        self.score_thr = check_number('score_thr', score_thr)
        self.classwise = check_bool('classwise', classwise)
        self.tolerance = check_number('tolerance', tolerance, low=0)
        self.measures = _check_choices('measures', measures, MEASURES)
        self.sizes = _check_choices('sizes', sizes, SIZES, may_be_empty=True)
        self.reduction = reduction
        self.scores = check_bool('scores', scores)
        names = None if layers is None else check_names('layers', layers, may_be_empty=scores)
        make_taps = partial(Taps, layers=names, layer_type=layer_type, reduction=get_reduction(reduction))
        if scores:
            make_taps = partial(_taps_with_scores, make_taps, _class_choice(classwise, boxes, score_thr))
        self._recorder = PassRecorder(make_taps, partial(is_evaluated, weakref.ref(self)))
        weakref.finalize(self, self._recorder.close).atexit = False

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that the values depend on; ``layers`` are the modules found, empty before the first pass."""
        layers = [] if self._recorder.taps is None else list(self._recorder.taps.modules)
        settings = dict(layers=layers, reduction=self.reduction, align=self.align, boxes=self.boxes)
        return {**settings, 'scores': True} if self.scores else settings

    def close(self) -> None:
        """Remove all hooks from the detector. The metric cannot be used afterwards."""
        self._recorder.close()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measure the batch that the detector has just predicted.

        Args:
            data_batch: Not used.
            data_samples: Predictions of the batch; only their number is used.

        Raises:
            RuntimeError: If the detector did not run on this batch.
            ValueError: If a layer does not fire, or the samples have no ground truth.
        """
        latest_pass = self._recorder.take()
        if latest_pass is None or len(latest_pass.samples) != len(data_samples):
            raise RuntimeError(
                'FeatureFocusMetric measures feature maps while the detector predicts, but the detector did not run on '
                'this batch: use the metric in the test_evaluator or val_evaluator of a runner, not with predictions '
                'from a file'
            )
        self.results += [self._focus(latest_pass, index) for index in range(len(data_samples))]

    def _focus(self, latest_pass: Pass, index: int) -> dict[str, dict[str, Focus]]:
        """The focus of one image of the batch: ``{level: {group: Focus}}``."""
        sample = latest_pass.samples[index]
        scores = [activation.of_image(0) for maps in latest_pass.scores[index : index + 1] for activation in maps]
        levels = [activation.of_image(index) for activation in latest_pass.maps]
        levels += [level for level in scores if level.label is None]
        inputs = latest_pass.inputs[index]
        match = match_with_image(image_path(sample.metainfo), inputs)
        placement = placement_from_metas(sample.metainfo, inputs, match)
        measure = partial(measure_focus, ignored=ignored_boxes(sample), tolerance=self.tolerance)
        groups = self._groups(sample, placement)
        measured = measure(levels, placement, self.align, groups)
        for level in scores:
            if level.label is not None:
                group = f'/{self._class_name(level.label)}'
                own = measure([level], placement, self.align, {group: groups.get(group, NO_BOXES)})
                measured[f'{level.layer.partition("scores.")[0]}scores_{level.level}'].update(own[level.name])
        return measured

    def _groups(self, sample: Any, placement: Placement) -> dict[str, np.ndarray]:
        """Corners of all boxes, of each size and, with `classwise`, of each class, by the suffix of their keys."""
        boxes = self._boxes(sample, placement)
        groups = {ALL: boxes.corners, **{f'_{size}': part for size, part in group_by_size(boxes.corners).items()}}
        if self.classwise:
            for label in set(boxes.labels.tolist()):
                groups[f'/{self._class_name(label)}'] = boxes.corners[boxes.labels == label]
        return groups

    def _boxes(self, sample: Any, placement: Placement) -> Boxes:
        """The boxes that are measured against."""
        truth = getattr(sample, 'gt_instances', None)
        if self.boxes == 'gt' and not has_all(truth, 'bboxes', 'labels'):
            raise ValueError(
                'the data samples have no ground-truth boxes to measure: add '
                "dict(type='LoadAnnotations', with_bbox=True) before PackDetInputs to the pipeline, or set boxes='pred'"
            )
        boxes = collect_boxes(sample, sample, placement)
        if self.boxes == 'gt':
            return boxes[boxes.are_truth]
        boxes = boxes[~boxes.are_truth]
        return boxes[boxes.scores >= self.score_thr]

    def _class_name(self, label: int) -> str:
        return label_name(label, class_names(self.dataset_meta))

    def compute_metrics(self, results: Sequence[dict[str, dict[str, tuple]]]) -> dict[str, float]:
        """Average each measure over the images that have boxes of a group. See the class for the keys."""
        with_boxes = sum(any(groups for groups in image.values()) for image in results)
        without = len(results) - with_boxes
        # Floats, because mmengine writes integers of a test as null.
        metrics = dict(images=float(with_boxes), images_without_boxes=float(without))
        for level in _unique(name for image in results for name in image):
            images = [image[level] for image in results if level in image]
            sizes = [ALL, *(f'_{size}' for size in self.sizes)]
            classes = sorted({group for groups in images for group in groups if group.startswith('/')})
            for group in [*sizes, *classes]:
                # mmengine turns named tuples into plain ones.
                focuses = [Focus(*groups[group]) for groups in images if group in groups]
                for measure in self.measures:
                    metrics[f'{level}/{measure}{group}'] = _mean([getattr(focus, measure) for focus in focuses])
        return metrics


def _class_choice(classwise: bool, boxes: str, score_thr: float) -> Callable[[Any, Any], Sequence[int]]:
    """Return a function that chooses the classes of an image whose score maps are measured."""

    def choose(sample: Any, result: Any) -> Sequence[int]:
        from mmdet_featviz.capture.score_maps import predicted_classes, true_classes

        if not classwise:
            return []
        return true_classes(sample) if boxes == 'gt' else predicted_classes(score_thr, sample, result)

    return choose


def _taps_with_scores(make_taps: Callable[..., Taps], choose: Callable, model: nn.Module) -> Taps:
    from mmdet_featviz.capture.score_maps import ScoreMaps  # imports the heads of mmdet

    return make_taps(model, score_maps=ScoreMaps(unwrap_detector(model), (), choose))


def _check_choices(
    argument: str, value: Sequence[str] | str, choices: Sequence[str], may_be_empty: bool = False
) -> tuple[str, ...]:
    """Return the chosen ones of `choices`, in their order."""
    names = [check_choice(argument, name, choices) for name in check_names(argument, value, may_be_empty)]
    return tuple(name for name in choices if name in names)


def _mean(values: Sequence[float]) -> float:
    """The mean; exact, so that the order in which ranks are collected does not matter."""
    return math.fsum(values) / len(values) if values else UNDEFINED


def _unique(names: Iterator[str]) -> list[str]:
    """Each name once, in the order of first occurrence."""
    return list(dict.fromkeys(names))
