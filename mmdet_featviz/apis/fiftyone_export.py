"""FiftyOne export: writes a run as a data set for FiftyOne, with boxes, their errors, and a heatmap per level."""

from __future__ import annotations

import csv
import json
import os
import os.path as osp
import re
from functools import lru_cache
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

import cv2
import numpy as np
from tqdm import tqdm

from mmdet_featviz.evaluation.detection_errors import FALSE_TYPES, MISSED
from mmdet_featviz.evaluation.error_records import CONTRAST, SIDES
from mmdet_featviz.evaluation.neighbor_purity import neighbor_purity, purest_level
from mmdet_featviz.evaluation.saved_errors import table_rows
from mmdet_featviz.report.box_table import read_boxes
from mmdet_featviz.report.error_tables import ErrorTables, tables_by_folder
from mmdet_featviz.report.image_passes import ImagePass, passes_by_image
from mmdet_featviz.report.page_data import IMAGE_SIZE, shrink_placement
from mmdet_featviz.runs.component_fit import views_of_run
from mmdet_featviz.runs.reader import Run, load_with_image, locate_image
from mmdet_featviz.runs.run_folder import RunFolder, check_apart
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.structures.boxes import Boxes, class_names, label_name
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.visualization.colors import quantize, to_unit
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import PlacedLevel, Views

FACTS = ('config', 'checkpoint', 'reduction', 'layers')  # of run.json
FIELDS = {'prediction': 'predictions', 'ground truth': 'ground_truth'}  # by kind of a row of errors.csv


class _Described(NamedTuple):
    """Boxes of an image, the names of their classes (N,), and their vectors (N, C)."""

    boxes: Boxes
    names: np.ndarray
    vectors: np.ndarray


def export_fiftyone(folder: str, out_dir: str, overwrite: bool = False) -> str:
    """Write a run as a data set in the format ``fiftyone.types.FiftyOneDataset``; FiftyOne itself is not needed.

    Each image is a sample with its latest pass: ``ground_truth``, ``predictions`` and a heatmap ``heat_...`` per level.
    Where the run has the table of a ``DetectionErrorMetric``, the boxes are those of the table, with their type in
    ``error``, and the sample has the numbers of ``missed_objects`` and ``false_predictions``. Where the run saved
    features of boxes, each box has the vector of the level with the purest neighbors as ``features``. Images stay where
    they are.

    Args:
        folder: Folder of the run.
        out_dir: Folder of the data set.
        overwrite: Whether to replace an earlier export.

    Returns:
        One line: where the data set is, and what was skipped.

    Raises:
        OSError: If a folder cannot be read or written to, or holds something else.
        ValueError: If the run has no maps, or a table of errors is damaged.
    """
    run = Run(folder)
    run.check_has_maps()
    check_apart(out_dir, run.root)
    target = RunFolder(out_dir, overwrite)
    views, tables = _views_of(run), lru_cache(maxsize=None)(lambda name: _error_rows(run, name))
    purest, features = _features_of(run)
    samples, skipped = [], []
    for number, image_pass in enumerate(tqdm(_latest_passes(run), unit='image', leave=False, disable=None)):
        try:
            snapshot = load_with_image(image_pass.path, run.info)
        except ValueError:
            skipped.append(image_pass.name)
            continue
        heatmaps = {}
        for level, gray in zip(snapshot.levels, _heatmaps(snapshot, views)):
            field = _field_name(level.name)
            heatmaps[field] = f'fields/{field}/{number:06d}.png'
            target.write(heatmaps[field], cv2.imencode('.png', gray)[1].tobytes())
        target.record([dict(image=snapshot.path, key=snapshot.key, files=list(heatmaps.values()))])
        sample = _sample(snapshot, run, osp.dirname(image_pass.path), tables(snapshot.folder))
        if snapshot.key in features:
            _add_features(sample, features[snapshot.key])
        maps = {field: dict(_cls='Heatmap', tags=[], map_path=path) for field, path in heatmaps.items()}
        samples.append({**sample, **maps})
    info = {fact: run.info[fact] for fact in FACTS if run.info.get(fact) is not None}
    info.update(run=run.folder, classes=list(class_names(run.info.get('dataset_meta'))))
    if purest is not None:
        info['features'] = purest
    target.record([dict(files=['metadata.json', 'samples.json'])])
    target.write('metadata.json', _to_json(dict(media_type='image', info=info)))
    target.write('samples.json', _to_json(dict(samples=samples)))
    target.flush()
    line = f'{count_noun(len(samples), "image")} for FiftyOne: {target.out_dir}'
    return f'{line}; skipped, maps not readable: {len(skipped)} ({first_names(skipped)})' if skipped else line


def _latest_passes(run: Run) -> list[ImagePass]:
    """The first pass over each image in the last epoch that has it."""
    latest = []
    for passes in passes_by_image(run).values():
        folder = osp.dirname(passes[-1].name)
        latest.append(next(one for one in passes if osp.dirname(one.name) == folder))
    return latest


def _views_of(run: Run) -> Views:
    style = Style(**{'align': 'center', **run.info.get('style', {})})
    return views_of_run(style, run.paths, reduction=None)  # the heat of activation maps, also of a run with components


def _heatmaps(snapshot: Snapshot, views: Views) -> Iterable[np.ndarray]:
    """The heat of each level in gray levels (height, width), at no more than 1000 pixels; 0 where nothing was seen."""
    placed = views.place(snapshot)
    small = shrink_placement(snapshot.placement, IMAGE_SIZE)[0]
    for one in placed:
        yield _heatmap(one, views.limits_of(one, placed), views.place_level(one.level, small), views.style)


