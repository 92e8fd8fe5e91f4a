"""Image selection: decides which images are drawn, the same ones on any number of ranks."""

from __future__ import annotations

import os.path as osp
from typing import Iterable, Sequence

from mmengine.dist import get_dist_info


class ImageSelection:
    """Decides for one image after another whether it is drawn: by interval and maximum, or by name.

    Images are numbered in the order in which a single process would see them: mmengine's samplers give rank r of w the
    images r, r + w, r + 2w and so on. Each validation and each test starts at 0 again, so that it draws the same images
    as the one before; a training continues to count over all its epochs, because its images are augmented anew.

    Args:
        interval: Every n-th image is drawn.
        maximum: At most this many images are drawn; None is no limit.
        names: Ends of the paths of the images to draw, with or without file extension; empty selects by number.
    """

    def __init__(self, interval: int, maximum: int | None, names: Sequence[str] = ()) -> None:
        self.interval = interval
        self.maximum = maximum
        self.names = names
        self.stage: str | None = None
        self.position = 0  # of the image counted last, in the order of a single process
        self._trained = 0  # images of all ranks in earlier rounds of training
        self._dataset_size: int | None = None
        self._seen = 0  # images of this rank in this round

    def begin(self, stage: str, images: int | None = None) -> None:
        """Begin a round over a data set.

        Args:
            stage: ``train``, ``val`` or ``test``.
            images: Number of images in the data set. A sampler that gives every rank the same number repeats the first
                images at the end; these repetitions are left out. None if the sampler repeats none, or is unknown.
        """
        if self.stage == 'train':
            self._trained += self._seen * get_dist_info()[1]
        self.stage, self._dataset_size, self._seen = stage, images, 0

    def next(self, path: str | None = None) -> bool:
        """Count the next image, and return whether it is drawn.

        Args:
            path: Path of the image; None for an array.
        """
        index, number = self._index, self._number
        self._seen += 1
        self.position = number
        if self._dataset_size is not None and index >= self._dataset_size:
            return False
        if self.names:
            return any(path_ends_with(path, name) for name in self.names)
        return number % self.interval == 0 and not self._is_beyond(number)

    def is_over(self, stage: str) -> bool:
        """Whether no further image of this round is drawn; False for a stage whose round has not begun."""
        return stage == self.stage and self._is_beyond(self._number)

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Return the names that match none of the paths."""
        missing = list(self.names)
        for path in paths:
            missing = [name for name in missing if not path_ends_with(path, name)]
        return missing

    @property
    def has_begun(self) -> bool:
        """Whether this round has counted any image."""
        return self._seen > 0

    def has_seen(self, images: int | None) -> bool:
        """Whether this rank has counted a number of images in this round; False for None."""
        return images is not None and self._seen >= images

    @property
    def _index(self) -> int:
        """Index of the next image of this rank in the data set."""
        rank, world_size = get_dist_info()
        return self._seen * world_size + rank

    @property
    def _number(self) -> int:
        """Number of the next image; in a training, counted over all earlier rounds."""
        return self._index + (self._trained if self.stage == 'train' else 0)

    def _is_beyond(self, number: int) -> bool:
        return self.maximum is not None and number > (self.maximum - 1) * self.interval


def path_ends_with(path: str | None, name: str) -> bool:
    """Whether a path ends with a name of one or more whole parts, with or without the file extension."""
    if path is None:
        return False
    path = '/' + path.replace('\\', '/')
    return any(candidate.endswith('/' + name.strip('/')) for candidate in (path, osp.splitext(path)[0]))
