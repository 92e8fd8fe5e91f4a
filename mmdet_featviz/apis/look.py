"""look(): the heatmaps of images as arrays, and as a figure in a notebook."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
from mmengine.infer import BaseInferencer
from torch import nn

from mmdet_featviz.apis.explain import explain
from mmdet_featviz.apis.inference import check_detector, check_image, take_snapshot
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.capture.reductions import Reduction
from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.runs.component_fit import fit_components
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.encoding import ENCODINGS, encode_picture
from mmdet_featviz.visualization.style import BOX_FEATURES, EMBEDDINGS, RECEPTIVE_FIELD, Style
from mmdet_featviz.visualization.value_ranges import finite_heat
from mmdet_featviz.visualization.views import PlacedLevel, Views


class Look:
    """The activations of a detector on one image. A notebook shows them as a panel.

    Levels are named like output files: ``neck_0`` is level 0 of the neck. With ``reduction='pca'``, the components are
    those of this image, and the values are the norms of the features.

    Args:
        snapshot: The activation maps of one pass over the image.
        style: How they are drawn.
        explain: Function that explains detections in the image, see :meth:`explain`.
        take_features: Function from a level to its whole feature map, see :meth:`features`.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        style: Style,
        explain: Callable[..., list[Explanation]],
        take_features: Callable[[Level], np.ndarray],
    ) -> None:
        self.snapshot = snapshot
        self._explain = explain
        self._take_features = take_features
        self._style = style
        components = fit_components(lambda: [snapshot], style)
        self._views = Views(replace(style, save=('panel',)), components=components)
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

    def features(self, name: str) -> np.ndarray:
        """Return the whole feature map of a level: (channels, rows, columns).

        Makes a pass of its own, so that no look keeps the features of all levels; after a training step they are those
        of the new weights.

        Raises:
            KeyError: If no level has this name.
            ValueError: If it is a map of class scores, which has no channels.
        """
        level = self.level(name)
        if level.score_of is not None:
            raise ValueError(f'{name} is the {level.content}, not a feature map: values({name!r}) has it')
        return self._take_features(level)

    def similarity(self, name: str, x: float, y: float) -> np.ndarray:
        """Return how similar the features of a level are everywhere to those at one place: (H, W) float32, -1 to 1.

        This is the cosine of the angle between the features of each cell and those of the cell whose position is
        nearest to the place, interpolated at each pixel of the image. Cells whose features are all zero have 0.

        Args:
            name: Name of the level.
            x, y: The place, in pixels of the image; the first pixel is from 0 to 1.

        Raises:
            KeyError: If no level has this name.
            ValueError: If the place is outside the image, or was cropped from the network's input.
        """
        grid = self._find(name).grid
        row, column = grid.cell_at(x, y)
        return grid.heatmap(_cosines(self.features(name), row, column))

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

    def save(self, path: str | os.PathLike, name: str | None = None) -> None:
        """Write the panel, or the overlay of one level, to a file. Missing folders are made, a file is replaced.

        Args:
            path: The file; its ending is the format: .png, .jpg or .webp.
            name: Name of the level; None is the panel.

        Raises:
            ValueError: If the ending is another one.
            KeyError: If no level has this name.
        """
        _write(self.panel() if name is None else self.overlay(name), path)

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
        return _encode(self.panel(), 'panel.png')

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


class Looks(tuple):
    """Several looks, in the order in which images, or detectors, were given. A notebook shows their panels."""

    def panel(self) -> np.ndarray:
        """Return all panels, one below the other: (h, w, 3) uint8, RGB."""
        panels = [one.panel() for one in self]
        width = max(panel.shape[1] for panel in panels)
        return np.concatenate([np.pad(one, ((0, 0), (0, width - one.shape[1]), (0, 0)), **WHITE) for one in panels])

    def save(self, path: str | os.PathLike) -> None:
        """Write :meth:`panel` to a file, as :meth:`mmdet_featviz.Look.save` does."""
        _write(self.panel(), path)

    def _repr_png_(self) -> bytes:
        return _encode(self.panel(), 'panel.png')


WHITE = dict(mode='constant', constant_values=255)

# That explanations take over from a look.
COLORS = ('colormap', 'alpha', 'blend', 'align', 'colorbar', 'labels', 'line_width', 'font_size')

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


