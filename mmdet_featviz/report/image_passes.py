"""Image passes: the saved passes over each image of a run, in all its epochs."""

from __future__ import annotations

import itertools
import os
import os.path as osp
import re
from dataclasses import dataclass
from typing import Iterable, Iterator

from mmdet_featviz.runs.manifest import TRAINING_FOLDER
from mmdet_featviz.runs.reader import Run

# Of a validation in a training, which may be repeated, or of a second test.
EPOCH_KEY = re.compile(r'((?:epoch|iter|test)_\d+(?:_\d+)?)/(.+)', re.DOTALL)


@dataclass(frozen=True)
class ImagePass:
    """One saved pass over an image, in one epoch. The data files and scripts of the page call it a shot.

    Attributes:
        path: Path or URL of its saved maps.
        name: The same, relative to the run folder.
        label: Distinguishes it from other passes over the image, such as ``epoch 3, pass 1``; empty in a plain test.
    """

    path: str
    name: str
    label: str


def passes_by_image(run: Run) -> dict[tuple, list[ImagePass]]:
    """Group the saved passes of a run by image.

    Returns:
        ``{(image key without epoch, image path): passes}``, in the order of the data set: an epoch may have images that
        an earlier one does not have.
    """
    entries = {entry['key']: entry for entry in run.entries.values()}
    passes: dict[tuple, list[ImagePass]] = {}
    places: dict[tuple, tuple] = {}
    for path in run.paths:
        name = osp.relpath(path, run.folder).replace(os.sep, '/')
        key = osp.dirname(name)
        folder, plain_key = split_key(key)
        pass_label = osp.basename(name)[len('maps') : -len('.npz')].lstrip('.').replace('_', ' ')
        label = ', '.join(filter(None, [folder_label(folder), pass_label]))
        # A data set may have folders named epoch_1 too: group only passes over the same image file.
        entry = entries.get(key, {})
        image = plain_key, entry.get('image')
        passes.setdefault(image, []).append(ImagePass(path, name, label))
        places[image] = min(places.get(image, (2,)), _place(entry))
    return {image: passes[image] for image in sorted(passes, key=places.get)}


def split_key(key: str) -> tuple[str, str]:
    """The folder of an epoch or further test in an image key, or an empty name, and the rest of the key."""
    match = EPOCH_KEY.fullmatch(key)
    return match.groups() if match else ('', key)


def _place(entry: dict) -> tuple:
    """What sorts images: those of a training first, then by position in the data set, as far as it is known."""
    position = entry.get('position')
    return () if position is None else (not TRAINING_FOLDER.match(entry.get('folder', '')), position)


def folder_label(folder: str) -> str:
    """The name of a validation or test on the page: ``epoch 3``, or ``epoch 3, validation 2`` for ``epoch_3_2``."""
    return re.sub(r'_(\d+)_(\d+)$', r' \1, validation \2', folder).replace('_', ' ')


def distinct_names(keys: Iterable[str]) -> Iterator[str]:
    """The keys, with `` (2)`` and so on appended to repeated ones: the page names images by them in its address."""
    taken = set()
    for key in keys:
        numbered = (f'{key} ({number})' for number in itertools.count(2))
        free = next(name for name in itertools.chain([key], numbered) if _in_address(name) not in taken)
        taken.add(_in_address(free))
        yield free


def _in_address(key: str) -> str:
    """The key as an address can hold it: bytes that are not Unicode all become ``?``."""
    return key.encode('utf-8', 'replace').decode('utf-8')
