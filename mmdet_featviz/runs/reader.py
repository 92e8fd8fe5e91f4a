"""Reader: opens the folder of a run and loads its saved maps."""

from __future__ import annotations

import os.path as osp
from dataclasses import replace
from functools import partial
from typing import Iterator

from mmdet_featviz.runs.box_features_file import SavedFeatures
from mmdet_featviz.runs.field_files import TABLE
from mmdet_featviz.runs.manifest import MANIFEST, manifest_names, read_entries, run_order
from mmdet_featviz.runs.maps_file import load_snapshot
from mmdet_featviz.runs.run_info import RUN_INFO_FILE, check_backend_args, read_run_info
from mmdet_featviz.runs.storage import Storage, get_storage
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.images import read_image
from mmdet_featviz.visualization.style import STYLE_OPTIONS, Style


class Run:
    """A run that saved its maps, read from its output folder.

    Args:
        folder: `out_dir` of the run: a path, or a URL that mmengine has a file backend for. Or one epoch of a training
            in it, such as ``run_a/epoch_3``: the run then has the images and metrics of this epoch only, and their keys
            begin after it.

    Attributes:
        folder: Absolute path, or the URL.
        root: The same without the epoch.
        info: Content of ``run.json``.
        entries: {(image key, pass, layer, level): manifest entry}, in the order of the data set.
        paths: Paths of its maps files.
        explanations: {image key: paths of the files of its explanations}.
        box_features: The files of the features of boxes, in the order of the data set.
        evaluation_files: Names of the files in `root` that its evaluations made, such as tables of errors.

    Raises:
        FileNotFoundError: If the folder has no manifest.
        ValueError: If the run saved no maps, or its manifest or ``run.json`` is damaged or not to be trusted.
    """

    def __init__(self, folder: str) -> None:
        store, epoch = _find_run(folder)
        self.root = store.folder
        self.folder = osp.join(self.root, epoch) if epoch else self.root
        info = read_run_info(store)
        check_backend_args(info.get('backend_args'), store.path(RUN_INFO_FILE))
        self.info = _of_epoch(_with_known_style(info, store), epoch)
        self.entries: dict[tuple, dict] = {}  # of equal keys, the last entry
        self.evaluation_files: list[str] = []
        explanations: dict[str, str] = {}  # file: image key
        measured: dict[tuple, dict] = {}  # as the entries
        for entry in read_entries(store):
            if 'evaluation' in entry and epoch in ('', entry['evaluation']):
                self.evaluation_files.extend(entry['files'])
            if epoch and entry.get('folder') != epoch:
                continue
            if 'method' in entry:
                explanations.update({file: entry['key'] for file in entry['files'] if file.endswith('.npz')})
            if 'vectors' in entry:
                entry = dict(entry, augmentation=entry['pass'])
                measured[entry['key'], entry['pass']] = entry
            elif 'augmentation' in entry:  # not in the manifest of a report or of a comparison
                entry = dict(entry, key=entry['key'][len(epoch) :].lstrip('/')) if epoch else entry
                self.entries[tuple(entry[name] for name in ('key', 'augmentation', 'layer', 'level'))] = entry
        self.entries = dict(sorted(self.entries.items(), key=lambda item: run_order(item[1])))
        files = {file: None for entry in self.entries.values() for file in entry['files']}
        names = [file for file in files if osp.basename(file).startswith('maps') and file.endswith('.npz')]
        self.paths = [store.path(name) for name in names]
        self.explanations: dict[str, list[str]] = {}
        for file, key in explanations.items():
            self.explanations.setdefault(key, []).append(store.path(file))
        self.box_features = [
            SavedFeatures(store.path(entry['files'][0]), *(entry[name] for name in ('image', 'key', 'folder', 'boxes')))
            for entry in sorted(measured.values(), key=run_order)
        ]
        if not names and not explanations and not measured:
            raise ValueError(f"{self.folder} holds no maps to draw from: run with save=('maps',)")

    def snapshots(self) -> Iterator[Snapshot]:
        """Iterate over the saved snapshots in the order of the data set; each can read its image."""
        return (load_with_image(path, self.info) for path in self.paths)

    def check_has_maps(self) -> None:
        """Raise ValueError if the run saved explanations or box features only."""
        if not self.paths and self.box_features:
            raise ValueError(f"{self.folder} holds box features only, no activation maps: add 'maps' to save")
        if not self.paths:
            raise ValueError(f'{self.folder} holds explanations only, no activation maps: explain in a test instead')

    @property
    def info_to_copy(self) -> dict:
        """The part of `info` that also holds for a run drawn from this one's maps."""
        return {name: value for name, value in self.info.items() if name not in ('id', 'version', 'style')}


def _find_run(folder: str) -> tuple[Storage, str]:
    """The storage of a run and, if the folder is that of an epoch in it, the name of the epoch; else an empty name."""
    store = get_storage(folder)
    if manifest_names(store):
        return store, ''
    root, name = osp.split(store.folder)
    parent = None if '://' in store.folder and '://' not in root else get_storage(root)
    epochs = {} if parent is None else dict.fromkeys(filter(None, (one.get('folder') for one in read_entries(parent))))
    if name in epochs:
        return parent, name
    found = f'{root} has {", ".join(epochs)}' if epochs else 'name the out_dir of a run, not a folder inside'
    raise FileNotFoundError(f'{store.folder} is no run: it has no {MANIFEST} ({found})')


def _with_known_style(info: dict, store: Storage) -> dict:
    """The content of ``run.json`` without options of the style that this version does not know."""
    style = {name: value for name, value in (info.get('style') or {}).items() if name in STYLE_OPTIONS}
    try:
        Style(**style)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{store.path(RUN_INFO_FILE)} has a wrong style: {error}') from error
    return dict(info, style=style) if 'style' in info else info


def _of_epoch(info: dict, epoch: str) -> dict:
    """The content of ``run.json`` with the metrics and receptive fields of an epoch only, or all without one."""
    if not epoch:
        return info
    recorded = {name: info.get(name) or {} for name in ('metrics', TABLE)}
    return dict(info, **{name: {epoch: of[epoch]} if epoch in of else {} for name, of in recorded.items()})


def load_with_image(path: str, info: dict) -> Snapshot:
    """Load a saved snapshot that can also read its image.

    Args:
        path: Path or URL of a maps file.
        info: Content of the run's ``run.json``.
    """
    return add_image(load_snapshot(path), info, osp.dirname(path))


def add_image(snapshot: Snapshot, info: dict, folder: str = '') -> Snapshot:
    """Return a copy of a saved snapshot that can also read its image.

    Args:
        snapshot: The snapshot.
        info: Content of the run's ``run.json``.
        folder: Folder or URL with the image, if that was rebuilt from the network's input.
    """
    if snapshot.is_file:
        image_path, backend_args = locate_image(snapshot.path, info.get('working_dir')), info.get('backend_args')
    else:
        image_path, backend_args = osp.join(folder, snapshot.image_file), None
    read = partial(read_image, image_path, snapshot.placement.image_size, backend_args)
    return replace(snapshot, image=read, dataset_meta=info.get('dataset_meta'))


def locate_image(path: str, working_dir: str | None) -> str:
    """Return the path of an image; a relative one without a file here is tried from the run's working directory."""
    path_in_run = osp.join(working_dir or '', path)
    return path_in_run if '://' not in path and not osp.exists(path) and osp.exists(path_in_run) else path
