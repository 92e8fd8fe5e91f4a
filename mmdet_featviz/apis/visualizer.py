"""Visualizer: draws the feature maps of a detector during a run."""

from __future__ import annotations

import atexit
import difflib
import inspect
import logging
import os
import os.path as osp
import weakref
from dataclasses import replace
from functools import partial
from typing import Any, Iterable, Mapping, Sequence

import numpy as np
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.visualization import Visualizer as MMVisualizer
from torch import nn

from mmdet_featviz.apis.snapshot_builder import ImageSource, SnapshotBuilder
from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.channel_selection import DetailRecorder, parse_channel_choice
from mmdet_featviz.capture.reductions import get_reduction
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.runs.image_keys import ImageKeys
from mmdet_featviz.runs.image_selection import ImageSelection
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.visualizer_backends import PictureLogger
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.arguments import check_choice, check_names, check_path, check_whole_number
from mmdet_featviz.visualization.style import STYLE_OPTIONS, Style

STAGES = ('train', 'val', 'test')
_unfinished: weakref.WeakSet[FeatureVisualizer] = weakref.WeakSet()


class FeatureVisualizer:
    """Draws heatmaps of a detector's feature maps over the original images.

    Args:
        layers: Modules to tap, as ``model.named_modules()`` prints them; ``*`` stands for one part of a path, ``**``
            for any. None is backbone, neck, and the pixel decoder or encoder of transformers, as far as there are any.
        layer_type: Tap the modules of this class inside the layers instead, such as ``Conv2d``.
        reduction: ``max``, ``mean``, ``sum``, ``l2``, ``select_max`` (the one channel with the largest sum), or the
            name of a function registered in ``mmdet_featviz.REDUCTIONS``. None is ``max``, and ``mean`` where an
            overview is drawn.
        out_dir: Folder of the pictures, or a URL that mmengine has a file backend for (``s3://bucket/run``). None is
            ``featviz`` in the folder of the run, or ``work_dirs/featviz`` where there is no runner.
        image_root: What the pictures' folders are named relative to. None is the data set's image folder, and where
            there is no data set the whole path of the image.
        interval: Draw every n-th image.
        max_images: Draw at most so many images; one that cannot be drawn counts, too. Each validation and each test
            begins anew, and draws the same ones.
        image_names: Draw the images of these names instead, each the end of a path with or without the file ending,
            such as ``street/0001``. None is any image.
        stages: When to draw: any of ``train``, ``val``, ``test``.
        backend_args: Arguments of mmengine's file backend that reads the images. None is the data set's own.
        average_passes: Whether under test-time augmentation the mean of all passes is drawn too (by the hook; a
            detector that draws by itself does not know which passes belong together).
        overwrite: Whether `out_dir` may hold another run's pictures, which are then replaced.
        resume: Whether a run that was stopped goes on in its `out_dir`: images that it finished are skipped.
        workers: How many threads draw and write while a runner goes on; 0 draws at once. Where nobody waits for them at
            the end (a detector that draws by itself without a runner), and with `strict`, pictures are drawn at once.
        log_to_visualizer: Whether all pictures also go to the visualizer of the runner, and so to TensorBoard, WandB,
            MLflow and what other backends the config names; of several ranks those of the first. Their step is the
            epoch or iteration that their folder names, and in a test the number of the image.
        report: Whether a page is written at the end on which the run can be looked through in a browser,
            ``report/index.html``; activation maps are saved for it. A run with a hook has its end when the runner has,
            others at :meth:`close`.
        strict: Whether a image that cannot be read, a picture that cannot be written and a layer without maps stop the
            run, instead of being counted.
        **style: How pictures look, and which are made: the arguments of :class:`mmdet_featviz.Style`.

    Raises:
        TypeError, ValueError: If an argument is not one of these.
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | str | None = None,
        layer_type: str | None = None,
        reduction: str | None = None,
        out_dir: str | None = None,
        image_root: str | None = None,
        interval: int = 1,
        max_images: int | None = None,
        image_names: Sequence[str] | str | None = None,
        stages: Sequence[str] | str = ('test',),
        backend_args: dict | None = None,
        average_passes: bool = False,
        overwrite: bool = False,
        resume: bool = False,
        workers: int = 2,
        log_to_visualizer: bool = False,
        report: bool = False,
        strict: bool = False,
        **style: Any,
    ) -> None:
        _check_names(style)
        self.style = Style(**style)
        if report and 'maps' not in self.style.save:
            self.style = replace(self.style, save=(*self.style.save, 'maps'))
        self.report = report
        self.layers = None if layers is None else check_names('layers', layers)
        self.layer_type = layer_type
        self.reduction_name = reduction or ('mean' if 'overview' in self.style.save else 'max')
        self.reduction = get_reduction(self.reduction_name)
        self.out_dir = None if out_dir is None else check_path('out_dir', out_dir)
        self.image_root = image_root
        self.interval = check_whole_number('interval', interval)
        self.max_images = None if max_images is None else check_whole_number('max_images', max_images)
        self.image_names = () if image_names is None else check_names('image_names', image_names)
        if self.image_names and (interval != 1 or max_images is not None):
            raise ValueError('image_names says what is drawn, interval and max_images count it: choose one')
        self.stages = tuple(
            check_choice('stages', stage, STAGES) for stage in check_names('stages', stages, may_be_empty=True)
        )
        self.backend_args = backend_args
        self.average_passes = average_passes
        if overwrite and resume:
            raise ValueError('overwrite removes what another run left, resume goes on from it: choose one')
        self.overwrite = overwrite
        self.resume = resume
        self.workers = check_whole_number('workers', workers, least=0)
        self.log_to_visualizer = log_to_visualizer
        self.strict = strict

        self.taps: Taps | None = None
        self._sources: dict[str, ImageSource] = {}  # of each stage
        self._batch: tuple = ()
        self._turns = ImageSelection(self.interval, self.max_images, self.image_names)
        self._builder = SnapshotBuilder(self.style.align, average_passes)

    def open(
        self,
        model: nn.Module,
        default_dir: str = osp.join('work_dirs', 'featviz'),
        image_root: str | None = None,
        dataset_meta: dict | None = None,
        image_paths: Iterable[str] = (),
        backend_args: dict | None = None,
        stage: str = 'test',
        info: dict | None = None,
        in_run: bool = False,
        log: MMVisualizer | None = None,
    ) -> None:
        """Check layers and folder against a detector, before its first batch. Once for each stage; more do nothing.

        Args:
            model: The detector, or a wrapper around it.
            default_dir: Folder of the pictures where the user named none.
            image_root: Image folder of the data set, for the user who named none.
            dataset_meta: ``classes`` and ``palette`` (RGB) of the data set.
            image_paths: Of all images of the data set, so that names of folders do not depend on their order.
            backend_args: File backend of the data set, for the user who named none.
            stage: Whose data set this is: ``train``, ``val`` or ``test``.
            info: What else ``run.json`` should say of the run.
            in_run: Whether a runner opens this, and calls :meth:`close` at its end.
            log: Where `log_to_visualizer` sends pictures; None is the visualizer of the runner that was made last.

        Raises:
            ValueError: If a layer does not exist or can never fire, or the data set lacks one of `image_names`.
            OSError: If the folder cannot be written to, or holds another run's pictures.
        """
        if stage in self._sources:
            return
        image_paths = list(image_paths)
        missing = self._turns.missing(image_paths) if image_paths else []
        if missing:
            raise ValueError(
                f'no image of the {stage} data set is called {missing[0]!r}: image_names takes ends of paths, as of '
                f'{image_paths[0]!r}'
            )
        keys = ImageKeys(self.image_root or image_root, image_paths)
        source = ImageSource(keys, self.backend_args or backend_args, dataset_meta)
        if self.taps is None:
            self._open_run(model, default_dir, source, info or {}, in_run, log)
        self._sources[stage] = source

    def _open_run(
        self,
        model: nn.Module,
        default_dir: str,
        source: ImageSource,
        info: dict,
        in_run: bool,
        log: MMVisualizer | None,
    ) -> None:
        picture_log = PictureLogger(log or _latest_visualizer()) if self.log_to_visualizer else None
        taps = self.make_taps(model)
        info = dict(
            layers=list(taps.modules),
            reduction=self.reduction_name,
            dataset_meta=_plain(source.dataset_meta),
            backend_args=source.backend_args,
            working_dir=os.getcwd(),  # from which the paths of images lead on
            **info,
        )
        self._in_run = in_run
        run_folder = RunFolder(self.out_dir or default_dir, self.overwrite, self.resume, in_run)
        workers = self.workers if in_run else 0
        self._writer = RunWriter(run_folder, self.style, info, self.strict, workers=workers, log=picture_log)
        self.taps = taps

    def make_taps(self, model: nn.Module) -> Taps:
        """Taps for a detector that catch what this visualizer draws.

        Raises:
            ValueError: If a layer does not exist or can never fire.
        """
        save = self.style.save
        keeper = DetailRecorder(
            parse_channel_choice(self.style.channels) if 'channels' in save else None,
            self.style.attention_channels if 'attention' in save else None,
            'raw' in save,
        )
        return Taps(
            model,
            self.layers,
            self.reduction,
            self.strict,
            self.layer_type,
            keeper if {'channels', 'attention', 'raw'} & set(save) else None,
            'attention' in save,
        )

    def is_done(self, stage: str = 'test') -> bool:
        """Whether `max_images` images of a test, of this validation or of the training have been chosen."""
        return self._turns.is_over(stage)

    def begin(self, stage: str, images: int | None = None) -> None:
        """Begin a round over the data set of a stage, of so many images where a sampler may repeat some."""
        self._turns.begin(stage, images)
        self._builder.begin()

    def select(self, samples: Sequence[Any], folder: str = '', stage: str = 'test') -> list[bool]:
        """Which images of a batch are drawn, by `interval` and `max_images` or by their names; for detectors.

        A detector knows neither batches nor epochs: what looks like a further pass over the same batch (test-time
        augmentation) counts no image again and gets the same answer.
        """
        batch = folder, *(sample.metainfo.get('img_path') or id(sample) for sample in samples)
        if batch != self._batch:
            # A training goes on after a validation, and the next validation has another folder.
            another = stage == 'val' and self._batch[:1] != (folder,) and self._turns.has_begun
            self._batch, self._batch_samples = batch, samples  # kept, so that no other sample gets the same id
            if another:
                self._turns.begin(stage)
            self._selected = self._next(samples, stage)
        return self._selected

    def _next(self, samples: Sequence[Any], stage: str) -> list[bool]:
        if stage != self._turns.stage:
            self._turns.begin(stage)
        return [self._turns.next(sample.metainfo.get('img_path')) for sample in samples]

    def draw(
        self,
        passes: Sequence[Pass],
        results: Sequence[Any] = (),
        folder: str = '',
        stage: str = 'test',
        selected: Sequence[bool] | None = None,
    ) -> None:
        """Draw what the taps caught while the detector worked on one batch.

        Args:
            passes: The passes over the batch: one, or one per augmentation.
            results: Data samples with the predictions, of the same images in the same order.
            folder: Folder below the run's own, such as ``epoch_3``.
            stage: ``train``, ``val`` or ``test``. Training inputs are drawn over what the network saw: random crops,
                mosaics and mixtures have no place on an original.
            selected: Which images :meth:`select` chose; None chooses among those of a batch that was not met before.
        """
        if not passes:
            return
        if selected is None:
            selected = self._next(passes[0].samples, stage)
        for index in np.flatnonzero(selected).tolist():
            result = results[index] if index < len(results) else None
            path = passes[0].samples[index].metainfo.get('img_path')
            snapshots = partial(self.snapshots, passes, index, result, folder, stage)
            self._writer.write_made(path or 'an array', snapshots)

    def snapshots(
        self, passes: Sequence[Pass], index: int, result: Any = None, folder: str = '', stage: str = 'test'
    ) -> list[Snapshot]:
        """Build the snapshots of one image of a batch: one per pass, and on request the mean of all passes.

        Args:
            passes: The passes over the batch.
            index: Index of the image in the batch.
            result: Data sample with its predictions.
            folder: Folder below the run's own.
            stage: ``train``, ``val`` or ``test``.
        """
        source = self._sources.get(stage)
        if source is None:  # opened for no run: the detector may know its classes
            dataset_meta = getattr(self.taps.model, 'dataset_meta', None)
            source = ImageSource(ImageKeys(self.image_root), self.backend_args, dataset_meta)
        return self._builder.build(self.taps.model, passes, index, source, result, folder, stage)

    def record_metrics(
        self, metrics: dict[str, Any] | None, folder: str = '', focus: Mapping[str, dict] | None = None
    ) -> None:
        """Keep what evaluators told of a test, or of the validation that is drawn into `folder`, for the report.

        Args:
            metrics: {name: value}.
            folder: Of the validation; empty after a test.
            focus: The settings of each FeatureFocusMetric among the evaluators, by its prefix.
        """
        if metrics and self.taps is not None:
            self._writer.record_metrics(metrics, folder, focus)

    def close(self) -> None:
        """Wait for the workers, and draw what waited for the end of a stage: with ``normalize='run'`` every picture."""
        _unfinished.discard(self)
        if self.taps is not None:
            self._writer.finish(self._in_run)
            if not self._in_run:
                self.write_report()

    def summarize_at_exit(self) -> None:
        """See that a process which ends before :meth:`close`, of whatever error or signal, tells what it has drawn."""
        _unfinished.add(self)

    def stop_early(self) -> None:
        """Wait for the workers, and log what was drawn until now."""
        if self.taps is not None:
            self.taps.detach()
            self._writer.stop()
            print_log(f'Feature maps, until it ended early: {self.summary()}', 'current', logging.WARNING)

    def write_report(self) -> None:
        """Write the page that `report` asks for, and log where it is."""
        if self.report and self.taps is not None and is_main_process():
            from mmdet_featviz.report.builder import write_report  # only those who want one need its parts

            print_log(write_report(self._writer.run_folder.out_dir), 'current')

    def summary(self) -> str:
        """One line: how many pictures of how many images, where, and what was skipped and why."""
        if self.taps is None:
            return 'no pictures: nothing that should be drawn has run'
        line = self._writer.summary()
        layers = self.taps.skipped_layers()
        if not layers:
            return line
        return f'{line}{"; " if "; skipped: " in line else "; skipped: "}{"; ".join(layers)}'


@atexit.register
def _stop_early() -> None:
    for visualizer in list(_unfinished):
        visualizer.stop_early()


def _latest_visualizer() -> MMVisualizer:
    """That of the runner that was made last."""
    try:
        return MMVisualizer.get_current_instance()
    except RuntimeError:
        raise ValueError('log_to_visualizer=True needs the visualizer of a runner, and there is none') from None


def _plain(dataset_meta: dict | None) -> dict | None:
    """What JSON can hold of classes and palette."""
    meta = dataset_meta or {}
    kept = {name: meta[name] for name in ('classes', 'palette') if isinstance(meta.get(name), (list, tuple))}
    return kept or None


def _check_names(style: dict) -> None:
    """Raise TypeError for what is no argument, and name the closest that is."""
    known = {*STYLE_OPTIONS, *inspect.signature(FeatureVisualizer).parameters} - {'style'}
    for name in style:
        if name not in STYLE_OPTIONS:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'there are {", ".join(sorted(known))}'
            raise TypeError(f'unknown argument {name!r}: {hint}')
