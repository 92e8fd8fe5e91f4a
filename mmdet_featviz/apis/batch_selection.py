"""Batch selection: applies the image selection to batches, and recognizes further passes over the same batch."""

from __future__ import annotations

from typing import Any, Sequence

from mmdet_featviz.runs.image_selection import ImageSelection


class BatchSelection:
    """Selects the images of each batch that are drawn.

    Args:
        images: Decides for single images.
    """

    def __init__(self, images: ImageSelection) -> None:
        self.images = images
        self._batch: tuple = ()  # folder, and path or id of each image
        self._samples: Sequence[Any] = ()  # kept, so that no other sample gets the same id
        self._selected: list[bool] = []

    def select_new(self, samples: Sequence[Any], stage: str) -> list[bool]:
        """Return which images of a batch are drawn; the batch has not been seen before.

        Args:
            samples: Data samples of the images.
            stage: ``train``, ``val`` or ``test``.
        """
        if stage != self.images.stage:
            self.images.begin(stage)
        return [self.images.next(sample.metainfo.get('img_path')) for sample in samples]

    def select(self, samples: Sequence[Any], folder: str, stage: str) -> list[bool]:
        """Return which images of a batch are drawn, for a detector, which knows neither batches nor epochs.

        A further pass over the same batch (test-time augmentation) is recognized by its images: they are not counted
        again, and the same ones are drawn. A validation with another folder than the last begins a new round.

        Args:
            samples: Data samples of the images.
            folder: Subfolder of the run's folder.
            stage: ``train``, ``val`` or ``test``.
        """
        batch = folder, *(sample.metainfo.get('img_path') or id(sample) for sample in samples)
        if batch != self._batch:
            # Not so in training, which continues to count after a validation.
            is_new_round = stage == 'val' and self._batch[:1] != (folder,) and self.images.has_begun
            self._batch, self._samples = batch, samples
            if is_new_round:
                self.images.begin(stage)
            self._selected = self.select_new(samples, stage)
        return self._selected
