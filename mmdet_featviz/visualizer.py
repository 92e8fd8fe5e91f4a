"""The visualizer: joins taps, reduction, geometry, rendering and sinks."""

from __future__ import annotations

import logging
import math
import os.path as osp
import posixpath
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, Sequence

import cv2
import numpy as np
from mmengine.logging import print_log
from torch import Tensor, nn

from .arguments import name_or_range, names_in, number, one_of, positive
from .boxes import Boxes, BoxStyle, draw_boxes
from .geometry import ALIGNMENTS, Grid, Placement, identity_placement, placement_of
from .photos import PhotoError, read_photo, rebuild_photo
from .reduction import get_reduction
from .rendering import finite_range, get_colormap, overlay, panel, quantise, to_unit
from .sinks import ENCODINGS, FileSink, ImageKeys
from .taps import ActivationMap, Pass, Taps

NORMALIZATIONS = ('image', 'max', 'layer')
BLENDS = ('alpha', 'add')
KINDS = ('overlay', 'heatmap', 'panel')
BOXES = ('pred', 'gt', 'both')
STAGES = ('train', 'val', 'test')


class FeatureVisualizer:
    """Draws heatmaps of a detector's feature maps over the original photos.

    Args:
        layers: Modules to tap, as ``model.named_modules()`` prints them; ``*`` stands for one part of a path, ``**``
            for any. None is backbone, neck, and the pixel decoder or encoder of transformers, as far as there are any.
        reduction: ``max``, ``mean``, ``sum``, ``l2``, ``select_max`` (the one channel with the largest sum), or the
            name of a function registered in ``mmdet_featviz.REDUCTIONS``.
        normalize: The range that becomes 0-255, of what the photo shows and never of padding: ``image`` (this
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
        average_passes: Whether under test-time augmentation the mean of all passes is drawn too (by the hook; a
            detector that draws by itself does not know which passes belong together).
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
        average_passes: bool = False,
        overwrite: bool = False,
        strict: bool = False,
    ) -> None:
        self.layers = None if layers is None else names_in('layers', layers)
        self.reduction = get_reduction(reduction)
        self.normalize = name_or_range('normalize', normalize, NORMALIZATIONS)
        self.colormap = get_colormap(colormap)
        self.alpha = number('alpha', alpha, 0, 1)
        self.blend = one_of('blend', blend, BLENDS)
        self.align = one_of('align', align, ALIGNMENTS)
        self.save = tuple(one_of('save', kind, KINDS) for kind in names_in('save', save))
        self.out_dir = out_dir
        self.image_root = image_root
        self.image_format = one_of('image_format', image_format, tuple(ENCODINGS))
        self.boxes = None if boxes is None else one_of('boxes', boxes, BOXES)
        self.score_thr = number('score_thr', score_thr)
        self.interval = positive('interval', interval)
        self.max_images = None if max_images is None else positive('max_images', max_images)
        self.stages = tuple(one_of('stages', stage, STAGES) for stage in names_in('stages', stages, may_be_empty=True))
        self.backend_args = backend_args
        self.average_passes = average_passes
        self.overwrite = overwrite
        self.strict = strict

        self.taps: Taps | None = None
        self._sources: dict[str, _Source] = {}  # of each stage
        self._batch: tuple = ()
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
        stage: str = 'test',
    ) -> None:
        """Check layers and folder against a detector, before its first batch. Once for each stage; more do nothing.

        Args:
            model: The detector, or a wrapper around it.
            default_dir: Folder of the pictures where the user named none.
            image_root: Image folder of the data set, for the user who named none.
            dataset_meta: ``classes`` and ``palette`` (RGB) of the data set.
            backend_args: File backend of the data set, for the user who named none.
            stage: Whose data set this is: ``train``, ``val`` or ``test``.

        Raises:
            ValueError: If a layer does not exist or can never fire.
            OSError: If the folder cannot be written to, or holds another run's pictures.
        """
        if stage in self._sources:
            return
        if self.taps is None:
            taps = Taps(model, self.layers, self.reduction, self.strict)
            self._sink = FileSink(self.out_dir or default_dir, self.overwrite)
            self.taps = taps
        self._sources[stage] = _Source(
            ImageKeys(self.image_root or image_root),
            self.backend_args or backend_args,
            BoxStyle(self.boxes, self.score_thr, dataset_meta) if self.boxes else None,
        )

    @property
    def done(self) -> bool:
        """Whether `max_images` images are drawn."""
        return self.max_images is not None and self._images_drawn >= self.max_images

    def select(self, samples: Sequence[Any], folder: str = '') -> list[bool]:
        """Which images of a batch are drawn, by `interval` and `max_images`.

        A further pass over the same batch (test-time augmentation) counts no image again and gets the same answer.
        """
        batch = folder, *(sample.metainfo.get('img_path') or id(sample) for sample in samples)
        if batch != self._batch:
            self._batch, self._batch_samples = batch, samples  # kept, so that no other sample gets the same id
            self._selected, self._batch_drawn = [], set()
            room = math.inf if self.max_images is None else self.max_images - self._images_drawn
            for _ in samples:
                turn = self._images_seen % self.interval == 0
                self._selected.append(turn and sum(self._selected) < room)
                self._images_seen += 1
        return self._selected

    def draw(self, passes: Sequence[Pass], results: Sequence[Any] = (), folder: str = '', stage: str = 'test') -> None:
        """Draw what the taps caught while the detector worked on one batch.

        Args:
            passes: The passes over the batch: one, or one per augmentation.
            results: Data samples with the predictions, of the same images in the same order.
            folder: Folder below the run's own, such as ``epoch_3``.
            stage: ``train``, ``val`` or ``test``. Training inputs are drawn over what the network saw: random crops,
                mosaics and mixtures have no place on an original.
        """
        if not passes:
            return
        for index, selected in enumerate(self.select(passes[0].samples, folder)):
            if not selected:
                continue
            result = results[index] if index < len(results) else None
            if self._try_draw(passes, index, result, folder, stage) and index not in self._batch_drawn:
                self._batch_drawn.add(index)
                self._images_drawn += 1

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

    def _try_draw(self, passes: Sequence[Pass], index: int, result: Any, folder: str, stage: str) -> bool:
        """Draw one image; what is wrong with its files is counted, or raised if strict."""
        pictures_before = self._pictures
        try:
            self._draw_image(passes, index, result, folder, stage)
        except (PhotoError, OSError) as error:
            if self.strict:
                raise
            reason = 'photo not readable' if isinstance(error, PhotoError) else 'picture not written'
            names = self._skipped.setdefault(reason, [])
            if not names:
                print_log(f'{error}. The image is skipped; others like it are counted.', 'current', logging.WARNING)
            names.append(osp.basename(str(passes[0].samples[index].metainfo.get('img_path'))))
        return self._pictures > pictures_before

    def _draw_image(self, passes: Sequence[Pass], index: int, result: Any, folder: str, stage: str) -> None:
        """Draw one image of each pass, and on request the average of all passes."""
        source, sample, training = self._sources[stage], passes[0].samples[index], stage == 'train'
        boxes = None
        if source.box_style is not None:
            boxes = source.box_style.boxes_of(sample, result, mirrored=len(passes) == 1)
        path = sample.metainfo.get('img_path')
        key = posixpath.join(folder, source.keys.key_of(path))
        photo, views = None, []
        for pass_ in passes:
            image, meta = pass_.inputs[index], pass_.samples[index].metainfo
            placement = self._placement(image, meta, training)
            if photo is None and {'overlay', 'panel'} & set(self.save):
                photo = self._photo(image, meta, placement, training, source.backend_args)
            views.append([self._level(activation, index, placement) for activation in pass_.maps])
            repeat = self._passes_of[key]
            self._passes_of[key] += 1
            facts = dict(image=path, key=key, augmentation=repeat)
            self._draw_levels(views[-1], photo, boxes, facts, f'.pass_{repeat}' if repeat else '')
        if self.average_passes and len(views) > 1:
            self._draw_levels(_averaged(views), photo, boxes, dict(image=path, key=key, augmentation='mean'), '.mean')

    def _draw_levels(
        self, levels: Sequence[_Level], photo: np.ndarray | None, boxes: Boxes | None, facts: dict, suffix: str
    ) -> None:
        """Write all pictures of these levels of one image, and record them."""
        entries, rows = [], {}
        for level in levels:
            name, files = f'{facts["key"]}/{level.activation.name}{suffix}', []
            heat = self._heat(level, levels)
            if photo is not None:
                laid = overlay(photo, heat, self.alpha, self.blend)
            if 'panel' in self.save:  # only then are all overlays of an image held at once
                rows.setdefault(level.activation.layer, []).append((level.caption, laid))
            if 'overlay' in self.save:
                files.append(self._write(f'{name}.{self.image_format}', _with_boxes(laid, boxes=boxes)))
            if 'heatmap' in self.save:
                files.append(self._write(f'{name}.heatmap.png', heat))
            entries.append(dict(**facts, **level.facts, files=files))
        if rows:
            first, *others = rows.values()
            sheet = panel([[('photo', photo), *first], *others], partial(_with_boxes, boxes=boxes))
            name = self._write(f'{facts["key"]}/panel{suffix}.{self.image_format}', sheet)
            for entry in entries:
                entry['files'].append(name)
        self._sink.record(entries)

    @staticmethod
    def _placement(image: Tensor, meta: dict, training: bool) -> Placement:
        """Where the photo lies in the network's input (C, H, W)."""
        if not training:
            return placement_of(meta, image)
        input_size = tuple(image.shape[1:])
        size = tuple(min(side) for side in zip(meta.get('img_shape', input_size), input_size))
        return identity_placement(size, input_size)

    def _photo(
        self, image: Tensor, meta: dict, placement: Placement, training: bool, backend_args: dict | None
    ) -> np.ndarray:
        """The original, or what the network's input (C, H, W) tells of it."""
        preprocessor = getattr(self.taps.model, 'data_preprocessor', None)
        rebuild = partial(rebuild_photo, image, preprocessor, placement)
        path = meta.get('img_path')
        if training or path is None:
            return rebuild()
        return read_photo(path, placement.photo_size, backend_args, rebuild)

    def _level(self, activation: ActivationMap, index: int, placement: Placement) -> _Level:
        values = activation.values[index].cpu().numpy()
        grid = Grid(values.shape, activation.stride, placement, self.align)
        return _Level(activation, values, grid, _visible_range(values, grid))

    def _heat(self, level: _Level, levels: Sequence[_Level]) -> np.ndarray:
        """The coloured heatmap of a level, of the photo's size."""
        if self.normalize == 'image':
            limits = level.range
        elif self.normalize == 'max':
            limits = 0.0, level.range[1]
        elif self.normalize == 'layer':
            ranges = [other.range for other in levels if other.activation.layer == level.activation.layer]
            limits = min(low for low, _ in ranges), max(high for _, high in ranges)
        else:
            limits = self.normalize
        grey = quantise(level.grid.heatmap(to_unit(level.values, limits)))
        return cv2.applyColorMap(grey, self.colormap)

    def _write(self, name: str, picture: np.ndarray) -> str:
        self._sink.write_picture(name, picture)
        self._pictures += 1
        return name


