"""Inference: finds, predicts and draws images that belong to no data set."""

from __future__ import annotations

import copy
import glob
import os
import os.path as osp
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Sequence

import cv2
import numpy as np
from mmcv import imfrombytes
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmdet.utils import get_test_pipeline_cfg
from mmengine import fileio
from mmengine.infer import BaseInferencer
from torch import nn
from tqdm import tqdm

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.capture.layer_tree import DEPTH, layer_tree
from mmdet_featviz.capture.nested_passes import nested_passes
from mmdet_featviz.explanation.differentiable import evaluation_mode
from mmdet_featviz.runs import early_exit
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.messages import one_line
from mmdet_featviz.visualization.images import ImageError

SCALABLE = ('uint8', 'uint16', 'int16', 'float32', 'float64')  # types of arrays
IMAGE_EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')


def check_detector(model: Any, caller: str) -> nn.Module:
    """Return a detector with its config, from itself or an inferencer.

    Raises:
        TypeError: If the model is none; the message names the caller.
    """
    model = model.model if isinstance(model, BaseInferencer) else model
    if not isinstance(model, nn.Module) or not hasattr(model, 'cfg'):
        what = 'has no config as model.cfg' if isinstance(model, nn.Module) else f'is {model!r}'
        raise TypeError(
            f'{caller} needs a detector from mmdet.apis.init_detector(config, checkpoint) or a DetInferencer, but '
            f'model {what}'
        )
    return model


def check_image(image: Any) -> str | np.ndarray:
    """Return an image that was given as a path, a URL or an array.

    Raises:
        ValueError: If it is neither, or has values of another type or range.
    """
    if isinstance(image, np.ndarray) and (image.ndim != 3 or image.shape[2] != 3 or not image.size):
        raise ValueError(f'image must be an array (H, W, 3), BGR, but has the shape {image.shape}')
    if isinstance(image, np.ndarray) and image.dtype.kind not in 'biuf':
        raise ValueError(f'image must be an array of numbers, but has the type {image.dtype}')
    if isinstance(image, np.ndarray) and image.dtype.name not in SCALABLE:
        types = ', '.join(SCALABLE)
        raise ValueError(
            f'OpenCV scales images of the types {types}, not {image.dtype}: convert it with image.astype()'
        )
    if isinstance(image, np.ndarray) and image.dtype.kind == 'f' and 0 < image.max() <= 1:
        raise ValueError('image must have values from 0 to 255, as OpenCV reads it, but has none above 1')
    if not isinstance(image, (str, os.PathLike, np.ndarray)):
        what = 'None, which cv2.imread returns on failure' if image is None else f'a {type(image).__name__}'
        raise ValueError(f'image must be a path, or an array (H, W, 3), BGR, not {what}')
    return os.fspath(image) if isinstance(image, os.PathLike) else image


def build_pipeline(model: nn.Module, of_arrays: bool = False) -> Compose:
    """Build the test pipeline of a detector.

    Args:
        model: The detector, with its config as ``cfg``.
        of_arrays: Whether the pipeline gets images as arrays instead of paths.
    """
    # A copy: mmdet's own inference_detector() changes the config of the model for the first array.
    pipeline = copy.deepcopy(get_test_pipeline_cfg(model.cfg))
    if of_arrays:
        pipeline[0].type = 'mmdet.LoadImageFromNDArray'
    return Compose(pipeline)


def batch_of_one(pipeline: Compose, image: str | np.ndarray) -> dict[str, list]:
    """Return a batch with one image, as ``inference_detector()`` makes it.

    Args:
        pipeline: The test pipeline, see :func:`build_pipeline`.
        image: Path or URL of the image, or the image itself (H, W, 3), BGR.

    Raises:
        ValueError: If OpenCV cannot decode or resize the image.
    """
    info = dict(img=image, img_id=0) if isinstance(image, np.ndarray) else dict(img_path=image, img_id=0)
    with _naming_unusable(image):
        return {key: [value] for key, value in pipeline(info).items()}


def find_images(source: str | os.PathLike) -> tuple[list[str], str]:
    """Find the images that a command-line argument stands for.

    Args:
        source: An image, a folder (searched with its subfolders), a glob, or a URL.

    Returns:
        Paths of the images, and the folder that their keys are relative to.

    Raises:
        SystemExit: If there are no images.
    """
    source = os.fspath(source)
    if '://' in source:
        return [source], osp.dirname(source)
    if osp.isdir(source):
        paths = sorted(str(path) for path in Path(source).rglob('*') if path.suffix.lower() in IMAGE_EXTENSIONS)
        root = source
    else:
        paths = [source] if osp.isfile(source) else sorted(filter(osp.isfile, glob.glob(source, recursive=True)))
        root = osp.commonpath([osp.dirname(osp.abspath(path)) for path in paths]) if paths else ''
    if not paths:
        extensions = ', '.join(IMAGE_EXTENSIONS)
        raise SystemExit(f'no image found: {source} is neither an image nor a folder with images ({extensions})')
    return paths, root


