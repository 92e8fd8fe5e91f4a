"""DetectionErrorMetric: which predictions are wrong and which objects are missed, why, and what the features did."""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from functools import partial
from typing import Any, Mapping, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS
from mmengine.runner import BaseLoop
from mmengine.runner.amp import autocast
from torch import nn

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.capture.pass_recorder import PassRecorder, is_evaluated
from mmdet_featviz.capture.reductions import get_reduction
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.evaluation.contrast import measure_contrasts
from mmdet_featviz.evaluation.detection_errors import FALSE_TYPES, FOUND, MISSED, NONE, TRUE, error_costs, find_errors
from mmdet_featviz.evaluation.error_files import PREFIX, error_files
from mmdet_featviz.evaluation.error_records import ErrorRecord, MissedObject
from mmdet_featviz.evaluation.miss_mechanisms import MECHANISMS, find_mechanism
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.structures.boxes import NO_BOXES, Boxes, class_names, corners_of, has_all
from mmdet_featviz.structures.grid import ALIGNMENTS
from mmdet_featviz.structures.placement import placement_from_metas
from mmdet_featviz.utils.arguments import check_bool, check_choice, check_names, check_number, check_path
from mmdet_featviz.utils.call_stack import calling
from mmdet_featviz.utils.image_path import image_path
from mmdet_featviz.visualization.images import match_with_image


