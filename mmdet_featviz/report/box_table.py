"""Box table: the boxes of a run that have features, with their classes, scores and errors."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Sequence

import numpy as np
from mmengine.logging import print_log

from mmdet_featviz.evaluation.detection_errors import FOUND, MISSED, NONE
from mmdet_featviz.evaluation.error_records import ErrorRecord
from mmdet_featviz.report.error_data import join_boxes
from mmdet_featviz.report.error_tables import ErrorTables
from mmdet_featviz.report.image_passes import split_key
from mmdet_featviz.runs.box_features_file import SavedFeatures, load_box_features
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.utils.messages import count_noun, first_names

MOST = 20_000  # boxes; of more, this many are chosen evenly


@dataclass(frozen=True, eq=False)
class BoxTable:
    """N boxes of a run, and their vectors.

    Attributes:
        files: Files of the images.
        images: (N,) index of the image in `files`.
        numbers: (N,) index of the box among those of the image.
        boxes: The boxes.
        types: Type of the error of each, as in ``errors.csv``; empty where it is not known.
        finders: (N,) of ground truth the score of the prediction that found it, NaN without one.
        mechanisms: Mechanism of each missed object; empty without one.
        vectors: {name of a level: (N, C) float32}, all finite.
        count: Number of boxes in the run.
        infinite: Number of boxes left out, as the network saw nothing of them or their vectors are not finite.
        unreadable: Names of the files that cannot be read.
    """

    files: Sequence[SavedFeatures]
    images: np.ndarray
    numbers: np.ndarray
    boxes: Boxes
    types: Sequence[str]
    finders: np.ndarray
    mechanisms: Sequence[str]
    vectors: dict[str, np.ndarray]
    count: int
    infinite: int
    unreadable: Sequence[str]

    def __getitem__(self, chosen: np.ndarray) -> BoxTable:
        """The boxes at these indices."""
        return replace(
            self,
            images=self.images[chosen],
            numbers=self.numbers[chosen],
            boxes=self.boxes[chosen],
            types=[self.types[row] for row in chosen],
            finders=self.finders[chosen],
            mechanisms=[self.mechanisms[row] for row in chosen],
            vectors={name: values[chosen] for name, values in self.vectors.items()},
        )

    @property
    def remarks(self) -> list[str]:
        """What is not in the table."""
        remarks, read = [], len(self.boxes) + self.infinite
        if read < self.count:
            remarks.append(f'{read} of {count_noun(self.count, "box")}, chosen evenly')
        if self.infinite:
            remarks.append(f'{count_noun(self.infinite, "box")} left out, not seen by the network or not finite')
        if self.unreadable:
            remarks.append(f'not readable: {first_names(self.unreadable)}')
        return remarks


def read_boxes(run: Run, errors: ErrorTables, most: int = MOST) -> BoxTable | None:
    """Read the boxes of the latest pass over each image: of its first pass in the last epoch that has it.

    Args:
        run: The run.
        errors: Its errors.
        most: Largest number of boxes.

    Returns:
        The boxes in the order of the run; None if it saved no features.
    """
    files = _latest(run.box_features)
    if not files:
        return None
    total = sum(file.boxes for file in files)
    chosen = np.arange(total) if total <= most else np.arange(most) * total // most
    start, parts, vectors, unreadable = 0, [], [], []
    for image, file in enumerate(files):
        rows = chosen[slice(*np.searchsorted(chosen, [start, start + file.boxes]))] - start
        start += file.boxes
        try:
            features = load_box_features(file.path)
            rows = rows[rows < len(features.boxes)]
        except ValueError as error:
            print_log(f'{error}. Its boxes are left out.', 'current', logging.WARNING)
            unreadable.append(file.key)
            continue
        types, finders, mechanisms = _errors_of(features.boxes, errors.of_image(file.folder, file.image))
        boxes, images = features.boxes[rows], np.full(len(rows), image)
        parts.append((images, features.numbers[rows], boxes, types[rows], finders[rows], mechanisms[rows]))
        vectors.append({name: values[rows] for name, values in features.vectors.items()})
    return _finite(_table(files, parts, vectors, total, unreadable))


def _latest(files: Sequence[SavedFeatures]) -> list[SavedFeatures]:
    passes: dict[tuple, list[SavedFeatures]] = {}
    for file in files:
        passes.setdefault((split_key(file.key)[1], file.image), []).append(file)
    return [next(one for one in of_image if one.folder == of_image[-1].folder) for of_image in passes.values()]


def _errors_of(boxes: Boxes, record: ErrorRecord | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Type, score of the finder and mechanism of each box."""
    types, mechanisms = np.full(len(boxes), '', object), np.full(len(boxes), '', object)
    finders = np.full(len(boxes), np.nan)
    if record is None:
        return types, finders, mechanisms
    errors, joined = record.errors, join_boxes(boxes, record)
    for number, place in enumerate(joined.predictions.tolist()):
        if place < len(boxes):
            types[place] = errors.types[number]
    for number, place in enumerate(joined.truth.tolist()):
        if place < len(boxes):
            finder, missed = errors.found_by[number], record.missed.get(number)
            types[place] = MISSED if finder == NONE else FOUND
            finders[place] = np.nan if finder == NONE else errors.predictions.scores[finder]
            mechanisms[place] = '' if missed is None else missed.mechanism
    return types, finders, mechanisms


def _table(
    files: Sequence[SavedFeatures], parts: Sequence[tuple], vectors: Sequence[dict], count: int, unreadable: Sequence
) -> BoxTable:
    images, numbers, boxes, types, finders, mechanisms = zip(*parts) if parts else [()] * 6
    joined = Boxes(
        np.concatenate([np.zeros((0, 4)), *(one.corners for one in boxes)]),
        _joined([one.labels for one in boxes], np.int64),
        _joined([one.scores for one in boxes], float),
    )
    return BoxTable(
        files,
        _joined(images, np.int64),
        _joined(numbers, np.int64),
        joined,
        _joined(types, object).tolist(),
        _joined(finders, float),
        _joined(mechanisms, object).tolist(),
        _joined_vectors(vectors, [len(one) for one in numbers]),
        count,
        0,
        unreadable,
    )


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)


def _joined_vectors(parts: Sequence[dict[str, np.ndarray]], counts: Sequence[int]) -> dict[str, np.ndarray]:
    """The vectors of each level of all images; NaN where an image has no such level, or one with other channels."""
    widths: dict[str, int] = {}
    for part in parts:
        for name, values in part.items():
            widths.setdefault(name, values.shape[1])
    joined = {name: np.full((sum(counts), width), np.nan, np.float32) for name, width in widths.items()}
    starts = np.cumsum([0, *counts])
    for start, part in zip(starts, parts):
        for name, values in part.items():
            if values.shape[1] == widths[name]:
                joined[name][start : start + len(values)] = values
    return joined


def _finite(table: BoxTable) -> BoxTable:
    """The levels with any finite vector, and the boxes that have finite vectors at all of these."""
    finite = {name: np.isfinite(values).all(axis=1) for name, values in table.vectors.items()}
    levels = [name for name, are_finite in finite.items() if are_finite.any() or not len(are_finite)]
    kept = np.logical_and.reduce([finite[name] for name in levels]) if levels else np.zeros(len(table.boxes), bool)
    table = replace(table, vectors={name: table.vectors[name] for name in levels}, infinite=int((~kept).sum()))
    return table[np.flatnonzero(kept)]
