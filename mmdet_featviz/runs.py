"""Runs: the folder of a run, written while it goes on, and read again to draw from."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os.path as osp
import traceback
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np
from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.logging import print_log

from .geometry import Grid
from .photos import PhotoError, read_photo
from .picture_log import PictureLog
from .sinks import MANIFEST, FileSink, encode, entries, manifests
from .snapshots import Snapshot, dump, load
from .stores import Store, store_of
from .style import Style
from .version import __version__
from .views import Limits, Picture, PlacedLevel, Views
from .workers import Workers

FACTS = 'run.json'
TEST = 'test'  # what names the metrics of a test, where those of a validation have the name of its folder
PERCENTILES = 0.5, 99.5
BINS = 1 << 16


@dataclass
class Tally:
    """What came of snapshots: of one, or of all of a run.

    Attributes:
        pictures: How many pictures were written.
        map_files: How many files of maps were written.
        drawn: Keys of the images of which there is anything.
        there: Keys of the images that an earlier run had finished.
        pending: Maps whose pictures wait for the range of the run.
        skipped: Names of the images of which something is missing, by reason.
        messages: What to tell of each reason when it is met first.
        logged: Pictures on their way to a log, with their snapshots.
    """

    pictures: int = 0
    map_files: int = 0
    drawn: set[str] = field(default_factory=set)
    there: set[str] = field(default_factory=set)
    pending: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    logged: list[tuple[Snapshot, Picture]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in what came of others."""
        self.pictures += other.pictures
        self.map_files += other.map_files
        self.drawn |= other.drawn
        self.there |= other.there
        self.pending += other.pending
        for reason, names in other.skipped.items():
            self.skipped.setdefault(reason, []).extend(names)
        self.messages = {**other.messages, **self.messages}

    def note(self, error: Exception, name: str) -> None:
        """Count an image of which something is missing."""
        if isinstance(error, PhotoError):
            reason, message = 'photo not readable', str(error)
        elif isinstance(error, OSError):
            reason, message = f'picture not written, {error.strerror or error}', str(error)
        else:
            reason, message = f'{type(error).__name__} while drawing', traceback.format_exc()
        self.skipped.setdefault(reason, []).append(name)
        self.messages.setdefault(reason, message)