@METRICS.register_module()
class DetectionErrorMetric(BaseMetric):
    """Counts the errors of a detector by type, and joins each with what the detector's features did there.

    Predictions and ground truth are matched as in COCO's evaluation at an overlap (intersection over union) of 0.5.
    Each prediction of at least `score_thr` has one type, as in TIDE (Bolya et al., ECCV 2020):

    - ``true``: it has found an object.
    - ``localization``: it overlaps an object of its class by 0.1 to 0.5.
    - ``classification``: it overlaps an object of another class by at least 0.5.
    - ``duplicate``: it overlaps an object of its class that a better prediction has found.
    - ``both``: it overlaps only objects of other classes, by 0.1 to 0.5.
    - ``background``: it overlaps no object by more than 0.1.

    Predictions in crowds are ignored. An object is ``found`` if a prediction is ``true`` for it, else ``missed``. A
    missed object has a mechanism (after Miller et al., RA-L 2022), found among all candidates of the detector, which
    has to predict once more for batches with missed objects:

    - ``proposal``: no candidate overlaps it by 0.5, and neither does an anchor or a region proposal; no point is in it.
    - ``regression``: one of these does, but no candidate: the box was moved away.
    - ``other_class``: candidates that overlap it reach `score_thr` only with other classes.
    - ``background``: none of the candidates that overlap it reaches `score_thr`.
    - ``suppressed``: a candidate of its class reaches it, but is no prediction, or was matched with another object.

    Keys are, for example, ``errors/localization``, ``errors/missed`` and ``errors/missed_background``, which count, and
    ``errors/AP50`` and ``errors/dAP_localization``: how much AP at an overlap of 0.5 would be gained by mending all
    errors of a type, 0 to 1. For dAP predictions of any score count, and a missed object only if no ``localization`` or
    ``classification`` error would find it if it were mended.

    At each level, the contrast of a ground-truth box is the mean heat inside minus the mean heat in the ring around it,
    see :func:`mmdet_featviz.evaluation.contrast.measure_contrasts`; class-score maps of the class of the box are levels
    as well, where the head has them.

    The run of a :class:`mmdet_featviz.FeatVizHook`, or of a detector that draws by itself, gets the files
    ``errors.csv`` (a row for each prediction and ground-truth box), ``errors.md`` (tables of counts and of the
    contrasts of found and missed objects) and ``errors.png`` (a plot of these contrasts). With another ``prefix``, such
    as ``low``, they are ``errors_low.csv`` and so on. Predictions from a file are counted, too, but have neither
    mechanisms nor contrasts.

    Args:
        score_thr: Smallest score of a prediction that counts.
        layers: Modules whose outputs are measured, as in :class:`mmdet_featviz.FeatureVisualizer`; none if empty.
        reduction: How the channels of a feature map become one map, as in :class:`mmdet_featviz.FeatureVisualizer`.
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.
        mechanisms: Whether to find the mechanisms of missed objects.
        out_dir: Folder for the files, with or without a hook.
        **kwargs: ``prefix``, ``collect_device`` and ``collect_dir``, as in mmengine's ``BaseMetric``.

    Attributes:
        files: {name: content} of the files of the latest evaluation, on the first rank.

    Raises:
        ValueError: If an argument is not one of its choices or out of range, or the reduction is not registered.

    Example:
        >>> test_evaluator = [
        ...     dict(type='CocoMetric', ann_file='val.json'),
        ...     dict(type='DetectionErrorMetric', score_thr=0.3),
        ... ]
    """

    default_prefix = PREFIX

    def __init__(
        self,
        score_thr: float = 0.3,
        layers: Sequence[str] | str | None = None,
        reduction: str = 'max',
        align: str = 'auto',
        mechanisms: bool = True,
        out_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.score_thr = check_number('score_thr', score_thr, 0, 1)
        self.align = check_choice('align', align, ALIGNMENTS)
        self.mechanisms = check_bool('mechanisms', mechanisms)
        self.out_dir = None if out_dir is None else check_path('out_dir', out_dir)
        self.files: dict[str, bytes] = {}
        names = None if layers is None else check_names('layers', layers, may_be_empty=True)
        self._measures = names != ()
        self._warned: set[str] = set()
        make_taps = partial(_make_taps, names, get_reduction(reduction))
        self._recorder = PassRecorder(make_taps, partial(is_evaluated, weakref.ref(self)))
        weakref.finalize(self, self._recorder.close).atexit = False

    def close(self) -> None:
        """Remove all hooks from the detector. The metric cannot be used afterwards."""
        self._recorder.close()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Match the predictions of a batch, and look at what the detector did for it.

        Args:
            data_batch: The batch as the data loader returned it; None leaves out the mechanisms.
            data_samples: Ground truth and predictions of the batch.

        Raises:
            ValueError: If a layer does not fire, or the samples have no ground truth or no boxes.
        """
        latest_pass = self._recorder.take()
        if latest_pass is not None and len(latest_pass.samples) != len(data_samples):
            latest_pass = None
        if latest_pass is None and (self._measures or self.mechanisms):
            self._warn('the detector did not run on this batch, so errors have neither mechanisms nor contrasts')
        errors = [find_errors(*_boxes_of(sample)) for sample in data_samples]
        missed = [np.flatnonzero(image.above(self.score_thr).found_by == NONE) for image in errors]
        reasons: list[dict[int, MissedObject]] = [{} for _ in errors]
        if self.mechanisms and latest_pass is not None and data_batch is not None and any(map(len, missed)):
            reasons = self._find_reasons(data_batch, [image.truth for image in errors], missed)
        for index, sample in enumerate(data_samples):
            contrasts = {}
            if self._measures and latest_pass is not None:
                contrasts = self._contrasts(latest_pass, index, errors[index].truth, _crowds_of(sample))
            path = image_path(sample) or str(sample.get('img_id', ''))
            self.results.append(ErrorRecord(path, errors[index], reasons[index], contrasts))

    def _find_reasons(
        self, data: Mapping[str, Any], truth: Sequence[Boxes], missed: Sequence[np.ndarray]
    ) -> list[dict[int, MissedObject]]:
        """Why objects of a batch were missed; an error costs the mechanisms of the batch, and nothing else."""
        from mmdet_featviz.evaluation.candidates import find_candidates  # imports mmdet's models

        fp16 = getattr(calling('run_iter', BaseLoop), 'fp16', False)  # candidates are predicted as the loop predicts
        try:
            with autocast(enabled=fp16):
                objects = [boxes.corners[rows] for boxes, rows in zip(truth, missed)]
                candidates = find_candidates(self._recorder.taps.model, data, objects)
        except Exception as error:  # of the detector
            self._warn(f'why objects were missed cannot be found ({type(error).__name__}: {error})')
            return [{} for _ in truth]
        return [
            {int(row): self._reason(boxes.corners[row], int(boxes.labels[row]), *of_image) for row in rows}
            for boxes, rows, of_image in zip(truth, missed, candidates)
        ]

    def _reason(self, corners: np.ndarray, label: int, candidates: Boxes, starts: np.ndarray | None) -> MissedObject:
        miss = find_mechanism(corners, label, candidates, starts, self.score_thr)
        if miss.candidate == NONE:
            return MissedObject(miss.mechanism)
        box = candidates[miss.candidate]
        return MissedObject(
            miss.mechanism, tuple(box.corners.tolist()), int(box.labels), float(box.scores), miss.overlap
        )

    def _contrasts(self, latest_pass: Pass, index: int, truth: Boxes, crowds: Boxes) -> dict[str, np.ndarray]:
        """The contrast of each ground-truth box of an image of the batch, by level."""
        if not len(truth):
            return {}
        inputs, meta = latest_pass.inputs[index], latest_pass.samples[index].metainfo
        placement = placement_from_metas(meta, inputs, match_with_image(image_path(meta), inputs))
        scores = [activation.of_image(0) for maps in latest_pass.scores[index : index + 1] for activation in maps]
        by_class = {level.layer.partition('scores.')[0] for level in scores if level.label is not None}
        levels = [activation.of_image(index) for activation in latest_pass.maps]
        levels += [level for level in scores if level.label is None and level.layer[: -len('scores')] not in by_class]
        measure = partial(measure_contrasts, placement=placement, align=self.align)
        contrasts = measure(levels, corners=truth.corners, ignored=crowds.corners)
        boxes = np.concatenate([truth.corners, crowds.corners])
        for level in scores:
            if level.label is not None:
                name = f'{level.layer.partition("scores.")[0]}scores_{level.level}'
                values = contrasts.setdefault(name, np.full(len(truth), np.nan))
                of_class = truth.labels == level.label
                values[of_class] = measure([level], corners=truth.corners[of_class], ignored=boxes)[level.name]
        return contrasts

    def _warn(self, message: str) -> None:
        """Log a warning, once."""
        if message not in self._warned:
            self._warned.add(message)
            print_log(message, 'current', logging.WARNING)

    def compute_metrics(self, results: Sequence[ErrorRecord]) -> dict[str, float]:
        """Count the errors of each type, and how much AP each costs. See the class for the keys."""
        above = [record.errors.above(self.score_thr) for record in results]
        types = Counter(type_ for errors in above for type_ in errors.types)
        found = sum(int((errors.found_by != NONE).sum()) for errors in above)
        objects = sum(len(errors.truth) for errors in above)
        counts = {**{type_: types[type_] for type_ in (TRUE, *FALSE_TYPES)}, FOUND: found, MISSED: objects - found}
        reasons = Counter(missed.mechanism for record in results for missed in record.missed.values())
        if self.mechanisms and (reasons or found == objects):
            counts.update({f'{MISSED}_{mechanism}': reasons[mechanism] for mechanism in MECHANISMS})
        costs = error_costs([record.errors for record in results])
        # Floats, because mmengine writes integers of a test as null.
        metrics = {name: float(count) for name, count in counts.items()}
        metrics['AP50'] = costs.pop('AP50')
        metrics.update({f'dAP_{type_}': cost for type_, cost in costs.items()})
        self.files = error_files(results, class_names(self.dataset_meta), self.score_thr, metrics, self.prefix)
        if self.out_dir is not None:
            self._write_files(self.out_dir)
        return metrics

    def _write_files(self, folder: str) -> None:
        try:
            store = get_storage(folder)
            store.prepare()
            for name, content in self.files.items():
                store.write(name, content)
            store.flush()
        except Exception as error:  # each file backend raises errors of its own
            self._warn(f'the errors cannot be written to {folder!r}: {error}')


def _make_taps(names: Sequence[str] | None, reduction: Any, model: nn.Module) -> Taps:
    """Taps of the layers, and of the class scores of the ground truth where the head has some."""
    if names == ():
        return Taps(model, (), reduction, find_centers=False)
    from mmdet_featviz.capture.score_maps import ScoreMaps, true_classes  # imports the heads of mmdet

    try:
        score_maps = ScoreMaps(unwrap_detector(model), (), true_classes)
    except ValueError:  # the head scores no cells
        score_maps = None
    return Taps(model, names, reduction, score_maps=score_maps)


def _boxes_of(sample: Mapping[str, Any]) -> tuple[Boxes, Boxes, Boxes]:
    """Predictions, ground truth and crowds of a data sample."""
    truth, predictions = sample.get('gt_instances'), sample.get('pred_instances')
    if not has_all(truth, 'bboxes', 'labels'):
        raise ValueError(
            'the data samples have no ground-truth boxes to compare with: add '
            "dict(type='LoadAnnotations', with_bbox=True) before PackDetInputs to the pipeline"
        )
    if not has_all(predictions, 'bboxes', 'labels', 'scores'):
        raise ValueError('the detector predicts no boxes with labels and scores, so there are no errors to find')
    return _boxes(predictions), _boxes(truth), _crowds_of(sample)


def _crowds_of(sample: Mapping[str, Any]) -> Boxes:
    crowds = sample.get('ignored_instances')
    return _boxes(crowds) if has_all(crowds, 'bboxes', 'labels') else Boxes(NO_BOXES, np.zeros(0, int), np.zeros(0))


def _boxes(instances: Mapping[str, Any]) -> Boxes:
    """The boxes of instances whose corners and scores are finite."""
    corners, labels = corners_of(instances['bboxes']), instances['labels'].cpu().numpy()
    scores = instances['scores'].cpu().double().numpy() if 'scores' in instances else np.ones(len(labels))
    return Boxes(corners, labels, scores)[np.isfinite(corners).all(axis=1) & np.isfinite(scores)]
