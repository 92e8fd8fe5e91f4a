"""Writer of a run: draws snapshots and writes pictures, maps and manifest."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os.path as osp
from dataclasses import asdict
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np
from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.logging import print_log

from mmdet_featviz.runs.manifest import MANIFEST
from mmdet_featviz.runs.maps_file import dump_snapshot
from mmdet_featviz.runs.outcome import Outcome
from mmdet_featviz.runs.percentiles import run_ranges
from mmdet_featviz.runs.reader import load_with_image
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.run_info import RUN_INFO_FILE, TEST, check_same_settings, read_run_info, to_json
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.runs.visualizer_backends import PictureLogger
from mmdet_featviz.runs.workers import Workers
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.version import __version__
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.value_ranges import Limits
from mmdet_featviz.visualization.views import Picture, PlacedLevel, Views


class RunWriter:
    """Writes pictures, maps and manifest of snapshots.

    What is wrong with a single image or picture is counted and told in :meth:`summary`, or raised if `strict`.

    Args:
        run_folder: Folder of the run.
        style: How pictures look, and which are made.
        info: What ``run.json`` says of the run, besides its style: `dataset_meta`, `backend_args` and any others.
        strict: Whether a image that cannot be read, or a picture that cannot be written, is an error.
        limits: With ``normalize='run'``: the range of each level's name. None waits for :meth:`finish` to find it.
        workers: How many threads draw and write; none draws at once, and so does `strict`, to raise at once.
        log: Where pictures go, too, in the thread that calls :meth:`write` and :meth:`finish`.
    """

    def __init__(
        self,
        run_folder: RunFolder,
        style: Style,
        info: dict,
        strict: bool = False,
        limits: Limits | None = None,
        workers: int = 0,
        log: PictureLogger | None = None,
    ) -> None:
        self.run_folder = run_folder
        self.style = style
        self.info = info
        self.strict = strict
        self.outcome = Outcome()
        self._log = log if is_main_process() else None
        self._views = Views(style, limits)
        self._workers = Workers(0 if strict else workers, self._take)
        self._known = dict(version=__version__, style=asdict(style), **info)
        if run_folder.finished:
            before = read_run_info(get_storage(run_folder.out_dir))
            check_same_settings(run_folder.out_dir, before, json.loads(to_json(self._known)))
            self._known.update({name: before.get(name, {}) for name in ('metrics', 'focus')})
        self._write_facts()

    @property
    def _waits(self) -> bool:
        """Whether pictures need the range of the run first."""
        return self.style.normalize == 'run' and self._views.limits is None

    @property
    def _saves_maps(self) -> bool:
        return self._waits or not {'maps', 'raw'}.isdisjoint(self.style.save)

    def write(self, *snapshots: Snapshot) -> None:
        """Write all that the style asks for, now or soon; snapshots that share a image are given together.

        Raises:
            ImageError, OSError: If strict, and a image cannot be read or a picture not be written.
        """
        self._workers.submit(self._write_all, snapshots)

    def write_made(self, name: str, make: Callable[[], Sequence[Snapshot]]) -> None:
        """The same for snapshots that are still to be made; an error in that is one in drawing the image so named."""
        outcome = Outcome()
        self._guarded(outcome, name, lambda _: self.write(*make()))
        self._count(outcome)

    def record_metrics(
        self, metrics: dict[str, Any], folder: str = '', focus: Mapping[str, dict] | None = None
    ) -> None:
        """Add what evaluators told to ``run.json``.

        Args:
            metrics: {name: value}; of those that are no numbers nothing is kept.
            folder: Of the validation, such as ``epoch_3``; empty after a test.
            focus: The settings of each FeatureFocusMetric among the evaluators, by its prefix.

        Raises:
            OSError: If strict, and it cannot be written.
        """
        self._known['metrics'] = {**self._known.get('metrics', {}), folder or TEST: dict(_figures(metrics))}
        self._known['focus'] = {**self._known.get('focus', {}), **(focus or {})}
        try:
            self._write_facts()
        except Exception as error:  # each file backend raises errors of its own
            if self.strict:
                raise
            print_log(
                f'{RUN_INFO_FILE} cannot be written, it lacks what evaluators told: {error}', 'current', logging.WARNING
            )

    def _write_facts(self) -> None:
        if is_main_process():
            self.run_folder.write(RUN_INFO_FILE, to_json(self._known).encode('utf-8', 'surrogateescape'))

    def finish(self, in_run: bool = False) -> None:
        """Wait for what was given, and draw what waits for the range of the run.

        Args:
            in_run: Whether all ranks of a run finish: the range is that of all, and so are outcome and manifest.
        """
        self._workers.wait()
        pending, self.outcome.pending = self.outcome.pending, []
        of_all = sum(all_gather_object(pending), []) if in_run else pending
        if of_all:
            views = Views(self.style, run_ranges(of_all, self.style.align))
            for path in pending:
                self._workers.submit(self._draw_saved, path, views)
        self.stop()
        if in_run:
            self._join_ranks()

    def stop(self) -> None:
        """Wait for what was given; what waits for the range of the run stays to be drawn."""
        self._workers.wait()
        self._guarded(self.outcome, MANIFEST, lambda _: self.run_folder.flush())

    def _join_ranks(self) -> None:
        """Let the first rank tell of all ranks, and make one manifest of theirs."""
        outcomes = all_gather_object(self.outcome)  # also waits until all ranks have written
        self.outcome = Outcome()
        if is_main_process():
            for outcome in outcomes:
                self.outcome.add(outcome)
            if len(outcomes) > 1:
                self._guarded(
                    self.outcome, MANIFEST, lambda _: self.run_folder.merge()
                )  # if not, the parts are read as well
        barrier()  # nobody adds to a part before it is merged

    def summary(self) -> str:
        """One line: how many pictures of how many images, where, and what was skipped and why."""
        outcome = self.outcome
        files = count_noun(outcome.pictures, 'picture')
        if outcome.map_files:
            files += f' and {count_noun(outcome.map_files, "file")} of maps'
        line = f'{files} of {count_noun(len(outcome.drawn), "image")} in {self.run_folder.out_dir}'
        if outcome.pending:
            line += f'; {count_noun(len(outcome.pending), "image")} to be drawn at the end, on one scale'
        if outcome.drawn_before:
            line += f'; {count_noun(len(outcome.drawn_before), "image")} drawn before'
        skipped = [
            f'{count_noun(len(names), "image")}, {reason} ({first_names(names)})'
            for reason, names in outcome.skipped.items()
        ]
        return f'{line}; skipped: {"; ".join(skipped)}' if skipped else line

    def count_noun(self, outcome: Outcome) -> None:
        """Take in what came of a task, and tell of each reason for skipping once."""
        for reason in outcome.skipped.keys() - self.outcome.skipped.keys():
            message = f'{outcome.messages[reason]}. The image is skipped; others like it are counted.'
            print_log(message, 'current', logging.WARNING)
        self.outcome.add(outcome)

    def _count(self, outcome: Outcome) -> None:
        """Take in what came of a task, and tell of each reason for skipping once."""
        for reason in outcome.skipped.keys() - self.outcome.skipped.keys():
            message = f'{outcome.messages[reason]}. The image is skipped; others like it are counted.'
            print_log(message, 'current', logging.WARNING)
        self.outcome.add(outcome)

    def _take(self, outcome: Outcome) -> None:
        """Take in what came of a task, by the thread that gave it: a log need not stand being used by several."""
        logged, outcome.logged = outcome.logged, []
        if logged:
            self._guarded(outcome, logged[0][0].path or logged[0][0].key, self._send, logged)
        self._count(outcome)

    def _send(self, outcome: Outcome, logged: Sequence[tuple[Snapshot, Picture]]) -> None:
        self._log.add(logged)

    def _write_all(self, snapshots: Sequence[Snapshot]) -> Outcome:
        outcome = Outcome()
        for snapshot in snapshots:
            self._guarded(outcome, snapshot.path or snapshot.key, self._write, snapshot)
        return outcome

    def _draw_saved(self, path: str, views: Views) -> Outcome:
        outcome = Outcome()
        self._guarded(outcome, path, self._draw_maps, path, views)
        return outcome

    def _guarded(self, outcome: Outcome, name: str, work: Callable, *args: Any) -> None:
        """Do a piece of work; an error of any kind costs its pictures, never the run."""
        try:
            work(outcome, *args)
        except Exception as error:
            if self.strict:
                raise
            outcome.add_error(error, osp.basename(str(name)))

    def _write(self, outcome: Outcome, snapshot: Snapshot) -> None:
        maps = self.run_folder.path(f'{snapshot.key}/{snapshot.maps_file}')
        if self._is_finished(snapshot):
            outcome.drawn_before.add(snapshot.key)
            if self._waits:
                outcome.pending.append(maps)
            return
        placed, shared = self._views.place(snapshot), []
        if self._saves_maps:
            shared = self._save_maps(outcome, snapshot)
        if self._waits:
            outcome.pending.append(maps)
            self._record(snapshot, placed, {}, shared)
        else:
            self._draw(outcome, snapshot, self._views, placed, shared)

    def _is_finished(self, snapshot: Snapshot) -> bool:
        """Whether the run that is gone on with has all of this."""
        there = self.run_folder.finished.get((snapshot.key, snapshot.augmentation))
        return there is not None and there.issuperset(level.name for level in snapshot.levels)

    def _draw_maps(self, outcome: Outcome, path: str, views: Views) -> None:
        snapshot = load_with_image(path, self.info)
        shared = [snapshot.maps_file] if snapshot.is_file else [snapshot.maps_file, snapshot.image_file]
        self._draw(outcome, snapshot, views, views.place(snapshot), shared)

    def _save_maps(self, outcome: Outcome, snapshot: Snapshot) -> list[str]:
        """Write what can be drawn later; returns the names of files that belong to all levels."""
        names = [snapshot.maps_file]
        self._put_map(outcome, snapshot, snapshot.maps_file, dump_snapshot(snapshot, self.style.maps_dtype))
        if not snapshot.is_file:
            names.append(snapshot.image_file)
            self.run_folder.write(
                f'{snapshot.key}/{snapshot.image_file}', encode_picture(snapshot.image(), snapshot.image_file)
            )
        for level in snapshot.levels:
            if level.raw is not None:
                self._put_map(outcome, snapshot, snapshot.raw_file(level), _npy(level.raw))
        return names

    def _put_map(self, outcome: Outcome, snapshot: Snapshot, name: str, data: bytes) -> None:
        self.run_folder.write(f'{snapshot.key}/{name}', data)
        outcome.map_files += 1
        outcome.drawn.add(snapshot.key)

    def _draw(
        self, outcome: Outcome, snapshot: Snapshot, views: Views, placed: Sequence[PlacedLevel], shared: Sequence[str]
    ) -> None:
        files: dict[str, list[str]] = {}
        try:
            for picture in views.draw(snapshot, placed):
                name = f'{snapshot.key}/{picture.name}'
                self.run_folder.write(name, encode_picture(picture.pixels, name))
                outcome.pictures += 1
                if self._log is not None:
                    outcome.logged.append((snapshot, picture))
                outcome.drawn.add(snapshot.key)
                for name in picture.levels:
                    files.setdefault(name, []).append(picture.name)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                self._record(snapshot, placed, files, shared, incomplete=True)
            raise
        self._record(snapshot, placed, files, shared)

    def _record(
        self,
        snapshot: Snapshot,
        placed: Sequence[PlacedLevel],
        files: dict[str, list[str]],
        shared: Sequence[str],
        **notes: Any,
    ) -> None:
        """Add a line for each level of which there is a file."""
        lines = []
        for one in placed:
            level, names = one.level, [*files.get(one.level.name, []), *shared]
            if level.raw is not None and self._saves_maps:
                names.append(snapshot.raw_file(level))
            if names:
                vertical, horizontal = level.stride
                entry = dict(
                    image=snapshot.path,
                    key=snapshot.key,
                    augmentation=snapshot.augmentation,
                    layer=level.layer,
                    level=level.level,
                    channels=level.channels,
                    stride=vertical if vertical == horizontal else [vertical, horizontal],
                    shape=level.values.shape,
                    min=one.range[0],
                    max=one.range[1],
                    not_finite=int(np.count_nonzero(~np.isfinite(level.values))),
                    files=[f'{snapshot.key}/{name}' for name in names],
                    **notes,
                )
                lines.append(entry)
        self.run_folder.record(lines)


def _figures(metrics: dict[str, Any]) -> Iterator[tuple[str, float | None]]:
    """The metrics that are numbers, of whatever library; None, as JSON has no word for it, for what is not finite."""
    for name, value in metrics.items():
        try:
            value = float(value)
        except (TypeError, ValueError, RuntimeError):
            continue
        yield name, value if math.isfinite(value) else None


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
