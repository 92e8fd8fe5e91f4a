"""Runs: the folder of a run, written while it goes on, and read again to draw from."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os.path as osp
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Callable, Iterator, Sequence

import numpy as np
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from .geometry import Grid
from .photos import PhotoError, read_photo
from .sinks import MANIFEST, FileSink, encode
from .snapshots import Snapshot, dump, load
from .style import Style
from .version import __version__
from .views import Limits, PlacedLevel, Views

FACTS = 'run.json'
PERCENTILES = 0.5, 99.5
BINS = 1 << 16


class RunWriter:
    """Writes pictures, maps and manifest of snapshots.

    What is wrong with a single photo or picture is counted and told in :meth:`summary`, or raised if `strict`.

    Args:
        sink: Folder of the run.
        style: How pictures look, and which are made.
        facts: What ``run.json`` says of the run, besides its style: `dataset_meta`, `backend_args` and any others.
        strict: Whether a photo that cannot be read, or a picture that cannot be written, is an error.
        limits: With ``normalize='run'``: the range of each level's name. None waits for :meth:`finish` to find it.
    """

    def __init__(
        self, sink: FileSink, style: Style, facts: dict, strict: bool = False, limits: Limits | None = None
    ) -> None:
        self.sink = sink
        self.style = style
        self.facts = facts
        self.strict = strict
        self._pictures = self._map_files = 0
        self._views = Views(style, limits)
        self._pending: list[str] = []  # maps whose pictures wait for the range of the run
        self._drawn: set[str] = set()
        self._skipped: dict[str, list[str]] = {}  # reason: images
        if is_main_process():
            known = dict(version=__version__, style=asdict(style), **facts)
            sink.write(FACTS, json.dumps(known, ensure_ascii=False, indent=1, default=str).encode())

    @property
    def _waits(self) -> bool:
        """Whether pictures need the range of the run first."""
        return self.style.normalize == 'run' and self._views.limits is None

    @property
    def _saves_maps(self) -> bool:
        return self._waits or not {'maps', 'raw'}.isdisjoint(self.style.save)

    def write(self, snapshot: Snapshot) -> bool:
        """Write all that the style asks for; returns whether anything was written.

        Raises:
            PhotoError, OSError: If strict, and a photo cannot be read or a picture not be written.
        """
        return self._guarded(self._write, snapshot)

    def finish(self) -> None:
        """Draw what waits for the range of the run."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        views = Views(self.style, run_ranges(pending, self.style.align))
        for path in pending:
            snapshot = load_with_photo(path, self.facts)
            shared = [snapshot.maps_file] if snapshot.is_file else [snapshot.maps_file, snapshot.photo_file]
            self._guarded(self._draw, snapshot, views, views.place(snapshot), shared)

    def summary(self) -> str:
        """One line: how many pictures of how many images, where, and what was skipped and why."""
        files = _count(self._pictures, 'picture')
        if self._map_files:
            files += f' and {_count(self._map_files, "file")} of maps'
        line = f'{files} of {_count(len(self._drawn), "image")} in {self.sink.out_dir}'
        if self._pending:
            line += f'; {_count(len(self._pending), "image")} to be drawn at the end, on one scale'
        skipped = [
            f'{_count(len(names), "image")}, {reason} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
            for reason, names in self._skipped.items()
        ]
        return f'{line}; skipped: {"; ".join(skipped)}' if skipped else line

    def _guarded(self, work: Callable, snapshot: Snapshot, *args: Any) -> bool:
        before = self._pictures + self._map_files
        try:
            work(snapshot, *args)
        except (PhotoError, OSError) as error:
            if self.strict:
                raise
            reason = 'photo not readable' if isinstance(error, PhotoError) else 'picture not written'
            names = self._skipped.setdefault(reason, [])
            if not names:
                print_log(f'{error}. The image is skipped; others like it are counted.', 'current', logging.WARNING)
            names.append(osp.basename(str(snapshot.path or snapshot.key)))
        if self._pictures + self._map_files == before:
            return False
        self._drawn.add(snapshot.key)
        return True

    def _write(self, snapshot: Snapshot) -> None:
        placed, shared = self._views.place(snapshot), []
        if self._saves_maps:
            shared = self._save_maps(snapshot)
        if self._waits:
            self._pending.append(osp.join(self.sink.out_dir, snapshot.key, snapshot.maps_file))
            self._record(snapshot, placed, {}, shared)
        else:
            self._draw(snapshot, self._views, placed, shared)

    def _save_maps(self, snapshot: Snapshot) -> list[str]:
        """Write what can be drawn later; returns the names of files that belong to all levels."""
        names = [snapshot.maps_file]
        self._put_map(snapshot, snapshot.maps_file, dump(snapshot, self.style.maps_dtype))
        if not snapshot.is_file:
            names.append(snapshot.photo_file)
            self.sink.write(f'{snapshot.key}/{snapshot.photo_file}', encode(snapshot.photo(), snapshot.photo_file))
        for level in snapshot.levels:
            if level.raw is not None:
                self._put_map(snapshot, snapshot.raw_file(level), _npy(level.raw))
        return names

    def _put_map(self, snapshot: Snapshot, name: str, data: bytes) -> None:
        self.sink.write(f'{snapshot.key}/{name}', data)
        self._map_files += 1

    def _draw(self, snapshot: Snapshot, views: Views, placed: Sequence[PlacedLevel], shared: Sequence[str]) -> None:
        files: dict[str, list[str]] = {}
        try:
            for picture in views.draw(snapshot, placed):
                name = f'{snapshot.key}/{picture.name}'
                self.sink.write(name, encode(picture.pixels, name))
                self._pictures += 1
                for name in picture.levels:
                    files.setdefault(name, []).append(picture.name)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                self._record(snapshot, placed, files, shared)
            raise
        self._record(snapshot, placed, files, shared)

    def _record(
        self,
        snapshot: Snapshot,
        placed: Sequence[PlacedLevel],
        files: dict[str, list[str]],
        shared: Sequence[str],
    ) -> None:
        """Add a line for each level of which there is a file."""
        entries = []
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
                )
                entries.append(entry)
        self.sink.record(entries)


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
        self.folder = osp.abspath(osp.expanduser(folder))
        if not osp.exists(osp.join(self.folder, MANIFEST)):
            raise FileNotFoundError(
                f'{self.folder} is no run: it has no {MANIFEST} (name the out_dir of a run, not a folder inside)'
            )
        facts = osp.join(self.folder, FACTS)
        self.facts = json.loads(_text(facts)) if osp.exists(facts) else {}
        self.entries: dict[tuple, dict] = {}  # the last line of each map
        for line in _text(osp.join(self.folder, MANIFEST)).splitlines():
            with contextlib.suppress(ValueError):  # the last line of a run that was killed
                entry = json.loads(line)
                names = ('key', 'augmentation', 'layer', 'level')
                self.entries[tuple(entry[name] for name in names)] = entry
        files = {file: None for entry in self.entries.values() for file in entry['files']}
        names = [file for file in files if osp.basename(file).startswith('maps') and file.endswith('.npz')]
        self.paths = [osp.join(self.folder, name) for name in names]
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
        photo, backend_args = snapshot.path, facts.get('backend_args')
    else:
        photo, backend_args = osp.join(osp.dirname(path), snapshot.photo_file), None
    read = partial(read_photo, photo, snapshot.placement.photo_size, backend_args)
    return replace(snapshot, photo=read, dataset_meta=facts.get('dataset_meta'))


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
        snapshot = load(path)
        for level in snapshot.levels:
            grid = Grid(level.values.shape, level.stride, snapshot.placement, align)
            values = grid.visible(np.where(np.isfinite(level.values), level.values, np.float32(np.nan)))
            values = values[np.isfinite(values)]
            if values.size:
                yield level.name, values


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _text(path: str) -> str:
    with open(path, encoding='utf-8', errors='surrogateescape') as file:
        return file.read()


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
