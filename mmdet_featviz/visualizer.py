"""The visualizer: joins taps, reduction, geometry, rendering and sinks."""

from __future__ import annotations

import logging
import os.path as osp
import posixpath
from collections import Counter
from functools import partial
from typing import Any, Sequence

import cv2
import numpy as np
from mmengine.logging import print_log
from torch import Tensor, nn

from .geometry import ALIGNMENTS, Grid, Placement, identity_placement, placement_of
from .photos import PhotoError, read_photo, rebuild_photo
from .reduction import get_reduction
from .rendering import Boxes, draw_boxes, finite_range, get_colormap, overlay, panel, quantise, to_grey
from .sinks import ENCODINGS, FileSink, ImageKeys
from .taps import ActivationMap, Pass, Taps

NORMALIZATIONS = ('image', 'max', 'layer')
BLENDS = ('alpha', 'add')
KINDS = ('overlay', 'heatmap', 'panel')
BOXES = ('pred', 'gt', 'both')
STAGES = ('train', 'val', 'test')
GT_COLOUR = (255, 255, 255)


class FeatureVisualizer:
    """Draws heatmaps of a detector's feature maps over the original photos.

    Args:
        layers: Modules to tap, as ``model.named_modules()`` prints them; ``*`` stands for one part of a path, ``**``
            for any. None is backbone and neck, where the detector has them.
        reduction: ``max``, ``mean``, ``sum``, ``l2``, ``select_max`` (the one channel with the largest sum), or the
            name of a function registered in ``mmdet_featviz.REDUCTIONS``.
        normalize: The range that becomes 0-255, taken from what the photo shows, never from padding: ``image`` (this
            heatmap's smallest to largest value), ``max`` (zero to largest), ``layer`` (smallest to largest of all
            levels of the layer), or a pair of numbers.
        colormap: Any colour map of OpenCV or matplotlib.
        alpha: Weight of the heat in the overlay, 0 to 1.
        blend: ``alpha`` is ``(1 - alpha) * photo + alpha * heat``, ``add`` is ``photo + alpha * heat``, saturated.
        align: Where the value of a cell sits: ``center`` of its block, or its top left ``corner``.
        save: Any of ``overlay``, ``heatmap`` (colours alone, always PNG) and ``panel`` (photo and all levels on one
            sheet).
        out_dir: Folder of the pictures. None is ``featviz`` in the folder of the run, or ``work_dirs/featviz`` where
            there is no runner.
        image_root: What the pictures' folders are named relative to. None is the data set's image folder, and where
            there is no data set the whole path of the photo.
        image_format: ``jpg``, ``png`` or ``webp``.
        boxes: ``pred``, ``gt`` or ``both`` on overlays and panels.
        score_thr: Smallest score of a predicted box that is drawn.
        interval: Draw every n-th image.
        max_images: Draw at most so many images.
        stages: When to draw: any of ``train``, ``val``, ``test``.
        backend_args: Arguments of mmengine's file backend that reads the photos. None is the data set's own.
        overwrite: Whether `out_dir` may hold another run's pictures, which are then replaced.
        strict: Whether a photo that cannot be read, a picture that cannot be written and a layer without maps stop the
            run, instead of being counted.

    Raises:
        TypeError, ValueError: If an argument is not one of these.
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | str | None = None,
        reduction: str = 'max',
        normalize: str | Sequence[float] = 'image',
        colormap: str = 'jet',
        alpha: float = 0.4,
        blend: str = 'alpha',
        align: str = 'center',
        save: Sequence[str] | str = ('overlay',),
        out_dir: str | None = None,
        image_root: str | None = None,
        image_format: str = 'jpg',
        boxes: str | None = None,
        score_thr: float = 0.3,
        interval: int = 1,
        max_images: int | None = None,
        stages: Sequence[str] | str = ('test',),
        backend_args: dict | None = None,
        overwrite: bool = False,
        strict: bool = False,
    ) -> None:
        self.layers = None if layers is None else _names('layers', layers)
        self.reduction = get_reduction(reduction)
        self.normalize = _normalization(normalize)
        self.colormap = get_colormap(colormap)
        if not 0 <= alpha <= 1:
            raise ValueError(f'alpha must lie between 0 and 1, but is {alpha}')
        self.alpha = alpha
        self.blend = _one_of('blend', blend, BLENDS)
        self.align = _one_of('align', align, ALIGNMENTS)
        self.save = tuple(_one_of('save', kind, KINDS) for kind in _names('save', save))
        self.out_dir = out_dir
        self.image_root = image_root
        self.image_format = _one_of('image_format', image_format, tuple(ENCODINGS))
        self.boxes = None if boxes is None else _one_of('boxes', boxes, BOXES)
        self.score_thr = score_thr
        self.interval = _positive('interval', interval)
        self.max_images = None if max_images is None else _positive('max_images', max_images)
        self.stages = tuple(_one_of('stages', stage, STAGES) for stage in _names('stages', stages))
        self.backend_args = backend_args
        self.overwrite = overwrite
        self.strict = strict

        self.taps: Taps | None = None
        self.palette: Sequence[tuple[int, int, int]] = ()
        self.classes: Sequence[str] = ()
        self._images_seen = 0
        self._images_drawn = 0
        self._pictures = 0
        self._passes_of: Counter = Counter()  # image key: passes drawn
        self._skipped: dict[str, list[str]] = {}  # reason: images

    def open(
        self,
        model: nn.Module,
        default_dir: str = osp.join('work_dirs', 'featviz'),
        image_root: str | None = None,
        dataset_meta: dict | None = None,
        backend_args: dict | None = None,
    ) -> None:
        """Check layers and folder against a detector, before its first batch. Later calls do nothing.

        Args:
            model: The detector, or a wrapper around it.
            default_dir: Folder of the pictures where the user named none.
            image_root: Image folder of the data set, for the user who named none.
            dataset_meta: ``classes`` and ``palette`` (RGB) of the data set.
            backend_args: File backend of the data set, for the user who named none.

        Raises:
            ValueError: If a layer does not exist or can never fire.
            OSError: If the folder cannot be written to, or holds another run's pictures.
        """
        if self.taps is not None:
            return
        taps = Taps(model, self.layers, self.reduction, self.strict)
        self._sink = FileSink(self.out_dir or default_dir, self.overwrite)
        self._keys = ImageKeys(self.image_root or image_root)
        self._backend_args = self.backend_args or backend_args
        self.classes = (dataset_meta or {}).get('classes', ())
        palette = (dataset_meta or {}).get('palette')
        self.palette = palette if isinstance(palette, (list, tuple)) else ()
        self.taps = taps

    @property
    def done(self) -> bool:
        """Whether `max_images` images are drawn."""
        return self.max_images is not None and self._images_drawn >= self.max_images

    def draw(
        self, passes: Sequence[Pass], results: Sequence[Any] = (), folder: str = '', training: bool = False
    ) -> None:
        """Draw what the taps caught while the detector worked on one batch.

        Args:
            passes: The passes over the batch: one, or one per augmentation.
            results: Data samples with the predictions, of the same images in the same order.
            folder: Folder below the run's own, such as ``epoch_3``.
            training: Whether these are training inputs. They are drawn over what the network saw: random crops, mosaics
                and mixtures have no place on an original.
        """
        if not passes:
            return
        for index in range(len(passes[0].samples)):
            self._images_seen += 1
            if (self._images_seen - 1) % self.interval or self.done:
                continue
            result = results[index] if index < len(results) else None
            self._images_drawn += self._try_draw(passes, index, result, folder, training)

    def summary(self) -> str:
        """One line: how many pictures of how many images, where, and what was skipped and why."""
        if self.taps is None:
            return 'no pictures: nothing that should be drawn has run'
        line = f'{_count(self._pictures, "picture")} of {_count(self._images_drawn, "image")} in {self._sink.out_dir}'
        skipped = [
            f'{_count(len(names), "image")}, {reason} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
            for reason, names in self._skipped.items()
        ]
        skipped += [f'layer {layer}, no map of the image ({what})' for layer, what in self.taps.not_maps.items()]
        return f'{line}; skipped: {"; ".join(skipped)}' if skipped else line

    def _try_draw(self, passes: Sequence[Pass], index: int, result: Any, folder: str, training: bool) -> bool:
        """Draw one image; what is wrong with its files is counted, or raised if strict."""
        pictures_before = self._pictures
        try:
            for pass_ in passes:
                self._draw_image(pass_, index, result, folder, training)
        except (PhotoError, OSError) as error:
            if self.strict:
                raise
            reason = 'photo not readable' if isinstance(error, PhotoError) else 'picture not written'
            names = self._skipped.setdefault(reason, [])
            if not names:
                print_log(f'{error}. The image is skipped; others like it are counted.', 'current', logging.WARNING)
            names.append(osp.basename(str(passes[0].samples[index].metainfo.get('img_path'))))
        return self._pictures > pictures_before

    def _draw_image(self, pass_: Pass, index: int, result: Any, folder: str, training: bool) -> None:
        if not pass_.maps:
            return
        sample = pass_.samples[index]
        placement, photo = self._photo(pass_.inputs[index], sample.metainfo, training)
        decorate = partial(draw_boxes, boxes=self._boxes_of(sample, result)) if self.boxes else _unchanged

        path = sample.metainfo.get('img_path')
        key = posixpath.join(folder, self._keys.key_of(path))
        suffix = f'.pass_{self._passes_of[key]}' if self._passes_of[key] else ''
        values = [level.values[index].cpu().numpy() for level in pass_.maps]
        grids = [Grid(value.shape, level.stride, placement, self.align) for value, level in zip(values, pass_.maps)]
        ranges = [_visible_range(value, grid) for value, grid in zip(values, grids)]

        entries, rows = [], {}
        for level, value, grid, (low, high) in zip(pass_.maps, values, grids, ranges):
            limits = self._limits(level, (low, high), pass_.maps, ranges)
            heat = cv2.applyColorMap(quantise(grid.heatmap(to_grey(value, limits))), self.colormap)
            name, files = f'{key}/{level.name}{suffix}', []
            if photo is not None:
                laid = decorate(overlay(photo, heat, self.alpha, self.blend))
                rows.setdefault(level.layer, []).append((_caption(level), laid))
            if 'overlay' in self.save:
                files.append(self._write(f'{name}.{self.image_format}', laid))
            if 'heatmap' in self.save:
                files.append(self._write(f'{name}.heatmap.png', heat))
            entries.append(
                dict(
                    image=path,
                    key=key,
                    augmentation=self._passes_of[key],
                    layer=level.layer,
                    level=level.level,
                    channels=level.channels,
                    stride=level.stride[0] if level.stride[0] == level.stride[1] else level.stride,
                    shape=value.shape,
                    min=low,
                    max=high,
                    not_finite=int(value.size - np.isfinite(value).sum()),
                    files=files,
                )
            )
        if 'panel' in self.save:
            lines = list(rows.values())
            lines[0] = [('photo', decorate(photo)), *lines[0]]
            sheet = self._write(f'{key}/panel{suffix}.{self.image_format}', panel(lines))
            for entry in entries:
                entry['files'].append(sheet)
        self._sink.record(entries)
        self._passes_of[key] += 1

    def _photo(self, image: Tensor, meta: dict, training: bool) -> tuple[Placement, np.ndarray | None]:
        """Where the photo lies in the network's input (C, H, W), and the photo itself if it is drawn on."""
        preprocessor = getattr(self.taps.model, 'data_preprocessor', None)
        input_size = tuple(image.shape[1:])
        if training:
            size = tuple(min(side) for side in zip(meta.get('img_shape', input_size), input_size))
            placement = identity_placement(size, input_size)
        else:
            placement = placement_of(meta, image)
        if not {'overlay', 'panel'} & set(self.save):
            return placement, None
        rebuild = partial(rebuild_photo, image, preprocessor, placement)
        path = meta.get('img_path')
        if training or path is None:
            return placement, rebuild()
        return placement, read_photo(path, placement.photo_size, self._backend_args, rebuild)

    def _limits(
        self,
        level: ActivationMap,
        own: tuple[float, float],
        maps: Sequence[ActivationMap],
        ranges: Sequence[tuple[float, float]],
    ) -> tuple[float, float]:
        """The range that becomes 0-255, from the visible ranges of all levels."""
        if self.normalize == 'image':
            return own
        if self.normalize == 'max':
            return 0.0, own[1]
        if self.normalize == 'layer':
            lows, highs = zip(*(r for other, r in zip(maps, ranges) if other.layer == level.layer))
            return min(lows), max(highs)
        return self.normalize

    def _boxes_of(self, sample: Any, result: Any) -> Boxes:
        """Ground truth in white and predictions in their class's colour, in coordinates of the photo."""
        corners, captions, colours = [np.zeros((0, 4))], [], []
        truth = getattr(sample, 'gt_instances', None)
        if self.boxes in ('gt', 'both') and truth is not None and 'bboxes' in truth:
            corners.append(_corners(truth.bboxes))
            captions += [self._class_name(label) for label in truth.labels.tolist()]
            colours += [GT_COLOUR] * len(truth)
        found = getattr(result, 'pred_instances', None)
        if self.boxes in ('pred', 'both') and found is not None and 'bboxes' in found:
            found = found[found.scores >= self.score_thr]
            corners.append(_corners(found.bboxes))
            labels = found.labels.tolist()
            captions += [f'{self._class_name(k)} {score:.2f}' for k, score in zip(labels, found.scores.tolist())]
            colours += [self._class_colour(label) for label in labels]
        return Boxes(np.concatenate(corners), captions, colours)

    def _class_name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)

    def _class_colour(self, label: int) -> tuple[int, int, int]:
        """BGR from the data set's RGB palette, or from the colours of a wheel."""
        if label < len(self.palette):
            return tuple(int(value) for value in self.palette[label][::-1])
        hue = np.uint8([[[label * 67 % 180, 200, 255]]])
        return tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])

    def _write(self, name: str, picture: np.ndarray) -> str:
        self._sink.write_picture(name, picture)
        self._pictures += 1
        return name


