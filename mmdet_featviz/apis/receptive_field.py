"""receptive_fields(): which part of an image one cell of each level depends on."""

from __future__ import annotations

import os
from typing import Sequence

import numpy as np
from mmengine.infer import BaseInferencer
from torch import nn
from tqdm import tqdm

from mmdet_featviz.apis.explain import batch_of, snapshots_of
from mmdet_featviz.apis.inference import check_detector
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.explanation.field_measurement import FieldMeasurement, ReceptiveField


def receptive_fields(
    model: nn.Module | BaseInferencer,
    images: Sequence[str | os.PathLike | np.ndarray],
    layers: str | Sequence[str] | None = None,
    at: tuple[float, float] | None = None,
) -> list[ReceptiveField]:
    """Return the receptive field of one cell of each level: in theory, and in effect, as the mean over images.

    Args:
        model: A detector from ``mmdet.apis.init_detector``, or a ``DetInferencer``.
        images: One or several images: paths, URLs or arrays (H, W, 3), BGR. A gradient of one image shows what this
            image made pass; ten or more give the field of the weights.
        layers: Module paths or globs. Default: those that are drawn by default.
        at: (x, y), in pixels of each image: the nearest cell is taken. Default: the middle of each image.

    Returns:
        One field for each level, in forward order.

    Raises:
        ValueError: If there is no image or it cannot be used, `at` is outside an image, a layer does not exist or
            returns no feature map, or no gradient reaches the image.
        ImageError: If an image file cannot be read.
        TypeError: If the model is no detector.

    Example:
        >>> for field in receptive_fields(model, images):
        ...     print(field.name, field.stride, field.theoretical_size, field.effective_size)
    """
    detector = unwrap_detector(check_detector(model, 'receptive_fields()'))
    images = [images] if isinstance(images, (str, os.PathLike, np.ndarray)) else list(images)
    if not images:
        raise ValueError('receptive fields need at least one image')
    layers = [layers] if isinstance(layers, str) else layers
    meta, measurement = getattr(detector, 'dataset_meta', None), FieldMeasurement()
    for image in tqdm(images, unit='image', leave=False, disable=None):
        measurement.add(
            detector, batch_of(detector, image), layers, lambda pass_: snapshots_of(detector, pass_, meta)[0], at
        )
    return measurement.fields()