class RunWriter:
    """Writes pictures, maps and manifest of snapshots.

    What is wrong with a single photo or picture is counted and told in :meth:`summary`, or raised if `strict`.

    Args:
        sink: Folder of the run.
        style: How pictures look, and which are made.
        facts: What ``run.json`` says of the run, besides its style: `dataset_meta`, `backend_args` and any others.
        strict: Whether a photo that cannot be read, or a picture that cannot be written, is an error.
        limits: With ``normalize='run'``: the range of each level's name. None waits for :meth:`finish` to find it.
        workers: How many threads draw and write; none draws at once, and so does `strict`, to raise at once.
        log: Where pictures go, too, in the thread that calls :meth:`write` and :meth:`finish`.
    """

    def __init__(
        self,
        sink: FileSink,
        style: Style,
        facts: dict,
        strict: bool = False,
        limits: Limits | None = None,
        workers: int = 0,
        log: PictureLog | None = None,
    ) -> None:
        self.sink = sink
        self.style = style
        self.facts = facts
        self.strict = strict
        self.tally = Tally()
        self._log = log if is_main_process() else None
        self._views = Views(style, limits)
        self._workers = Workers(0 if strict else workers, self._take)
        self._known = dict(version=__version__, style=asdict(style), **facts)
        if sink.finished:
            before = facts_of(store_of(sink.out_dir))
            _check_same_settings(sink.out_dir, before, json.loads(_json(self._known)))
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
        """Write all that the style asks for, now or soon; snapshots that share a photo are given together.

        Raises:
            PhotoError, OSError: If strict, and a photo cannot be read or a picture not be written.
        """
        self._workers.give(self._write_all, snapshots)

    def write_made(self, name: str, make: Callable[[], Sequence[Snapshot]]) -> None:
        """The same for snapshots that are still to be made; an error in that is one in drawing the image so named."""
        tally = Tally()
        self._guarded(tally, name, lambda _: self.write(*make()))
        self._count(tally)

    def keep_metrics(self, metrics: dict[str, Any], folder: str = '', focus: Mapping[str, dict] | None = None) -> None:
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
            print_log(f'{FACTS} cannot be written, it lacks what evaluators told: {error}', 'current', logging.WARNING)

    def _write_facts(self) -> None:
        if is_main_process():
            self.sink.write(FACTS, _json(self._known).encode('utf-8', 'surrogateescape'))

    def finish(self, in_run: bool = False) -> None:
        """Wait for what was given, and draw what waits for the range of the run.

        Args:
            in_run: Whether all ranks of a run finish: the range is that of all, and so are tally and manifest.
        """
        self._workers.wait()
        pending, self.tally.pending = self.tally.pending, []
        of_all = sum(all_gather_object(pending), []) if in_run else pending
        if of_all:
            views = Views(self.style, run_ranges(of_all, self.style.align))
            for path in pending:
                self._workers.give(self._draw_saved, path, views)
        self.stop()
        if in_run:
            self._join_ranks()

    def stop(self) -> None:
        """Wait for what was given; what waits for the range of the run stays to be drawn."""
        self._workers.wait()
        self._guarded(self.tally, MANIFEST, lambda _: self.sink.settle())

    def _join_ranks(self) -> None:
        """Let the first rank tell of all ranks, and make one manifest of theirs."""
        tallies = all_gather_object(self.tally)  # also waits until all ranks have written
        self.tally = Tally()
        if is_main_process():
            for tally in tallies:
                self.tally.add(tally)
            if len(tallies) > 1:
                self._guarded(self.tally, MANIFEST, lambda _: self.sink.merge())  # if not, the parts are read as well
        barrier()  # nobody adds to a part before it is merged

    def summary(self) -> str:
        """One line: how many pictures of how many images, where, and what was skipped and why."""
        tally = self.tally
        files = _count(tally.pictures, 'picture')
        if tally.map_files:
            files += f' and {_count(tally.map_files, "file")} of maps'
        line = f'{files} of {_count(len(tally.drawn), "image")} in {self.sink.out_dir}'
        if tally.pending:
            line += f'; {_count(len(tally.pending), "image")} to be drawn at the end, on one scale'
        if tally.there:
            line += f'; {_count(len(tally.there), "image")} drawn before'
        skipped = [
            f'{_count(len(names), "image")}, {reason} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
            for reason, names in tally.skipped.items()
        ]
        return f'{line}; skipped: {"; ".join(skipped)}' if skipped else line

    def _count(self, tally: Tally) -> None:
        """Take in what came of a task, and tell of each reason for skipping once."""
        for reason in tally.skipped.keys() - self.tally.skipped.keys():
            message = f'{tally.messages[reason]}. The image is skipped; others like it are counted.'
            print_log(message, 'current', logging.WARNING)
        self.tally.add(tally)

    def _take(self, tally: Tally) -> None:
        """Take in what came of a task, by the thread that gave it: a log need not stand being used by several."""
        logged, tally.logged = tally.logged, []
        if logged:
            self._guarded(tally, logged[0][0].path or logged[0][0].key, self._send, logged)
        self._count(tally)

    def _send(self, tally: Tally, logged: Sequence[tuple[Snapshot, Picture]]) -> None:
        self._log.add(logged)

    def _write_all(self, snapshots: Sequence[Snapshot]) -> Tally:
        tally = Tally()
        for snapshot in snapshots:
            self._guarded(tally, snapshot.path or snapshot.key, self._write, snapshot)
        return tally

    def _draw_saved(self, path: str, views: Views) -> Tally:
        tally = Tally()
        self._guarded(tally, path, self._draw_maps, path, views)
        return tally

    def _guarded(self, tally: Tally, name: str, work: Callable, *args: Any) -> None:
        """Do a piece of work; an error of any kind costs its pictures, never the run."""
        try:
            work(tally, *args)
        except Exception as error:
            if self.strict:
                raise
            tally.note(error, osp.basename(str(name)))

    def _write(self, tally: Tally, snapshot: Snapshot) -> None:
        maps = self.sink.path(f'{snapshot.key}/{snapshot.maps_file}')
        if self._is_finished(snapshot):
            tally.there.add(snapshot.key)
            if self._waits:
                tally.pending.append(maps)
            return
        placed, shared = self._views.place(snapshot), []
        if self._saves_maps:
            shared = self._save_maps(tally, snapshot)
        if self._waits:
            tally.pending.append(maps)
            self._record(snapshot, placed, {}, shared)
        else:
            self._draw(tally, snapshot, self._views, placed, shared)

    def _is_finished(self, snapshot: Snapshot) -> bool:
        """Whether the run that is gone on with has all of this."""
        there = self.sink.finished.get((snapshot.key, snapshot.augmentation))
        return there is not None and there.issuperset(level.name for level in snapshot.levels)

    def _draw_maps(self, tally: Tally, path: str, views: Views) -> None:
        snapshot = load_with_photo(path, self.facts)
        shared = [snapshot.maps_file] if snapshot.is_file else [snapshot.maps_file, snapshot.photo_file]
        self._draw(tally, snapshot, views, views.place(snapshot), shared)

    def _save_maps(self, tally: Tally, snapshot: Snapshot) -> list[str]:
        """Write what can be drawn later; returns the names of files that belong to all levels."""
        names = [snapshot.maps_file]
        self._put_map(tally, snapshot, snapshot.maps_file, dump(snapshot, self.style.maps_dtype))
        if not snapshot.is_file:
            names.append(snapshot.photo_file)
            self.sink.write(f'{snapshot.key}/{snapshot.photo_file}', encode(snapshot.photo(), snapshot.photo_file))
        for level in snapshot.levels:
            if level.raw is not None:
                self._put_map(tally, snapshot, snapshot.raw_file(level), _npy(level.raw))
        return names

    def _put_map(self, tally: Tally, snapshot: Snapshot, name: str, data: bytes) -> None:
        self.sink.write(f'{snapshot.key}/{name}', data)
        tally.map_files += 1
        tally.drawn.add(snapshot.key)

    def _draw(
        self, tally: Tally, snapshot: Snapshot, views: Views, placed: Sequence[PlacedLevel], shared: Sequence[str]
    ) -> None:
        files: dict[str, list[str]] = {}
        try:
            for picture in views.draw(snapshot, placed):
                name = f'{snapshot.key}/{picture.name}'
                self.sink.write(name, encode(picture.pixels, name))
                tally.pictures += 1
                if self._log is not None:
                    tally.logged.append((snapshot, picture))
                tally.drawn.add(snapshot.key)
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
        self.sink.record(lines)


