"""Error data: the detection errors of an image and its saved boxes, in the form that the page's scripts read."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import numpy as np

from mmdet_featviz.evaluation.detection_errors import FOUND, MISSED, NONE
from mmdet_featviz.evaluation.error_files import EXPLANATION, contrast_findings
from mmdet_featviz.evaluation.error_records import ErrorRecord, box_sizes, level_names
from mmdet_featviz.evaluation.focus import SIZES
from mmdet_featviz.evaluation.miss_mechanisms import MECHANISMS
from mmdet_featviz.evaluation.missed_contrasts import ALL_SIZES, ContrastRow, compare_contrasts
from mmdet_featviz.evaluation.saved_errors import TYPES
from mmdet_featviz.report.error_tables import ErrorTables
from mmdet_featviz.report.image_values import score_steps
from mmdet_featviz.report.page_data import rounded
from mmdet_featviz.structures.boxes import NO_BOXES, Boxes

ALL_TYPES = [type_ for types in TYPES.values() for type_ in types]


class JoinedBoxes(NamedTuple):
    """The saved boxes of a pass, and after them those that only the evaluation knows.

    Attributes:
        boxes: The boxes.
        predictions: (P,) index in them of each prediction of the record.
        truth: (G,) index in them of each ground-truth box of the record.
    """

    boxes: Boxes
    predictions: np.ndarray
    truth: np.ndarray


def join_boxes(saved: Boxes | None, record: ErrorRecord) -> JoinedBoxes:
    """Find the boxes of a record among the saved ones of the image.

    Args:
        saved: The saved boxes.
        record: The errors of the image.
    """
    boxes = saved or Boxes(NO_BOXES, np.zeros(0, np.int64), np.zeros(0))
    known = len(boxes)
    wanted = _joined(record.errors.predictions, record.errors.truth)
    places = _find(wanted, boxes)
    absent = places == NONE
    places[absent] = known + np.arange(absent.sum())
    count = len(record.errors.predictions)
    return JoinedBoxes(_joined(boxes, wanted[absent]), places[:count], places[count:])


def _joined(a: Boxes, b: Boxes) -> Boxes:
    return Boxes(*(np.concatenate([getattr(a, name), getattr(b, name)]) for name in ('corners', 'labels', 'scores')))


def _find(wanted: Boxes, among: Boxes) -> np.ndarray:
    """(W,) index of each box among others, as far as seven digits tell; -1 if it is not there. None is taken twice."""
    equal = np.isclose(wanted.corners[:, None], among.corners[None], rtol=1e-6, atol=1e-3).all(axis=2)
    equal &= np.isclose(wanted.scores[:, None], among.scores[None], rtol=1e-6, atol=1e-7, equal_nan=True)
    equal &= wanted.labels[:, None] == among.labels[None]
    places = np.full(len(wanted), NONE)
    for row in range(len(wanted)):
        if equal[row].any():
            places[row] = equal[row].argmax()
            equal[:, places[row]] = False
    return places


def error_values(record: ErrorRecord) -> dict:
    """What the list of images needs of the errors of an image, as rows of numbers.

    Returns:
        ``predictions``: label, score in steps, index in `ALL_TYPES` and in `SIZES` of each prediction; ``truth``:
        label, score of the prediction that found it in steps (-1 if none did), index in `SIZES` and in `MECHANISMS` (-1
        if it has none) of each ground-truth box.
    """
    errors = record.errors
    steps = [score_steps(score) for score in errors.predictions.scores.tolist()]
    types, sizes = (ALL_TYPES.index(type_) for type_ in errors.types), box_sizes(errors.predictions.corners).tolist()
    finders = [NONE if index == NONE else steps[index] for index in errors.found_by.tolist()]
    mechanisms = [
        MECHANISMS.index(record.missed[row].mechanism) if row in record.missed else NONE for row in range(len(finders))
    ]
    return dict(
        predictions=list(map(list, zip(errors.predictions.labels.tolist(), steps, types, sizes))),
        truth=list(
            map(list, zip(errors.truth.labels.tolist(), finders, box_sizes(errors.truth.corners).tolist(), mechanisms))
        ),
    )


def error_rows(record: ErrorRecord, joined: JoinedBoxes) -> list[dict | None]:
    """The error of each box on the page; None for a box that the evaluation did not count.

    Returns:
        Dicts with ``type``, ``size``, ``match`` (index of a box on the page, or None), ``iou`` with it; of ground truth
        also ``finder`` (score of the prediction that found it, or None), ``mechanism`` (None if it has none),
        ``candidate`` (corners, label, score and overlap, or None) and ``contrasts`` by level.
    """
    errors, rows = record.errors, [None] * len(joined.boxes)
    predicted, objects = joined.predictions.tolist(), joined.truth.tolist()
    sizes = [SIZES[size] for size in box_sizes(joined.boxes.corners)]
    for number, place in enumerate(predicted):
        match = errors.matches[number]
        rows[place] = dict(
            type=errors.types[number],
            size=sizes[place],
            match=None if match == NONE else objects[match],
            iou=rounded(errors.overlaps[number]),
        )
    for number, place in enumerate(objects):
        finder, missed = errors.found_by[number], record.missed.get(number)
        rows[place] = dict(
            type=MISSED if finder == NONE else FOUND,
            size=sizes[place],
            match=None if finder == NONE else predicted[finder],
            iou=None if finder == NONE else rounded(errors.overlaps[finder]),
            finder=None if finder == NONE else rounded(errors.predictions.scores[finder]),
            mechanism=None if missed is None else missed.mechanism,
            candidate=None
            if missed is None or missed.corners is None
            else [*map(rounded, missed.corners), missed.label, rounded(missed.score), rounded(missed.overlap)],
            contrasts={level: rounded(values[number]) for level, values in record.contrasts.items()},
        )
    return rows


def contrast_rows(record: ErrorRecord, levels: Sequence[str]) -> list[list[float | None]]:
    """The contrast of each ground-truth box at each level, in the order of :func:`error_values`; None if not known."""
    unknown = np.full(len(record.errors.truth), np.nan)
    values = [record.contrasts.get(level, unknown).tolist() for level in levels]
    return [list(map(rounded, row)) for row in zip(*values)]


def error_summary(errors: ErrorTables) -> dict | None:
    """The contrasts of found and missed objects over the data set; None for a run without errors.

    Returns:
        ``evaluation``, whose they are; ``levels``, that contrasts were measured at; ``rows``: ``{level: {size:
        ContrastRow}}``; ``sizes``; ``sentences``, and ``note``, how to read them.
    """
    if not errors.latest:
        return None
    compared = compare_contrasts(errors.latest, 0.0)  # all predictions in the table count
    rows: dict[str, dict[str, ContrastRow]] = {level: {} for level in level_names(errors.latest)}
    for row in compared:
        rows[row.level][row.size] = row
    return dict(
        evaluation=errors.evaluation,
        levels=list(rows),
        rows={level: of_level for level, of_level in rows.items() if of_level},
        sizes=[size for size in ALL_SIZES if any(size in of_level for of_level in rows.values())],
        sentences=[sentence.replace('`', '') for sentence in contrast_findings(compared)],
        note=EXPLANATION.replace('`', ''),
    )


def error_names(summary: dict | None) -> dict | None:
    """What the scripts know of the errors of all images, from :func:`error_summary`; None for a run without errors.

    Returns:
        ``types``, ``sizes`` and ``mechanisms``: the names that :func:`error_values` refers to by number; ``contrasts``:
        ``{level: {size: mean contrast of found and of missed objects}}``.
    """
    if summary is None:
        return None
    contrasts = {
        level: {size: [rounded(row.found.mean), rounded(row.missed.mean)] for size, row in of_level.items()}
        for level, of_level in summary['rows'].items()
    }
    return dict(types=ALL_TYPES, sizes=SIZES, mechanisms=MECHANISMS, contrasts=contrasts)
