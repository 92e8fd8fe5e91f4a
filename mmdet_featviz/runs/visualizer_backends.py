"""Visualizer backends: send pictures to mmengine's visualizer, and so to TensorBoard, WandB or MLflow."""

from __future__ import annotations

import os.path as osp
import re
from typing import Sequence

import numpy as np
from mmengine.visualization import Visualizer

from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.views import Picture

REMEMBERED = 64  # images; more than a batch


class PictureLogger:
    """Sends pictures to all backends of an mmengine visualizer.

    The picture ``neck_0.jpg`` of the image ``street/0001`` is sent as ``street__0001.neck_0.png``: mmengine's local
    backend creates no folders for a name with slashes, and MLflow takes the image format from the extension. The MLflow
    backend ignores steps and would keep only the last epoch, so with it the names start with the epoch.

    Args:
        visualizer: The visualizer of a runner.
    """

    def __init__(self, visualizer: Visualizer) -> None:
        self.visualizer = visualizer
        self._image_count = 0
        self._numbers: dict[str, int] = {}  # of the latest images, by key: explanations follow the maps of a batch

    def add(self, pictures: Sequence[tuple[Snapshot, Picture]]) -> None:
        """Send the pictures of one image, from all its passes."""
        key = pictures[0][0].key
        if key not in self._numbers:
            self._numbers[key] = self._image_count
            self._image_count += 1
        for snapshot, picture in pictures:
            pixels = np.ascontiguousarray(picture.pixels[..., ::-1])
            self.visualizer.add_image(self._name(snapshot, picture), pixels, self._step(snapshot))
        for old in list(self._numbers)[:-REMEMBERED]:
            del self._numbers[old]

    def _name(self, snapshot: Snapshot, picture: Picture) -> str:
        key = snapshot.key
        if snapshot.folder and self.visualizer.get_backend('MLflowVisBackend') is None:
            key = key[len(snapshot.folder) + 1 :]
        return f'{key}.{osp.splitext(picture.name)[0]}.png'.replace('/', '__')

    def _step(self, snapshot: Snapshot) -> int:
        number = re.search(r'\d+', snapshot.folder)  # of epoch_3, epoch_3/student or epoch_3_2
        return int(number.group()) if number else self._numbers[snapshot.key]


def current_visualizer() -> Visualizer | None:
    """Return the visualizer that was created last, which is that of the latest runner; None if there is none."""
    # Where there is none, mmengine's get_current_instance() raises with its lock held: other threads would hang.
    return Visualizer.get_current_instance() if Visualizer._instance_dict else None


def latest_visualizer() -> Visualizer:
    """Return the visualizer of the runner that was created last.

    Raises:
        ValueError: If there is none.
    """
    visualizer = current_visualizer()
    if visualizer is None:
        raise ValueError('log_to_visualizer=True needs the visualizer of a runner, and there is none')
    return visualizer
