"""look(): the heatmaps of one image as arrays, and as a figure in a notebook."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any, Callable

import numpy as np
from mmengine.infer import BaseInferencer
from torch import nn

from mmdet_featviz.apis.explain import explain
from mmdet_featviz.apis.inference import check_detector, check_image, take_snapshot
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.capture.reductions import Reduction
from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.value_ranges import finite_heat
from mmdet_featviz.visualization.views import PlacedLevel, Views


class Look:
    """The activations of a detector on one image. A notebook shows them as a panel.

    Levels are named like output files: ``neck_0`` is level 0 of the neck.

    Args:
        snapshot: The activation maps of one pass over the image.
        style: How they are drawn.
        explain: Function that explains detections in the image, see :meth:`explain`.
    """

    def __init__(self, snapshot: Snapshot, style: Style, explain: Callable[..., list[Explanation]]) -> None:
        self.snapshot = snapshot
        self._explain = explain
        self._style = style
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
        """Return the heatmap of a level, interpolated at each pixel of the image: (H, W) float32.

        NaN and infinite values are replaced by the smallest visible value.
        """
        placed = self._find(name)
        return finite_heat(placed.level.values, placed.grid)[0]

    def overlay(self, name: str) -> np.ndarray:
        """Return the heatmap of a level, colored, over the image: (H, W, 3) uint8, RGB."""
        picture = self._views.overlay_level(self.snapshot.image(), self._find(name), self._levels)
        return np.ascontiguousarray(picture[..., ::-1])

    def panel(self) -> np.ndarray:
        """Return the image and all levels on one sheet, with boxes if `boxes` was given: (h, w, 3) uint8, RGB."""
        return np.ascontiguousarray(self._panel()[..., ::-1])

    def explain(self, method: str = 'odam', targets: Any = 'top 5', **options: Any) -> list[Explanation]:
        """Explain detections in the image, with the colors of this look.

        Takes the arguments of :func:`mmdet_featviz.explain`, and makes a pass of its own.
        """
        own = {name: getattr(self._style, name) for name in COLORS if name not in options}
        return self._explain(method=method, targets=targets, **own, **options)

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


COLORS = ('colormap', 'alpha', 'blend', 'align', 'colorbar')  # that explanations take over from a look

# They concern runs and the files that these write.
OPTIONS_OF_RUNS = (
    'out_dir',
    'image_root',
    'interval',
    'max_images',
    'image_names',
    'stages',
    'average_passes',
    'overwrite',
    'resume',
    'workers',
    'log_to_visualizer',
    'report',
    'explain',
    'image_format',
    'maps_dtype',
    'channel_tiles',
    'channel_files',
)


def look(model: nn.Module | BaseInferencer, image: str | os.PathLike | np.ndarray, **options: Any) -> Look:
    """Predict on one image, and return the activations of the detector's layers.

    Args:
        model: A detector from ``mmdet.apis.init_detector``, or a ``DetInferencer``.
        image: Path or URL of the image, or the image itself (H, W, 3), BGR as OpenCV reads it.
        **options: Arguments of :class:`mmdet_featviz.FeatureVisualizer` and :class:`mmdet_featviz.Style`, except those
            that concern runs and files. `strict` is True unless given. `reduction` may also be a function from (N, C,
            H, W) to (N, H, W).

    Raises:
        ValueError: If `image` is neither a path nor an image, or a layer does not exist or outputs no spatial map.
        TypeError: If `model` is no detector, or an option does not exist or has no effect here.

    Example:
        >>> model = init_detector('my_config.py', 'my_checkpoint.pth')
        >>> seen = look(model, 'image.jpg', layers=['backbone', 'neck'])
        >>> seen.heatmap('neck_0').max(), seen.overlay('neck_0').shape
    """
    detector, image = check_detector(model, 'look()'), check_image(image)
    visualizer = _make_visualizer(**options)
    visualizer.taps = visualizer.make_taps(detector)
    snapshot = take_snapshot(detector, image, visualizer)
    if not snapshot.levels:
        layers = ', '.join(visualizer.taps.modules)
        raise ValueError(f'none of the layers {layers} outputs a spatial map: choose other layers')
    return Look(snapshot, visualizer.style, partial(explain, detector, image))


def _make_visualizer(reduction: str | Reduction | None = None, **options: Any) -> FeatureVisualizer:
    """Return a visualizer for one image, which is not written."""
    unused = [name for name in options if name in OPTIONS_OF_RUNS]
    if unused:
        raise TypeError(f'look() takes one image and writes no files, so {", ".join(unused)} would have no effect')
    if options.get('normalize') == 'run':
        raise ValueError("normalize='run' needs a run of several images: give look() two numbers instead")
    visualizer = FeatureVisualizer(reduction=None if callable(reduction) else reduction, **{'strict': True, **options})
    if callable(reduction):
        visualizer.reduction = reduction
    return visualizer
