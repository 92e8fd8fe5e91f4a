"""Comparison of two runs over the same images."""

from __future__ import annotations

import json
import logging
import math
import os.path as osp
from dataclasses import asdict
from typing import Any, Iterator, Sequence

import numpy as np
from mmengine.logging import print_log

from mmdet_featviz.evaluation.comparison_pictures import draw_pair, draw_sheet
from mmdet_featviz.evaluation.comparison_scores import (
    ComparisonScores,
    HeatmapPair,
    ScoreMeans,
    reference_boxes,
    score_pair,
)
from mmdet_featviz.evaluation.comparison_table import comparison_table
from mmdet_featviz.evaluation.heat_measures import heat_on_image, inside_boxes
from mmdet_featviz.evaluation.level_matching import LevelPair, match_levels
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.style import Style

TABLE, DATA = 'compare.md', 'compare.json'
MAX_ROWS = 16  # of one picture


class RunComparison:
    """Compares two runs, one image at a time, and writes pictures and tables.

    An image is that of the same key in both runs; a further pass over it is compared with the same pass.

    Args:
        run_a: The run that is compared with, such as a baseline.
        run_b: The other run.
        out_dir: Folder of what is written.
        style: How pictures look: of its fields `colormap`, `alpha`, `blend` and `image_format`, and `score_thr` for the
            boxes. Each run's own `align` places its maps.
        overwrite: Whether another run's pictures in `out_dir` may be replaced.

    Raises:
        ValueError: If the runs have no image in common, or `out_dir` is one of them.
        OSError: If the folder cannot be written to, or holds another run's pictures.
    """

    def __init__(
        self, run_a: Run, run_b: Run, out_dir: str, style: Style | None = None, overwrite: bool = False
    ) -> None:
        self.runs = run_a, run_b
        self.style = style or Style()
        self._aligns = [run.info.get('style', {}).get('align', 'center') for run in self.runs]
        maps_a, maps_b = (dict.fromkeys(osp.relpath(path, run.folder) for path in run.paths) for run in self.runs)
        self._common = [name for name in maps_a if name in maps_b]
        if not self._common:
            raise ValueError(
                f'no image in common: {run_a.folder} has {_keys_of(maps_a)[0]!r}, '
                f'{run_b.folder} has {_keys_of(maps_b)[0]!r}. '
                'Images are matched by their path below image_root: run both with the same one'
            )
        self._only = (
            _keys_of(name for name in maps_a if name not in maps_b),
            _keys_of(name for name in maps_b if name not in maps_a),
        )
        # Here, as this folder may be overwritten.
        if get_storage(out_dir).folder in [run.folder for run in self.runs]:
            raise ValueError(f'out_dir {out_dir!r} is one of the runs: choose another folder')
        self.run_folder = RunFolder(out_dir, overwrite)
        self.means = ScoreMeans()
        self._boxes: dict[str, int] = {}  # what boxes were: images
        self._alone: tuple[dict, dict] = {}, {}  # names of levels without a partner
        self._compared: dict[str, None] = {}
        self._skipped: dict[str, list[str]] = {}  # reason: images
        self._without_image: list[str] = []

    def run(self) -> None:
        """Compare all images that both have, and write the tables."""
        for name in self._common:
            self._compare(name)
        data = self.data()
        for name, text in ((DATA, json.dumps(data, ensure_ascii=False, indent=1)), (TABLE, comparison_table(data))):
            self.run_folder.write(name, text.encode('utf-8', 'surrogateescape'))  # names of files may be no UTF-8
        self.run_folder.flush()

    def data(self) -> dict[str, Any]:
        """All figures, as JSON can hold them."""
        return dict(
            a=_info_of(self.runs[0]),
            b=_info_of(self.runs[1]),
            images=len(self._compared),
            only_in_a=self._only[0],
            only_in_b=self._only[1],
            skipped=self._skipped,
            without_photo=self._without_image,
            boxes=self._boxes,
            levels=self.means.rows(),
            alone_in_a=list(self._alone[0]),
            alone_in_b=list(self._alone[1]),
        )

    def summary(self) -> str:
        """One line: how many images were compared, where, and what was not and why."""
        parts = [f'{count_noun(len(self._compared), "image")} compared in {self.run_folder.out_dir}']
        noted = {
            'only in A': self._only[0],
            'only in B': self._only[1],
            'drawn without the image, which is not readable': self._without_image,
            **{f'skipped, {reason}': keys for reason, keys in self._skipped.items()},
        }
        parts += [
            f'{count_noun(len(keys), "image")} {what} ({first_names(keys)})' for what, keys in noted.items() if keys
        ]
        reductions = [run.info.get('reduction') for run in self.runs]
        if reductions[0] != reductions[1]:
            parts.append('values of two kinds: channels were reduced by {} in A and by {} in B'.format(*reductions))
        alone = [f'{name} of {letter}' for letter, names in zip('AB', self._alone) for name in names]
        if alone:
            parts.append(f'levels without a partner of their stride: {", ".join(alone)}')
        return '; '.join(parts)

    def _compare(self, name: str) -> None:
        key = osp.dirname(name)
        try:
            a, b = (load_with_image(osp.join(run.folder, name), run.info) for run in self.runs)
        except ValueError as error:
            print_log(f'{error}. The image is skipped.', 'current', logging.WARNING)
            self._skipped.setdefault('maps not readable', []).append(key)
            return
        if a.placement.image_size != b.placement.image_size:
            self._skipped.setdefault('images of different sizes', []).append(key)
            return
        pairs, *alone = match_levels(a.levels, b.levels)
        for names, levels in zip(self._alone, alone):
            names.update(dict.fromkeys(level.name for level in levels))
        if not pairs:
            self._skipped.setdefault('no two levels of one stride', []).append(key)
            return
        self._write(a, b, pairs)
        self._compared[key] = None

    def _write(self, a: Snapshot, b: Snapshot, pairs: Sequence[LevelPair]) -> None:
        image, inside = self._image(a, b), self._inside(a, b)
        name_a, name_b = short_names(*self.runs)
        title = f'{a.key}{a.suffix}: A is {name_a}, B is {name_b}'
        for number, page, chosen in _pages(pairs):
            rows, entries = [], []
            name = f'{a.key}/compare{number}{a.suffix}.{self.style.image_format}'
            for pair in chosen:
                heats = self._heats(pair, a, b)
                figures = score_pair(heats, inside)
                self.means.add(pair, figures)
                rows.append(draw_pair(pair, heats, figures, image, self.style))
                entries.append(_entry(a, pair, figures, name))
            self.run_folder.write(name, encode_picture(draw_sheet(rows, f'{title}{page}'), name))
            self.run_folder.record(entries)

    def _inside(self, a: Snapshot, b: Snapshot) -> np.ndarray | None:
        """Which pixels the boxes hold; None without boxes."""
        corners, source = reference_boxes(a.boxes, b.boxes, self.style.score_thr)
        self._boxes[source] = self._boxes.get(source, 0) + 1
        return inside_boxes(corners, a.placement.image_size) if len(corners) else None

    def _heats(self, pair: LevelPair, a: Snapshot, b: Snapshot) -> HeatmapPair:
        heat_a = heat_on_image(pair.a, a.placement, self._aligns[0])
        heat_b = heat_on_image(pair.b, b.placement, self._aligns[1])
        return HeatmapPair(heat_a, heat_b, a.placement.seen & b.placement.seen)

    def _image(self, a: Snapshot, b: Snapshot) -> np.ndarray | None:
        """The image of either run; the figures need none."""
        for snapshot in (a, b):
            try:
                return snapshot.image()
            except ImageError as error:
                reason = error
        if not self._without_image:
            print_log(f'{reason}. Its heat is drawn alone; others like it are counted.', 'current', logging.WARNING)
        self._without_image.append(a.key)
        return None


