"""Turns: which images are drawn, the same ones on however many ranks."""

from __future__ import annotations

from mmengine.dist import get_dist_info


class Turns:
    """Tells of one image after the other whether it is drawn: every n-th, and at most so many.

    Images count in the order in which one process would meet them: mmengine's samplers give the images r, r + w,
    r + 2w and so on to rank r of w.

    Args:
        interval: Every so manieth image.
        maximum: At most so many; None for any number.
    """

    def __init__(self, interval: int, maximum: int | None) -> None:
        self.interval = interval
        self.maximum = maximum
        self.stage: str | None = None
        self._before = 0  # images of all ranks in earlier rounds
        self._images: int | None = None
        self._seen = 0  # images of this rank in this round

    def begin(self, stage: str, images: int | None = None) -> None:
        """Begin a round over a data set.

        Args:
            stage: Whose data set it is.
            images: How many it has. A sampler that gives each rank equally many repeats the first at the end; these
                repetitions are left out. None where nothing is known of that.
        """
        if self._seen:
            self._before += self._seen * get_dist_info()[1] if self._images is None else self._images
        self.stage, self._images, self._seen = stage, images, 0

    def next(self) -> bool:
        """Whether the next image is drawn."""
        place = self._place
        self._seen += 1
        if self._images is not None and place >= self._images:
            return False
        number = self._before + place
        return number % self.interval == 0 and not self._is_beyond(number)

    @property
    def over(self) -> bool:
        """Whether no further image is drawn."""
        return self._is_beyond(self._before + self._place)

    @property
    def _place(self) -> int:
        """That of the next image of this rank among those of all ranks."""
        rank, world_size = get_dist_info()
        return self._seen * world_size + rank

    def _is_beyond(self, number: int) -> bool:
        return self.maximum is not None and number > (self.maximum - 1) * self.interval
