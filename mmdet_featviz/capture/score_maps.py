"""Score maps: records what a detector's heads say of the classes that are wanted in each image."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from mmdet_featviz.capture.activation_map import ActivationMap
from mmdet_featviz.capture.detector import predicting_branch
from mmdet_featviz.capture.head_scores import (
    ScoreError,
    ScoreLevel,
    find_heads,
    is_exact,
    merge_levels,
    proposes,
    read_scores,
)
from mmdet_featviz.utils.file_names import safe_name

INSTANCE_OFFSET = 1000  # of mmdet: a panoptic segmentation holds class + instance * INSTANCE_OFFSET
TOLERANCE = 1e-3  # relative, between a detection's score and that of its cell: half precision has three digits
BEST_CLASS, ANY_OBJECT = 'the best class', 'an object'

# Data sample of an image, and its prediction or None → the class indices of which maps are made.
ClassChoice = Callable[[Any, Any], Iterable[int]]


class ScoreMaps:
    """Makes class-score maps from the outputs of a detector's heads.

    The outputs are kept until the pass ends, as only then it is known which classes are predicted.

    Args:
        model: The detector, without wrappers.
        names: Names of its classes, if known.
        choose: Chooses the classes of each image.

    Attributes:
        heads: {path: module} of the heads whose scores are read.

    Raises:
        ValueError: If no head of the detector scores cells.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], choose: ClassChoice) -> None:
        self.heads = find_heads(model, predicting_branch(model))
        self._names = names
        self._parts = name_parts(names)
        self._choose = choose
        self._verified: set[str] = set()  # heads whose scores were those of detections

    def read(self, head: str, outputs: Any, pixels: tuple[int, int]) -> list[ScoreLevel]:
        """Find the scores in the outputs of a head.

        Args:
            head: Path of the head.
            outputs: What its forward returned.
            pixels: (height, width) of the network's input.

        Raises:
            ScoreError: If their form is not known.
        """
        return read_scores(self.heads[head], outputs, pixels)

    def maps(
        self, head: str, levels: Sequence[ScoreLevel], samples: Sequence[Any], results: Sequence[Any]
    ) -> list[list[ActivationMap]]:
        """Return the score maps of each image of a batch.

        Args:
            head: Path of the head.
            levels: Its scores.
            samples: The data samples of the batch.
            results: Data samples with the predictions; empty without predictions.

        Raises:
            ScoreError: If the best detection has a score that no cell has.
        """
        padded = [*results, *[None] * (len(samples) - len(results))]
        return [self._maps_of(head, levels, index, *pair) for index, pair in enumerate(zip(samples, padded))]

    def _maps_of(
        self, head: str, levels: Sequence[ScoreLevel], index: int, sample: Any, result: Any
    ) -> list[ActivationMap]:
        module = self.heads[head]
        are_objects = proposes(head, module)
        classes = 1 if are_objects else module.num_classes
        labels = [] if classes == 1 else [label for label in self._choose(sample, result) if label < classes]
        if not are_objects:
            self._verify(head, levels, index, result)
        maps = [level.scores(index, labels).float() for level in levels]
        parts = [(f'{head}.scores', levels, maps)]
        if len(levels) > 1:
            merged, values = merge_levels(levels, maps)
            parts.insert(0, (f'{head}.merged_scores', [merged], [values]))
        return [
            ActivationMap(
                layer if label is None else f'{layer}.{self._part(label)}',
                number,
                classes,
                level.stride,
                values[None, row],
                offset=level.offset,
                score_of=ANY_OBJECT if are_objects else self._score_of(classes, label),
                label=label,
            )
            for row, label in enumerate([None, *labels])
            for layer, layer_levels, layer_maps in parts
            for number, (level, values) in enumerate(zip(layer_levels, layer_maps))
        ]

    def _verify(self, head: str, levels: Sequence[ScoreLevel], index: int, result: Any) -> None:
        """Check, until it has been found once, that the score of the best detection is that of a cell."""
        found = getattr(result, 'pred_instances', None)
        if head in self._verified or not is_exact(self.heads[head]) or found is None or not len(found):
            return
        best = int(found.scores.argmax())
        score, label = found.scores[best].float(), int(found.labels[best])
        scores = torch.cat([level.scores(index, [label])[1].flatten() for level in levels]).float()
        nearest = scores[(scores - score).abs().argmin()]
        if not torch.isclose(nearest, score, rtol=TOLERANCE, atol=1e-6):
            raise ScoreError(
                f'{type(self.heads[head]).__name__} computes its scores in a way that is not known: the best detection '
                f'has {float(score):.4g}, and the nearest that a cell has is {float(nearest):.4g}'
            )
        self._verified.add(head)

    def _part(self, label: int) -> str:
        return self._parts[label] if label < len(self._parts) else f'class_{label}'

    def _score_of(self, classes: int, label: int | None) -> str:
        if label is None:
            return self._names[0] if classes == len(self._names) == 1 else BEST_CLASS
        return self._names[label] if label < len(self._names) else f'class {label}'


def name_parts(names: Sequence[str]) -> list[str]:
    """Return the part of a layer's name, and so of file names, that stands for each class: distinct and safe."""
    parts = [safe_name(re.sub(r'[/\0-\x1f]', '_', name)) for name in names]
    counts = Counter(part.casefold() for part in parts)
    return [part if counts[part.casefold()] == 1 else f'{part}~{label}' for label, part in enumerate(parts)]


def predicted_classes(score_thr: float, sample: Any, result: Any) -> list[int]:
    """Return the class indices of the predictions for an image; in training, where there are none, of the ground truth.

    Args:
        score_thr: Smallest score of a predicted box that counts.
        sample: Data sample of the image.
        result: Data sample with the predictions, or None.
    """
    return sorted({int(label) for labels in _labels(score_thr, sample, result) for label in labels})


def true_classes(sample: Any, result: Any = None) -> list[int]:
    """Return the class indices of the ground truth of an image."""
    truth = getattr(sample, 'gt_instances', None)
    return sorted(set(truth.labels.tolist())) if truth is not None and 'labels' in truth else []


def _labels(score_thr: float, sample: Any, result: Any) -> Iterator[Tensor]:
    if result is None:
        yield true_classes(sample)
    found = getattr(result, 'pred_instances', None)
    if found is not None and 'labels' in found and 'scores' in found:
        yield found.labels[found.scores >= score_thr]
    segments = getattr(result, 'pred_panoptic_seg', None)
    if segments is not None:
        yield segments.sem_seg.unique() % INSTANCE_OFFSET