def _visible_range(values: np.ndarray, grid: Grid) -> tuple[float, float]:
    """Smallest and largest finite value that the photo shows; (0, 0) if there is none."""
    low, high = finite_range(values)
    finite = np.isfinite(values)
    if finite.all():
        return finite_range(grid.visible(values))
    # What is not finite must neither spread into its neighbours nor bound the range.
    lowest = finite_range(grid.visible(np.where(finite, values, np.float32(high))))[0]
    highest = finite_range(grid.visible(np.where(finite, values, np.float32(low))))[1]
    return min(lowest, highest), highest


def _caption(level: ActivationMap) -> str:
    vertical, horizontal = level.stride
    stride = f'{vertical:g}' if vertical == horizontal else f'{vertical:.3g} x {horizontal:.3g}'
    return f'{level.name}: stride {stride}, {level.channels} ch'


def _corners(boxes: Any) -> np.ndarray:
    """(N, 4) of a box tensor or of one of mmdet's box structures."""
    return getattr(boxes, 'tensor', boxes).detach().cpu().numpy().astype(np.float64).reshape(-1, 4)


def _unchanged(picture: np.ndarray) -> np.ndarray:
    return picture


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def _names(argument: str, value: Sequence[str] | str) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    names = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f'{argument} must be a name or a list of names, but is {value!r}')
    return names


def _one_of(argument: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(f'{argument}={value!r} is not known: choose from {", ".join(choices)}')
    return value


def _positive(argument: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'{argument} must be a whole number of at least 1, but is {value!r}')
    return value


def _normalization(value: str | Sequence[float]) -> str | tuple[float, float]:
    if isinstance(value, str):
        return _one_of('normalize', value, NORMALIZATIONS)
    try:
        low, high = (float(limit) for limit in value)
    except (TypeError, ValueError):
        raise TypeError(f'normalize must be one of {", ".join(NORMALIZATIONS)} or a pair, but is {value!r}') from None
    if not low < high:
        raise ValueError(f'normalize=({low:g}, {high:g}): the first number must be the smaller one')
    return low, high
