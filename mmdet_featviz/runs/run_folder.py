"""Run folder: writes the files and the manifest of a run into its output folder, new, resumed or overwritten."""

from __future__ import annotations

import json
from typing import Any, Sequence

from mmengine.dist import all_gather_object, get_rank, is_main_process

from mmdet_featviz.runs.manifest import (
    MANIFEST,
    PART,
    finished_levels,
    is_inside,
    manifest_names,
    read_entries,
    whole_lines,
)
from mmdet_featviz.runs.storage import get_storage

REPORT = 'report'  # folder of the report page, inside that of the run


class RunFolder:
    """Writes the files and the manifest of one run into a folder.

    A file appears under its name only when it is complete. With several ranks, each writes its own part of the
    manifest until :meth:`merge`.

    Args:
        out_dir: Folder of the run, created if needed: a path, or a URL that an mmengine file backend can write to.
        overwrite: Whether to remove another run's files from the folder.
        resume: Whether to continue a run found in the folder.
        in_run: Whether all ranks of a run create their RunFolder together, and merge at the end.

    Attributes:
        out_dir: Absolute path, or the URL.
        finished: With `resume`: {(image key, pass): names of the levels whose files exist}.

    Raises:
        FileExistsError: If the folder holds another run, and neither `overwrite` nor `resume` is set.
        ValueError: If no file backend can write to the URL.
        OSError: If the folder cannot be created or written to. With `in_run`, an error on one rank is raised on all.
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
        errors = [found for found in (all_gather_object(error) if in_run else [error]) if found is not None]
        if errors:
            raise errors[0]
        self.finished = finished_levels(self._store) if resume else {}

    def _prepare(self, overwrite: bool) -> None:
        """Create the folder; the first rank also handles another run found there."""
        try:
            self._store.prepare()
        except OSError as error:
            raise type(error)(
                f'out_dir {self.out_dir!r} cannot be written to ({error.strerror or error}): '
                'choose another folder with out_dir (--out-dir)'
            ) from error
        # A further rank may find this run's own manifest: without `in_run`, ranks do not wait for each other.
        if not is_main_process() or not manifest_names(self._store):
            return
        if self.resume:
            self._store.remove_partial_files()
            self.merge()
        elif overwrite:
            self._remove_run()
        else:
            raise FileExistsError(
                f'{self.out_dir!r} holds the pictures of another run: set overwrite=True (--overwrite) to replace '
                'them, resume=True (--resume of featviz test and image) to continue that run, or choose another out_dir'
            )

    def _remove_run(self) -> None:
        """Remove the manifests of the run and of its report and all files they list; other files are kept."""
        stores = [self._store]
        if f'{REPORT}/{MANIFEST}' in self._store.all_names():
            stores.append(get_storage(self._store.path(REPORT)))
        for store in stores:
            store.remove_partial_files()
            for entry in read_entries(store):
                for name in filter(is_inside, entry.get('files', ())):
                    store.remove(name)
            for name in manifest_names(store):
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
        """
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
