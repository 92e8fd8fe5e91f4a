"""Page run: a run with maps, boxes and errors, written without a detector, for the benchmark of its report page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from mmdet.datasets import CocoDataset

from mmdet_featviz.benchmarks.whole_test import write_scenes
from mmdet_featviz.evaluation.detection_errors import NONE, find_errors
from mmdet_featviz.evaluation.error_records import ErrorRecord, MissedObject, errors_csv
from mmdet_featviz.evaluation.miss_mechanisms import MECHANISMS
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.boxes import NO_BOXES, Boxes
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style

CLASSES = CocoDataset.METAINFO['classes']
STRIDES = 8, 16, 32, 64, 128  # of the five levels of an FPN
OBJECTS = 8  # of an image
FALSE = 6  # further predictions
NO_CROWDS = Boxes(NO_BOXES, np.zeros(0, np.int64), np.zeros(0))


def write_page_run(folder: Path, images: int) -> Run:
    """Write scenes of the demo data, and a run over them whose maps, boxes and errors are random.

    Args:
        folder: An empty folder.
        images: Number of images.
    """
    write_scenes(folder, images)
    writer = RunWriter(
        RunFolder(str(folder / 'run')),
        Style(save='maps'),
        dict(layers=['neck'], reduction='max', dataset_meta=dict(classes=CLASSES)),
    )
    records = []
    for entry in json.loads((folder / 'val.json').read_text())['images']:
        random = np.random.default_rng(entry['id'])
        size = entry['height'], entry['width']
        records.append(_random_record(str(folder / 'val' / entry['file_name']), size, random))
        writer.write(_random_snapshot(records[-1], size, random))
    writer.write_evaluation({'errors.csv': errors_csv(records, CLASSES, 0.0)})
    writer.finish()
    return Run(str(folder / 'run'))


def _random_record(path: str, size: tuple[int, int], random: np.random.Generator) -> ErrorRecord:
    """Errors of objects, of a prediction near each, and of others anywhere."""
    truth = _random_boxes(OBJECTS, size, random)
    near = truth.corners + random.normal(0, 0.15, (OBJECTS, 4)) * np.tile(
        truth.corners[:, 2:] - truth.corners[:, :2], 2
    )
    other = _random_boxes(FALSE, size, random)
    predictions = Boxes(
        np.concatenate([near, other.corners]).round(2),
        np.concatenate([truth.labels, other.labels]),
        random.uniform(0.05, 1, OBJECTS + FALSE).round(4),
    )
    errors = find_errors(predictions, truth, NO_CROWDS)
    lost = np.flatnonzero(errors.found_by == NONE).tolist()
    missed = {row: MissedObject(MECHANISMS[random.integers(len(MECHANISMS))]) for row in lost}
    contrasts = {f'neck_{level}': random.normal(1, 1, OBJECTS) for level in range(len(STRIDES))}
    return ErrorRecord(path, errors, missed, contrasts)


def _random_boxes(count: int, size: tuple[int, int], random: np.random.Generator) -> Boxes:
    height, width = size
    corners = random.uniform(0, [0.8 * width, 0.8 * height], (count, 2))
    sides = random.uniform(0.03, 0.2, (count, 2)) * [width, height]
    labels = random.integers(0, len(CLASSES), count)
    return Boxes(np.concatenate([corners, corners + sides], axis=1).round(2), labels, np.full(count, np.nan))


def _random_snapshot(record: ErrorRecord, size: tuple[int, int], random: np.random.Generator) -> Snapshot:
    """A pass with the boxes of a record, and five levels."""
    levels = [
        Level('neck', number, 256, (float(stride),) * 2, random.gamma(2, size=[-(-side // stride) for side in size]))
        for number, stride in enumerate(STRIDES)
    ]
    parts = record.errors.truth, record.errors.predictions
    boxes = Boxes(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ('corners', 'labels', 'scores'))
    )
    placement = identity_placement(size, size)
    return Snapshot(Path(record.image).stem, record.image, 0, placement=placement, levels=levels, boxes=boxes)
