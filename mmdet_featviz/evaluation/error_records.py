"""Error records: the errors of each image with mechanisms and contrasts, as a table with a row per box."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from mmdet_featviz.evaluation.detection_errors import FOUND, MISSED, NONE, ImageErrors
from mmdet_featviz.evaluation.focus import SIZE_LIMITS, SIZES
from mmdet_featviz.structures.boxes import label_name
from mmdet_featviz.utils.csv_table import csv_text

SIDES = ('left', 'top', 'right', 'bottom')
COLUMNS = (
    *('image', 'kind', 'number', 'class', 'score', *SIDES, 'size', 'type', 'iou', 'match', 'mechanism'),
    *(f'candidate_{name}' for name in ('class', 'score', *SIDES, 'iou')),
)
CONTRAST = 'contrast '  # begins the name of a level's column


class MissedObject(NamedTuple):
    """Why an object was missed, and the candidate that tells.

    Attributes:
        mechanism: One of `MECHANISMS`.
        corners: (left, top, right, bottom) of the candidate; None without candidates.
        label: Its class index.
        score: Its score.
        overlap: Its intersection over union with the object.
    """

    mechanism: str
    corners: tuple[float, ...] | None = None
    label: int = NONE
    score: float = 0.0
    overlap: float = 0.0


@dataclass(frozen=True, eq=False)
class ErrorRecord:
    """What a metric found out about one image.

    Attributes:
        image: Path of the image.
        errors: Its predictions and ground truth; all of them, also below the score that counts.
        missed: {index of a ground-truth box: why it was missed}.
        contrasts: {name of a level: (G,) contrast of each ground-truth box}, NaN where it is not defined.
    """

    image: str
    errors: ImageErrors
    missed: dict[int, MissedObject] = field(default_factory=dict)
    contrasts: dict[str, np.ndarray] = field(default_factory=dict)


def level_names(records: Sequence[ErrorRecord]) -> list[str]:
    """The levels of all images, in the order of the first image that has them."""
    return list(dict.fromkeys(name for record in records for name in record.contrasts))


def box_sizes(corners: np.ndarray) -> np.ndarray:
    """(N,) index in `SIZES` of each box (N, 4), by its area in pixels of the image."""
    return np.digitize((corners[:, 2:] - corners[:, :2]).prod(axis=1), SIZE_LIMITS)


def errors_csv(records: Sequence[ErrorRecord], names: Sequence[str], score: float) -> bytes:
    """The table of all predictions of at least a score, and of all ground-truth boxes, as a CSV file in UTF-8.

    Args:
        records: The records of the data set.
        names: Names of the classes.
        score: Smallest score of a prediction that counts.
    """
    columns = [*COLUMNS, *(CONTRAST + level for level in level_names(records))]
    rows = (row for record in records for row in _rows(record, record.errors.above(score), names))
    text = csv_text(columns, ([row.get(column) for column in columns] for row in rows))
    return text.encode('utf-8', 'surrogateescape')


def _rows(record: ErrorRecord, errors: ImageErrors, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    yield from _prediction_rows(record.image, errors, names)
    yield from _truth_rows(record, errors, names)


def _prediction_rows(image: str, errors: ImageErrors, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    boxes = errors.predictions
    for row, size in enumerate(box_sizes(boxes.corners)):
        yield {
            'image': image,
            'kind': 'prediction',
            'number': row,
            **_box_cells(boxes.corners[row], int(boxes.labels[row]), names, boxes.scores[row]),
            'size': SIZES[size],
            'type': errors.types[row],
            'iou': _number(errors.overlaps[row]),
            'match': '' if errors.matches[row] == NONE else errors.matches[row],
        }


def _truth_rows(record: ErrorRecord, errors: ImageErrors, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    boxes = errors.truth
    for row, size in enumerate(box_sizes(boxes.corners)):
        found_by, missed = errors.found_by[row], record.missed.get(row)
        yield {
            'image': record.image,
            'kind': 'ground truth',
            'number': row,
            **_box_cells(boxes.corners[row], int(boxes.labels[row]), names),
            'size': SIZES[size],
            'type': MISSED if found_by == NONE else FOUND,
            'iou': '' if found_by == NONE else _number(errors.overlaps[found_by]),
            'match': '' if found_by == NONE else found_by,
            **({} if missed is None else _candidate_cells(missed, names)),
            **{CONTRAST + level: _number(values[row]) for level, values in record.contrasts.items()},
        }


def _candidate_cells(missed: MissedObject, names: Sequence[str]) -> dict[str, Any]:
    if missed.corners is None:
        return {'mechanism': missed.mechanism}
    cells = _box_cells(missed.corners, missed.label, names, missed.score)
    cells['iou'] = _number(missed.overlap)
    return {'mechanism': missed.mechanism, **{f'candidate_{name}': value for name, value in cells.items()}}


def _box_cells(corners: Sequence[float], label: int, names: Sequence[str], score: float | None = None) -> dict:
    return {
        'class': label_name(label, names),
        'score': '' if score is None else _number(score),
        **{side: _number(corner) for side, corner in zip(SIDES, corners)},
    }


def _number(value: float) -> str:
    """A number with seven digits, which float32 has; empty for NaN."""
    return '' if np.isnan(value) else f'{value:.7g}'
