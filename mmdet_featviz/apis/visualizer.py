"""Feature visualizer: opens a run, draws the feature maps of its images, and closes it."""

from __future__ import annotations

import difflib
import inspect
import itertools
import logging
import os
import os.path as osp
import threading
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence

import numpy as np
from mmengine.dist import get_dist_info, is_main_process
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmengine.visualization import Visualizer as MMVisualizer
from torch import Tensor, nn

from mmdet_featviz.apis.batch_selection import BatchSelection, Selection
from mmdet_featviz.apis.drawn_batch import DrawnBatch, explain_snapshots
from mmdet_featviz.apis.input_check import InputCheck
from mmdet_featviz.apis.snapshot_builder import ImageSource, SnapshotBuilder, numbered_folder
from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.channel_selection import DetailRecorder, parse_channel_choice
from mmdet_featviz.capture.detector import is_augmented_call, unwrap_detector
from mmdet_featviz.capture.nested_passes import are_nested
from mmdet_featviz.capture.reductions import PCA, get_reduction
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.evaluation.level_statistics import RunStatistics
from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.runs import early_exit
from mmdet_featviz.runs.component_fit import check_foreground, needs_components
from mmdet_featviz.runs.image_keys import ImageKeys
from mmdet_featviz.runs.image_selection import ImageSelection
from mmdet_featviz.runs.run_folder import RunFolder, check_free
from mmdet_featviz.runs.run_info import jsonable_dataset_meta, weights_checksum
from mmdet_featviz.runs.schedule import AUTO, Schedule, check_workers
from mmdet_featviz.runs.visualizer_backends import PictureLogger, latest_visualizer
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.boxes import class_names, find_label, has_all
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.arguments import (
    check_bool,
    check_choice,
    check_name,
    check_names,
    check_path,
    check_whole_number,
)
from mmdet_featviz.utils.dependencies import require
from mmdet_featviz.utils.image_path import image_path
from mmdet_featviz.visualization.style import BOX_FEATURES, EMBEDDINGS, RECEPTIVE_FIELD, STYLE_OPTIONS, Style

if TYPE_CHECKING:
    from mmdet_featviz.capture.kept_features import KeptFeatures
    from mmdet_featviz.capture.score_maps import ScoreMaps
    from mmdet_featviz.explanation.request import ExplanationRequest

STAGES = ('train', 'val', 'test')
SWITCHES = ('average_passes', 'overwrite', 'resume', 'log_to_visualizer', 'report', 'strict')
MEASURED_IMAGES = 8  # for the statistics of the levels
DEFAULT_DIR = osp.join('work_dirs', 'featviz')
_numbers = itertools.count()  # of visualizers, which all ranks create in the same order


