"""Levels and saved runs to compare."""

from itertools import product

import cv2
import numpy as np
import torch
from conftest import noise, pool_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.capture.activation_map import ActivationMap, Pass
from mmdet_featviz.structures.snapshot import Level

SIZE = (64, 96)


RANDOM_MAP = np.random.default_rng(0).normal(size=(8, 12))


def make_level(layer='neck', number=0, stride=8.0, values=None):
    """A level with the same stride along both axes."""
    values = np.zeros((8, 12)) if values is None else values
    return Level(layer, number, 16, (stride, stride), np.asarray(values, np.float32))


def write_images(folder, *names, size=SIZE):
    """Write random images; returns their paths."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        (folder / name).write_bytes(cv2.imencode('.png', noise(*size, seed=seed))[1].tobytes())
    return [str(folder / name) for name in names]


def save_run(folder, images, root, truth=None, predictions=None, size=SIZE, save='maps', passes=1, epochs=None):
    """Save a run over images that were neither scaled nor padded; returns its folder.

    Args:
        images: {path: [values of each level]}, with the layer `neck` and stride 8.
        truth: Ground-truth boxes of every image.
        predictions: Boxes and scores of the predictions on every image.
        passes: Number of equal passes over each image.
        epochs: {folder: factor of all values} of the validations of a training; None is one test.
    """
    visualizer = FeatureVisualizer(out_dir=str(folder), save=save)
    visualizer.open(MODELS.build(pool_detector()), image_root=str(root))
    for (path, levels), (folder_name, factor) in product(images.items(), (epochs or {'': 1}).items()):
        maps = [
            ActivationMap(
                'neck', number, 16, (8.0, 8.0), torch.as_tensor(factor * np.asarray(values), dtype=torch.float32)[None]
            )
            for number, values in enumerate(levels)
        ]
        sample = DetDataSample(metainfo=dict(ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0), img_path=path))
        if truth is not None:
            boxes = torch.tensor(truth)
            sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
        result = DetDataSample()
        if predictions is not None:
            boxes, scores = (torch.tensor(values) for values in predictions)
            labels = torch.zeros(len(boxes), dtype=torch.long)
            result.pred_instances = InstanceData(bboxes=boxes, labels=labels, scores=scores)
        visualizer.draw([Pass(torch.zeros(1, 3, *size), [sample], maps)] * passes, [result], folder_name)
    return str(folder)
