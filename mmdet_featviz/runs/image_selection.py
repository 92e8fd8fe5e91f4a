"""Image selection: which images are drawn, the same on any number of ranks."""

from __future__ import annotations

import os.path as osp
from typing import Iterable, Sequence

from mmengine.dist import get_dist_info


class ImageSelection:
    """Tells of one image after the other whether it is drawn: every n-th and at most so many, or some by their names.

    Images count in the order in which one process would meet them: mmengine's samplers give the images r, r + w,
    r + 2w and so on to rank r of w. Each validation and each test begins anew and so draws the same images as the one
    before; a training counts on, as it never meets an image as it was before.

    Args:
        interval: Every so manieth image.
        maximum: At most so many; None for any number.
        names: How the paths of the images end that are drawn, with or without their file ending; none is any image.
    """

    def __init__(self, interval: int, maximum: int | None, names: Sequence[str] = ()) -> None:
        self.interval = interval
        self.maximum = maximum
        self.names = names
        self.stage: str | None = None
        self._trained = 0  # images of all ranks in earlier rounds of training
        self._images: int | None = None
        self._seen = 0  # images of this rank in this round

    def begin(self, stage: str, images: int | None = None) -> None:
        """Begin a round over a data set.

        Args:
            stage: Whose data set it is.
            images: How many it has. A sampler that gives each rank equally many repeats the first at the end; these
                repetitions are left out. None where nothing is known of that.
        """
        if self.stage == 'train':
            self._trained += self._seen * get_dist_info()[1]
        self.stage, self._images, self._seen = stage, images, 0

    def next(self, path: str | None = None) -> bool:
        """Whether the next image, which has this path, is drawn."""
        place, number = self._place, self._number
        self._seen += 1
        if self._images is not None and place >= self._images:
            return False
        if self.names:
            return any(path_ends_with(path, name) for name in self.names)
        return number % self.interval == 0 and not self._is_beyond(number)

    def is_over(self, stage: str) -> bool:
        """Whether no further image of this round is drawn; never of a stage that waits for its round to begin."""
        return stage == self.stage and self._is_beyond(self._number)

    def missing(self, paths: Iterable[str]) -> list[str]:
        """The names that no image has."""
        missing = list(self.names)
        for path in paths:
            missing = [name for name in missing if not path_ends_with(path, name)]
        return missing

    @property
    def has_begun(self) -> bool:
        """Whether this round has met any image."""
        return self._seen > 0

    @property
    def _place(self) -> int:
        """That of the next image of this rank among those of all ranks."""
        rank, world_size = get_dist_info()
        return self._seen * world_size + rank

    @property
    def _number(self) -> int:
        """The same, in a training among all that it has seen."""
        return self._place + (self._trained if self.stage == 'train' else 0)

    def _is_beyond(self, number: int) -> bool:
        return self.maximum is not None and number > (self.maximum - 1) * self.interval


def path_ends_with(path: str | None, name: str) -> bool:
    """Whether the last parts of a path are a name, with or without the file ending."""
    if path is None:
        return False
    whole = '/' + path.replace('\\', '/')
    return any(one.endswith('/' + name.strip('/')) for one in (whole, osp.splitext(whole)[0]))