class FeatureVisualizer:
    """Draws heatmaps of a detector's feature maps over the original images.

    Args:
        layers: Layers to draw: module paths as ``model.named_modules()`` prints them. ``*`` matches one part of a path,
            ``**`` any number of parts. Default: backbone, neck, and the pixel decoder or encoder of transformers.
        layer_type: Draw the modules of this class inside the layers instead, such as ``Conv2d``.
        reduction: How the channels of a feature map become one map: ``max``, ``mean``, ``sum``, ``l2``, ``select_max``
            (the channel with the largest sum), or a function registered in ``mmdet_featviz.REDUCTIONS``. Or ``pca``:
            the three leading principal components of each level over all images, as red, green and blue, drawn at the
            end from saved maps. Default: ``max``, or ``mean`` if `save` has an overview.
        out_dir: Output folder, or a URL that an mmengine file backend can write to (``s3://bucket/run``). Default:
            ``featviz`` in the log folder of the run, or ``work_dirs/featviz`` without a runner.
        image_root: Output folders are named after the path of each image relative to this folder. Default: the image
            folder of the data set, or the folder given to ``featviz image``; otherwise the whole path is used.
        interval: Draw every n-th image.
        max_images: Draw at most this many images, counting those that cannot be drawn. Each validation and each test
            starts counting again, so all draw the same images. Default: no limit.
        image_names: Draw only these images, each given as the end of its path, with or without file extension, such as
            ``street/0001``. Cannot be combined with `interval` or `max_images`. Default: all images.
        stages: When to draw: any of ``train``, ``val``, ``test``.
        backend_args: Arguments of the mmengine file backend that reads the images. Default: those of the data set.
        average_passes: Whether to also draw the mean of all passes of test-time augmentation. Only with the hook: a
            detector that draws by itself does not know which passes belong together.
        overwrite: Whether to replace another run's pictures in `out_dir`.
        resume: Whether to continue a stopped run in `out_dir`, skipping the images it has finished.
        workers: Number of threads that draw and write while a runner continues; 0 draws at once. ``auto`` uses two
            threads if the detector runs on a GPU or leaves processor cores idle. Otherwise it draws at once or, where
            that takes more than 5 % of the time, saves small maps and draws on all cores after the loop. What is drawn
            after the loop is drawn by as many processes where this is possible, as threads wait for each other. Without
            a runner, and with `strict`, pictures are always drawn at once.
        log_to_visualizer: Whether to also send all pictures to the runner's visualizer, and so to its backends, such as
            TensorBoard, WandB or MLflow. The step is the epoch or iteration, in a test the number of the image. Of
            several ranks, only the first one sends.
        report: Whether to write a report page for the browser, ``report/index.html``, at the end of the run. Also saves
            the activation maps, and measures the statistics of the levels over the first 8 images.
        explain: Also explain single detections of the drawn images, in a pass of its own over each batch of a test or
            validation: a dict with the arguments `method`, `targets`, `layers` and `of` of
            :func:`mmdet_featviz.explain`, those of the method, and `each_level`, whether to also draw each level alone.
            Default: none are explained.
        strict: Whether to stop at an image that cannot be read or explained, a picture that cannot be written or a
            layer without maps, instead of skipping and counting it.
        **style: Arguments of :class:`mmdet_featviz.Style`: which pictures are made, and how they look.

    Raises:
        TypeError, ValueError: If an argument has a wrong type or value, or does not exist.
        ImportError: If `report` is set and jinja2 is not installed.
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
        workers: int | str = AUTO,
        log_to_visualizer: bool = False,
        report: bool = False,
        explain: dict | None = None,
        strict: bool = False,
        **style: Any,
    ) -> None:
        self._options = {name: value for name, value in locals().items() if name not in ('self', 'style')}
        self._options.update(style)
        _check_option_names(style)
        for name in SWITCHES:
            check_bool(name, self._options[name])
        self.style = Style(**style)
        require('tqdm', 'drawing')  # after the loop: missing there, it would cost the evaluation
        if report:
            require('jinja2', 'the report')
            if 'maps' not in self.style.save:
                self.style = replace(self.style, save=(*self.style.save, 'maps'))
        self.report = report
        self.explanations = None if explain is None else _parse_explain(explain)
        self._explain_each_level = explain is not None and check_bool('each_level', explain.get('each_level', False))
        self.layers = None if layers is None else check_names('layers', layers)
        self.layer_type = None if layer_type is None else check_name('layer_type', layer_type)
        default = 'mean' if 'overview' in self.style.save else 'max'
        self.reduction_name = default if reduction is None else check_name('reduction', reduction)
        self.reduction = get_reduction(self.reduction_name)
        check_foreground(self.style, self.reduction_name)
        if average_passes and self.reduction_name == PCA:
            raise ValueError(
                "average_passes is not for reduction='pca': the mean of passes has no features to find components of"
            )
        self.out_dir = None if out_dir is None else check_path('out_dir', out_dir)
        self.image_root = None if image_root is None else check_path('image_root', image_root)
        self.interval = check_whole_number('interval', interval)
        self.max_images = None if max_images is None else check_whole_number('max_images', max_images)
        self.image_names = () if image_names is None else check_names('image_names', image_names)
        if self.image_names and (interval != 1 or max_images is not None):
            raise ValueError('image_names cannot be combined with interval or max_images: choose one')
        self.stages = tuple(
            check_choice('stages', stage, STAGES) for stage in check_names('stages', stages, may_be_empty=True)
        )
        if explain is not None and not {'val', 'test'} & set(self.stages):
            raise ValueError(f"explain needs 'val' or 'test' among the stages, but they are {', '.join(self.stages)}")
        if RECEPTIVE_FIELD in self.style.save and not {'val', 'test'} & set(self.stages):
            raise ValueError(
                f"save='receptive_field' needs 'val' or 'test' among the stages, but they are {', '.join(self.stages)}"
            )
        self.backend_args = _check_backend_args(backend_args)
        self.average_passes = average_passes
        if overwrite and resume:
            raise ValueError('overwrite removes the files of another run, resume continues it: choose one')
        self.overwrite = overwrite
        self.resume = resume
        self.workers = check_workers(workers)
        self.log_to_visualizer = log_to_visualizer
        self.strict = strict

        self._warned = False
        self._is_checked = False  # before a training
        self._class_names: list[str] = []
        self._number = next(_numbers)
        self._copies = itertools.count(2)  # shared by a visualizer and its copies
        self._copy_number = 1
        self._lock = threading.RLock()  # several threads may use one detector that draws by itself
        self._test_number = 1
        self._has_test = False  # whether the latest test has drawn anything
        self.taps: Taps | None = None
        self._sources: dict[str, ImageSource] = {}  # by stage
        self._images = ImageSelection(self.interval, self.max_images, self.image_names)
        self._batches = BatchSelection(self._images)
        self._builder = SnapshotBuilder(self.style.align, average_passes)
        self._input_check = InputCheck()
        self._begin_statistics()

    def __deepcopy__(self, memo: dict) -> FeatureVisualizer:
        """Return a visualizer with the same options and a run of its own, in a folder of its own: ``{out_dir}_2``."""
        copy = type(self)(**deepcopy(self._options, memo))
        copy._copies = self._copies
        copy._copy_number = next(self._copies)
        return copy

    def __getstate__(self) -> dict:
        """Return only the options: a run with its hooks, threads and files stays with this process."""
        return self._options

    def __setstate__(self, options: dict) -> None:
        self.__init__(**options)

    def open(
        self,
        model: nn.Module,
        default_dir: str = DEFAULT_DIR,
        image_root: str | None = None,
        dataset_meta: dict | None = None,
        image_paths: Iterable[str] = (),
        backend_args: dict | None = None,
        stage: str = 'test',
        info: dict | None = None,
        in_run: bool = False,
        log: MMVisualizer | None = None,
    ) -> None:
        """Check layers and output folder before the first batch of a stage. Further calls for the stage do nothing.

        Args:
            model: The detector, or a wrapper around it.
            default_dir: Output folder if the user named none.
            image_root: Image folder of the data set, used if the user named none.
            dataset_meta: ``classes`` and ``palette`` (RGB) of the data set.
            image_paths: Paths of all images of the data set, so that output folders do not depend on their order.
            backend_args: File backend of the data set, used if the user named none.
            stage: ``train``, ``val`` or ``test``: the stage that the data set belongs to.
            info: Further entries of ``run.json``. The summary repeats ``weights``, a note about the weights.
            in_run: Whether a runner calls this, and :meth:`close` at its end.
            log: Visualizer for `log_to_visualizer`; None is that of the runner created last.

        Raises:
            ValueError: If a layer does not exist or can never fire, or the data set lacks one of `image_names`.
            OSError: If the folder cannot be written to, or holds another run's pictures.
        """
        with self._lock:
            if stage not in self._sources:
                self._open(
                    model, default_dir, image_root, dataset_meta, image_paths, backend_args, stage, info, in_run, log
                )

    def _open(
        self,
        model: nn.Module,
        default_dir: str,
        image_root: str | None,
        dataset_meta: dict | None,
        image_paths: Iterable[str],
        backend_args: dict | None,
        stage: str,
        info: dict | None,
        in_run: bool,
        log: MMVisualizer | None,
    ) -> None:
        image_paths = list(image_paths)
        missing = self._images.missing(image_paths) if image_paths else []
        if missing:
            raise ValueError(
                f'no image of the {stage} data set is called {missing[0]!r}: image_names must be ends of paths such as '
                f'{image_paths[0]!r}'
            )
        keys = ImageKeys(self.image_root or image_root, image_paths, self.interval, stage == 'train')
        source = ImageSource(keys, self.backend_args or backend_args, dataset_meta)
        if self.taps is None:
            self._open_run(model, default_dir, source, stage, info or {}, in_run, log)
        if self.explanations is not None:
            self.explanations.check(self.taps.model, class_names(source.dataset_meta))
        self._sources[stage] = source

    def _open_run(
        self,
        model: nn.Module,
        default_dir: str,
        source: ImageSource,
        stage: str,
        info: dict,
        in_run: bool,
        log: MMVisualizer | None,
    ) -> None:
        self._check_ranks(in_run)
        picture_log = PictureLogger(log or latest_visualizer()) if self.log_to_visualizer else None
        self._class_names = class_names(source.dataset_meta)
        taps = self.make_taps(model)
        info = dict(
            layers=list(taps.modules),
            reduction=self.reduction_name,
            dataset_meta=jsonable_dataset_meta(source.dataset_meta),
            backend_args=source.backend_args,
            working_dir=os.getcwd(),  # relative paths of images start here
            **info,
        )
        # A detector that draws by itself does not know its checkpoint.
        if info.get('checkpoint') or (stage == 'test' and not in_run):
            info['weights_crc32'] = weights_checksum(taps.model)
        if self.explanations is not None:
            info['explanations'] = dict(asdict(self.explanations), each_level=self._explain_each_level)
        self._in_run = in_run
        self._weights_note = info.get('weights')
        out_dir = self._own_folder(os.fspath(self.out_dir or default_dir))
        topic = f'run/{self._number}/{self.out_dir}'
        run_folder = RunFolder(out_dir, self.overwrite, self.resume, in_run, topic)
        workers = self.workers if in_run and not self.strict else 0
        device = next((parameter.device.type for parameter in model.parameters()), 'cpu')
        self._schedule = Schedule(workers, device, in_run, run_folder.is_remote)
        self._writer = RunWriter(
            run_folder,
            self.style,
            info,
            self.strict,
            workers=self._schedule.threads,
            workers_at_end=self._schedule.workers_at_end,
            encodes_beside=self._schedule.encodes_beside,
            log=picture_log,
        )
        self.taps = taps
        if not in_run:
            early_exit.finish_later(self, partial(_finish_alone, self._writer, self.report))

    def _own_folder(self, out_dir: str) -> str:
        """Output folder of this visualizer, which may be a copy of another one."""
        return out_dir if self._copy_number < 2 else f'{out_dir.rstrip("/")}_{self._copy_number}'

    def _check_ranks(self, in_run: bool) -> None:
        """Raise ValueError for what a detector that draws by itself cannot do on several ranks without our tools."""
        options = {
            'report=True': self.report,
            "normalize='run'": self.style.normalize == 'run',
            "reduction='pca'": self.reduction_name == PCA,
            "save=('embeddings',)": EMBEDDINGS in self.style.save,
        }
        option = next((option for option, is_set in options.items() if is_set), None)
        if not in_run and get_dist_info()[1] > 1 and option is not None:
            raise ValueError(
                f'{option} needs the images of all ranks at the end, which a detector that draws by itself cannot '
                'collect: use featviz test instead of tools/test.py, or FeatVizHook instead of the detector, or one '
                'process'
            )

    def make_taps(self, model: nn.Module) -> Taps:
        """Return taps that capture what this visualizer draws of a detector.

        Raises:
            ValueError: If a layer or class does not exist, a layer can never fire, or there are no class-score maps.
        """
        save, has_components = self.style.save, needs_components(self.style, self.reduction_name)
        self._chosen_classes(unwrap_detector(model))
        recorder = DetailRecorder(
            parse_channel_choice(self.style.channels) if 'channels' in save else None,
            self.style.attention_channels if 'attention' in save else None,
            'raw' in save or self.report,
            has_components,
        )
        return Taps(
            model,
            () if self._draws_only_scores else self.layers,
            self.reduction,
            self.strict,
            None if self._draws_only_scores else self.layer_type,
            recorder if has_components or self.report or {'channels', 'attention', 'raw'} & set(save) else None,
            'attention' in save,
            score_maps=self._make_score_maps(unwrap_detector(model)) if 'scores' in save else None,
            keep_features=self.explanations is not None,
            keep_levels=BOX_FEATURES in save,
        )

    @property
    def _draws_only_scores(self) -> bool:
        """Whether no layer is captured: only score maps are asked for, or saved as well without any `layers`."""
        others = set(self.style.save) - {'scores', BOX_FEATURES}
        return 'scores' in self.style.save and (not others or (others == {'maps'} and self.layers is None))

    def _make_score_maps(self, detector: nn.Module) -> ScoreMaps:
        from mmdet_featviz.capture import score_maps  # imports the heads of mmdet

        names, labels = self._known_classes(detector), self._chosen_classes(detector)

        def choose(sample: Any, result: Any) -> list[int]:
            return score_maps.predicted_classes(self.style.score_thr, sample, result) if labels is None else labels

        return score_maps.ScoreMaps(detector, names, choose)

    def _known_classes(self, detector: nn.Module) -> list[str]:
        return self._class_names or class_names(getattr(detector, 'dataset_meta', None))

    def _chosen_classes(self, detector: nn.Module) -> list[int] | None:
        """Indices of the classes to show; None for all.

        Raises:
            ValueError: If there is no class of one of the names.
        """
        names, chosen = self._known_classes(detector), self.style.classes
        return None if chosen is None else sorted({find_label(name, names) for name in chosen})

    def __enter__(self) -> FeatureVisualizer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        """Close the run, or after an error only log what was drawn so far."""
        if kind is None:
            self.close()
        else:
            self.stop_early()

    def draws(self, stage: str) -> bool:
        """Whether a detector that draws by itself draws a prediction of a stage that is made now."""
        return not are_nested() and stage in self.stages

    @property
    def needs_check(self) -> bool:
        """Whether a detector that trains should call :meth:`check`: its first validation may be hours away."""
        return 'val' in self.stages and self.taps is None and not self._is_checked and not are_nested()

    def check(self, model: nn.Module, dataset_meta: dict | None = None) -> None:
        """Check layers, classes, explanations and output folder, without opening the run.

        Args:
            model: The detector, or a wrapper around it.
            dataset_meta: ``classes`` of the data set.

        Raises:
            ValueError: If a layer or class does not exist, a layer can never fire, or an option is not for several
                ranks.
            FileExistsError: If the folder holds another run's pictures.
        """
        self._is_checked = True
        self._check_ranks(in_run=False)
        self._class_names = class_names(dataset_meta)
        taps = self.make_taps(model)
        if self.explanations is not None:
            self.explanations.check(taps.model, self._class_names)
        if self.out_dir is not None and not (self.overwrite or self.resume):
            check_free(self._own_folder(os.fspath(self.out_dir)))

    def is_done(self, stage: str = 'test') -> bool:
        """Whether this test or validation, or the training, has reached `max_images`."""
        return self._images.is_over(stage)

    def begin(self, stage: str, images: int | None = None) -> None:
        """Begin a round over the data set of a stage.

        Args:
            stage: ``train``, ``val`` or ``test``.
            images: Number of images in the data set, if its sampler may repeat some at the end.
        """
        self._images.begin(stage, images)
        self._builder.begin()
        self._begin_statistics()
        if stage == 'test' and self._has_test:
            self._test_number += 1
            self._has_test = False

    def draw_on(self, decoded: Mapping[str, np.ndarray]) -> None:
        """Draw on images that are decoded already.

        Args:
            decoded: {path: image}, BGR (height, width, 3), uint8, as it would be read from the file. It may change from
                batch to batch; what it lacks is read.
        """
        self._builder.decoded = decoded

    @property
    def test_folder(self) -> str:
        """Subfolder for the pictures of the current test: none for the first one, ``test_2`` for the second."""
        return numbered_folder('', self._test_number)

    def select(
        self,
        inputs: Tensor,
        samples: Sequence[Any],
        folder: str = '',
        stage: str = 'test',
        round_size: int | None = None,
        images: int | None = None,
    ) -> Selection:
        """Return which images of a batch are drawn; for detectors, which know neither batches nor epochs.

        Args:
            inputs: The network's input (N, C, H, W).
            samples: Data samples of the batch.
            folder: Subfolder of the run's folder.
            stage: ``train``, ``val`` or ``test``.
            round_size: Number of images that this rank sees in a test or validation, if known: the next begins after.
            images: Number of images in the data set of a test or validation, if its sampler may repeat some at the end.
        """
        return self._batches.select(inputs, samples, folder, stage, is_augmented_call(), round_size, images)

    def draw(
        self,
        passes: Sequence[Pass],
        results: Sequence[Any] = (),
        folder: str = '',
        stage: str = 'test',
        selection: Selection | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Draw the feature maps that the taps captured from one batch, and explain its detections.

        Args:
            passes: The passes over the batch: one, or one per augmentation.
            results: Data samples with the predictions, in the order of the images.
            folder: Subfolder of the run's folder, such as ``epoch_3``.
            stage: ``train``, ``val`` or ``test``. Training images are drawn over the network's input: random crops and
                mosaics have no place in an original image.
            selection: Result of :meth:`select`; None selects now, for a batch that is new.
            data: The batch as the data loader returned it, which explanations need.
        """
        if not passes:
            return
        selected, number = selection or (self._batches.select_new(passes[0].samples, stage), None)
        self._has_test = self._has_test or stage == 'test'
        images = sum(position is not None for position in selected)
        if images:
            self._warn_without_truth(passes[0].samples)
        self._writer.postpones = self._schedule.postpones and self._is_source_of_run(stage)
        drawn: dict[int, list[Snapshot]] = {}  # by index in the batch
        with self._schedule.batch(images, self._writer.draw_postponed):
            for index, position in enumerate(selected):
                if position is None:
                    continue
                result = results[index] if index < len(results) else None
                path = image_path(passes[0].samples[index].metainfo)
                build = partial(self.snapshots, passes, index, result, folder, stage, position, number)
                with self._lock:
                    drawn[index] = self._writer.build_and_write(path or 'an array', build)
        if self.report:
            self._measure_levels()
        batch = DrawnBatch(self.taps.model, self._writer, self.style, passes, drawn)
        with self._lock:
            if BOX_FEATURES in self.style.save and stage != 'train':
                batch.save_box_features()
            if self.needs_data and stage != 'train' and data is not None:
                batch.look_back(results, data, self.explanations)

    @property
    def needs_data(self) -> bool:
        """Whether :meth:`draw` also makes passes of its own, for which it needs the batch."""
        return self.explanations is not None or RECEPTIVE_FIELD in self.style.save

    def explain_snapshots(
        self,
        snapshots: Mapping[int, Snapshot],
        data: Mapping[str, Any],
        results: Sequence[Any],
        features: Mapping[str, KeptFeatures],
    ) -> dict[int, list[Explanation]]:
        """Return the explanations of images of a batch, by their index."""
        model, request = self.taps.model, self.explanations
        return explain_snapshots(model, request, self.style, snapshots, data, results, features)

    def _is_source_of_run(self, stage: str) -> bool:
        """Whether ``run.json`` names the classes and the file backend of a stage, so that it can be drawn later."""
        source, info = self._sources.get(stage), self._writer.info
        return (
            source is not None
            and source.backend_args == info['backend_args']
            and jsonable_dataset_meta(source.dataset_meta) == info['dataset_meta']
        )

    def _warn_without_truth(self, samples: Sequence[Any]) -> None:
        """Log once that `boxes` asks for ground truth and the pipeline loads none."""
        wants_truth = self.style.boxes in ('gt', 'both') and not self._warned
        if wants_truth and not any(
            has_all(getattr(item, 'gt_instances', None), 'bboxes', 'labels') for item in samples
        ):
            self._warned = True
            message = (
                f'boxes={self.style.boxes!r}, but the data samples have no ground truth, so none is drawn: add '
                "dict(type='LoadAnnotations', with_bbox=True) before PackDetInputs to the pipeline, or set boxes='pred'"
            )
            print_log(message, 'current', logging.WARNING)

    def snapshots(
        self,
        passes: Sequence[Pass],
        index: int,
        result: Any = None,
        folder: str = '',
        stage: str = 'test',
        position: int | None = None,
        pass_number: int | None = None,
        array: np.ndarray | None = None,
    ) -> list[Snapshot]:
        """Build the snapshots of one image of a batch: one per pass and, with `average_passes`, their mean.

        Args:
            passes: The passes over the batch.
            index: Index of the image in the batch.
            result: Data sample with the predictions for the image.
            folder: Subfolder of the run's folder.
            stage: ``train``, ``val`` or ``test``.
            position: Position of the image in the order of the data set, if known.
            pass_number: Number of the pass in its prediction, for detectors that draw by themselves.
            array: The image itself, (H, W, 3), BGR, if it was given as an array; only without a run.
        """
        source = self._sources.get(stage)
        if source is None:  # not opened for a run: the detector may know its classes
            dataset_meta = getattr(self.taps.model, 'dataset_meta', None)
            source = ImageSource(ImageKeys(self.image_root), self.backend_args, dataset_meta, array)
        snapshots = self._builder.build(
            self.taps.model, passes, index, source, result, folder, stage, position, pass_number
        )
        self._input_check.check(passes, index, snapshots, stage)
        if not self.report:
            return snapshots
        self._unmeasured.append(snapshots[0])
        return snapshots if 'raw' in self.style.save else [_without_raw(snapshot) for snapshot in snapshots]

    def _begin_statistics(self) -> None:
        self._statistics = RunStatistics()
        self._unmeasured: list[Snapshot] = []  # with the whole feature maps, which are not kept

    def _measure_levels(self) -> None:
        """Add the first images of a test or validation to the statistics; then whole feature maps are not needed."""
        for snapshot in self._unmeasured:
            if self._statistics.images < MEASURED_IMAGES:
                self._statistics.add(snapshot)
        self._unmeasured.clear()
        recorder = self.taps.detail_recorder
        needs_raw = 'raw' in self.style.save or self._statistics.images < MEASURED_IMAGES
        if recorder.raw != needs_raw:
            self.taps.detail_recorder = replace(recorder, raw=needs_raw)

    def record_metrics(
        self, metrics: dict[str, Any] | None, folder: str = '', focus: Mapping[str, dict] | None = None
    ) -> None:
        """Keep the metrics of a test or validation for the report.

        Args:
            metrics: {name: value}.
            folder: Subfolder of the validation's pictures, such as ``epoch_3``; empty for a test.
            focus: {prefix: settings} of each FeatureFocusMetric among the evaluators.
        """
        if metrics and self.taps is not None:
            self._writer.record_metrics(metrics, folder, focus)

    def write_evaluation(self, files: Mapping[str, bytes], folder: str = '') -> None:
        """Write the files of a test or validation to the folder of the run.

        Args:
            files: {name: content}; may be empty.
            folder: Subfolder of the validation's pictures, such as ``epoch_3``; empty for a test.
        """
        if files and self.taps is not None:
            self._writer.write_evaluation(files, folder)

    def close(self) -> None:
        """Wait until everything is written, and draw what waits for the end (with ``normalize='run'`` all pictures).

        Outside a runner this also writes the report. A detector that draws by itself may go on to predict: its further
        images are added to the run. Without a call, it closes when the process ends.
        """
        if self.taps is not None:
            with self._lock:
                if self._statistics.images:
                    levels = [asdict(level) for level in self._statistics.levels()]
                    self._writer.record_statistics(dict(images=self._statistics.images, levels=levels))
                self._writer.finish(self._in_run)
        early_exit.release(self)  # not before: drawing the rest may be interrupted
        if self.taps is not None and not self._in_run:
            self.write_report()

    def summarize_at_exit(self) -> None:
        """If the process ends before :meth:`close`, because of an error or a signal, log what was drawn."""
        early_exit.watch(self)

    def stop_early(self) -> None:
        """Wait until everything is written, and log what was drawn so far."""
        if self.taps is not None:
            self.taps.detach()
            try:
                self._writer.stop()
            finally:  # also if drawing the rest is interrupted
                message = f'Feature maps drawn before the run ended early: {self.summary()}'
                print_log(message, 'current', logging.WARNING)

    def write_report(self) -> None:
        """With `report`, write the report page and log where it is."""
        if self.report and self.taps is not None and is_main_process():
            _write_report(self._writer)

    def summary(self) -> str:
        """Return one line: pictures, images, output folder, and skipped images and layers with the reason."""
        if self.taps is None:
            return 'no pictures: none of the stages to draw has run'
        line = self._writer.summary()
        layers = self.taps.skipped_layers()
        if layers:
            line += f'{"; " if "; skipped: " in line else "; skipped: "}{"; ".join(layers)}'
        return f'{self._weights_note}: {line}' if self._weights_note else line


