"""Visualizer backends: sends pictures to mmengine's visualizer, and so to TensorBoard, WandB and MLflow."""

from __future__ import annotations

import os.path as osp
from typing import Sequence

import numpy as np
from mmengine.visualization import Visualizer

from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.views import Picture


class PictureLogger:
    """Sends pictures to all backends of a visualizer of mmengine.

    The picture ``neck_0.jpg`` of the image ``street/0001`` is named ``street__0001.neck_0.png``: mmengine's local
    backend makes a file of the name and no folders, and MLflow takes the format from its ending. The backend for MLflow
    knows no steps and would keep the last epoch alone, so with it the names begin with the epoch.

    Args:
        visualizer: Of a runner.
    """

    def __init__(self, visualizer: Visualizer) -> None:
        self.visualizer = visualizer
        self._images = 0

    def add(self, pictures: Sequence[tuple[Snapshot, Picture]]) -> None:
        """Send the pictures of one image, in all its passes."""
        for snapshot, picture in pictures:
            pixels = np.ascontiguousarray(picture.pixels[..., ::-1])
            self.visualizer.add_image(self._name(snapshot, picture), pixels, self._step(snapshot))
        self._images += 1

    def _name(self, snapshot: Snapshot, picture: Picture) -> str:
        key = snapshot.key
        if snapshot.folder and self.visualizer.get_backend('MLflowVisBackend') is None:
            key = key[len(snapshot.folder) + 1 :]
        return f'{key.replace("/", "__")}.{osp.splitext(picture.name)[0]}.png'

    def _step(self, snapshot: Snapshot) -> int:
        number = snapshot.folder.rpartition('_')[2]
        return int(number) if number.isdigit() else self._images