class Run:
    """The folder of a finished run that saved maps.

    Args:
        folder: `out_dir` of the run.

    Attributes:
        facts: What ``run.json`` says of it.
        entries: Lines of the manifest by image key, pass, layer and level.
        paths: Files of its saved maps.

    Raises:
        FileNotFoundError: If it is no such folder.
        ValueError: If the run saved no maps.
    """

    def __init__(self, folder: str) -> None:
        store = store_of(folder)
        self.folder = store.folder
        if not manifests(store):
            raise FileNotFoundError(
                f'{self.folder} is no run: it has no {MANIFEST} (name the out_dir of a run, not a folder inside)'
            )
        self.facts = facts_of(store)
        self.entries: dict[tuple, dict] = {}  # the last line of each map
        for entry in entries(store):
            if 'augmentation' in entry:  # not so in a report or a comparison of runs
                self.entries[tuple(entry[name] for name in ('key', 'augmentation', 'layer', 'level'))] = entry
        files = {file: None for entry in self.entries.values() for file in entry['files']}
        names = [file for file in files if osp.basename(file).startswith('maps') and file.endswith('.npz')]
        self.paths = [store.path(name) for name in names]
        if not names:
            raise ValueError(f"{self.folder} holds no maps to draw from: run with save=('maps',)")

    def snapshots(self) -> Iterator[Snapshot]:
        """All that the run saved, in its order, with their photos."""
        return (load_with_photo(path, self.facts) for path in self.paths)

    @property
    def facts_to_pass_on(self) -> dict:
        """What another run that is drawn from this one should know of it."""
        return {name: value for name, value in self.facts.items() if name not in ('version', 'style')}


