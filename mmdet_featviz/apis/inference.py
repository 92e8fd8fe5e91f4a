"""Inference on images without a data set: one by one, with taps on the detector."""

from __future__ import annotations

import contextlib
import glob
import os.path as osp
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np
from mmcv import imfrombytes
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmdet.utils import get_test_pipeline_cfg
from mmengine import fileio
from torch import nn
from tqdm import tqdm

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.capture.layer_tree import DEPTH, layer_tree
from mmdet_featviz.structures.snapshot import Snapshot

IMAGE_ENDINGS = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')


def find_images(source: str) -> tuple[list[str], str]:
    """Find the images that a user names.

    Args:
        source: An image, a folder (with all folders in it), a glob, or a URL.

    Returns:
        The paths, and the folder that their keys are relative to.

    Raises:
        SystemExit: If there are none.
    """
    if '://' in source:
        return [source], osp.dirname(source)
    if osp.isdir(source):
        found = sorted(str(path) for path in Path(source).rglob('*') if path.suffix.lower() in IMAGE_ENDINGS)
        root = source
    else:
        found = [source] if osp.isfile(source) else sorted(filter(osp.isfile, glob.glob(source, recursive=True)))
        root = osp.commonpath([osp.dirname(osp.abspath(path)) for path in found]) if found else ''
    if not found:
        raise SystemExit(f'no image found: {source} is no image, and no folder with any ({", ".join(IMAGE_ENDINGS)})')
    return found, root


def draw_images(images: Sequence[str], model: nn.Module, visualizer: FeatureVisualizer) -> list[str]:
    """Predict on each image and draw it, then close the visualizer.

    Args:
        images: Paths or URLs.
        model: The detector.
        visualizer: Opened for the detector.

    Returns:
        The images that could not be read; the others are drawn all the same.
    """
    pipeline = Compose(get_test_pipeline_cfg(model.cfg.copy()))
    unreadable = []
    for image in tqdm(images, unit='image'):
        visualizer.taps.attach()
        try:
            with without_drawing(model):
                result = inference_detector(model, image, pipeline)
        except Exception:  # mmcv's loading and the file backends raise of all kinds
            if visualizer.strict or not _is_unreadable(image, visualizer.backend_args):
                raise
            unreadable.append(image)
            continue
        finally:
            visualizer.taps.detach()
        visualizer.draw(visualizer.taps.take(), [result])
        if visualizer.is_done():
            break
    visualizer.close()
    return unreadable


def take_snapshot(
    model: nn.Module, image: str | np.ndarray, visualizer: FeatureVisualizer, pipeline: Compose | None = None
) -> Snapshot:
    """Let a detector predict on one image, and return what the visualizer's taps captured in its first pass.

    Args:
        model: The detector.
        image: Path or URL, or the image itself (H, W, 3), BGR.
        visualizer: With taps on the detector.
        pipeline: The test pipeline, where it is built already.
    """
    with visualizer.taps as taps, without_drawing(model):
        result = inference_detector(model, image, pipeline)
    (snapshot,) = visualizer.snapshots(taps.take()[:1], 0, result)
    return snapshot


def show_layers(model: nn.Module, image: str | np.ndarray, depth: int = DEPTH) -> str:
    """A tree of the layers that can be drawn, with their shapes for an image.

    Args:
        model: The detector.
        image: Path or URL, or the image itself (H, W, 3), BGR.
        depth: Depth of the tree.
    """
    with without_drawing(model):
        return layer_tree(model, lambda: inference_detector(model, image), depth)


@contextlib.contextmanager
def without_drawing(model: nn.Module) -> Iterator[None]:
    """Keep a detector that draws by itself from doing so."""
    own = getattr(unwrap_detector(model), 'featviz', None)
    stages = getattr(own, 'stages', ())
    if own is not None:
        own.stages = ()
    try:
        yield
    finally:
        if own is not None:
            own.stages = stages


def _is_unreadable(image: str, backend_args: dict | None) -> bool:
    """Whether an error was the image's fault."""
    try:
        return imfrombytes(fileio.get(image, backend_args=backend_args)) is None
    except Exception:  # each file backend raises errors of its own
        return True
