"""look(): the heatmaps of one image as arrays, and as a figure in a notebook."""

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
    """The activations of a detector on one image. A notebook shows them as a panel.

    Levels are named like output files: ``neck_0`` is level 0 of the neck.

    Args:
        snapshot: The activation maps of one pass over the image.
        style: How they are drawn.
    """

    def __init__(self, snapshot: Snapshot, style: Style) -> None:
        self.snapshot = snapshot
        self._views = Views(replace(style, save=('panel',)))
        self._placed = {placed.level.name: placed for placed in self._views.place(snapshot)}

    @property
    def names(self) -> list[str]:
        """Names of the levels, in forward order."""
        return list(self._placed)

    @property
    def image(self) -> np.ndarray:
        """The original image: (H, W, 3) uint8, RGB."""
        return np.ascontiguousarray(self.snapshot.image()[..., ::-1])

    @property
    def boxes(self) -> Boxes:
        """The predicted boxes, in pixels of the image, by ascending score."""
        return self.snapshot.boxes

    def level(self, name: str) -> Level:
        """Return a level: its layer, channels, stride and activation map (rows, columns).

        Raises:
            KeyError: If no level has this name.
        """
        return self._find(name).level

    def values(self, name: str) -> np.ndarray:
        """Return the activation map of a level, on its own grid: (rows, columns) float32."""
        return self.level(name).values

    def heatmap(self, name: str) -> np.ndarray:
        """Return the heatmap of a level, interpolated at each pixel of the image: (H, W) float32."""
        placed = self._find(name)
        return placed.grid.heatmap(placed.level.values)

    def overlay(self, name: str) -> np.ndarray:
        """Return the heatmap of a level, colored, over the image: (H, W, 3) uint8, RGB."""
        picture = self._views.overlay_level(self.snapshot.image(), self._find(name), self._levels)
        return np.ascontiguousarray(picture[..., ::-1])

    def panel(self) -> np.ndarray:
        """Return the image and all levels on one sheet, with boxes if `boxes` was given: (h, w, 3) uint8, RGB."""
        return np.ascontiguousarray(self._panel()[..., ::-1])

    def _panel(self) -> np.ndarray:
        (picture,) = self._views.draw(self.snapshot, self._levels)
        return picture.pixels

    def _repr_png_(self) -> bytes:
        return encode_picture(self._panel(), 'panel.png').tobytes()

    def __repr__(self) -> str:
        levels = [placed.level for placed in self._levels]
        facts = (f'{level.name} ({level.channels}, stride {level.stride_text})' for level in levels)
        return f'Look at {self.snapshot.path or "an array"}: {", ".join(facts)}'

    @property
    def _levels(self) -> list[PlacedLevel]:
        return list(self._placed.values())

    def _find(self, name: str) -> PlacedLevel:
        if name not in self._placed:
            raise KeyError(f'no level {name!r}: choose from {", ".join(self._placed)}')
        return self._placed[name]


def look(model: nn.Module, image: str | np.ndarray, **options: Any) -> Look:
    """Predict on one image, and return the activations of the detector's layers.

    Args:
        model: A detector from ``mmdet.apis.init_detector``.
        image: Path or URL of the image, or the image itself (H, W, 3), BGR as OpenCV reads it.
        **options: Arguments of :class:`mmdet_featviz.FeatureVisualizer` and :class:`mmdet_featviz.Style`. `strict` is
            True unless given.

    Raises:
        ValueError: If `image` is neither a path nor an image, or a layer does not exist or outputs no spatial map.
        TypeError: If an option does not exist.

    Example:
        >>> model = init_detector('my_config.py', 'my_checkpoint.pth')
        >>> seen = look(model, 'image.jpg', layers=['backbone', 'neck'])
        >>> seen.heatmap('neck_0').max(), seen.overlay('neck_0').shape
    """
    if isinstance(image, np.ndarray) and (image.ndim != 3 or image.shape[2] != 3 or not image.size):
        raise ValueError(f'image must be an array (H, W, 3), BGR, but has the shape {image.shape}')
    if not isinstance(image, (str, os.PathLike, np.ndarray)):
        raise ValueError(f'image must be a path or an array, not {image!r} (cv2.imread returns None on failure)')
    visualizer = FeatureVisualizer(**{'strict': True, **options})
    visualizer.taps = visualizer.make_taps(model)
    snapshot = take_snapshot(model, image, visualizer)
    if not snapshot.levels:
        layers = ', '.join(visualizer.taps.modules)
        raise ValueError(f'none of the layers {layers} outputs a spatial map: choose other layers')
    return Look(snapshot, visualizer.style)