def draw_images(images: Sequence[str], model: nn.Module, visualizer: FeatureVisualizer) -> list[str]:
    """Predict on each image and draw its feature maps, then close the visualizer.

    Args:
        images: Paths or URLs of the images.
        model: The detector.
        visualizer: A visualizer that was opened for the detector.

    Returns:
        The images that could not be read. They are skipped unless the visualizer is strict.
    """
    visualizer.summarize_at_exit()
    with early_exit.stopping(visualizer):
        unreadable = _draw_each(images, model, visualizer)
        visualizer.close()
    return unreadable


def _draw_each(images: Sequence[str], model: nn.Module, visualizer: FeatureVisualizer) -> list[str]:
    """Predict on each image and draw its feature maps; returns the images that could not be read."""
    pipeline = build_pipeline(model)
    unreadable = []
    for image in tqdm(images, unit='image'):
        try:
            with nested_passes(), visualizer.taps:
                result = inference_detector(model, image, pipeline)
        except Exception:  # mmcv's loading and the file backends raise errors of many types
            if visualizer.strict or not is_unreadable(image, visualizer.backend_args):
                raise
            unreadable.append(image)
            continue
        data = batch_of_one(pipeline, image) if visualizer.needs_data else None
        visualizer.draw(visualizer.taps.take(), [result], data=data)
        if visualizer.is_done():
            break
    return unreadable


def take_snapshot(
    model: nn.Module, image: str | np.ndarray, visualizer: FeatureVisualizer, pipeline: Compose | None = None
) -> Snapshot:
    """Predict on one image, and return the snapshot of the detector's first pass.

    Args:
        model: The detector.
        image: Path or URL of the image, or the image itself (H, W, 3), BGR.
        visualizer: A visualizer with taps on the detector.
        pipeline: The test pipeline; None builds it from the detector's config.

    Raises:
        ImageError: If the image is a file that cannot be read.
        ValueError: If OpenCV cannot scale the image.
    """
    pipeline = pipeline or build_pipeline(model, isinstance(image, np.ndarray))
    # In evaluation mode: in training, a look would change the statistics of batch norms, and show those of one image.
    taps = visualizer.taps
    with naming_unreadable(image), _naming_unusable(image), evaluation_mode(model), nested_passes(), taps:
        result = inference_detector(model, image, pipeline)
    array = image if isinstance(image, np.ndarray) else None
    (snapshot,) = visualizer.snapshots(taps.take()[:1], 0, result, array=array)
    return snapshot


def show_layers(model: nn.Module, image: str | np.ndarray, depth: int = DEPTH) -> str:
    """Return a tree of the layers that can be drawn, with the shapes of their feature maps for an image.

    Args:
        model: The detector.
        image: Path or URL of the image, or the image itself (H, W, 3), BGR.
        depth: Depth of the tree.
    """
    pipeline = build_pipeline(model, isinstance(image, np.ndarray))
    with evaluation_mode(model), nested_passes():
        return layer_tree(model, lambda: inference_detector(model, image, pipeline), depth)


def is_unreadable(image: str, backend_args: dict | None = None) -> bool:
    """Whether an image cannot be read or decoded, as opposed to an error elsewhere."""
    try:
        return imfrombytes(fileio.get(image, backend_args=backend_args)) is None
    except Exception:  # each file backend raises errors of its own
        return True


@contextmanager
def _naming_unusable(image: str | np.ndarray) -> Iterator[None]:
    """Within the context, an error of OpenCV is a ValueError with the name or size of the image."""
    try:
        yield
    except cv2.error as error:
        what = image if isinstance(image, str) else f'an image of {image.shape[0]} x {image.shape[1]} pixels'
        raise ValueError(f'the test pipeline of the detector cannot use {what} ({one_line(error)})') from error


@contextmanager
def naming_unreadable(image: Any) -> Iterator[None]:
    """Within the context, an error is an ImageError with the name of the image, if that is an unreadable file."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # mmcv's loading and the file backends raise errors of many types
        if isinstance(image, str) and is_unreadable(image):
            raise ImageError(f'{image} cannot be read ({one_line(error.__cause__ or error)})') from error
        raise
