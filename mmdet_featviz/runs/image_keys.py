"""Image keys: name the output folder of each image after the path of the image."""

from __future__ import annotations

import os
import os.path as osp
import re
import unicodedata
from collections import Counter
from typing import Iterable

from mmengine.dist import get_dist_info

from mmdet_featviz.runs.compact_table import CompactTable, hash64
from mmdet_featviz.utils.file_names import safe_name, short_hash

# Of a run's own files: settings, manifest, postponed images, tables of errors, and pictures and maps (a.jpg has a file
# a/maps.npz, where a/maps.npz.jpg would have a folder). And what ends as a key that was made distinct.
OWN_NAMES = re.compile(
    r'run\.json|manifest(\.rank\d+)?\.jsonl|postponed\.rank\d+\.maps|errors\w*\.(csv|md)|'
    r'.+\.(png|jpe?g|webp|npz|npy)|.*~[0-9a-f]{8}',
    re.IGNORECASE | re.DOTALL,
)
# Only directly inside a run.
OWN_FOLDERS = re.compile(r'report(_compared)?|test_\d+|(epoch|iter)_\d+(_\d+)?', re.IGNORECASE)


class ImageKeys:
    """Gives each image its key: its path relative to a root folder, without the file extension.

    Where several images would get the same key (``a.jpg`` and ``a.png``, or ``a.jpg`` and ``A.jpg``, which are one name
    on some file systems), a hash of the path is appended. Several ranks that do not know all paths append a hash of
    the path and the position to each key: none of them knows the images of the others. In a training, whose samplers
    may give an image to several ranks at once, all but the first rank append a hash of the path and the rank.

    Args:
        root: Folder of the images. The key of an image outside it is made from the whole path, so that no key leads
            out of the output folder. None makes every key from the whole path.
        paths: Paths of all samples in the order of the data set, if known; an image may have several samples. Keys then
            do not depend on the order of the images; otherwise the first of several equal keys gets no hash.
        interval: Every n-th sample is drawn.
        training: Whether the images are those of a training.
    """

    def __init__(
        self, root: str | None = None, paths: Iterable[str] = (), interval: int = 1, training: bool = False
    ) -> None:
        self.root = None if root is None else _normalize(root)
        self._path_of = CompactTable()  # key: hash of the path that has it
        self._array_count = 0
        paths = [_normalize(path) for path in paths]
        samples = Counter(set(paths) if training else paths)  # a training shuffles: no position tells the sample
        counts = Counter(_folded(self._short_key(path)) for path in samples)
        self._ambiguous = {key for key, count in counts.items() if count > 1}
        rank, ranks = get_dist_info()
        self._several_ranks = ranks > 1
        self._training_rank = rank if training else 0
        self._knows_paths = bool(paths)
        self._repeated = {path for path, count in samples.items() if count > 1}
        # Position of each drawn sample of an image with several: path, number of drawn samples before it.
        self._samples: dict[int, tuple[str, int]] = {}
        self._drawn_samples: Counter = Counter()
        for position in range(0, len(paths) if self._repeated else 0, interval):
            path = paths[position]
            if path in self._repeated:
                self._samples[position] = path, self._drawn_samples[path]
                self._drawn_samples[path] += 1

    def key_of(self, path: str | None, position: int | None = None) -> str:
        """Return the key of an image.

        Args:
            path: Its path; an array, which has none (None), is named by its position.
            position: Its position in the order of the data set, the same on any number of ranks. None numbers arrays
                in the order of the calls.
        """
        if path is None:
            if position is None:
                position = self._array_count
                self._array_count += 1
            return f'array_{position:06d}'
        sample = self.sample_of(path, position)
        path = _normalize(path)
        key = self._short_key(path)
        has_unknown_samples = sample is None and path in self._repeated
        if self._several_ranks and position is not None and (has_unknown_samples or not self._knows_paths):
            return f'{key}~{short_hash(f"{path}:{position}")}'
        folded, hashed = _folded(key), hash64(path) % 2**32
        if folded in self._ambiguous or self._path_of.setdefault(folded, hashed) != hashed:
            key = f'{key}~{short_hash(path)}'
        return f'{key}~{short_hash(f"{path}:{self._training_rank}")}' if self._training_rank else key

    def sample_of(self, path: str | None, position: int | None) -> tuple[int, int] | None:
        """Return which of the drawn samples of its image is at a position, from 0, and how many the image has.

        None if the image has only one sample, or if the data set has another image at the position: not all samplers
        keep the order.
        """
        if path is None or not self._samples:
            return None
        path = _normalize(path)
        known_path, number = self._samples.get(position, ('', 0))
        return (number, self._drawn_samples[path]) if known_path == path else None

    def _short_key(self, path: str) -> str:
        inside = self.root is not None and path.startswith(self.root.rstrip('/') + '/')
        relative = (path[len(self.root) :] if inside else path).lstrip('/')
        parts = [
            safe_name(part, OWN_NAMES.fullmatch(part) is not None) for part in osp.splitext(relative)[0].split('/')
        ]
        if OWN_FOLDERS.fullmatch(parts[0]):
            parts[0] = f'{parts[0]}~{short_hash(parts[0])}'
        return '/'.join(parts)


def _normalize(path: str) -> str:
    """Return an absolute path with forward slashes, without the colon of a drive or URL scheme."""
    path = os.fspath(path)
    if '://' in path:
        path = '/' + path.replace('://', '/', 1)
    drive, rest = osp.splitdrive(osp.abspath(path))
    return drive.replace(':', '') + rest.replace(os.sep, '/')


def _folded(key: str) -> str:
    """Return what two keys have in common that are one name on some file systems."""
    return unicodedata.normalize('NFC', unicodedata.normalize('NFC', key).casefold())