def load_with_photo(path: str, facts: dict) -> Snapshot:
    """A saved snapshot, with what its photo takes.

    Args:
        path: File of maps.
        facts: Of the run.
    """
    snapshot = load(path)
    if snapshot.is_file:
        photo, backend_args = _found(snapshot.path, facts.get('working_dir')), facts.get('backend_args')
    else:
        photo, backend_args = osp.join(osp.dirname(path), snapshot.photo_file), None
    read = partial(read_photo, photo, snapshot.placement.photo_size, backend_args)
    return replace(snapshot, photo=read, dataset_meta=facts.get('dataset_meta'))


def _found(path: str, working_dir: str | None) -> str:
    """The path of a photo; one that is relative and leads nowhere from here may lead there from where the run was."""
    there = osp.join(working_dir or '', path)
    return there if '://' not in path and not osp.exists(path) and osp.exists(there) else path


def run_ranges(paths: Sequence[str], align: str) -> dict[str, tuple[float, float]]:
    """For each level the 0.5th and 99.5th percentile of all finite values that the photos show.

    Saved maps are read twice, for the bounds and for a histogram of 65,536 bins between them: memory does not grow with
    the number of images, and a percentile is exact to one bin.
    """
    bounds: dict[str, tuple[float, float]] = {}
    for name, values in _visible(paths, align):
        low, high = bounds.get(name, (np.inf, -np.inf))
        bounds[name] = min(low, float(values.min())), max(high, float(values.max()))
    counts = {name: np.zeros(BINS, np.int64) for name in bounds}
    for name, values in _visible(paths, align):
        counts[name] += np.histogram(values.astype(np.float64), BINS, bounds[name])[0]
    return {name: _percentiles(counts[name], *bounds[name]) for name in bounds}


def _percentiles(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    shares = np.cumsum(counts) / counts.sum() * 100
    first, last = np.searchsorted(shares, PERCENTILES)
    width = (high - low) / BINS
    return low + first * width, min(low + (last + 1) * width, high)


def _visible(paths: Sequence[str], align: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and finite visible values of each level of each file, unless there are none."""
    for path in paths:
        try:
            snapshot = load(path)
        except ValueError:  # it is gone, which is counted when it should be drawn
            continue
        for level in snapshot.levels:
            grid = Grid(level.values.shape, level.stride, snapshot.placement, align)
            values = grid.visible(np.where(np.isfinite(level.values), level.values, np.float32(np.nan)))
            values = values[np.isfinite(values)]
            if values.size:
                yield level.name, values


def _check_same_settings(folder: str, before: dict, known: dict) -> None:
    """Raise ValueError if the run in a folder, which is to be gone on with, was made with other settings."""
    for name in ('layers', 'reduction', 'style'):
        then, now = before.get(name), known.get(name)
        if then != now:
            if isinstance(then, dict) and isinstance(now, dict):
                name = next(f'{name}.{part}' for part in now if then.get(part) != now[part])
                then, now = (one.get(name.partition('.')[2]) for one in (then, now))
            raise ValueError(
                f'{folder!r} was drawn with other settings ({name} was {then!r} and is {now!r} now), so resume=True '
                'cannot go on with it: set overwrite=True to replace it, or choose another out_dir'
            )


def _json(facts: dict) -> str:
    return json.dumps(facts, ensure_ascii=False, indent=1, default=str)


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


def facts_of(store: Store) -> dict:
    """What ``run.json`` says of a run; nothing if there is none."""
    if FACTS not in store.names():
        return {}
    return json.loads(store.read(FACTS).decode('utf-8', 'surrogateescape'))


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
