"""look(): the feature maps of one image, as arrays and as a figure."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from mmdet_featviz.apis.inference import take_snapshot
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import PlacedLevel, Views


class Look:
    """What a detector's layers responded to in one image.

    Levels are named as files are: ``neck_0`` is level 0 of the neck. In a notebook the panel is shown.

    Args:
        snapshot: What the taps caught.
        style: How it is drawn.
    """

    def __init__(self, snapshot: Snapshot, style: Style) -> None:
        self.snapshot = snapshot
        self._views = Views(replace(style, save=('panel',)))
        self._placed = {one.level.name: one for one in self._views.place(snapshot)}

    @property
    def names(self) -> list[str]:
        """Names of the levels, in the order in which the layers fired."""
        return list(self._placed)

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8, RGB."""
        return np.ascontiguousarray(self.snapshot.image()[..., ::-1])

    @property
    def boxes(self) -> Boxes:
        """The predictions, in pixels of the image, the best last."""
        return self.snapshot.boxes

    def level(self, name: str) -> Level:
        """Layer, channels, stride and values (rows, columns) of a level.

        Raises:
            KeyError: If there is no such level.
        """
        return self._find(name).level

    def values(self, name: str) -> np.ndarray:
        """Activation map of a level: (rows, columns) float32."""
        return self.level(name).values

    def heatmap(self, name: str) -> np.ndarray:
        """Activations of a level, interpolated at each pixel of the image: (H, W) float32."""
        one = self._find(name)
        return one.grid.heatmap(one.level.values)

    def overlay(self, name: str) -> np.ndarray:
        """A level's heat over the image: (H, W, 3) uint8, RGB."""
        laid = self._views.overlay_level(self.snapshot.image(), self._find(name), self._all)
        return np.ascontiguousarray(laid[..., ::-1])

    def panel(self) -> np.ndarray:
        """Image and all levels on one sheet, with boxes if the style says so: (h, w, 3) uint8, RGB."""
        return np.ascontiguousarray(self._panel()[..., ::-1])

    def _panel(self) -> np.ndarray:
        (picture,) = self._views.draw(self.snapshot, self._all)
        return picture.pixels

    def _repr_png_(self) -> bytes:
        return encode_picture(self._panel(), 'panel.png').tobytes()

    def __repr__(self) -> str:
        levels = (f'{one.level.name} ({one.level.channels}, stride {one.level.stride_text})' for one in self._all)
        return f'Look at {self.snapshot.path or "an array"}: {", ".join(levels)}'

    @property
    def _all(self) -> list[PlacedLevel]:
        return list(self._placed.values())

    def _find(self, name: str) -> PlacedLevel:
        if name not in self._placed:
            raise KeyError(f'there is no level {name!r}: choose from {", ".join(self._placed)}')
        return self._placed[name]


def look(model: nn.Module, image: str | np.ndarray, **options: Any) -> Look:
    """Let a detector predict on one image, and keep what its layers put out.

    Args:
        model: A detector of ``mmdet.apis.init_detector``.
        image: Path or URL of the image, or the image itself (H, W, 3), BGR as OpenCV reads it.
        **options: Arguments of :class:`mmdet_featviz.FeatureVisualizer` and :class:`mmdet_featviz.Style`.

    Raises:
        ValueError: If the image is none, or a layer does not exist or puts out no map of it.

    Example:
        >>> model = init_detector('my_config.py', 'my_checkpoint.pth')
        >>> seen = look(model, 'image.jpg', layers=['backbone', 'neck'])
        >>> seen.heatmap('neck_0').max(), seen.overlay('neck_0').shape
    """
    if isinstance(image, np.ndarray) and (image.ndim != 3 or image.shape[2] != 3 or not image.size):
        raise ValueError(f'an image is (H, W, 3), BGR, but this array is {image.shape}')
    if not isinstance(image, (str, os.PathLike, np.ndarray)):
        raise ValueError(f'an image is a path or an array, not {image!r} (cv2.imread gives None where it cannot read)')
    visualizer = FeatureVisualizer(**{'strict': True, **options})
    visualizer.taps = visualizer.make_taps(model)
    snapshot = take_snapshot(model, image, visualizer)
    if not snapshot.levels:
        raise ValueError(f'none of the layers {", ".join(visualizer.taps.modules)} puts out a map of the image')
    return Look(snapshot, visualizer.style)
