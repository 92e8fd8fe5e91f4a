"""A run with maps, features of boxes and a table of errors, written without a detector."""

import cv2
import numpy as np
from conftest import noise

from mmdet_featviz.evaluation.detection_errors import find_errors
from mmdet_featviz.evaluation.error_records import ErrorRecord, errors_csv
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.box_features import BoxFeatures
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style

SIZE = 90, 120
CLASSES = ['=1+1', 'a\tb\nc,"d"', '<img src=x onerror=alert(1)>']
LEVELS = 'neck_0', 'neck_1'
NO_CROWDS = Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))


def make_boxes(seed):
    """Three objects of classes 0 to 3, the last without a name; the first is found, and one prediction is wrong."""
    corners = np.array([[5.0, 5, 35, 40], [50, 10, 80, 50], [85, 50, 115, 85], [6, 6, 36, 41], [10, 60, 40, 80]])
    labels = np.array([seed % 3, (seed + 1) % 4, 3, seed % 3, 2])
    return Boxes(corners + seed / 8, labels, np.array([np.nan] * 3 + [0.9 - 0.01 * seed, 0.4]))


def make_features(boxes, seed):
    """Vectors near a direction of their class at the second level, and of noise at the first; the last is not seen."""
    random = np.random.default_rng(seed)
    vectors = dict(zip(LEVELS, (random.normal(size=(len(boxes), width)).astype(np.float32) for width in (4, 6))))
    vectors['neck_1'][np.arange(len(boxes)), boxes.labels] += 6
    for values in vectors.values():
        values[2] = np.nan
    return BoxFeatures(boxes, np.arange(len(boxes)), vectors)


def write_box_run(folder, count, boxes=True):
    """Write a run of some images; without features of boxes if `boxes` is False."""
    save = ('maps', 'box_features') if boxes else 'maps'
    info = dict(layers=['neck'], reduction='max', dataset_meta=dict(classes=CLASSES))
    writer, records = RunWriter(RunFolder(str(folder)), Style(save=save), info), []
    for number in range(count):
        path = folder.parent / f'{folder.name} images' / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode('.png', noise(*SIZE, seed=number))[1].tobytes())
        levels = [
            Level('neck', level, 4, (8.0, 8.0), np.full((12, 15), number + level, np.float32)) for level in (0, 1)
        ]
        of_image = make_boxes(number)
        placement = identity_placement(SIZE, SIZE)
        snapshot = Snapshot(str(number), str(path), 0, placement, levels, boxes=of_image, position=number)
        writer.write(snapshot)
        if boxes:
            writer.write_box_features(
                snapshot, lambda of_image=of_image, number=number: make_features(of_image, number)
            )
        truth = of_image.are_truth
        records.append(ErrorRecord(str(path), find_errors(of_image[~truth], of_image[truth], NO_CROWDS)))
    writer.write_evaluation({'errors.csv': errors_csv(records, CLASSES, 0.3)})
    writer.finish()
    return Run(str(folder))
