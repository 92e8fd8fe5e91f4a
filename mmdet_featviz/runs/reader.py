"""Reader of a run that saved its maps."""

from __future__ import annotations

import os.path as osp
from dataclasses import replace
from functools import partial
from typing import Iterator

from mmdet_featviz.runs.manifest import MANIFEST, manifest_names, read_entries
from mmdet_featviz.runs.maps_file import load_snapshot
from mmdet_featviz.runs.run_info import read_run_info
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.images import read_image


class Run:
    """The folder of a finished run that saved maps.

    Args:
        folder: `out_dir` of the run.

    Attributes:
        info: What ``run.json`` says of it.
        entries: Lines of the manifest by image key, pass, layer and level.
        paths: Files of its saved maps.

    Raises:
        FileNotFoundError: If it is no such folder.
        ValueError: If the run saved no maps.
    """

    def __init__(self, folder: str) -> None:
        store = get_storage(folder)
        self.folder = store.folder
        if not manifest_names(store):
            raise FileNotFoundError(
                f'{self.folder} is no run: it has no {MANIFEST} (name the out_dir of a run, not a folder inside)'
            )
        self.info = read_run_info(store)
        self.entries: dict[tuple, dict] = {}  # the last line of each map
        for entry in read_entries(store):
            if 'augmentation' in entry:  # not so in a report or a comparison of runs
                self.entries[tuple(entry[name] for name in ('key', 'augmentation', 'layer', 'level'))] = entry
        files = {file: None for entry in self.entries.values() for file in entry['files']}
        names = [file for file in files if osp.basename(file).startswith('maps') and file.endswith('.npz')]
        self.paths = [store.path(name) for name in names]
        if not names:
            raise ValueError(f"{self.folder} holds no maps to draw from: run with save=('maps',)")

    def snapshots(self) -> Iterator[Snapshot]:
        """All that the run saved, in its order, with their images."""
        return (load_with_image(path, self.info) for path in self.paths)

    @property
    def info_to_copy(self) -> dict:
        """What another run that is drawn from this one should know of it."""
        return {name: value for name, value in self.info.items() if name not in ('version', 'style')}


def load_with_image(path: str, info: dict) -> Snapshot:
    """A saved snapshot, with what its image takes.

    Args:
        path: File of maps.
        info: Of the run.
    """
    snapshot = load_snapshot(path)
    if snapshot.is_file:
        image, backend_args = _found(snapshot.path, info.get('working_dir')), info.get('backend_args')
    else:
        image, backend_args = osp.join(osp.dirname(path), snapshot.image_file), None
    read = partial(read_image, image, snapshot.placement.image_size, backend_args)
    return replace(snapshot, image=read, dataset_meta=info.get('dataset_meta'))


def _found(path: str, working_dir: str | None) -> str:
    """The path of a image; one that is relative and leads nowhere from here may lead there from where the run was."""
    there = osp.join(working_dir or '', path)
    return there if '://' not in path and not osp.exists(path) and osp.exists(there) else path