def _without_raw(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, levels=[replace(level, raw=None) for level in snapshot.levels])


def _finish_alone(writer: RunWriter, report: bool) -> None:
    """Finish a run outside a runner that was not closed, and log its summary."""
    if not writer.is_finished:
        writer.finish()
        if report:
            _write_report(writer)
        print_log(f'Feature maps: {writer.summary()}', 'current')


def _write_report(writer: RunWriter) -> None:
    from mmdet_featviz.report.builder import write_report  # needs jinja2, which drawing does not

    print_log(write_report(writer.run_folder.out_dir), 'current')


def _check_backend_args(backend_args: dict | None) -> dict | None:
    """Return the arguments of a file backend if they are valid; the backend of a URL is known only with the URL."""
    if backend_args is not None and not isinstance(backend_args, dict):
        raise TypeError(f"backend_args must be a dict such as dict(backend='petrel'), but is {backend_args!r}")
    if backend_args and 'backend' in backend_args:
        try:
            get_file_backend(backend_args=dict(backend_args))
        except Exception as error:  # each file backend raises errors of its own
            raise ValueError(
                f'no file backend can be made from backend_args={backend_args!r} ({type(error).__name__}: {error})'
            ) from error
    return backend_args


def _parse_explain(explain: dict) -> ExplanationRequest:
    """Return what the argument `explain` asks for.

    Raises:
        TypeError, ValueError: If it is no dict, or one of its values is wrong.
    """
    if not isinstance(explain, dict):
        raise TypeError(f"explain must be a dict such as dict(method='odam', targets='top 3'), but is {explain!r}")
    looks = [name for name in explain if name in STYLE_OPTIONS]
    if looks:
        raise TypeError(f'explain has no {looks[0]!r}: explanations look as the other pictures of the run')
    from mmdet_featviz.explanation.request import REQUEST_OPTIONS, ExplanationRequest  # imports mmdet's models

    own = {name: value for name, value in explain.items() if name in REQUEST_OPTIONS}
    options = {name: value for name, value in explain.items() if name not in (*own, 'each_level')}
    return ExplanationRequest(**own, options=options)


def _check_option_names(style: dict) -> None:
    """Raise TypeError for an argument that does not exist, naming the closest one that does."""
    known = {*STYLE_OPTIONS, *inspect.signature(FeatureVisualizer).parameters} - {'style'}
    for name in style:
        if name not in STYLE_OPTIONS:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'choose from {", ".join(sorted(known))}'
            raise TypeError(f'unknown argument {name!r}: {hint}')
