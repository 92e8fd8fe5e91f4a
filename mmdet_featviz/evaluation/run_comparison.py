"""Run comparison: compares the saved maps of two runs image by image, as pictures and tables."""

from __future__ import annotations

import json
import logging
import math
import os.path as osp
from dataclasses import asdict
from typing import Any, Iterable, Iterator, Sequence

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
from mmdet_featviz.evaluation.explanation_matching import match_explanations
from mmdet_featviz.evaluation.heat_measures import heat_on_image, inside_boxes
from mmdet_featviz.evaluation.level_matching import LevelPair, match_levels
from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.runs.explanation_files import saved_explanations
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.style import Style

TABLE, DATA = 'compare.md', 'compare.json'
MAX_ROWS = 16  # pairs of levels in one picture


class RunComparison:
    """Compares two runs image by image, and writes pictures and tables.

    Images are matched by their key, and passes over an image by their number. Levels are matched by stride, see
    ``match_levels()``. Only one image is held in memory at a time.

    Args:
        run_a: Run A, such as the baseline.
        run_b: Run B.
        out_dir: Folder for the pictures and tables.
        style: How pictures look. Of its fields, `colormap`, `alpha`, `blend` and `image_format` are used, and
            `score_thr` as the smallest score of predictions. The maps of each run are placed by that run's own `align`.
        overwrite: Whether to replace the pictures of another run in `out_dir`.
        share_range: Whether A and B are drawn in one range of values. None is so if they have the same config and
            reduction; values of others cannot be compared.

    Attributes:
        means: Mean scores of each pair of levels.

    Raises:
        ValueError: If the runs have no image in common, one saved explanations only, or `out_dir` is the folder of one
            of them.
        OSError: If `out_dir` cannot be written to, or holds the pictures of another run.
    """

    def __init__(
        self,
        run_a: Run,
        run_b: Run,
        out_dir: str,
        style: Style | None = None,
        overwrite: bool = False,
        share_range: bool | None = None,
    ) -> None:
        self.runs = run_a, run_b
        is_same = all(run_a.info.get(fact) == run_b.info.get(fact) for fact in ('config', 'reduction'))
        self.share_range = is_same if share_range is None else share_range
        for run in self.runs:
            run.check_has_maps()
        self.style = style or Style()
        self._aligns = [run.info.get('style', {}).get('align', 'center') for run in self.runs]
        maps_a, maps_b = (dict.fromkeys(osp.relpath(path, run.folder) for path in run.paths) for run in self.runs)
        self._common = [name for name in maps_a if name in maps_b]
        if not self._common:
            raise ValueError(
                f'no image in common: {run_a.folder} has {_image_keys(maps_a)[0]!r}, '
                f'{run_b.folder} has {_image_keys(maps_b)[0]!r}. '
                'Images are matched by their path relative to image_root: run both with the same image_root'
            )
        self._only_in = (
            _image_keys(name for name in maps_a if name not in maps_b),
            _image_keys(name for name in maps_b if name not in maps_a),
        )
        # Checked before RunFolder, which may delete what is in the folder.
        if get_storage(out_dir).folder in [run.folder for run in self.runs]:
            raise ValueError(f'out_dir {out_dir!r} is one of the runs: choose another folder')
        self.run_folder = RunFolder(out_dir, overwrite)
        self.means = ScoreMeans()
        self._boxes: dict[str, dict[str, None]] = {}  # description of the boxes: image keys
        self._unmatched: tuple[dict, dict] = {}, {}  # names of levels without a match; dicts keep their order
        self._compared: dict[str, None] = {}  # image keys
        self._skipped: dict[str, dict[str, None]] = {}  # reason: image keys, each once, also if it has several passes
        self._without_image: dict[str, None] = {}

    def run(self) -> None:
        """Compare all images that both runs have, and write the pictures and tables."""
        for name in self._common:
            self._compare(name)
        data = self.data()
        for name, text in ((DATA, json.dumps(data, ensure_ascii=False, indent=1)), (TABLE, comparison_table(data))):
            self.run_folder.write(name, text.encode('utf-8', 'surrogateescape'))  # file names may not be UTF-8
        self.run_folder.flush()

    def data(self) -> dict[str, Any]:
        """The result of the comparison so far: the content of ``compare.json``."""
        return dict(
            a=_describe(self.runs[0]),
            b=_describe(self.runs[1]),
            images=len(self._compared),
            only_in_a=self._only_in[0],
            only_in_b=self._only_in[1],
            skipped={reason: list(keys) for reason, keys in self._skipped.items()},
            without_photo=list(self._without_image),
            boxes={source: len(keys) for source, keys in self._boxes.items()},
            levels=self.means.rows(),
            alone_in_a=list(self._unmatched[0]),
            alone_in_b=list(self._unmatched[1]),
        )

    def summary(self) -> str:
        """One line: number of images compared, output folder, and what was skipped or missing and why."""
        parts = [f'{count_noun(len(self._compared), "image")} compared in {self.run_folder.out_dir}']
        remarks = {
            'only in A': self._only_in[0],
            'only in B': self._only_in[1],
            'drawn as heat only, because the image file cannot be read': list(self._without_image),
            **{f'skipped, {reason}': list(keys) for reason, keys in self._skipped.items()},
        }
        parts += [
            f'{count_noun(len(keys), "image")} {remark} ({first_names(keys)})'
            for remark, keys in remarks.items()
            if keys
        ]
        reductions = [run.info.get('reduction') for run in self.runs]
        if reductions[0] != reductions[1]:
            parts.append(
                'values are not comparable: channels were reduced by {} in A and by {} in B'.format(*reductions)
            )
        if not self.share_range:
            parts.append('A and B are each drawn in their own range')
        unmatched = [f'{name} of {letter}' for letter, names in zip('AB', self._unmatched) for name in names]
        if unmatched:
            parts.append(f'levels without a level of the same stride in the other run: {", ".join(unmatched)}')
        return '; '.join(parts)

    def _compare(self, name: str) -> None:
        """Compare one pass over one image, given as the path of its saved maps inside both run folders."""
        key = osp.dirname(name)
        try:
            a, b = (load_with_image(osp.join(run.folder, name), run.info) for run in self.runs)
        except ValueError as error:
            print_log(f'{error}. The image is skipped.', 'current', logging.WARNING)
            self._skip('maps not readable', key)
            return
        if a.placement.image_size != b.placement.image_size:
            self._skip('images of different sizes', key)
            return
        pairs, *unmatched = match_levels(a.levels, b.levels)
        for names, levels in zip(self._unmatched, unmatched):
            names.update(dict.fromkeys(level.name for level in levels))
        if not pairs:
            self._skip('no two levels of one stride', key)
            return
        self._write(a, b, pairs)
        self._compared[key] = None

    def _skip(self, reason: str, key: str) -> None:
        self._skipped.setdefault(reason, {})[key] = None

    def _write(self, a: Snapshot, b: Snapshot, pairs: Sequence[LevelPair]) -> None:
        """Score the pairs of levels of one image, and write their pictures and manifest entries."""
        image, inside = self._image(a, b), self._inside(a, b)
        name_a, name_b = short_names(*self.runs)
        title = f'{a.key}{a.suffix}: A is {name_a}, B is {name_b}'
        for file_suffix, title_suffix, page_pairs in _pages(pairs):
            rows, entries = [], []
            name = f'{a.key}/compare{file_suffix}{a.suffix}.{self.style.image_format}'
            for pair in page_pairs:
                heats = self._heats(pair, a, b)
                scores = score_pair(heats, inside)
                self.means.add(pair, scores, a.key)
                rows.append(draw_pair([_caption(pair.a), _caption(pair.b)], heats, scores, image, self.style))
                entries.append(_entry(a, pair, scores, name))
            self.run_folder.write(name, encode_picture(draw_sheet(rows, f'{title}{title_suffix}'), name))
            self.run_folder.record(entries)
        self._write_explanations(a, b, image, title)

    def _write_explanations(self, a: Snapshot, b: Snapshot, image: np.ndarray | None, title: str) -> None:
        """Score and draw the explanations of boxes that are explained in both runs.

        Each is divided by its maximum, as scales of gradients differ; what counts as inside is the box of A.
        """
        explained = [saved_explanations(*facts) for facts in zip(self.runs, (a, b), self._aligns)]
        matched = [(one, other) for one, other in match_explanations(*explained) if other is not None]
        for file_suffix, title_suffix, page in _pages(matched):
            rows, entries = [], []
            name = f'{a.key}/compare.explain{file_suffix}{a.suffix}.{self.style.image_format}'
            for one, other in page:
                a_heat, b_heat = _share_of_maximum(one), _share_of_maximum(other)
                heats = HeatmapPair(a_heat, b_heat, np.ones(a_heat.shape, bool))
                scores = score_pair(heats, inside_boxes(one.bbox[None], a_heat.shape))
                pair = LevelPair(_explanation_level(a_heat), _explanation_level(b_heat))
                self.means.add(pair, scores, a.key)
                captions = [_explanation_caption(one), _explanation_caption(other)]
                rows.append(draw_pair(captions, heats, scores, image, self.style))
                entries.append(_entry(a, pair, scores, name))
            self.run_folder.write(name, encode_picture(draw_sheet(rows, f'{title}{title_suffix}'), name))
            self.run_folder.record(entries)

    def _inside(self, a: Snapshot, b: Snapshot) -> np.ndarray | None:
        """(height, width) bool: which pixels of the image are inside boxes; None without boxes."""
        corners, source = reference_boxes(a.boxes, b.boxes, self.style.score_thr)
        self._boxes.setdefault(source, {})[a.key] = None
        return inside_boxes(corners, a.placement.image_size) if len(corners) else None

    def _heats(self, pair: LevelPair, a: Snapshot, b: Snapshot) -> HeatmapPair:
        """The heatmaps of a pair, each placed as its own run places maps."""
        heat_a = heat_on_image(pair.a, a.placement, self._aligns[0])
        heat_b = heat_on_image(pair.b, b.placement, self._aligns[1])
        return HeatmapPair(heat_a, heat_b, a.placement.seen & b.placement.seen, self.share_range)

    def _image(self, a: Snapshot, b: Snapshot) -> np.ndarray | None:
        """The image, read from the path of A or else of B; None if neither can be read. Scores do not need it."""
        for snapshot in (a, b):
            try:
                return snapshot.image()
            except ImageError as error:
                reason = error
        if not self._without_image:
            print_log(
                f'{reason}. Its heat is drawn without the image; further images are only counted.',
                'current',
                logging.WARNING,
            )
        self._without_image[a.key] = None
        return None