def _heatmap(one: PlacedLevel, limits: tuple[float, float], small: PlacedLevel, style: Style) -> np.ndarray:
    values = np.maximum(one.level.values, 0) if style.normalize == 'max' else one.level.values
    gray = quantize(small.grid.heatmap(to_unit(values, limits)))
    gray[~small.seen] = 0
    return gray


def _field_name(level: str) -> str:
    """The name of a level's field: letters, digits and underscores."""
    return 'heat_' + re.sub(r'\W', lambda sign: '__' if sign[0] == '.' else '_', level, flags=re.ASCII)


def _sample(snapshot: Snapshot, run: Run, folder: str, rows: Mapping[str, Sequence[dict]] | None) -> dict[str, Any]:
    """The sample of an image, without its heatmaps.

    Args:
        snapshot: The image.
        run: The run.
        folder: Folder with its maps.
        rows: Rows of the table of errors by image; None without a table.
    """
    path = locate_image(snapshot.path, run.info.get('working_dir'))
    if not snapshot.is_file:  # seen in training, rebuilt from the network's input
        path, rows = osp.join(folder, snapshot.image_file), None
    height, width = snapshot.placement.image_size
    if rows is None:
        boxes = _saved_boxes(snapshot.boxes, class_names(run.info.get('dataset_meta')), (height, width))
    else:
        own = rows.get(snapshot.path, [])
        boxes = {
            FIELDS[kind]: [_detection(row, (height, width)) for row in own if row['kind'] == kind] for kind in FIELDS
        }
        types = [row['type'] for row in own]
        boxes.update(missed_objects=types.count(MISSED), false_predictions=sum(map(types.count, FALSE_TYPES)))
    labels = {
        name: dict(_cls='Detections', detections=value) if isinstance(value, list) else value
        for name, value in boxes.items()
    }
    metadata = dict(_cls='ImageMetadata', width=width, height=height)
    return dict(filepath=path if '://' in path else os.path.abspath(path), tags=[], metadata=metadata, **labels)


def _saved_boxes(boxes: Boxes | None, names: Sequence[str], size: tuple[int, int]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {name: [] for name in FIELDS.values()}
    for corners, label, score in () if boxes is None else zip(boxes.corners, boxes.labels, boxes.scores):
        name = label_name(label, names)
        if np.isnan(score):
            found['ground_truth'].append(_box(corners, name, size))
        else:
            found['predictions'].append(dict(_box(corners, name, size), confidence=float(score)))
    return found


def _detection(row: Mapping[str, str], size: tuple[int, int]) -> dict[str, Any]:
    """The label of a row of errors.csv."""
    made = _box([float(row[side]) for side in SIDES], row['class'], size)
    made.update(error=row['type'], size=row['size'], number=int(row['number']))
    if row['score']:
        made['confidence'] = float(row['score'])
    numbers = {name: row[name] for name in row if name == 'iou' or name.startswith(CONTRAST)}
    made.update({re.sub(r'\W', '_', name): float(text) for name, text in numbers.items() if text})
    return dict(made, mechanism=row['mechanism']) if row['mechanism'] else made


def _box(corners: Sequence[float], name: str, size: tuple[int, int]) -> dict[str, Any]:
    """A label with its box in parts of the image."""
    height, width = size
    left, top, right, bottom = map(float, corners)
    box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
    return dict(_cls='Detection', tags=[], attributes={}, label=name, bounding_box=box)


def _features_of(run: Run) -> tuple[str | None, dict[str, _Described]]:
    """The level with the purest neighbors, and the boxes with their vectors there by image key; None and no boxes."""
    table = read_boxes(run, ErrorTables(run))
    level = table and purest_level(neighbor_purity(table.vectors, table.boxes, table.images))
    if level is None:
        return None, {}
    names = class_names(run.info.get('dataset_meta'))
    described = {}
    for image in np.unique(table.images).tolist():
        chosen = table[np.flatnonzero(table.images == image)]
        own = np.array([label_name(label, names) for label in chosen.boxes.labels.tolist()], object)
        described[table.files[image].key] = _Described(chosen.boxes, own, chosen.vectors[level])
    return level, described


def _add_features(sample: dict[str, Any], known: _Described) -> None:
    """Add its vector to each box of a sample that has one, as far as the digits of a table of errors tell."""
    size = np.tile([sample['metadata']['width'], sample['metadata']['height']], 2)
    for detection in sample['ground_truth']['detections'] + sample['predictions']['detections']:
        left, top, width, height = detection['bounding_box']
        corners = np.array([left, top, left + width, top + height]) * size
        fits = np.isclose(known.boxes.corners, corners, rtol=1e-5, atol=1e-2).all(axis=1)
        fits &= np.isclose(known.boxes.scores, detection.get('confidence', np.nan), rtol=1e-5, equal_nan=True)
        fits &= known.names == detection['label']
        if fits.any():
            detection['features'] = [float(f'{value:.5g}') for value in known.vectors[fits.argmax()].tolist()]


def _error_rows(run: Run, folder: str) -> dict[str, list[dict]] | None:
    """The rows of the table of an evaluation by image; None without a table."""
    store = get_storage(run.root)
    name = tables_by_folder(store.all_names()).get(folder)
    if name is None:
        return None
    rows: dict[str, dict[tuple, dict]] = {}
    try:
        for row in table_rows(store.read(name)):
            _to_json(_detection(row, (1, 1)))
            rows.setdefault(row['image'], {})[FIELDS[row['kind']], row['number']] = row  # an image may come twice
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{store.path(name)} is damaged ({error}): remove it to export the boxes alone') from error
    return {image: list(of_image.values()) for image, of_image in rows.items()}


def _to_json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode('ascii')
