"""Run folder: writes files of a run and adds lines to its manifest."""

from __future__ import annotations

import json
from typing import Any, Sequence

from mmengine.dist import all_gather_object, get_rank, is_main_process

from mmdet_featviz.runs.manifest import (
    MANIFEST,
    PART,
    finished_levels,
    is_below,
    manifest_names,
    read_entries,
    whole_lines,
)
from mmdet_featviz.runs.storage import get_storage

REPORT = 'report'  # folder below that of the run


class RunFolder:
    """Writes pictures and manifest of one run below a folder.

    No file is ever half there. Of several ranks each writes a part of the manifest, until :meth:`merge`.

    Args:
        out_dir: Folder of the run, made where it does not exist: a path, or a URL that mmengine has a file backend for.
        overwrite: Whether another run's pictures there may be replaced.
        resume: Whether another run may be gone on with.
        in_run: Whether all ranks make their run_folder at once and merge at the end.

    Attributes:
        finished: Of a run that is gone on with: {(image key, pass): names of the levels that are there}.

    Raises:
        FileExistsError: If the folder holds the manifest of another run and is neither to be replaced nor gone on with.
        ValueError: If no file backend can write to the URL.
        OSError: If the folder cannot be made or written to. All of them on all ranks, if on any.
    """

    def __init__(self, out_dir: str, overwrite: bool = False, resume: bool = False, in_run: bool = False) -> None:
        self._store = get_storage(out_dir)
        self.out_dir = self._store.folder
        self.resume = resume
        part = get_rank() if in_run else 0
        self._manifest = PART.format(part) if part else MANIFEST
        error = None
        try:
            self._prepare(overwrite)
        except Exception as reason:  # each file backend raises errors of its own
            error = reason
        errors = [one for one in (all_gather_object(error) if in_run else [error]) if one is not None]
        if errors:
            raise errors[0]
        self.finished = finished_levels(self._store) if resume else {}

    def _prepare(self, overwrite: bool) -> None:
        """Make the folder; the first rank also looks for another run there."""
        try:
            self._store.prepare()
        except OSError as error:
            raise type(error)(
                f'out_dir {self.out_dir!r} cannot be written to ({error.strerror or error}): '
                'choose another folder with out_dir, or --featviz-dir of tools/test.py'
            ) from error
        # Another rank of this run may have written already, where it did not wait for the first.
        if not is_main_process() or not manifest_names(self._store):
            return
        if self.resume:
            self._store.remove_partial_files()
            self.merge()
        elif overwrite:
            self._remove_run()
        else:
            raise FileExistsError(
                f'{self.out_dir!r} holds the pictures of another run: overwrite=True (--overwrite) replaces it, '
                'resume=True (--resume of tools/test.py) goes on with it, another out_dir leaves it alone'
            )

    def _remove_run(self) -> None:
        """Remove what the manifests of the run and of its report list, and these; nothing else that lies there."""
        stores = [self._store]
        if f'{REPORT}/{MANIFEST}' in self._store.all_names():
            stores.append(get_storage(self._store.path(REPORT)))
        for store in stores:
            store.remove_partial_files()
            for entry in read_entries(store):
                for name in filter(is_below, entry.get('files', ())):
                    store.remove(name)
            for name in manifest_names(store):
                store.remove(name)

    def merge(self) -> None:
        """Make one manifest of all parts, without the line that a run may have been killed in."""
        names = manifest_names(self._store)
        self.write(MANIFEST, b''.join(line for name in names for line in whole_lines(self._store.read(name))))
        for name in names:
            if name != MANIFEST:
                self._store.remove(name)

    def path(self, name: str) -> str:
        """Where the file of that name lies."""
        return self._store.path(name)

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whose name is a path below the folder.

        Raises:
            OSError: If it cannot be written.
        """
        self._store.write(name, data)

    def record(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add lines to the manifest.

        Raises:
            OSError: If they cannot be written, or not all of them.
        """
        lines = ''.join(json.dumps(entry, ensure_ascii=False) + '\n' for entry in entries)
        self._store.append(self._manifest, lines.encode('utf-8', 'surrogateescape'))

    def flush(self) -> None:
        """See that all that was recorded can be read by others."""
        self._store.flush()