@dataclass(frozen=True)
class _Source:
    """What is known of the data set of one stage."""

    keys: ImageKeys
    backend_args: dict | None
    box_style: BoxStyle | None


@dataclass(frozen=True, eq=False)
class _Level:
    """One level of one image: values (rows, columns), their place on the photo, and the range that the photo shows."""

    activation: ActivationMap
    values: np.ndarray
    grid: Grid
    range: tuple[float, float]

    @property
    def caption(self) -> str:
        vertical, horizontal = self.activation.stride
        stride = f'{vertical:g}' if vertical == horizontal else f'{vertical:.3g} x {horizontal:.3g}'
        return f'{self.activation.name}: stride {stride}, {self.activation.channels} ch'

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""
        vertical, horizontal = self.activation.stride
        return dict(
            layer=self.activation.layer,
            level=self.activation.level,
            channels=self.activation.channels,
            stride=vertical if vertical == horizontal else [vertical, horizontal],
            shape=self.values.shape,
            min=self.range[0],
            max=self.range[1],
            not_finite=int(np.count_nonzero(~np.isfinite(self.values))),
        )


def _averaged(views: Sequence[Sequence[_Level]]) -> list[_Level]:
    """The mean heatmap of each level that all passes have, as levels whose cells are the photo's pixels."""
    averaged = []
    for level in views[0]:
        same = [other for view in views for other in view if other.activation.name == level.activation.name]
        if len(same) < len(views):
            continue
        heats = [
            other.grid.heatmap(np.where(np.isfinite(other.values), other.values, other.range[0])) for other in same
        ]
        mean = np.mean(heats, axis=0, dtype=np.float64).astype(np.float32)
        grid = Grid(mean.shape, (1.0, 1.0), identity_placement(mean.shape, mean.shape))
        averaged.append(_Level(level.activation, mean, grid, finite_range(mean)))
    return averaged


def _visible_range(values: np.ndarray, grid: Grid) -> tuple[float, float]:
    """Smallest and largest finite value that the photo shows; (0, 0) if there is none."""
    finite = np.isfinite(values)
    if finite.all():
        return finite_range(grid.visible(values))
    # What is not finite must neither spread into its neighbours nor bound the range.
    low, high = finite_range(values)
    lowest = finite_range(grid.visible(np.where(finite, values, np.float32(high))))[0]
    highest = finite_range(grid.visible(np.where(finite, values, np.float32(low))))[1]
    return min(lowest, highest), highest


def _with_boxes(picture: np.ndarray, scale: float = 1.0, *, boxes: Boxes | None) -> np.ndarray:
    return picture if boxes is None else draw_boxes(picture, boxes, scale)


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
