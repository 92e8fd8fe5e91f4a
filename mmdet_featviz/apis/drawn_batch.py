"""Drawn batch: what is measured and explained in a batch once its images were drawn."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from torch import nn

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.explanation.detections import detections_of
from mmdet_featviz.explanation.explanation import LOOK, Explanation, explanation_of
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.boxes import class_names
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.style import RECEPTIVE_FIELD, Style

if TYPE_CHECKING:
    from mmdet_featviz.capture.kept_features import KeptFeatures
    from mmdet_featviz.explanation.field_measurement import FieldMeasurement
    from mmdet_featviz.explanation.request import ExplanationRequest


class DrawnBatch:
    """Measures and explains the images of a batch that were drawn, and passes the results to the writer of the run.

    Args:
        model: The detector.
        writer: Writer of the run.
        style: Which results are wanted, and how they look.
        passes: The passes over the batch.
        drawn: Snapshots of the images that were drawn, one per pass and perhaps their mean, by index in the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        writer: RunWriter,
        style: Style,
        passes: Sequence[Pass],
        drawn: Mapping[int, Sequence[Snapshot]],
    ) -> None:
        self.model = model
        self.style = style
        self._writer = writer
        self._passes = passes
        self._drawn = drawn

    def save_box_features(self) -> None:
        """Save the features of the boxes of each image, in each pass."""
        from mmdet_featviz.capture.roi_features import box_features  # not needed by most runs

        for index, snapshots in self._drawn.items():
            for pass_, snapshot in zip(self._passes, snapshots):  # after these may come their mean
                boxes, placement = snapshot.boxes, snapshot.placement
                measure = partial(box_features, self.model, pass_, index, boxes, placement, self.style.score_thr)
                self._writer.write_box_features(snapshot, measure)

    def look_back(
        self, results: Sequence[Any], data: Mapping[str, Any], explanations: ExplanationRequest | None
    ) -> None:
        """Explain the images and measure receptive fields in them.

        With test-time augmentation this is done in the pass that is not flipped.

        Args:
            results: Data samples with the predictions.
            data: The batch as the data loader returned it.
            explanations: What is explained; None for nothing.
        """
        plain = [number for number, pass_ in enumerate(self._passes) if not pass_.samples[0].metainfo.get('flip')]
        if not plain:
            return  # a detector that draws by itself knows one pass at a time
        pass_ = self._passes[plain[0]]
        snapshots = {index: of_image[plain[0]] for index, of_image in self._drawn.items() if of_image}
        if isinstance(data['data_samples'][0], (list, tuple)):  # per pass; the results are those of all passes, merged
            data, results = {name: values[plain[0]] for name, values in data.items()}, ()
        if explanations is not None:
            self._explain(pass_, results, snapshots, data, explanations)
        if RECEPTIVE_FIELD in self.style.save:
            self._measure_fields(pass_, snapshots, data)

    def _explain(
        self,
        pass_: Pass,
        results: Sequence[Any],
        snapshots: Mapping[int, Snapshot],
        data: Mapping[str, Any],
        explanations: ExplanationRequest,
    ) -> None:
        snapshots = {index: one for index, one in snapshots.items() if not self._writer.has_explained(one)}
        if not snapshots:
            return
        names = {index: snapshot.path or 'an array' for index, snapshot in snapshots.items()}
        explain = partial(
            explain_snapshots, self.model, explanations, self.style, snapshots, data, results, pass_.features
        )
        self._writer.explain_and_write(names, explain)

    def _measure_fields(self, pass_: Pass, snapshots: Mapping[int, Snapshot], data: Mapping[str, Any]) -> None:
        layers = list(dict.fromkeys(activation.layer for activation in pass_.maps))
        for index, snapshot in snapshots.items():
            image = {name: values[index : index + 1] for name, values in data.items()}

            def measure(
                measurement: FieldMeasurement, image: dict[str, Any] = image, snapshot: Snapshot = snapshot
            ) -> None:
                measurement.add(self.model, image, layers, lambda _: snapshot, quiet=True)

            self._writer.measure_fields(snapshot, measure)


def explain_snapshots(
    model: nn.Module,
    request: ExplanationRequest,
    style: Style,
    snapshots: Mapping[int, Snapshot],
    data: Mapping[str, Any],
    results: Sequence[Any],
    features: Mapping[str, KeptFeatures],
) -> dict[int, list[Explanation]]:
    """Return the explanations of images of a batch, by their index.

    Args:
        model: The detector.
        request: What is explained.
        style: How the other pictures of the run look.
        snapshots: The images, by their index in the batch.
        data: The batch as the data loader returned it.
        results: Data samples with the predictions; empty predicts the batch once more.
        features: What the layers to explain at returned, by their names.
    """
    from mmdet_featviz.explanation.detector_batch import DetectorBatch  # imports mmdet's models

    look = replace(style, **LOOK)
    names = class_names(next(iter(snapshots.values())).dataset_meta)
    detections = [detections_of(result) for result in results] or None
    batch = DetectorBatch(model, data, request.layers, detections=detections, features=features)
    explanations: dict[int, list[Explanation]] = {index: [] for index in snapshots}
    for target, levels in request.explain(batch, names, list(snapshots)).items():
        snapshot = snapshots[target.image]
        explanations[target.image].append(explanation_of(target, request.method, levels, snapshot, look))
    return explanations
