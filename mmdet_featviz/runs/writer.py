"""Writer: draws snapshots, at once, in background threads or later; the files and entries go to the run folder."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os.path as osp
from dataclasses import asdict, replace
from functools import lru_cache, partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, Sequence

import numpy as np
from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.logging import print_log

from mmdet_featviz.capture.reductions import PCA
from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.explanation.targets import NoTargetError
from mmdet_featviz.runs.backlog import BACKLOG, Backlog, can_wait
from mmdet_featviz.runs.box_features_file import box_features_entry, box_features_name, dump_box_features
from mmdet_featviz.runs.component_fit import RunFit, fit_run, needs_components, views_with
from mmdet_featviz.runs.embeddings_file import dump_embeddings
from mmdet_featviz.runs.explanation_files import (
    FOLDER,
    dump_explanation,
    explanation_entry,
    explanation_name,
    explanation_pictures,
)
from mmdet_featviz.runs.field_files import TABLE, field_entry, field_facts, field_files, field_picture
from mmdet_featviz.runs.manifest import MANIFEST, level_entry
from mmdet_featviz.runs.maps_file import dump_snapshot, parse_snapshot
from mmdet_featviz.runs.outcome import Outcome
from mmdet_featviz.runs.processes import can_copy, do_in_processes
from mmdet_featviz.runs.progress import progress_bar
from mmdet_featviz.runs.reader import add_image, load_with_image
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.run_info import (
    RUN_INFO_FILE,
    TEST,
    check_same_settings,
    numeric_metrics,
    read_run_info,
    to_json,
)
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.runs.visualizer_backends import PictureLogger
from mmdet_featviz.runs.workers import Workers, do_in_threads, is_worker
from mmdet_featviz.structures.box_features import BoxFeatures
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.messages import first_names
from mmdet_featviz.version import __version__
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.style import EMBEDDINGS, Style
from mmdet_featviz.visualization.views import Picture, PlacedLevel, Views

if TYPE_CHECKING:
    from mmdet_featviz.explanation.field_measurement import FieldMeasurement


MEASURED = ('metrics', 'focus', 'levels', 'statistics', TABLE)  # entries of run.json that a resumed run keeps
FIELD_IMAGES = 20  # for the receptive fields of a test or validation


class RunWriter:
    """Draws snapshots and writes their pictures, saved maps and manifest entries.

    An error in a single image or picture is counted and reported in :meth:`summary`, or raised with `strict`.

    Args:
        run_folder: Folder of the run.
        style: Which pictures are made, and how they look.
        info: Entries of ``run.json`` besides the style: `dataset_meta`, `backend_args` and any others.
        strict: Whether an unreadable image or a picture that cannot be written is an error.
        views: Draws the pictures. None makes it of the style; what it needs to know of the whole run, with
            ``normalize='run'``, ``reduction='pca'`` or embeddings, is then found in :meth:`finish`.
        fit: Principal components of the run, if `views` is given and embeddings are to be saved.
        workers: Number of threads that draw and write. 0, or `strict`, draws in the calling thread.
        workers_at_end: Number of processes, or else threads, that draw in :meth:`finish` and :meth:`stop`. Default:
            `workers`.
        encodes_beside: Whether pictures that are drawn in the calling thread are encoded and written in another one,
            while the next picture is drawn.
        log: Also receives all pictures, in the thread that calls :meth:`write` and :meth:`finish`.

    Attributes:
        postpones: Whether :meth:`write` saves the maps of an image, where it can, and leaves drawing to :meth:`finish`.
            The folder must be on disk. A stopped run may leave images behind; these are drawn when it is resumed.
    """

    def __init__(
        self,
        run_folder: RunFolder,
        style: Style,
        info: dict,
        strict: bool = False,
        views: Views | None = None,
        fit: RunFit | None = None,
        workers: int = 0,
        workers_at_end: int | None = None,
        encodes_beside: bool = False,
        log: PictureLogger | None = None,
    ) -> None:
        self.run_folder = run_folder
        self.style = style
        self.info = info
        self.strict = strict
        self.outcome = Outcome()
        self.is_finished = True  # nothing was drawn since the last finish()
        self._log = log if is_main_process() else None
        self._views = views or Views(style)
        self._fit = fit
        self._needs_components = needs_components(style, info.get('reduction'))
        self._needs_whole_run = views is None and (style.normalize == 'run' or self._needs_components)
        self._workers = Workers(0 if strict else workers, self._receive)
        self._encoder = Workers(1 if encodes_beside and not strict else 0, _note_written)
        self._at_end = 0 if strict else workers if workers_at_end is None else workers_at_end
        self._has_local_images = True
        self.postpones = False
        self._is_drawing_backlog = False
        self._fields: dict[str, FieldMeasurement] = {}  # by folder, such as epoch_3
        self._each_level = bool((info.get('explanations') or {}).get('each_level'))
        self._run_info = dict(version=__version__, style=asdict(style), **info)
        before = read_run_info(get_storage(run_folder.out_dir)) if run_folder.resume else {}
        if run_folder.finished or run_folder.backlogs() or before.get(TABLE):
            check_same_settings(run_folder.out_dir, before, json.loads(to_json(self._run_info)))
            self._run_info.update({name: before.get(name, {}) for name in MEASURED})
        run_folder.take(self._run_info)
        if run_folder.resume:
            self._draw_what_was_left()

    @property
    def _saves_maps(self) -> bool:
        return self._needs_whole_run or not {'maps', 'raw', EMBEDDINGS}.isdisjoint(self.style.save)

    def write(self, *snapshots: Snapshot) -> None:
        """Draw and write everything that the style asks for, now, in the background or later.

        Args:
            *snapshots: One or more passes over one image, which is then decoded only once.

        Raises:
            ImageError, OSError: With `strict`, if an image cannot be read or a picture cannot be written.
        """
        self.run_folder.take(self._run_info)  # again, if nothing had been drawn before the last finish()
        self._record_centers(snapshots)
        self._has_local_images = self._has_local_images and not any('://' in str(one.path) for one in snapshots)
        self._workers.submit(self._postpone if self._can_postpone(snapshots) else self._write_all, snapshots)

    def build_and_write(self, name: str, build: Callable[[], Sequence[Snapshot]]) -> list[Snapshot]:
        """Build the snapshots of one image and write them; an error in building counts as one in drawing the image.

        Args:
            name: Name of the image, for messages.
            build: Returns the snapshots.

        Returns:
            The snapshots, or nothing after an error.
        """
        outcome, built = Outcome(), []

        def build_all(_: Outcome) -> None:
            built.extend(build())
            self.write(*built)

        self.is_finished = False
        self._attempt(outcome, name, build_all)
        self._count(outcome)
        return built

    def explain_and_write(
        self, names: Mapping[int, str], explain: Callable[[], Mapping[int, Sequence[Explanation]]]
    ) -> None:
        """Explain the images of a batch, and write the pictures and saved maps of the explanations.

        An error in explaining costs the explanations, and nothing else.

        Args:
            names: Name of each image, by its index in the batch, for messages.
            explain: Returns the explanations of each image.

        Raises:
            Exception: With `strict`, any error but :class:`NoTargetError`.
        """
        outcome, missing = Outcome(), NoTargetError('an image has no target')
        self.is_finished = False
        explanations: Mapping[int, Sequence[Explanation]] = {}
        try:
            explanations = explain()
        except NoTargetError as error:
            missing = error
        except Exception as error:  # of the detector, or of the user's explainer
            if self.strict:
                raise
            missing = error
        for index, name in names.items():
            if explanations.get(index):
                self.run_folder.take(self._run_info)
                self._workers.submit(self._draw_explanations, explanations[index])
            else:
                outcome.add_error(missing, osp.basename(name), 'explanations')
        self._count(outcome)

    def write_box_features(self, snapshot: Snapshot, measure: Callable[[], BoxFeatures]) -> None:
        """Write the features of an image's boxes, unless the run that is resumed has them.

        An error costs these, and nothing else.

        Args:
            snapshot: The image, in one pass.
            measure: Returns the features.

        Raises:
            Exception: With `strict`, any error.
        """
        if (snapshot.key, snapshot.augmentation) in self.run_folder.measured:
            return
        outcome = Outcome()
        self.is_finished = False
        self.run_folder.take(self._run_info)
        try:
            features = measure()
            data = dump_box_features(features, self.style.maps_dtype)
            self._write_maps(outcome, snapshot, osp.basename(box_features_name(snapshot)), data)
            self.run_folder.record([box_features_entry(snapshot, features)])
        except Exception as error:  # of the detector's own head, or of the storage
            if self.strict:
                raise
            outcome.add_error(error, osp.basename(snapshot.path or 'an array'), 'box features')
        self._count(outcome)

    def has_explained(self, snapshot: Snapshot) -> bool:
        """Whether the run that is resumed has all explanations of an image."""
        return (snapshot.key, snapshot.augmentation) in self.run_folder.explained

    def measure_fields(self, snapshot: Snapshot, measure: Callable[[FieldMeasurement], None]) -> None:
        """Measure receptive fields in an image; :meth:`finish` writes their means over the images.

        Only the first rank measures, in the first 20 images of each test or validation. A resumed run keeps what it
        has. An error ends the measurement, and costs nothing else.

        Args:
            snapshot: The image.
            measure: Adds the image to a measurement.

        Raises:
            Exception: With `strict`, any error.
        """
        folder = snapshot.folder
        if not is_main_process() or (folder or TEST) in self._run_info.get(TABLE, {}):
            return
        if folder not in self._fields:
            from mmdet_featviz.explanation.field_measurement import FieldMeasurement  # imports mmdet's models

            self._fields[folder] = FieldMeasurement()
        measurement = self._fields[folder]
        if measurement.has_ended or measurement.images == FIELD_IMAGES:
            return
        self.is_finished, outcome = False, Outcome()
        try:
            measure(measurement)
        except Exception as error:  # of the detector
            if self.strict:
                raise
            measurement.has_ended = True
            outcome.add_lost_fields(error, osp.basename(snapshot.path or 'an array'))
        self._count(outcome)

    def record_metrics(
        self, metrics: dict[str, Any], folder: str = '', focus: Mapping[str, dict] | None = None
    ) -> None:
        """Add the metrics of an evaluation to ``run.json``.

        Args:
            metrics: {name: value}; values that are not numbers are dropped.
            folder: Folder of a validation's pictures, such as ``epoch_3``; empty for a test.
            focus: {prefix: settings} of each FeatureFocusMetric among the evaluators.

        Raises:
            OSError: With `strict`, if the file cannot be written.
        """
        self._run_info['metrics'] = {**self._run_info.get('metrics', {}), folder or TEST: numeric_metrics(metrics)}
        self._run_info['focus'] = {**self._run_info.get('focus', {}), **(focus or {})}
        self._write_info()

    def record_statistics(self, statistics: dict[str, Any]) -> None:
        """Add the statistics of the levels to ``run.json``, in place of earlier ones.

        Args:
            statistics: ``images``, their number, and ``levels``, the fields of each :class:`LevelStatistics`.
        """
        self._run_info['statistics'] = statistics
        self._write_info()

    def write_evaluation(self, files: Mapping[str, bytes], folder: str = '') -> None:
        """Write the files of an evaluation, such as a table of errors.

        Args:
            files: {name: content}.
            folder: Folder of a validation's pictures, such as ``epoch_3``; empty for a test.

        Raises:
            OSError: With `strict`, if a file cannot be written.
        """
        self.run_folder.take(self._run_info)
        named = {f'{folder}/{name}'.lstrip('/'): content for name, content in files.items()}
        try:
            self.run_folder.record([dict(evaluation=folder or TEST, files=list(named))])
            for name, content in named.items():
                self.run_folder.write(name, content)
        except Exception as error:  # each file backend raises errors of its own
            if self.strict:
                raise
            message = f'{first_names(list(named))} cannot be written: {error}'
            print_log(message, 'current', logging.WARNING)

    def _record_centers(self, snapshots: Sequence[Snapshot]) -> None:
        """Add where the cells of levels are to ``run.json``, if this is new."""
        before = self._run_info.get('levels', {})
        levels = {
            level.name: dict(stride=level.stride, offset=level.offset)
            for snapshot in snapshots
            for level in snapshot.levels
            if level.offset is not None
        }
        if any(before.get(name) != facts for name, facts in levels.items()):
            self._run_info['levels'] = {**before, **levels}
            self._write_info()

    def _write_info(self) -> None:
        try:
            self.run_folder.write_info(self._run_info)
        except Exception as error:  # each file backend raises errors of its own
            if self.strict:
                raise
            message = f'{RUN_INFO_FILE} cannot be written, so the report will lack the latest metrics: {error}'
            print_log(message, 'current', logging.WARNING)

    def finish(self, in_run: bool = False) -> None:
        """Wait until everything is written, and draw the pictures that wait for the end of the run.

        Args:
            in_run: Whether all ranks of a run call this together: value range, outcome and manifest then cover all
                ranks.
        """
        self._workers.wait()
        pending, self.outcome.pending = self.outcome.pending, []
        pending_of_all_ranks = sum(all_gather_object(pending), []) if in_run else pending
        if pending_of_all_ranks:
            views = self._views_of(pending_of_all_ranks)
            of_images = [list(paths) for _, paths in groupby(pending, osp.dirname)]
            self._draw_at_end(partial(self._draw_saved, views), of_images, len(of_images))
        self.draw_postponed(shows_progress=True)
        self._write_fields()
        self._flush()
        if in_run:
            self._join_ranks()
        self.run_folder.release()
        self.is_finished = True

    def _write_fields(self) -> None:
        """Write pictures and tables of the receptive fields that were measured."""
        measured, self._fields = self._fields, {}
        for folder, measurement in measured.items():
            if measurement.images:
                outcome = Outcome()
                self._attempt(outcome, TABLE, self._write_fields_of, folder, measurement)
                self._receive(outcome)

    def _write_fields_of(self, outcome: Outcome, folder: str, measurement: FieldMeasurement) -> None:
        fields = measurement.fields()
        facts = field_facts(fields, measurement.images)
        self.write_evaluation(field_files(facts), folder)
        self._run_info[TABLE] = {**self._run_info.get(TABLE, {}), folder or TEST: facts}
        self._write_info()
        for field in fields:
            picture = field_picture(field, self.style)
            _note_written(self._write_picture(outcome, field.snapshot, picture, {}))
            self.run_folder.record([field_entry(field, [f'{field.snapshot.key}/{picture.name}'])])

    def _views_of(self, paths: Sequence[str]) -> Views:
        """What draws a whole run, given by its maps files; finds its principal components, if they are needed."""
        if self._needs_components:
            self._fit = fit_run(self.style, paths, self.run_folder.out_dir)
        return views_with(self.style, paths, self._fit.components if self.info.get('reduction') == PCA else None)

    def stop(self) -> None:
        """Draw what was postponed, and wait until everything is written.

        Pictures that wait for the end of the run are not drawn, and receptive fields are not written.
        """
        try:
            self._workers.wait()
            self.draw_postponed(shows_progress=True)
        finally:
            self._flush()
            self.run_folder.release()
            self.is_finished = True

    def _flush(self) -> None:
        self._workers.wait()
        self._encoder.wait()
        self._attempt(self.outcome, MANIFEST, lambda _: self.run_folder.flush())

    def _join_ranks(self) -> None:
        """On the first rank, add up the outcomes of all ranks and merge their manifests into one."""
        outcomes = all_gather_object(self.outcome)  # also waits until all ranks have written
        self.outcome = Outcome()
        if is_main_process():
            for outcome in outcomes:
                self.outcome.add(outcome)
            if len(outcomes) > 1:  # should merging fail, readers still find the parts
                self._attempt(self.outcome, MANIFEST, lambda _: self.run_folder.merge())
        barrier()  # no rank appends to its part before the parts are merged

    def summary(self) -> str:
        """Return one line: pictures, images, output folder, and skipped images with the reason."""
        return self.outcome.summary(self.run_folder.out_dir)

    def _count(self, outcome: Outcome) -> None:
        """Add the outcome of a task, and log each reason for skipping when it first occurs."""
        for reason in outcome.skipped.keys() - self.outcome.skipped.keys():
            print_log(outcome.messages[reason], 'current', logging.WARNING)
        self.outcome.add(outcome)

    def _receive(self, outcome: Outcome) -> None:
        """Take the outcome of a task, in the thread that submitted it: visualizers need not be thread-safe."""
        logged, outcome.logged = outcome.logged, []
        if logged:
            self._attempt(outcome, logged[0][0].path or logged[0][0].key, self._log_pictures, logged)
        self._count(outcome)

    def _log_pictures(self, outcome: Outcome, logged: Sequence[tuple[Snapshot, Picture]]) -> None:
        self._log.add(logged)

    def _write_all(self, snapshots: Sequence[Snapshot]) -> Outcome:
        outcome = Outcome()
        for snapshot in snapshots:
            self._attempt(outcome, snapshot.path or snapshot.key, self._write, snapshot)
        return outcome

    def _can_postpone(self, snapshots: Sequence[Snapshot]) -> bool:
        """Whether to draw an image later. `log` numbers images in the order in which it receives them."""
        may_wait = self.postpones and self._log is None and not self.strict and not self._needs_whole_run
        return may_wait and all(can_wait(snapshot) and not self._is_finished(snapshot) for snapshot in snapshots)

    def _postpone(self, snapshots: Sequence[Snapshot]) -> Outcome:
        outcome = Outcome()
        self._attempt(outcome, snapshots[0].path or snapshots[0].key, self._save_for_later, snapshots)
        return outcome

    def _save_for_later(self, outcome: Outcome, snapshots: Sequence[Snapshot]) -> None:
        self.run_folder.backlog().add(snapshots)
        outcome.postponed += 1

    def draw_postponed(self, shows_progress: bool = False) -> None:
        """Draw what was postponed. If this is interrupted, it is not begun again: resuming the run does the rest."""
        if self._is_drawing_backlog or not self.outcome.postponed:
            return
        self._is_drawing_backlog = True
        self._draw_backlog(self.run_folder.backlog(), shows_progress)
        self._is_drawing_backlog = False

    def _draw_backlog(self, backlog: Backlog, shows_progress: bool = True) -> None:
        self._draw_at_end(self._draw_image, backlog, len(backlog), shows_progress)
        backlog.remove()

    def _draw_what_was_left(self) -> None:
        """On the first rank, draw what the run that is resumed had postponed; it then counts as drawn before."""
        backlogs = self.run_folder.backlogs()
        if backlogs and self.run_folder.is_first:
            outcome, self.outcome = self.outcome, Outcome()
            for backlog in backlogs:
                self._draw_backlog(backlog)
            outcome.skipped, outcome.messages = self.outcome.skipped, self.outcome.messages
            message = f'Feature maps drawn that the stopped run had saved: {self.outcome.pictures} pictures'
            print_log(message, 'current')
            self.outcome = outcome
        if self.run_folder.in_run:
            barrier()  # what the first rank has drawn is finished for all
        self.run_folder.find_finished()

    def _draw_at_end(
        self, draw: Callable[[Any], Outcome], images: Iterable[Any], count: int, shows_progress: bool = True
    ) -> None:
        """Draw the images that were left for the end, while the detector does not need the processor."""
        with progress_bar(count, is_shown=shows_progress and is_main_process()) as progress:

            def receive(outcome: Outcome) -> None:
                self._receive(outcome)
                progress.update()

            workers = min(self._at_end, count)
            do = do_in_processes if workers > 1 and self._can_share else do_in_threads
            do(draw, images, receive, workers)

    @property
    def _can_share(self) -> bool:
        """Whether several processes can draw: connections to file backends and visualizers belong to one."""
        backend = (self.info.get('backend_args') or {}).get('backend', 'local')
        is_local = backend == 'local' and self._has_local_images and not self.run_folder.is_remote
        return is_local and self._log is None and can_copy()

    def _draw_image(self, maps: Sequence[bytes]) -> Outcome:
        """Draw an image of the backlog.

        Args:
            maps: Maps files of its passes.
        """
        outcome = Outcome()
        self._attempt(outcome, BACKLOG, self._draw_passes, maps)
        outcome.postponed -= 1
        return outcome

    def _draw_passes(self, outcome: Outcome, maps: Sequence[bytes]) -> None:
        snapshots = [add_image(parse_snapshot(data, BACKLOG), self.info) for data in maps]
        image = lru_cache(maxsize=None)(snapshots[0].image)
        for snapshot in snapshots:
            name = osp.basename(snapshot.path)
            self._attempt(outcome, name, self._write, replace(snapshot, image=image))

    def _draw_saved(self, views: Views, paths: Sequence[str]) -> Outcome:
        """Draw the passes of one image from its saved maps; the image is read once."""
        outcome, images = Outcome(), {}
        for path in paths:
            name = osp.dirname(path)  # the folder is named as the image
            self._attempt(outcome, name, self._draw_from_maps, path, views, images)
        return outcome

    def _attempt(self, outcome: Outcome, name: str, work: Callable, *args: Any) -> None:
        """Call ``work(outcome, *args)``; unless `strict`, count an error of any kind instead of stopping the run."""
        try:
            work(outcome, *args)
        except Exception as error:
            if self.strict:
                raise
            outcome.add_error(error, osp.basename(str(name)))

    def _write(self, outcome: Outcome, snapshot: Snapshot) -> None:
        maps_path = self.run_folder.path(f'{snapshot.key}/{snapshot.maps_file}')
        if self._is_finished(snapshot):
            outcome.drawn_before.add(snapshot.key)
            if self._needs_whole_run:
                outcome.pending.append(maps_path)
            return
        placed, shared_files = self._views.place(snapshot), []
        if self._saves_maps:
            shared_files = self._save_maps(outcome, snapshot)
        if self._needs_whole_run:
            outcome.pending.append(maps_path)
            self._record(snapshot, placed, {}, shared_files)
        else:
            shared_files += self._save_embeddings(outcome, snapshot)
            self._draw(outcome, snapshot, self._views, placed, shared_files)

    def _is_finished(self, snapshot: Snapshot) -> bool:
        """Whether the run that is resumed has all levels of a snapshot."""
        finished = self.run_folder.finished.get((snapshot.key, snapshot.augmentation))
        return finished is not None and finished.issuperset(level.name for level in snapshot.levels)

    def _draw_from_maps(self, outcome: Outcome, path: str, views: Views, images: dict[str, Callable]) -> None:
        snapshot = load_with_image(path, self.info)
        if snapshot.is_file:
            image = images.setdefault(snapshot.path, lru_cache(maxsize=None)(snapshot.image))
            snapshot = replace(snapshot, image=image)
        shared_files = [snapshot.maps_file] if snapshot.is_file else [snapshot.maps_file, snapshot.image_file]
        shared_files += self._save_embeddings(outcome, snapshot)
        self._draw(outcome, snapshot, views, views.place(snapshot), shared_files)

    def _save_maps(self, outcome: Outcome, snapshot: Snapshot) -> list[str]:
        """Save what drawing again needs, and return the names of the files that all levels share."""
        names = [snapshot.maps_file]
        self._write_maps(outcome, snapshot, snapshot.maps_file, dump_snapshot(snapshot, self.style.maps_dtype))
        if not snapshot.is_file:
            names.append(snapshot.image_file)
            self.run_folder.write(
                f'{snapshot.key}/{snapshot.image_file}', encode_picture(snapshot.image(), snapshot.image_file)
            )
        for level in snapshot.levels:
            if level.raw is not None:
                self._write_maps(outcome, snapshot, snapshot.raw_file(level), _npy(level.raw))
        return names

    def _save_embeddings(self, outcome: Outcome, snapshot: Snapshot) -> list[str]:
        """Save the embeddings of an image, if the style asks for them and it has features; return the file's name."""
        data = dump_embeddings(snapshot, self._fit) if EMBEDDINGS in self.style.save else None
        if data is None:
            return []
        self._write_maps(outcome, snapshot, snapshot.embeddings_file, data)
        return [snapshot.embeddings_file]

    def _write_maps(self, outcome: Outcome, snapshot: Snapshot, name: str, data: bytes) -> None:
        self.run_folder.write(f'{snapshot.key}/{name}', data)
        outcome.map_files += 1
        outcome.drawn.add(snapshot.key)

    def _draw(
        self,
        outcome: Outcome,
        snapshot: Snapshot,
        views: Views,
        placed: Sequence[PlacedLevel],
        shared_files: Sequence[str],
    ) -> None:
        files: dict[str, list[str]] = {}  # level name: its pictures
        encoder = Workers(0, _note_written) if is_worker() else self._encoder
        try:
            is_done_with = not encoder.count and self._log is None  # when the next one is drawn
            for picture in views.draw(snapshot, placed, reuse=is_done_with):
                encoder.submit(self._write_picture, outcome, snapshot, picture, files)
            encoder.drain()
        except BaseException:
            # The first error is the one to raise. What was written is recorded, whatever the rest comes to.
            with contextlib.suppress(Exception):
                encoder.drain()
            with contextlib.suppress(OSError):
                self._record(snapshot, placed, files, shared_files, incomplete=True)
            raise
        self._record(snapshot, placed, files, shared_files)

    def _write_picture(self, outcome: Outcome, snapshot: Snapshot, picture: Picture, files: dict) -> tuple:
        name = f'{snapshot.key}/{picture.name}'
        self.run_folder.write(name, encode_picture(picture.pixels, name))
        return outcome, snapshot, picture if self._log is not None else replace(picture, pixels=None), files

    def _draw_explanations(self, explanations: Sequence[Explanation]) -> Outcome:
        """Draw and save the explanations of one image; their entries are recorded together."""
        outcome, entries = Outcome(), []
        try:
            for explanation in explanations:
                entries.append(explanation_entry(explanation))
                self._write_explanation(outcome, explanation, entries[-1]['files'])
        except Exception as error:
            entries = [{**entry, 'incomplete': True} for entry in entries]
            outcome.add_error(error, osp.basename(explanations[0].snapshot.path or 'an array'), 'explanations')
            if self.strict:
                raise
        finally:
            self._attempt(outcome, MANIFEST, lambda _: self.run_folder.record(entries))
        return outcome

    def _write_explanation(self, outcome: Outcome, explanation: Explanation, files: list[str]) -> None:
        """Write what the style asks for, and append the names of the files to `files`."""
        snapshot = explanation.snapshot
        for picture in explanation_pictures(explanation, self._each_level) if self.style.pictures else ():
            files.append(f'{snapshot.key}/{picture.name}')
            _note_written(self._write_picture(outcome, snapshot, picture, {}))
        if {'maps', 'raw'} & set(self.style.save):
            name = f'{FOLDER}/{explanation_name(explanation)}.npz'
            files.append(f'{snapshot.key}/{name}')
            self._write_maps(outcome, snapshot, name, dump_explanation(explanation))
        outcome.drawn.add(snapshot.key)

    def _record(
        self,
        snapshot: Snapshot,
        placed: Sequence[PlacedLevel],
        files: dict[str, list[str]],
        shared_files: Sequence[str],
        incomplete: bool = False,
    ) -> None:
        """Add a manifest entry for each level with at least one file."""
        entries = []
        for placed_level in placed:
            level = placed_level.level
            names = [*files.get(level.name, []), *shared_files]
            if level.raw is not None and self._saves_maps:
                names.append(snapshot.raw_file(level))
            if names:
                entries.append(level_entry(snapshot, placed_level, names, incomplete))
        self.run_folder.record(entries)


def _note_written(written: tuple) -> None:
    """Note a picture that was written.

    Args:
        written: Outcome of drawing its image, its snapshot, the picture, and ``{level name: names of its pictures}``.
    """
    outcome, snapshot, picture, files = written
    outcome.pictures += 1
    outcome.drawn.add(snapshot.key)
    if picture.pixels is not None:
        outcome.logged.append((snapshot, picture))
    for level_name in picture.levels:
        files.setdefault(level_name, []).append(picture.name)


def _npy(array: np.ndarray) -> bytes:
    """Return the content of an ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
