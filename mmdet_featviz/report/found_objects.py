"""Found objects: which ground-truth boxes of an image each run of a comparison found, and by what score."""

from __future__ import annotations

import csv
import os.path as osp
from functools import lru_cache
from typing import Iterable, Iterator, Mapping, Sequence

import numpy as np

from mmdet_featviz.evaluation.detection_errors import FOUND, TRUE, find_errors
from mmdet_featviz.evaluation.error_files import CSV
from mmdet_featviz.evaluation.error_records import SIDES
from mmdet_featviz.evaluation.saved_errors import table_rows
from mmdet_featviz.report.image_values import score_steps
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.structures.boxes import NO_BOXES, Boxes, class_names, label_name
from mmdet_featviz.structures.snapshot import Snapshot

NOT_FOUND = 0
NO_CLASS = -1
_EMPTY = Boxes(NO_BOXES, np.zeros(0, int), np.zeros(0))
Found = Mapping[tuple, int]  # {(class, *corners, number among equal boxes): score of the prediction that found it}


class FoundObjects:
    """Finds out which ground-truth boxes each run found.

    Where the evaluations of all runs wrote an ``errors.csv`` with the image, it tells. It has predictions from the
    ``score_thr`` of the metric on; an object that only others found counts as missed. Elsewhere the boxes that were
    saved with the maps are matched as in :func:`find_errors`. In both, predictions with a lower score change nothing
    of those above, so that the score of the prediction that found an object tells for each threshold whether it is
    found.

    Args:
        runs: The runs of a comparison.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._names = [class_names(run.info.get('dataset_meta')) for run in runs]
        self._recorded = lru_cache(maxsize=2 * len(runs))(_read_errors)  # of a run and epoch; images are in their order

    def rows(self, shots: Sequence[Snapshot | None]) -> list[list]:
        """The objects of an image.

        Args:
            shots: The same pass of each run; None of those that do not have it.

        Returns:
            For each ground-truth box: the name of its class, and for each run the score of the prediction that found
            it, in steps of 1/10,000 rounded down; 0 if none did, None if the run does not have the image.
        """
        if len(shots) < 2:
            return []
        found = self._from_errors(shots) or self._from_boxes(shots)
        first = next((one for one in found if one is not None), {})
        kept = [key for key in first if all(one is None or key in one for one in found)]
        return [[key[0], *(None if one is None else one[key] for one in found)] for key in kept]

    def _from_errors(self, shots: Sequence[Snapshot | None]) -> list[Found | None] | None:
        """What ``errors.csv`` says; None if a run that has the image has none with it."""
        found: list[Found | None] = []
        for run, shot in zip(self._runs, shots):
            recorded = None if shot is None else self._recorded(run.root, shot.folder).get(shot.path)
            if shot is not None and recorded is None:
                return None
            found.append(recorded)
        return found

    def _from_boxes(self, shots: Sequence[Snapshot | None]) -> list[Found | None]:
        """What the saved boxes say. The ground truth is that of the first run that has any."""
        truth, names = next(
            (
                (shot.boxes[shot.boxes.are_truth], names)
                for shot, names in zip(shots, self._names)
                if shot is not None and shot.boxes is not None and shot.boxes.are_truth.any()
            ),
            (None, []),
        )
        if truth is None:
            return [None if shot is None else {} for shot in shots]
        classes = [label_name(label, names) for label in truth.labels.tolist()]
        keys = list(_numbered((name, *corners) for name, corners in zip(classes, truth.corners.tolist())))
        numbers = {name: number for number, name in enumerate(dict.fromkeys(classes))}
        truth = Boxes(truth.corners, np.array([numbers[name] for name in classes]), np.ones(len(truth)))
        found: list[Found | None] = []
        for shot, own_names in zip(shots, self._names):
            if shot is None:
                found.append(None)
                continue
            predictions = _predictions(shot, own_names, numbers)
            errors = find_errors(predictions, truth, _EMPTY)
            steps = [*map(score_steps, errors.predictions.scores), NOT_FOUND]  # the last is that of no prediction
            found.append({key: steps[row] for key, row in zip(keys, errors.found_by)})
        return found


def _predictions(shot: Snapshot, names: Sequence[str], numbers: Mapping[str, int]) -> Boxes:
    """The predictions of a pass, with the labels of the ground truth: each run numbers its classes its own way."""
    boxes = _EMPTY if shot.boxes is None else shot.boxes[~shot.boxes.are_truth]
    labels = [numbers.get(label_name(label, names), NO_CLASS) for label in boxes.labels.tolist()]
    return Boxes(boxes.corners, np.array(labels, int), boxes.scores)


def _numbered(keys: Iterable[tuple]) -> Iterator[tuple]:
    """The keys, each with its number among equal ones."""
    counts: dict[tuple, int] = {}
    for key in keys:
        counts[key] = counts.get(key, -1) + 1
        yield (*key, counts[key])


def _read_errors(root: str, folder: str) -> dict[str, Found]:
    """Read the ``errors.csv`` of a run or of an epoch in it.

    Args:
        root: Folder of the run.
        folder: Name of the epoch; empty in a test.

    Returns:
        {path of the image: its objects}; empty without a table, and if it is damaged.
    """
    store = get_storage(osp.join(root, folder) if folder else root)
    if CSV not in store.names():
        return {}
    images: dict[str, list[dict]] = {}
    try:
        for row in table_rows(store.read(CSV)):
            images.setdefault(row['image'], []).append(row)
        return {image: _objects(rows) for image, rows in images.items()}
    except (csv.Error, KeyError, TypeError, ValueError):  # damaged
        return {}


def _objects(rows: Sequence[Mapping[str, str]]) -> Found:
    """The objects in the rows of an image."""
    scores = {row['number']: float(row['score']) for row in rows if row['type'] == TRUE}
    truth = [row for row in rows if row['kind'] == 'ground truth']
    keys = _numbered((row['class'], *(row[side] for side in SIDES)) for row in truth)
    found = [score_steps(scores[row['match']]) if row['type'] == FOUND else NOT_FOUND for row in truth]
    return dict(zip(keys, found))