def _pages(pairs: Sequence[LevelPair]) -> Iterator[tuple[str, str, Sequence[LevelPair]]]:
    """What file name and title say of each page, and its pairs; one page needs no number."""
    count = math.ceil(len(pairs) / MAX_ROWS)
    for page in range(count):
        number = f'_{page + 1:0{len(str(count))}d}' if count > 1 else ''
        title = f' (page {page + 1} of {count})' if count > 1 else ''
        yield number, title, pairs[page * MAX_ROWS : (page + 1) * MAX_ROWS]


def _entry(snapshot: Snapshot, pair: LevelPair, figures: ComparisonScores, name: str) -> dict[str, Any]:
    """A line of the manifest; it names the tables, too, so that they go when the pictures are replaced."""
    return dict(
        image=snapshot.path,
        key=snapshot.key,
        augmentation=snapshot.augmentation,
        layer=pair.a.layer,
        level=pair.a.level,
        partner=pair.b.name,
        stride=pair.a.stride_text,
        **{name: None if math.isnan(value) else value for name, value in asdict(figures).items()},
        files=[name, TABLE, DATA],
    )


def _info_of(run: Run) -> dict[str, Any]:
    known = dict(folder=run.folder, **{name: run.info.get(name) for name in ('config', 'checkpoint', 'reduction')})
    return {name: value for name, value in known.items() if value is not None}


def short_names(a: Run, b: Run) -> tuple[str, str]:
    """Short names of two runs: the first of config, checkpoint and folder in which they differ."""
    for fact in ('config', 'checkpoint'):
        names = [osp.splitext(osp.basename(run.info.get(fact) or ''))[0] for run in (a, b)]
        if all(names) and names[0] != names[1]:
            return names[0], names[1]
    names = osp.basename(a.folder), osp.basename(b.folder)
    return names if names[0] != names[1] else (a.folder, b.folder)


def _keys_of(maps: Any) -> list[str]:
    """Image keys of files of maps."""
    return list(dict.fromkeys(osp.dirname(name) for name in maps))
