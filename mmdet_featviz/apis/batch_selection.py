"""Batch selection: applies the image selection to batches, and recognizes further passes over the same batch."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, Sequence

from torch import Tensor

from mmdet_featviz.runs.image_selection import ImageSelection
from mmdet_featviz.utils.image_path import image_path


class Selection(NamedTuple):
    """Which images of a batch are drawn.

    Attributes:
        positions: For each image that is drawn its position in the order of the data set, for the others None.
        number: Number of the pass over the batch, from 0; above 0 only in test-time augmentation.
    """

    positions: list[int | None]
    number: int


class BatchSelection:
    """Selects the images of each batch that are drawn.

    Args:
        images: Decides for single images.
    """

    def __init__(self, images: ImageSelection) -> None:
        self.images = images
        self._lock = threading.Lock()
        self._last = threading.local()  # batch of each thread: several may use one detector

    def select_new(self, samples: Sequence[Any], stage: str, images: int | None = None) -> list[int | None]:
        """Return the position of each image of a batch that is drawn, and None for the others; the batch is new.

        Args:
            samples: Data samples of the images.
            stage: ``train``, ``val`` or ``test``.
            images: As for :meth:`select`.
        """
        with self._lock:
            if stage != self.images.stage:
                self.images.begin(stage, images)
            return [self._next(image_path(sample.metainfo)) for sample in samples]

    def _next(self, path: str | None) -> int | None:
        return self.images.position if self.images.next(path) else None

    def select(
        self,
        inputs: Tensor,
        samples: Sequence[Any],
        folder: str,
        stage: str,
        augmented: bool = False,
        round_size: int | None = None,
        images: int | None = None,
    ) -> Selection:
        """Return which images of a batch are drawn, for a detector, which knows neither batches nor epochs.

        A further pass of test-time augmentation is one over the images of the last batch with another transform: they
        are not counted again, and the same ones are drawn. A validation with another folder than the last begins a new
        round, and so does what comes after a whole one.

        Args:
            inputs: The network's input (N, C, H, W).
            samples: Data samples of the images.
            folder: Subfolder of the run's folder.
            stage: ``train``, ``val`` or ``test``.
            augmented: Whether a test-time augmentation model makes this pass; else it is a prediction of its own.
            round_size: Number of images that this rank sees in a round, if known.
            images: Number of images in the data set, if its sampler may repeat some at the end.
        """
        last = self._last.__dict__
        batch = folder, *(_image(sample.metainfo) for sample in samples)
        transform = _transform(inputs, samples) if augmented else None
        if not augmented or batch != last.get('batch') or transform in last['transforms']:
            # Not so in training, which continues to count after a validation.
            is_new_folder = stage == 'val' and last.get('batch', ())[:1] != (folder,) and self.images.has_begun
            if is_new_folder or (stage != 'train' and self.images.has_seen(round_size)):
                self.images.begin(stage, images)
            last.update(batch=batch, transforms=[], positions=self.select_new(samples, stage, images))
        last['transforms'].append(transform)
        return Selection(last['positions'], len(last['transforms']) - 1)


def _image(meta: dict) -> tuple:
    """Return what the passes over one image have in common; an image may have several samples in a data set."""
    return image_path(meta) or str(meta.get('ori_shape')), meta.get('img_id')


def _transform(inputs: Tensor, samples: Sequence[Any]) -> tuple:
    """Return what differs between the passes of test-time augmentation: meta information, or colors alone."""
    return (float(inputs.double().sum()), *(repr(sorted(sample.metainfo.items())) for sample in samples))
