"""level_statistics(): figures that show whether the levels of a detector are healthy, over some images."""

from __future__ import annotations

import os
from typing import Sequence

import numpy as np
from mmengine.infer import BaseInferencer
from torch import nn
from tqdm import tqdm

from mmdet_featviz.apis.inference import build_pipeline, check_detector, check_image, take_snapshot
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.evaluation.level_statistics import LevelStatistics, RunStatistics


def level_statistics(
    model: nn.Module | BaseInferencer,
    images: Sequence[str | os.PathLike | np.ndarray],
    layers: str | Sequence[str] | None = None,
) -> list[LevelStatistics]:
    """Return figures of each level over images: range, dead channels, effective rank, energy at the edge.

    Args:
        model: A detector from ``mmdet.apis.init_detector``, or a ``DetInferencer``.
        images: One or several images: paths, URLs or arrays (H, W, 3), BGR.
        layers: Module paths or globs. Default: those that are drawn by default.

    Returns:
        The figures of each level, in forward order. Their `remarks` are sentences on what is unusual.

    Raises:
        ValueError: If there is no image or it cannot be used, or a layer does not exist or returns no feature map.
        TypeError: If the model is no detector.

    Example:
        >>> for level in level_statistics(model, images):
        ...     print(level.name, level.dead, level.effective_rank, *level.remarks)
    """
    detector = check_detector(model, 'level_statistics()')
    images = [images] if isinstance(images, (str, os.PathLike, np.ndarray)) else list(images)
    if not images:
        raise ValueError('level statistics need at least one image')
    visualizer = FeatureVisualizer(layers=layers, save='raw', strict=True)
    visualizer.taps = visualizer.make_taps(detector)
    statistics = RunStatistics()
    pipelines = {of_arrays: build_pipeline(detector, of_arrays) for of_arrays in (False, True)}
    for image in tqdm(map(check_image, images), total=len(images), unit='image', leave=False, disable=None):
        statistics.add(take_snapshot(detector, image, visualizer, pipelines[isinstance(image, np.ndarray)]))
    return statistics.levels()
