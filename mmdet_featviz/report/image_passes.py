"""Image passes: the saved passes over each image, in all epochs."""

from __future__ import annotations

import itertools
import os
import os.path as osp
import re
from dataclasses import dataclass
from typing import Iterable, Iterator

from mmdet_featviz.runs.reader import Run

ROUND = re.compile(r'(epoch|iter)_(\d+)/(.+)', re.DOTALL)


@dataclass(frozen=True)
class ImagePass:
    """A pass over an image, or that of an epoch: a file of maps.

    Attributes:
        path: Of the maps.
        name: Of the same below the folder of the run.
        label: What tells it from other shots of its image, if anything.
    """

    path: str
    name: str
    label: str


def passes_by_image(run: Run) -> dict[tuple, list[ImagePass]]:
    """The shots of each image of a run: all passes over it, in all epochs."""
    images = {entry['key']: entry['image'] for entry in run.entries.values()}
    found: dict[tuple, list[ImagePass]] = {}
    for path in run.paths:
        name = osp.relpath(path, run.folder).replace(os.sep, '/')
        key = osp.dirname(name)
        of_round = ROUND.fullmatch(key)
        turn, number, base = of_round.groups() if of_round else ('', '', key)
        pass_ = osp.basename(name)[len('maps') : -len('.npz')].lstrip('.').replace('_', ' ')
        label = ', '.join(filter(None, [f'{turn} {number}'.strip(), pass_]))
        # Folders of data sets may have such names, too: only the same image makes the same image.
        found.setdefault((base, images.get(key)), []).append(ImagePass(path, name, label))
    return found


def distinct_names(keys: Iterable[str]) -> Iterator[str]:
    """The keys, the second of equal ones with `` (2)``: the page's addresses name images by them."""
    taken = set()
    for key in keys:
        others = (f'{key} ({number})' for number in itertools.count(2))
        free = next(name for name in itertools.chain([key], others) if _in_address(name) not in taken)
        taken.add(_in_address(free))
        yield free


def _in_address(key: str) -> str:
    """What an address keeps of a key: one sign for whatever is no Unicode."""
    return key.encode('utf-8', 'replace').decode('utf-8')
