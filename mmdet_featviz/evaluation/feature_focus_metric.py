"""FeatureFocusMetric: the share of heat inside ground-truth boxes over a whole data set."""

from __future__ import annotations

import math
import weakref
from functools import partial
from typing import Any, Iterator, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.pass_recorder import PassRecorder
from mmdet_featviz.capture.reductions import get_reduction
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.evaluation.focus import FIGURES, SIZES, TOLERANCE, UNDEFINED, Focus, group_by_size, measure_focus
from mmdet_featviz.structures.boxes import Boxes, collect_boxes, has_all, ignored_boxes
from mmdet_featviz.structures.grid import ALIGNMENTS
from mmdet_featviz.structures.placement import placement_from_metas
from mmdet_featviz.structures.snapshot import Level
from mmdet_featviz.utils.arguments import check_choice, check_names, check_number

ALL = ''


@METRICS.register_module()
class FeatureFocusMetric(BaseMetric):
    r"""Tells how far the heat of each level of chosen layers lies in the boxes.

    With the heatmap :math:`L` of a level over the image (:math:`p` runs over the pixels that count), :math:`B` the
    pixels inside the boxes, and :math:`E_p = L_p - \min L`:

    - ``energy`` is :math:`\sum_{p \in B} E_p / \sum_p E_p`, 0 to 1: the energy-based pointing game (Wang et al.,
      Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPR Workshops 2020).
    - ``gain`` is ``energy`` divided by the boxes' share of the image, :math:`|B| / |\{p\}|`; 1 is chance.
    - ``hit`` is whether :math:`\arg\max_p L_p` lies in a box or at most 15 pixels beside one: the pointing game (Zhang
      et al., Top-down Neural Attention by Excitation Backprop, IJCV 2018), 0 to 1. Of a plateau its part counts.

    Each is the mean over the images that have boxes; the others are counted. With ``_small``, ``_medium`` and
    ``_large`` :math:`B` is only the boxes of less than 32² pixels of the image, of less than 96², and all others, and
    the mean is over the images that have such; -1 says that none has, as in COCO's evaluation. Keys are such as
    ``focus/neck_0/energy``, ``focus/neck_0/gain_small``, ``focus/neck_0/hit/cat``, ``focus/images`` and
    ``focus/images_without_boxes``.

    Padding does not count, and neither does what lies in ignored boxes (crowds) and in no other: heat there neither
    helps nor harms. A constant heatmap has no preference: it reaches chance. Values that are not finite are as cold as
    the coldest. Under test-time augmentation the last pass counts, in the recipes of mmdet the one that is not flipped.

    Ground truth is that of the data samples, in pixels of the image as everywhere in mmdet: ``LoadAnnotations`` comes
    after the transforms that move pixels. The metric finds the detector by itself (:class:`mmdet_featviz.watch.Watch`)
    and works beside or without :class:`mmdet_featviz.FeatVizHook`. It cannot judge predictions from a file.

    Args:
        layers: Modules to tap, as in :class:`mmdet_featviz.FeatureVisualizer`.
        layer_type: Tap the modules of this class inside the layers instead.
        reduction: How channels become one map: ``max``, ``mean``, ``sum``, ``l2``, ``select_max`` or one of your own.
        align: Where the value of a cell sits: ``center`` of its block, or its top left ``corner``.
        boxes: ``gt``, or ``pred`` for the detector's own predictions.
        score_thr: Smallest score of a prediction that counts.
        classwise: Whether the figures are told for each class, too.
        tolerance: How many pixels beside a box a maximum may lie.
        **kwargs: ``prefix``, ``collect_device`` and ``collect_dir`` of mmengine's metrics.

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
        align: str = 'center',
        boxes: str = 'gt',
        score_thr: float = 0.3,
        classwise: bool = False,
        tolerance: float = TOLERANCE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.align = check_choice('align', align, ALIGNMENTS)
        self.boxes = check_choice('boxes', boxes, ('gt', 'pred'))
        self.score_thr = check_number('score_thr', score_thr)
        self.classwise = classwise
        self.tolerance = check_number('tolerance', tolerance, low=0)
        self.reduction = reduction
        names = None if layers is None else check_names('layers', layers)
        make_taps = partial(Taps, layers=names, layer_type=layer_type, reduction=get_reduction(reduction))
        self._watch = PassRecorder(make_taps)
        weakref.finalize(self, self._watch.close).atexit = False

    @property
    def settings(self) -> dict[str, Any]:
        """What the figures depend on, by the names of arguments; the layers are those that were found."""
        layers = [] if self._watch.taps is None else list(self._watch.taps.modules)
        return dict(layers=layers, reduction=self.reduction, align=self.align, boxes=self.boxes)

    def close(self) -> None:
        """Remove all hooks from the detector; the metric is of no use then."""
        self._watch.close()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Add the figures of a batch that the detector has just predicted on.

        Raises:
            RuntimeError: If the detector was not seen doing so.
            ValueError: If a layer never fires, or the samples have no ground truth.
        """
        seen = self._watch.take()
        if seen is None or len(seen.samples) != len(data_samples):
            raise RuntimeError(
                'FeatureFocusMetric looks at a detector of images while it predicts, and has not seen it do so: use it '
                'in the test_evaluator or val_evaluator of a runner, not with predictions from a file'
            )
        self.results += [self._focus(seen, index) for index in range(len(data_samples))]

    def _focus(self, seen: Pass, index: int) -> dict[str, dict[str, Focus]]:
        """The figures of one image: those of each group of boxes, by the name of the level."""
        sample = seen.samples[index]
        levels = (Level(one.layer, one.level, one.channels, one.stride, one.values[index].numpy()) for one in seen.maps)
        placement = placement_from_metas(sample.metainfo, seen.inputs[index])
        return measure_focus(levels, placement, self.align, self._groups(sample), ignored_boxes(sample), self.tolerance)

    def _groups(self, sample: Any) -> dict[str, np.ndarray]:
        """Corners of all boxes, of those of each size and on request of each class."""
        boxes = self._boxes(sample)
        groups = {ALL: boxes.corners, **{f'_{size}': part for size, part in group_by_size(boxes.corners).items()}}
        if self.classwise:
            for label in set(boxes.labels.tolist()):
                groups[f'/{self._class(label)}'] = boxes.corners[boxes.labels == label]
        return groups

    def _boxes(self, sample: Any) -> Boxes:
        truth = getattr(sample, 'gt_instances', None)
        if self.boxes == 'gt' and not has_all(truth, 'bboxes', 'labels'):
            raise ValueError(
                'the samples have no ground truth to look for heat in: add '
                "dict(type='LoadAnnotations', with_bbox=True) before PackDetInputs to the pipeline, or set boxes='pred'"
            )
        boxes = collect_boxes(sample, sample, mirrored=True)
        if self.boxes == 'gt':
            return boxes[boxes.are_truth]
        boxes = boxes[~boxes.are_truth]
        return boxes[boxes.scores >= self.score_thr]

    def _class(self, label: int) -> str:
        classes = (self.dataset_meta or {}).get('classes') or ()
        return classes[label] if label < len(classes) else str(label)

    def compute_metrics(self, results: Sequence[dict[str, dict[str, tuple]]]) -> dict[str, float]:
        """The mean of each figure over the images that have boxes of the group."""
        with_boxes = sum(any(groups for groups in image.values()) for image in results)
        without = len(results) - with_boxes
        # Floats: mmengine writes whole numbers of a test as null.
        metrics = dict(images=float(with_boxes), images_without_boxes=float(without))
        for level in _in_order(name for image in results for name in image):
            found = [image[level] for image in results if level in image]
            sizes = [ALL, *(f'_{size}' for size in SIZES)]
            classes = sorted({group for groups in found for group in groups} - set(sizes))
            for group in [*sizes, *classes]:
                focus = [Focus(*groups[group]) for groups in found if group in groups]  # mmengine makes plain tuples
                for figure in FIGURES:
                    metrics[f'{level}/{figure}{group}'] = _mean([getattr(one, figure) for one in focus])
        return metrics


def _mean(values: Sequence[float]) -> float:
    """The mean, the same in whatever order ranks hand the values in."""
    return math.fsum(values) / len(values) if values else UNDEFINED


def _in_order(names: Iterator[str]) -> list[str]:
    """Each name once."""
    return list(dict.fromkeys(names))
