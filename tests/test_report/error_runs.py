"""Saved runs whose folders have tables of errors, and what the tables say, counted row by row."""

import csv
import io
from collections import Counter
from dataclasses import replace

import numpy as np
from report_pages import make_snapshot, write_run

from mmdet_featviz.evaluation.detection_errors import NONE, find_errors
from mmdet_featviz.evaluation.error_records import ErrorRecord, MissedObject, errors_csv
from mmdet_featviz.evaluation.miss_mechanisms import MECHANISMS
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.visualization.style import Style

CLASSES = 'cat', '<img src=x onerror=alert(1)>', 'dog'
SIZE = (400, 600)
SCORE = 0.3  # of the metric
NO_CROWDS = Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
FALSE = 'localization', 'classification', 'both', 'duplicate', 'background'


def make_record(path, seed):
    """Errors of all types in an image, with mechanisms and contrasts."""
    random = np.random.default_rng(seed)
    count = 8
    corners = np.array([[20 + 140 * (n % 4), 30 + 170 * (n // 4)] for n in range(count)], float)
    sides = random.choice([20, 60, 100], count)
    truth = np.c_[corners, corners + sides[:, None]]
    labels = random.integers(0, 3, count)
    rows = []
    for box, label, side in zip(truth, labels, sides):
        shift = random.choice([0.05, 0.5, 0.6, 3]) * side
        moved = box + [shift, 0, shift, 0]
        rows += [(*moved, random.choice([label, label, (label + 1) % 3]), random.uniform(0.05, 1))]
        if random.random() < 0.4:
            rows += [(*(box + [1, 1, -2, -2]), label, random.uniform(0.05, 1))]
    table = np.round(rows, 4)
    predictions = Boxes(table[:, :4], table[:, 4].astype(int), table[:, 5])
    errors = find_errors(predictions, Boxes(truth, labels, np.full(count, np.nan)), NO_CROWDS)
    lost = np.flatnonzero(errors.above(SCORE).found_by == NONE).tolist()
    candidate = lambda row: (tuple((truth[row] - 2).tolist()), (row + 1) % 3, 0.12, 0.75)  # noqa: E731
    missed = {row: MissedObject(MECHANISMS[row % 5], *candidate(row) if row % 2 else ()) for row in lost}
    levels = 'neck_0', 'neck_1', 'bbox_head.of_a_long_name.merged_scores_0'
    contrasts = {level: random.normal(2 - n, 1, count) for n, level in enumerate(levels)}
    contrasts['neck_1'][0] = np.nan
    return ErrorRecord(str(path), errors, missed, contrasts)


def write_error_run(folder, images, epochs=('',), saved_truth=True):
    """A run of images that have errors.

    Returns:
        The run, and {folder of the evaluation: content of its table}.
    """
    snapshots, tables = [], {}
    for number, epoch in enumerate(epochs):
        records = [make_record(folder.parent / f'{name}.png', 100 * number + n) for n, name in enumerate(images)]
        for position, (name, record) in enumerate(zip(images, records)):
            truth, predictions = record.errors.truth, record.errors.predictions[::-1]
            saved = [part for part in (truth if saved_truth else None, predictions) if part is not None]
            joined = Boxes(*(np.concatenate([getattr(one, key) for one in saved]) for key in vars(truth)))
            key = f'{epoch}/{name}'.lstrip('/')
            one = make_snapshot(key, record.image, position, size=SIZE, matrix=np.diag([0.15, 0.15, 1.0]))
            snapshots.append(replace(one, boxes=joined, folder=epoch, position=position))
        tables[epoch] = errors_csv(records, CLASSES, SCORE)
    run = write_run(folder, snapshots, classes=CLASSES)
    writer = RunWriter(RunFolder(str(folder), resume=True), Style(save='maps'), run.info_to_copy)
    for epoch, table in tables.items():
        writer.write_evaluation({'errors.csv': table}, epoch)
    writer.finish()
    return type(run)(str(folder)), tables


def read_rows(table):
    """The rows of a table of errors: {image: rows}."""
    images = {}
    for row in csv.DictReader(io.StringIO(table.decode())):
        images.setdefault(row['image'], []).append(row)
    return images


def count_types(rows, score=SCORE, **filters):
    """Number of boxes of each type among rows of one image that have these values and, of predictions, this score."""
    scores = {int(row['number']): float(row['score']) for row in rows if row['kind'] == 'prediction'}
    found = Counter()
    for row in rows:
        type_ = row['type']
        if row['kind'] == 'prediction' and float(row['score']) < score:
            continue
        if type_ == 'found' and scores[int(row['match'])] < score:
            type_ = 'missed'
        if filters.get('mechanism') and type_ != 'missed':
            continue
        if all(row[name] == value for name, value in filters.items()):
            found[type_] += 1
    found['false'] = sum(found[name] for name in FALSE)
    return found