def _caption(level: Level) -> list[str]:
    return [level.name, f'{level.channels} channels, stride {level.stride_text}']


def _explanation_caption(explanation: Explanation) -> list[str]:
    return [f'{explanation.class_name} {explanation.score:.2f}', f'{explanation.target}, by {explanation.method}']


def _explanation_level(heat: np.ndarray) -> Level:
    """The level that stands for all explanations in the table: merged, with one cell per pixel."""
    return Level('explanation', 0, 1, (1.0, 1.0), heat)


def _share_of_maximum(explanation: Explanation) -> np.ndarray:
    heatmap = explanation.heatmap
    return heatmap / (heatmap.max() or 1)


def _pages(pairs: Sequence[Any]) -> Iterator[tuple[str, str, Sequence[Any]]]:
    """Split pairs over pages: suffix of the file name, suffix of the title, and pairs. A single page has no number."""
    count = math.ceil(len(pairs) / MAX_ROWS)
    for page in range(count):
        number = f'_{page + 1:0{len(str(count))}d}' if count > 1 else ''
        title = f' (page {page + 1} of {count})' if count > 1 else ''
        yield number, title, pairs[page * MAX_ROWS : (page + 1) * MAX_ROWS]


def _entry(snapshot: Snapshot, pair: LevelPair, scores: ComparisonScores, name: str) -> dict[str, Any]:
    """The manifest entry of a pair. It also names the tables, so that they are deleted with the pictures."""
    return dict(
        image=snapshot.path,
        key=snapshot.key,
        augmentation=snapshot.augmentation,
        layer=pair.a.layer,
        level=pair.a.level,
        partner=pair.b.name,
        stride=pair.a.stride_text,
        **{name: None if math.isnan(value) else value for name, value in asdict(scores).items()},
        files=[name, TABLE, DATA],
    )


def _describe(run: Run) -> dict[str, Any]:
    """Folder, config, checkpoint and reduction of a run, without those that are unknown."""
    facts = dict(folder=run.folder, **{name: run.info.get(name) for name in ('config', 'checkpoint', 'reduction')})
    return {name: value for name, value in facts.items() if value is not None}


def short_names(a: Run, b: Run) -> tuple[str, str]:
    """Short, distinct names of two runs: their configs, checkpoints or folders, whichever differ first."""
    for fact in ('config', 'checkpoint'):
        names = [osp.splitext(osp.basename(run.info.get(fact) or ''))[0] for run in (a, b)]
        if all(names) and names[0] != names[1]:
            return names[0], names[1]
    names = osp.basename(a.folder), osp.basename(b.folder)
    return names if names[0] != names[1] else (a.folder, b.folder)


def _image_keys(names: Iterable[str]) -> list[str]:
    """Image keys of saved maps, given by their paths inside the run folder; each once."""
    return list(dict.fromkeys(osp.dirname(name) for name in names))
