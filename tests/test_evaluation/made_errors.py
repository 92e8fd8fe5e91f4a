"""Predictions and ground truth that are made up, and what pycocotools says about them."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_featviz.structures.boxes import Boxes


def boxes(*rows):
    """Boxes from rows of left, top, right, bottom, label and, of predictions, score."""
    rows = [[*row, 1.0][:6] for row in rows]
    table = np.array(rows, float).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].astype(int), table[:, 5])


def random_image(random, crowds=True):
    """Predictions, ground truth and crowds: most predictions are near an object, some have another class."""
    count = random.integers(0, 7)
    corner = random.uniform(0, 60, (count, 2))
    truth = np.c_[corner, corner + random.uniform(8, 40, (count, 2)), random.integers(0, 3, count)]
    number = random.integers(0, 25)
    near = truth[random.integers(0, count, number)] if count else np.tile([10.0, 10, 40, 40, 0], (number, 1))
    predictions = np.c_[near, random.random(number)]
    predictions[:, :4] += random.normal(0, 4, (number, 4)) * random.choice([0.3, 1, 2], (number, 1))
    predictions[random.random(number) < 0.2, :4] += 40
    predictions[:, 2:4] = np.maximum(predictions[:, 2:4], predictions[:, :2] + 1)
    others = random.random(number) < 0.3
    predictions[others, 4] = random.integers(0, 3, int(others.sum()))
    are_crowds = random.random(count) < (0.2 if crowds else 0)
    return boxes(*predictions), boxes(*truth[~are_crowds]), boxes(*truth[are_crowds])


def evaluate(images):
    """AP at an overlap of 0.5, and for each image which predictions, by descending score, are true and ignored."""
    coco, annotations, results = COCO(), [], []
    for number, (predictions, truth, crowds) in enumerate(images, 1):
        for kind, is_crowd in ((truth, 0), (crowds, 1)):
            annotations += [
                dict(id=len(annotations) + row + 1, image_id=number, iscrowd=is_crowd, area=1.0, **_entry(kind, row))
                for row in range(len(kind))
            ]
        order = np.argsort(-predictions.scores, kind='stable')
        results += [
            dict(
                id=len(results) + place + 1,
                image_id=number,
                score=predictions.scores[row],
                area=1.0,
                **_entry(predictions, row),
            )
            for place, row in enumerate(order)
        ]
    categories = [dict(id=label) for label in range(3)]
    pictures = [dict(id=number) for number in range(1, len(images) + 1)]
    found = COCO()
    coco.dataset = dict(images=pictures, annotations=annotations, categories=categories)
    found.dataset = dict(images=pictures, annotations=results, categories=categories)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        found.createIndex()
        evaluation = COCOeval(coco, found, 'bbox')
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
        evaluation.params.maxDets = [10_000]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][0, :, :, 0, 0]
    states = {}  # id of a prediction: (is true, is ignored)
    for result in filter(None, evaluation.evalImgs):
        for number, match, ignored in zip(result['dtIds'], result['dtMatches'][0], result['dtIgnore'][0]):
            states[number] = bool(match) and not ignored, bool(ignored)
    by_image = [[states[one['id']] for one in results if one['image_id'] == picture['id']] for picture in pictures]
    return precision[:, precision.max(0) > -1].mean(), by_image


def _entry(kind, row):
    left, top, right, bottom = kind.corners[row].tolist()
    return dict(category_id=int(kind.labels[row]), bbox=[left, top, right - left, bottom - top])
