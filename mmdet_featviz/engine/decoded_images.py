"""Decoded images: keeps the images that a data loader in this process has read last, to draw on them."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Callable, Iterator, Mapping

import numpy as np
from torch.utils.data import DataLoader

from mmdet_featviz.engine.run_setup import innermost
from mmdet_featviz.utils.image_path import image_path

LIBRARIES = ('mmcv.', 'mmdet.')
# Transforms of these libraries that never write into the image that they are given.
LEAVE_IMAGE = {'LoadAnnotations', 'Resize', 'FixScaleResize', 'FixShapeResize', 'Pad', 'PackDetInputs'}
JPEG = ('.jpg', '.jpeg')  # has eight bits per color in any case, and takes long to decode


@contextmanager
def decoded_images(loader: DataLoader) -> Iterator[Mapping[str, np.ndarray]]:
    """Within the context, keep the images of the last batch of a data loader as its pipelines have decoded them.

    Only images that are then as :func:`mmdet_featviz.visualization.images.read_image` reads them, and that nothing has
    changed since: JPEG files that ``LoadImageFromFile`` decodes with its default settings, in pipelines that only
    resize and pad them. And only in this process: those of ``num_workers=0``.

    Yields:
        {path: image}, BGR (height, width, 3), uint8. Empty where images are decoded in other processes.
    """
    kept: dict[str, np.ndarray] = {}
    with ExitStack() as stack:
        stack.callback(kept.clear)
        for dataset in innermost(loader.dataset) if loader.num_workers == 0 else ():
            first, *others = getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or [None]
            if _decodes_plainly(first) and all(map(_leaves_image, others)):
                first.transform = partial(_keep, first.transform, kept, loader.batch_size or 1)
                stack.callback(delattr, first, 'transform')
        yield kept


def _decodes_plainly(transform: Any) -> bool:
    plain = dict(color_type='color', imdecode_backend='cv2', to_float32=False)
    return (
        _is_of_libraries(transform)
        and type(transform).__name__ == 'LoadImageFromFile'
        and all(getattr(transform, name, None) == value for name, value in plain.items())
        and 'transform' not in vars(transform)  # of the second of two hooks
    )


def _leaves_image(transform: Any) -> bool:
    return _is_of_libraries(transform) and type(transform).__name__ in LEAVE_IMAGE


def _is_of_libraries(transform: Any) -> bool:
    return type(transform).__module__.startswith(LIBRARIES)


def _keep(load: Callable, kept: dict[str, np.ndarray], most: int, results: dict) -> dict | None:
    """Load an image as `load` does, and keep it with those before it, at most as many as a batch has."""
    results = load(results)
    path = None if results is None else image_path(results)
    if path is not None and path.lower().endswith(JPEG):
        kept.pop(path, None)  # so that it is the last one
        kept[path] = results['img']
        while len(kept) > most:
            del kept[next(iter(kept))]
    return results
