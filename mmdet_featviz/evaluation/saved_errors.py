"""Saved errors: reads the records of an evaluation back from its errors.csv."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from typing import Iterator, Mapping, Sequence

import numpy as np

from mmdet_featviz.evaluation.detection_errors import FALSE_TYPES, FOUND, IGNORED, MISSED, NONE, TRUE, ImageErrors
from mmdet_featviz.evaluation.error_records import COLUMNS, CONTRAST, SIDES, ErrorRecord, MissedObject
from mmdet_featviz.evaluation.miss_mechanisms import MECHANISMS
from mmdet_featviz.structures.boxes import NO_BOXES, Boxes, find_label
from mmdet_featviz.utils.csv_table import CsvRows

TYPES = {'prediction': (TRUE, *FALSE_TYPES, IGNORED), 'ground truth': (FOUND, MISSED)}  # by kind of a row
NO_ERRORS = ImageErrors(
    *(Boxes(NO_BOXES, np.zeros(0, np.int64), np.zeros(0)) for _ in range(2)),
    *(np.zeros(0, kind) for kind in (object, np.int64, np.float64, np.int64)),
)


@dataclass
class _ImageRows:
    """The rows of one image, by kind."""

    image: str
    rows: dict[str, list[dict]] = field(default_factory=lambda: {kind: [] for kind in TYPES})


def read_errors(content: bytes, names: Sequence[str]) -> list[ErrorRecord]:
    """Read the records of a table that :func:`mmdet_featviz.evaluation.error_records.errors_csv` wrote.

    Args:
        content: The table; its images have predictions or ground truth.
        names: Names of the classes.

    Raises:
        ValueError: If it is no such table, or of other classes.
    """
    try:
        reader = table_rows(content)
        absent = set(COLUMNS).difference(reader.fieldnames or ())
        if absent:
            raise ValueError(f'it has no columns {", ".join(sorted(absent))}')
        levels = [name[len(CONTRAST) :] for name in reader.fieldnames if name.startswith(CONTRAST)]
        return [_record(image, levels, names) for image in _images(reader)]
    except (csv.Error, KeyError) as error:  # a row has an unknown kind
        raise ValueError(f'it is damaged ({type(error).__name__}: {error})') from error


def table_rows(content: bytes) -> CsvRows:
    """The rows of such a table as dicts of text, not checked."""
    return CsvRows(content.decode('utf-8', 'surrogateescape'))


def _images(rows: Iterator[dict]) -> Iterator[_ImageRows]:
    """The rows of each image. The numbers of an image that comes twice begin again."""
    image = None
    for row in rows:
        if None in row or None in row.values():
            raise ValueError('a row of it has not as many cells as there are columns')
        if image is None or row['image'] != image.image or int(row['number']) != len(image.rows[row['kind']]):
            if image is not None:
                yield image
            image = _ImageRows(row['image'])
        image.rows[row['kind']].append(row)
    if image is not None:
        yield image


def _record(image: _ImageRows, levels: Sequence[str], names: Sequence[str]) -> ErrorRecord:
    predicted, objects = image.rows.values()
    for kind, rows in image.rows.items():
        unknown = [row['type'] for row in rows if row['type'] not in TYPES[kind]]
        if unknown:
            raise ValueError(f'{unknown[0]!r} is no type of a {kind}')
    errors = ImageErrors(
        _boxes(predicted, names),
        _boxes(objects, names),
        np.array([row['type'] for row in predicted], object),
        _matches(predicted, len(objects)),
        np.array([_number(row['iou'], 0.0) for row in predicted]),
        _matches(objects, len(predicted)),
    )
    missed = {place: _missed(row, names) for place, row in enumerate(objects) if row['mechanism']}
    contrasts = {level: np.array([_number(row[CONTRAST + level], math.nan) for row in objects]) for level in levels}
    return ErrorRecord(image.image, errors, missed, contrasts)


def _boxes(rows: Sequence[dict], names: Sequence[str]) -> Boxes:
    return Boxes(
        np.array([_corners(row) for row in rows]).reshape(-1, 4),
        np.array([_label(row['class'], names) for row in rows], np.int64),
        np.array([_number(row['score'], math.nan) for row in rows]),
    )


def _label(name: str, names: Sequence[str]) -> int:
    """The index of a class; one without a name has its index as name."""
    return int(name) if name.isdigit() and name not in names else find_label(name, names)


def _corners(row: Mapping[str, str], prefix: str = '') -> tuple[float, ...]:
    return tuple(_number(row[prefix + side]) for side in SIDES)


def _matches(rows: Sequence[dict], count: int) -> np.ndarray:
    """(N,) index of the box that the type of each row is about, -1 for none."""
    matches = np.array([int(row['match'] or NONE) for row in rows], np.int64)
    if ((matches < NONE) | (matches >= count)).any():
        raise ValueError('a box is matched with one that is not there')
    return matches


def _missed(row: Mapping[str, str], names: Sequence[str]) -> MissedObject:
    mechanism = row['mechanism']
    if mechanism not in MECHANISMS:
        raise ValueError(f'{mechanism!r} is no mechanism')
    if not row['candidate_class']:
        return MissedObject(mechanism)
    score, overlap = (_number(row[f'candidate_{name}']) for name in ('score', 'iou'))
    return MissedObject(mechanism, _corners(row, 'candidate_'), _label(row['candidate_class'], names), score, overlap)


def _number(text: str, empty: float | None = None) -> float:
    """A finite number; an empty cell is `empty`, or else an error."""
    if not text and empty is not None:
        return empty
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'{text!r} is no finite number')
    return value
