"""Batch selection: applies the image selection to batches, and recognizes further passes over the same batch."""

from __future__ import annotations

import threading
from typing import Any, Sequence

from mmdet_featviz.runs.image_selection import ImageSelection
from mmdet_featviz.utils.image_path import image_path


class BatchSelection:
    """Selects the images of each batch that are drawn.

    Args:
        images: Decides for single images.
    """

    def __init__(self, images: ImageSelection) -> None:
        self.images = images
        self._lock = threading.Lock()
        self._last = threading.local()  # batch of each thread: several may use one detector

    def select_new(self, samples: Sequence[Any], stage: str) -> list[int | None]:
        """Return the position of each image of a batch that is drawn, and None for the others; the batch is new.

        Args:
            samples: Data samples of the images.
            stage: ``train``, ``val`` or ``test``.
        """
        with self._lock:
            if stage != self.images.stage:
                self.images.begin(stage)
            return [self._next(image_path(sample.metainfo)) for sample in samples]

    def _next(self, path: str | None) -> int | None:
        return self.images.position if self.images.next(path) else None

    def select(self, samples: Sequence[Any], folder: str, stage: str) -> list[int | None]:
        """Return which images of a batch are drawn, for a detector, which knows neither batches nor epochs.

        A further pass over the same batch (test-time augmentation) is recognized by its images: they are not counted
        again, and the same ones are drawn. A validation with another folder than the last begins a new round.

        Args:
            samples: Data samples of the images.
            folder: Subfolder of the run's folder.
            stage: ``train``, ``val`` or ``test``.

        Returns:
            As of :meth:`select_new`.
        """
        last = self._last.__dict__
        # The path, or the id of a sample: the samples are kept, so that no other one gets the same id.
        batch = folder, *(image_path(sample.metainfo) or id(sample) for sample in samples)
        if batch != last.get('batch'):
            # Not so in training, which continues to count after a validation.
            is_new_round = stage == 'val' and last.get('batch', ())[:1] != (folder,) and self.images.has_begun
            if is_new_round:
                self.images.begin(stage)
            last.update(batch=batch, samples=samples, selected=self.select_new(samples, stage))
        return last['selected']