def look(
    model: nn.Module | BaseInferencer | Sequence,
    image: str | os.PathLike | np.ndarray | Sequence,
    **options: Any,
) -> Look | Looks:
    """Predict on an image, and return the activations of the detector's layers.

    Args:
        model: A detector from ``mmdet.apis.init_detector``, a ``DetInferencer``, or a list of them.
        image: Path or URL of the image, the image itself (H, W, 3), BGR as OpenCV reads it, or a list of them.
        **options: Arguments of :class:`mmdet_featviz.FeatureVisualizer` and :class:`mmdet_featviz.Style`, except those
            that concern runs and files. `strict` is True unless given. `reduction` may also be a function from (N, C,
            H, W) to (N, H, W).

    Returns:
        One look, or with a list several: each image with the first detector, then with the next one.

    Raises:
        ValueError: If `image` is neither a path nor an image, or a layer does not exist or outputs no spatial map.
        ImageError: If the image is a file that cannot be read.
        TypeError: If `model` is no detector, or an option does not exist or has no effect here.

    Example:
        >>> model = init_detector('my_config.py', 'my_checkpoint.pth')
        >>> seen = look(model, 'image.jpg', layers=['backbone', 'neck'])
        >>> seen.heatmap('neck_0').max(), seen.overlay('neck_0').shape
    """
    models = model if isinstance(model, (list, tuple)) else [model]
    images = image if isinstance(image, (list, tuple)) else [image]
    for name, given in (('model', models), ('image', images)):
        if not given:
            raise ValueError(f'{name} is an empty list')
    pairs = [(check_detector(model, 'look()'), check_image(image)) for model in models for image in images]
    looks = [_look_once(detector, image, options) for detector, image in pairs]
    return looks[0] if models is not model and images is not image else Looks(looks)


def _look_once(detector: nn.Module, image: str | np.ndarray, options: dict) -> Look:
    visualizer = _make_visualizer(**options)
    _check_effects(visualizer.style, options)
    visualizer.taps = visualizer.make_taps(detector)
    snapshot = take_snapshot(detector, image, visualizer)
    if not snapshot.levels:
        layers = ', '.join(visualizer.taps.modules)
        raise ValueError(f'none of the layers {layers} outputs a spatial map: choose other layers')
    return Look(snapshot, visualizer.style, partial(explain, detector, image), partial(_take_features, detector, image))


def _take_features(detector: nn.Module, image: str | np.ndarray, level: Level) -> np.ndarray:
    visualizer = _make_visualizer(layers=level.layer, save='raw', align='center')
    visualizer.taps = visualizer.make_taps(detector)
    (found,) = (one for one in take_snapshot(detector, image, visualizer).levels if one.name == level.name)
    return found.raw


def _cosines(features: np.ndarray, row: int, column: int) -> np.ndarray:
    """Cosine (rows, columns) between the features (C, rows, columns) of each cell and those of one cell."""
    vectors = np.nan_to_num(features.astype(np.float64))
    lengths = np.linalg.norm(vectors, axis=0)
    units = vectors / np.where(lengths > 0, lengths, 1)
    return np.einsum('crk,c->rk', units, units[:, row, column]).astype(np.float32)


def _write(picture: np.ndarray, path: str | os.PathLike) -> None:
    """Write an RGB picture (h, w, 3) to a file."""
    path = Path(path)
    if path.suffix[1:] not in ENCODINGS:
        endings = ', '.join(f'.{ending}' for ending in ENCODINGS)
        raise ValueError(f'the file name must end with one of {endings}, but is {str(path)!r}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encode(picture, path.name))


def _encode(picture: np.ndarray, name: str) -> bytes:
    return encode_picture(np.ascontiguousarray(picture[..., ::-1]), name).tobytes()


def _make_visualizer(reduction: str | Reduction | None = None, **options: Any) -> FeatureVisualizer:
    """Return a visualizer for one image, which is not written."""
    unused = [name for name in options if name in OPTIONS_OF_RUNS]
    if unused:
        raise TypeError(f'look() takes one image and writes no files, so {", ".join(unused)} would have no effect')
    if options.get('normalize') == 'run':
        raise ValueError("normalize='run' needs a run of several images: give look() two numbers instead")
    visualizer = FeatureVisualizer(reduction=None if callable(reduction) else reduction, **{'strict': True, **options})
    if RECEPTIVE_FIELD in visualizer.style.save:
        raise ValueError("look() has no save='receptive_field': call receptive_fields() with several images")
    if EMBEDDINGS in visualizer.style.save:
        raise ValueError('embeddings are of the images of a run: similarity() of a look compares cells of one image')
    if callable(reduction):
        visualizer.reduction = reduction
    return visualizer


def _check_effects(style: Style, options: dict) -> None:
    """Raise TypeError for options that have no effect on a look, or none without others."""
    unused = [kind for kind in ('maps', BOX_FEATURES) if kind in style.save]
    if unused:
        raise TypeError(f'look() writes no files: save={", ".join(unused)} would have no effect')
    if style.boxes == 'gt':
        raise TypeError("look() knows no ground truth, so boxes='gt' would have no effect: set boxes='pred'")
    needs = {
        "set boxes='pred', or save='scores'": (
            ('score_thr', 'classes'),
            style.boxes is not None or style.foreground == 'boxes' or 'scores' in style.save,
        ),
        "set normalize='percentile'": (('percentiles',), style.normalize == 'percentile'),
        "set save='channels'": (('channels',), 'channels' in style.save),
        "set save='attention'": (('attention_channels',), 'attention' in style.save),
    }
    for advice, (names, has_effect) in needs.items():
        lone = [name for name in names if name in options]
        if lone and not has_effect:
            raise TypeError(f'{", ".join(lone)} would have no effect: {advice}')
