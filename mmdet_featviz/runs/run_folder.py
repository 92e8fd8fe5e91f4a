"""Run folder: writes the files and the manifest of a run into its output folder, new, resumed or overwritten."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import os.path as osp
import uuid
import weakref
from pathlib import Path, PurePosixPath
from typing import Any, Sequence

from mmengine.dist import all_gather_object, get_dist_info, is_main_process

from mmdet_featviz.runs import early_exit
from mmdet_featviz.runs.backlog import BACKLOG, IS_BACKLOG, Backlog
from mmdet_featviz.runs.manifest import (
    MANIFEST,
    PART,
    complete_passes,
    finished_levels,
    manifest_names,
    read_entries,
    whole_lines,
)
from mmdet_featviz.runs.rank_agreement import decide_once
from mmdet_featviz.runs.run_info import RUN_INFO_FILE, read_run_info, to_json
from mmdet_featviz.runs.storage import Storage, get_storage, is_inside

_taken: weakref.WeakValueDictionary[str, RunFolder] = weakref.WeakValueDictionary()  # by real path or URL
REPORT, COMPARED_REPORT = 'report', 'report_compared'  # folders of report pages, inside that of the run


_TAKEN = (
    '{!r} holds the pictures of another run: set overwrite=True (--overwrite) to replace them, resume=True (--resume '
    'of featviz test, image and evaluate-explanations) to continue that run, or choose another out_dir'
)


class RunFolder:
    """Writes the files and the manifest of one run into a folder.

    A file appears under its name only when it is complete. The folder belongs to the run that takes it, see
    :meth:`take`. With several ranks, each writes its own part of the manifest until :meth:`merge`; readers read all
    parts as one.

    Args:
        out_dir: Folder of the run, created if needed: a path, or a URL that an mmengine file backend can write to.
        overwrite: Whether to remove another run's files from the folder.
        resume: Whether to continue a run found in the folder.
        in_run: Whether all ranks of a run create their RunFolder together, and merge at the end.
        topic: Name of the run that is the same on all its ranks, each of which creates its RunFolder when it first
            draws, if it draws at all. None, without `in_run`, is a run of this process alone.

    Attributes:
        out_dir: Absolute path, or the URL; on all ranks that of the first one.
        id: Id of the run, the same on all its ranks.
        is_first: Whether this rank prepared the folder, and so writes ``run.json``.
        in_run: As the argument.
        finished: With `resume`: {(image key, pass): names of the levels whose files exist}.
        explained: With `resume`: (image key, pass) of the images whose explanations exist.
        measured: With `resume`: (image key, pass) of the images whose box features exist.

    Raises:
        FileExistsError: If the folder holds another run, and neither `overwrite` nor `resume` is set; if a run above it
            has pictures in it; or if a run of this process is still writing to it.
        ValueError: If no file backend can write to the URL.
        OSError: If the folder cannot be created or written to. With `in_run`, an error on one rank is raised on all.
    """

    def __init__(
        self,
        out_dir: str,
        overwrite: bool = False,
        resume: bool = False,
        in_run: bool = False,
        topic: str | None = None,
    ) -> None:
        self._store = get_storage(out_dir)
        self.overwrite = overwrite
        self.resume = resume
        self.in_run = in_run
        self._rank, world_size = get_dist_info()
        has_parts = world_size > 1 and (in_run or topic is not None)
        self._manifest = PART.format(self._rank) if has_parts else MANIFEST
        if in_run:
            decision = self._decide_together()
        elif topic is not None:
            decision, self.is_first = decide_once(topic, self._prepare)
            self._adopt(decision)
        else:
            decision, self.is_first = self._prepare(), True
        self.out_dir = self._store.folder
        self._place = _location(self.out_dir)
        self.id = decision['id'] if decision else read_run_info(self._store).get('id')
        self.finished: dict[tuple, set[str]] = {}
        self.explained: set[tuple] = set()
        self.measured: set[tuple] = set()
        if resume:
            self.find_finished()

    def find_finished(self) -> None:
        """Find out what has been finished by all ranks."""
        self.finished = finished_levels(self._store)
        self.explained = complete_passes(self._store, 'method')
        self.measured = complete_passes(self._store, 'vectors')

    @property
    def is_remote(self) -> bool:
        """Whether the folder is a URL."""
        return '://' in self._store.folder

    def backlog(self) -> Backlog:
        """The backlog of this rank; the folder must be on disk."""
        return Backlog(self.path(BACKLOG.format(self._rank)))

    def backlogs(self) -> list[Backlog]:
        """The backlogs of all ranks that exist."""
        if self.is_remote:
            return []
        return [Backlog(self.path(name)) for name in self._store.names() if IS_BACKLOG.fullmatch(name)]

    def _decide_together(self) -> dict:
        """Prepare the folder on rank 0, and adopt it on the others; an error on one rank is raised on all."""
        self.is_first = is_main_process()
        decision, error = None, None
        try:
            decision = self._prepare() if self.is_first else None
        except Exception as reason:  # each file backend raises errors of its own
            error = reason
        decision = _gather(decision, error)[0]
        error = None
        try:
            self._adopt(decision)
        except Exception as reason:
            error = reason
        _gather(None, error)
        return decision

    def _adopt(self, decision: dict | None) -> None:
        """Write to the folder that another rank has prepared."""
        if not self.is_first:
            if decision is not None:
                self._store = get_storage(decision['folder'])
            self._make_writable()

    def _make_writable(self) -> None:
        try:
            self._store.prepare()
        except OSError as error:
            raise type(error)(
                f'out_dir {self._store.folder!r} cannot be written to ({error.strerror or error}): '
                'choose another folder with out_dir (--out-dir)'
            ) from error

    def _prepare(self) -> dict:
        """Create the folder, handle another run found there, and return the folder and the id of the run."""
        folder = self._store.folder
        self._check_not_open(folder)
        if not self.is_remote:
            _check_outer_runs(folder)
        self._make_writable()
        run_id = uuid.uuid4().hex
        if _holds_run(self._store):
            if self.resume:
                self._store.remove_partial_files()
                if manifest_names(self._store):
                    self.merge()
                run_id = read_run_info(self._store).get('id') or run_id
            elif self.overwrite:
                self._remove_run()
            else:
                raise FileExistsError(_TAKEN.format(folder))
        return dict(folder=folder, id=run_id)

    def _check_not_open(self, folder: str) -> None:
        if self._is_taken(folder):
            gc.collect()  # a detector and its visualizer refer to each other
            early_exit.finish_abandoned()
        if self._is_taken(folder):
            raise FileExistsError(
                f'another hook or detector of this process still writes to {folder!r}: choose another out_dir, or '
                'close the other one first'
            )

    def _is_taken(self, folder: str) -> bool:
        return _taken.get(_location(folder), self) is not self

    def take(self, info: dict) -> None:
        """Take the folder for this run, by writing ``run.json`` with its id. Do nothing if this run has it already.

        Args:
            info: Content of ``run.json`` besides the id.

        Raises:
            FileExistsError: If another run has taken the folder since this one found it free.
        """
        if self.has_taken:
            return
        self._check_not_open(self.out_dir)
        if self.is_first:
            if self.resume or read_run_info(self._store).get('id') == self.id:
                self.write_info(info)
            elif not self._store.create(RUN_INFO_FILE, self._info_bytes(info)):
                raise FileExistsError(_TAKEN.format(self.out_dir))
            # Also if the process ends with an error before anything was drawn.
            weakref.finalize(self, _free, self._store, self.id, os.getpid())
        _taken[self._place] = self

    @property
    def has_taken(self) -> bool:
        """Whether the folder is taken by this run, in this process."""
        return _taken.get(self._place) is self

    def release(self) -> None:
        """Let other runs of this process replace the folder; one without pictures and metrics is free for all runs."""
        if self.has_taken:
            del _taken[self._place]
            if self.is_first:
                _free(self._store, self.id, os.getpid())

    def write_info(self, info: dict) -> None:
        """Write ``run.json``; only the first rank does."""
        if self.is_first:
            self.write(RUN_INFO_FILE, self._info_bytes(info))

    def _info_bytes(self, info: dict) -> bytes:
        return to_json(dict(id=self.id, **info)).encode('utf-8', 'surrogateescape')

    def _remove_run(self) -> None:
        """Remove the manifests of the run and of its reports and all files they list; other files are kept."""
        names = self._store.all_names()
        reports = [name for name in (REPORT, COMPARED_REPORT) if f'{name}/{MANIFEST}' in names]
        stores = [self._store, *(get_storage(self._store.path(name)) for name in reports)]
        for backlog in self.backlogs():
            backlog.remove()
        for store in stores:
            store.remove_partial_files()
            for entry in read_entries(store):
                for name in filter(is_inside, entry.get('files', ())):
                    store.remove(name)
            for name in (*manifest_names(store), RUN_INFO_FILE):
                store.remove(name)

    def merge(self) -> None:
        """Merge the parts of all ranks into one manifest, without lines that were not written to their end."""
        names = manifest_names(self._store)
        self.write(MANIFEST, b''.join(line for name in names for line in whole_lines(self._store.read(name))))
        for name in names:
            if name != MANIFEST:
                self._store.remove(name)

    def path(self, name: str) -> str:
        """Return the full path or URL of a file."""
        return self._store.path(name)

    def write(self, name: str, data: bytes) -> None:
        """Write a file.

        Args:
            name: Its path inside the folder, with forward slashes.
            data: Its content.

        Raises:
            OSError: If it cannot be written.
            FileExistsError: If it is a file of another run, in a subfolder.
        """
        path = self.path(name)
        if not self.is_remote and osp.exists(path):
            for folder in list(PurePosixPath(name).parents)[:-1]:  # the last one is the folder of this run
                if osp.exists(self.path(f'{folder}/{RUN_INFO_FILE}')):
                    inner = self.path(str(folder))
                    raise FileExistsError(f'{path} is of another run, in {inner!r}: choose another out_dir')
        self._store.write(name, data)

    def record(self, entries: Sequence[dict[str, Any]]) -> None:
        """Append entries to the manifest, one line each.

        Raises:
            OSError: If they cannot be written completely.
        """
        lines = ''.join(json.dumps(entry, ensure_ascii=False) + '\n' for entry in entries)
        self._store.append(self._manifest, lines.encode('utf-8', 'surrogateescape'))

    def flush(self) -> None:
        """Make all recorded entries readable for other processes."""
        self._store.flush()


def check_free(out_dir: str) -> None:
    """Raise FileExistsError if an output folder holds a run; ValueError if no file backend can write to its URL."""
    store = get_storage(out_dir)
    if _holds_run(store):
        raise FileExistsError(_TAKEN.format(store.folder))


def _holds_run(store: Storage) -> bool:
    return bool(manifest_names(store)) or RUN_INFO_FILE in store.names()


def _check_outer_runs(folder: str) -> None:
    """Raise FileExistsError if a run above a folder on disk has files in the folder, by the keys of its images."""
    path = Path(_location(folder))
    for outer in path.parents:
        if not osp.isfile(outer / RUN_INFO_FILE):
            continue
        inside = f'{path.relative_to(outer).as_posix()}/'
        names = (name for entry in read_entries(get_storage(outer)) for name in entry.get('files', ()))
        if any(name.startswith(inside) for name in names):
            raise FileExistsError(
                f'{folder!r} holds pictures of the run in {str(outer)!r}: choose an out_dir outside that run'
            )


def check_apart(out_dir: str, *folders: str) -> None:
    """Raise ValueError if an output folder is one of the folders that are read, inside or above one of them."""
    target = _location(out_dir)
    for folder in folders:
        source = _location(folder)
        if f'{target}/'.startswith(f'{source}/') or f'{source}/'.startswith(f'{target}/'):
            raise ValueError(
                f'out_dir {out_dir!r} is, contains or is inside {folder!r}, which is read: choose a folder beside it'
            )


def _free(store: Storage, run_id: str, process: int) -> None:
    """Remove ``run.json`` of a run that has neither pictures nor metrics, so that another run can have the folder."""
    if os.getpid() != process:  # a fork, such as a process of a data loader
        return
    with contextlib.suppress(Exception):  # the folder may be gone
        store.flush()
        info = read_run_info(store)
        has_backlog = any(map(IS_BACKLOG.fullmatch, store.names()))
        if info.get('id') == run_id and not info.get('metrics') and not manifest_names(store) and not has_backlog:
            store.remove(RUN_INFO_FILE)


def _location(folder: str) -> str:
    """Return what two names of one folder have in common."""
    return folder.rstrip('/') if '://' in folder else osp.realpath(osp.expanduser(folder)).rstrip('/')


def _gather(value: Any, error: Exception | None) -> list:
    """Return the values of all ranks, or raise the first error on all of them."""
    gathered = all_gather_object((value, error))
    for _, reason in gathered:
        if reason is not None:
            raise reason
    return [gathered_value for gathered_value, _ in gathered]
