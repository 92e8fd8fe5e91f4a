"""Run comparison: compares the saved maps of runs image by image, as pictures and tables."""

from __future__ import annotations

import json
import logging
import math
import os.path as osp
from functools import partial
from itertools import islice
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence

import numpy as np
from mmengine.logging import print_log

from mmdet_featviz.evaluation.comparison_pictures import ComparisonLook, draw_group, draw_sheet
from mmdet_featviz.evaluation.comparison_scores import (
    ComparisonScores,
    HeatmapGroup,
    ScoreMeans,
    reference_boxes,
    score_group,
)
from mmdet_featviz.evaluation.comparison_table import csv_table, latex_table, markdown_table
from mmdet_featviz.evaluation.explanation_matching import match_explanations
from mmdet_featviz.evaluation.heat_measures import heat_on_image, inside_boxes
from mmdet_featviz.evaluation.level_matching import LevelGroup, level_names, match_levels
from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.runs.explanation_files import FOLDER, saved_explanations
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.run_names import LETTERS, are_comparable, check_run_names, in_words, short_names
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.utils.name_filter import name_filter
from mmdet_featviz.visualization.box_drawing import BoxStyle
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.style import Style

DATA = 'compare.json'
TABLES = {'compare.md': markdown_table, 'compare.csv': csv_table, 'compare.tex': latex_table}
MAX_LINES = 16  # of tiles, in one picture
_NO_LEVEL = '-', 'no level of this stride'
_NO_EXPLANATION = '-', 'this box is not explained'


class RunComparison:
    """Compares runs image by image, and writes pictures and tables.

    Images are matched by their key, and passes over an image by their number; those that all runs have are compared.
    Each run is compared with the first one, run A. Levels are matched by stride, see ``match_levels()``. Only one image
    is held in memory at a time.

    Args:
        runs: The runs, at least two; the first is A, such as the baseline. An epoch of a training is a run, too, see
            ``Run``.
        out_dir: Folder for the pictures and tables.
        style: How pictures look. Of its fields, `colormap`, `alpha`, `blend`, `image_format` and those of boxes
            (`boxes`, `classes`, `labels`, `line_width`, `font_size`) are used, and `score_thr` as the smallest score of
            predictions. The maps of each run are placed by that run's own `align`.
        overwrite: Whether to replace the pictures of another run in `out_dir`.
        share_range: Whether all runs are drawn in one range of values. None is so if they have the same config and
            reduction; values of others cannot be compared.
        names: Names of the runs in pictures and tables. None calls them A, B and so on.
        levels: Names of the levels of run A to compare; ``*`` matches any characters. None compares all.
        original: Whether the pictures have a column with the image.

    Attributes:
        means: Mean scores of each group of levels.

    Raises:
        ValueError: If the runs have no image in common, one saved explanations only, `names`, `levels` or `classes` do
            not fit the runs, or `out_dir` is the folder of one of them.
        OSError: If `out_dir` cannot be written to, or holds the pictures of another run.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        out_dir: str,
        style: Style | None = None,
        overwrite: bool = False,
        share_range: bool | None = None,
        names: Sequence[str] | None = None,
        levels: Sequence[str] | None = None,
        original: bool = False,
    ) -> None:
        check_run_names(runs, names)
        self.runs = runs
        self.letters = list(LETTERS[: len(runs)])
        self.names = list(names or self.letters)
        self.share_range = are_comparable(runs) if share_range is None else share_range
        for run in runs:
            run.check_has_maps()
        self.style = style or Style()
        self._look = ComparisonLook(self.style, self.names, original)
        self._box_styles = [] if self.style.boxes is None else [_box_style(self.style, run) for run in runs]
        self._legend = '' if names else f': {_legend(runs)}'
        self._aligns = [run.info.get('style', {}).get('align', 'center') for run in runs]
        self._is_wanted = _check_levels(runs[0], levels)
        self._common, self._only_in = _match_images(runs)
        # Checked before RunFolder, which may delete what is in the folder.
        if get_storage(out_dir).folder in [folder for run in runs for folder in (run.folder, run.root)]:
            raise ValueError(f'out_dir {out_dir!r} is one of the runs: choose another folder')
        self.run_folder = RunFolder(out_dir, overwrite)
        self.means = ScoreMeans()
        self._boxes: dict[str, dict[str, None]] = {}  # description of the boxes: image keys
        self._unmatched: list[dict] = [{} for _ in runs]  # names of levels without a match; dicts keep their order
        self._compared: dict[str, None] = {}  # image keys
        self._skipped: dict[str, dict[str, None]] = {}  # reason: image keys, each once, also if it has several passes
        self._without_image: dict[str, None] = {}

    def run(self) -> None:
        """Compare all images that all runs have, and write the pictures and tables."""
        for name in self._common:
            self._compare(name)
        data = self.data()
        texts = {DATA: json.dumps(data, ensure_ascii=False, indent=1)}
        texts.update({name: table(data, self.names) for name, table in TABLES.items()})
        for name, text in texts.items():
            self.run_folder.write(name, text.encode('utf-8', 'surrogateescape'))  # file names may not be UTF-8
        self.run_folder.flush()

    def data(self) -> dict[str, Any]:
        """The result of the comparison so far: the content of ``compare.json``."""
        letters = [letter.lower() for letter in self.letters]
        return dict(
            **{letter: _describe(run) for letter, run in zip(letters, self.runs)},
            names=self.names,
            images=len(self._compared),
            **{f'only_in_{letter}': keys for letter, keys in zip(letters, self._only_in)},
            skipped={reason: list(keys) for reason, keys in self._skipped.items()},
            without_photo=list(self._without_image),
            boxes={source: len(keys) for source, keys in self._boxes.items()},
            levels=self.means.rows(),
            **{f'alone_in_{letter}': list(names) for letter, names in zip(letters, self._unmatched)},
        )

    def summary(self) -> str:
        """One line: number of images compared, output folder, and what was skipped or missing and why."""
        parts = [f'{count_noun(len(self._compared), "image")} compared in {self.run_folder.out_dir}']
        are_two = len(self.runs) == 2
        only_in = 'only in {}' if are_two else 'in {}, but not in all runs'
        remarks = {
            **{only_in.format(name): keys for name, keys in zip(self.names, self._only_in)},
            'drawn as heat only, because the image file cannot be read': list(self._without_image),
            **{f'skipped, {reason}': list(keys) for reason, keys in self._skipped.items()},
        }
        parts += [
            f'{count_noun(len(keys), "image")} {remark} ({first_names(keys)})'
            for remark, keys in remarks.items()
            if keys
        ]
        reductions = [run.info.get('reduction') for run in self.runs]
        if any(reduction != reductions[0] for reduction in reductions):
            reduced = [f'by {reduction} in {name}' for reduction, name in zip(reductions, self.names)]
            parts.append(f'values are not comparable: channels were reduced {in_words(reduced)}')
        if not self.share_range:
            parts.append(f'{in_words(self.names)} are each drawn in their own range')
        unmatched = [f'{level} of {name}' for name, levels in zip(self.names, self._unmatched) for level in levels]
        if unmatched:
            others = 'the other run' if are_two else 'another run'
            parts.append(f'levels without a level of the same stride in {others}: {", ".join(unmatched)}')
        return '; '.join(parts)

    def _compare(self, name: str) -> None:
        """Compare one pass over one image, given as the path of its saved maps inside all run folders."""
        key = osp.dirname(name)
        try:
            shots = [load_with_image(osp.join(run.folder, name), run.info) for run in self.runs]
        except ValueError as error:
            print_log(f'{error}. The image is skipped.', 'current', logging.WARNING)
            self._skip('maps not readable', key)
            return
        if any(shot.placement.image_size != shots[0].placement.image_size for shot in shots):
            self._skip('images of different sizes', key)
            return
        groups, unmatched = match_levels([shot.levels for shot in shots])
        for names, levels in zip(self._unmatched, unmatched):
            names.update(dict.fromkeys(level.name for level in levels if self._is_wanted(level.name)))
        if not groups:
            self._skip('no two levels of one stride', key)
            return
        self._write(key, shots, groups)
        self._compared[key] = None

    def _skip(self, reason: str, key: str) -> None:
        self._skipped.setdefault(reason, {})[key] = None

    def _write(self, key: str, shots: Sequence[Snapshot], groups: Sequence[LevelGroup]) -> None:
        """Score and draw the groups of levels of one image, and the explanations that several runs have of it."""
        image = self._image(key, shots)
        inside = self._inside(key, shots)
        seen = np.logical_and.reduce([shot.placement.seen for shot in shots])

        def levels_of(group: LevelGroup) -> _Comparison:
            captions = [_NO_LEVEL if level is None else _caption(level) for level in group]
            heats = [
                None if level is None else heat_on_image(level, shot.placement, align)  # as its own run places maps
                for level, shot, align in zip(group, shots, self._aligns)
            ]
            return _Comparison(group, captions, HeatmapGroup(heats, seen, self.share_range), inside)

        wanted = [group for group in groups if self._is_wanted(group[0].name)]
        self._write_sheets('compare', key, shots, image, map(levels_of, wanted), len(wanted))
        if self._is_wanted(FOLDER):
            explained = self._explained(shots)
            self._write_sheets('compare.explain', key, shots, image, map(_explanations, explained), len(explained))

    def _write_sheets(
        self,
        stem: str,
        key: str,
        shots: Sequence[Snapshot],
        image: np.ndarray | None,
        comparisons: Iterator[_Comparison],
        count: int,
    ) -> None:
        """Score `count` groups of heatmaps of one image, and write their pictures and manifest entries."""
        shot = shots[0]
        for file_suffix, title_suffix, number in _pages(count, MAX_LINES // (1 if len(shots) == 2 else 2)):
            rows, entries = [], []
            name = f'{key}/{stem}{file_suffix}{shot.suffix}.{self.style.image_format}'
            for one in islice(comparisons, number):
                scores = score_group(one.heats, one.inside)
                self.means.add(one.levels, scores, key)
                rows += draw_group(one.captions, one.heats, scores, image, self._look, self._outlines(shots))
                entries.append(_entry(shot, key, one.levels, scores, name))
            title = f'{key}{shot.suffix}{self._legend}{title_suffix}'
            self.run_folder.write(name, encode_picture(draw_sheet(rows, title), name))
            self.run_folder.record(entries)

    def _outlines(self, shots: Sequence[Snapshot]) -> list[Callable[[np.ndarray], np.ndarray]]:
        """For each run, a function that draws its boxes on a tile."""
        return [partial(_draw_boxes, style, shot) for style, shot in zip(self._box_styles, shots)]

    def _explained(self, shots: Sequence[Snapshot]) -> list[tuple[Explanation | None, ...]]:
        """The explanations of each box of run A that another run explained, too; None where a run did not."""
        first, *others = (saved_explanations(*facts) for facts in zip(self.runs, shots, self._aligns))
        partners = [[partner for _, partner in match_explanations(first, other)] for other in others]
        return [group for group in zip(first, *partners) if any(group[1:])]

    def _inside(self, key: str, shots: Sequence[Snapshot]) -> np.ndarray | None:
        """(height, width) bool: which pixels of the image are inside boxes; None without boxes."""
        corners, source = reference_boxes([shot.boxes for shot in shots], self.style.score_thr)
        self._boxes.setdefault(source, {})[key] = None
        return inside_boxes(corners, shots[0].placement.image_size) if len(corners) else None

    def _image(self, key: str, shots: Sequence[Snapshot]) -> np.ndarray | None:
        """The image, read from the first path that can be read; None without any. Scores do not need it."""
        for shot in shots:
            try:
                return shot.image()
            except ImageError as error:
                reason = error
        if not self._without_image:
            print_log(
                f'{reason}. Its heat is drawn without the image; further images are only counted.',
                'current',
                logging.WARNING,
            )
        self._without_image[key] = None
        return None


class _Comparison(NamedTuple):
    """A group of heatmaps of one image: levels, lines of the captions, heatmaps, pixels inside boxes."""

    levels: LevelGroup
    captions: Sequence[Sequence[str]]
    heats: HeatmapGroup
    inside: np.ndarray | None


def _legend(runs: Sequence[Run]) -> str:
    """What the letters of the runs stand for."""
    return ', '.join(f'{letter} is {name}' for letter, name in zip(LETTERS, short_names(runs)))


def _match_images(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """The maps files that all runs have, by their paths inside; and for each run, the keys of its other images."""
    maps = [dict.fromkeys(osp.relpath(path, run.folder) for path in run.paths) for run in runs]
    common = dict.fromkeys(name for name in maps[0] if all(name in of_run for of_run in maps))
    if not common:
        firsts = [f'{run.folder} has {_image_keys(of_run)[0]!r}' for run, of_run in zip(runs, maps)]
        raise ValueError(
            f'no image in common: {", ".join(firsts)}. '
            'Images are matched by their path relative to image_root: run all with the same image_root'
        )
    return list(common), [_image_keys(name for name in of_run if name not in common) for of_run in maps]


def _check_levels(run: Run, patterns: Sequence[str] | None) -> Callable[[str], bool]:
    """A function that tells whether a level is wanted; raises ValueError if none of the run is."""
    is_wanted = name_filter(patterns)
    names = dict.fromkeys(f'{entry["layer"]}_{entry["level"]}' for entry in run.entries.values())
    if not any(map(is_wanted, names)):
        raise ValueError(f'levels {list(patterns)} match none of {run.folder}: it has {", ".join(names)}')
    return is_wanted


def _box_style(style: Style, run: Run) -> BoxStyle:
    look = style.score_thr, run.info.get('dataset_meta'), style.classes, style.labels, style.line_width, style.font_size
    return BoxStyle(style.boxes, *look)


def _draw_boxes(style: BoxStyle, shot: Snapshot, tile: np.ndarray) -> np.ndarray:
    """Draw the boxes of an image on a tile of it."""
    return tile if shot.boxes is None else style.draw(tile, shot.boxes, tile.shape[1] / shot.placement.image_size[1])


def _caption(level: Level) -> list[str]:
    return [level.name, f'{level.channels} channels, stride {level.stride_text}']


def _explanations(group: Sequence[Explanation | None]) -> _Comparison:
    """The explanations of one box. Each is divided by its maximum, as scales of gradients differ.

    What counts as inside is the box of the first run.
    """
    captions = [_NO_EXPLANATION if one is None else _explanation_caption(one) for one in group]
    heats = [None if one is None else _share_of_maximum(one) for one in group]
    levels = tuple(None if heat is None else _explanation_level(heat) for heat in heats)
    seen = np.ones(heats[0].shape, bool)
    return _Comparison(levels, captions, HeatmapGroup(heats, seen), inside_boxes(group[0].bbox[None], seen.shape))


def _explanation_caption(explanation: Explanation) -> list[str]:
    return [f'{explanation.class_name} {explanation.score:.2f}', f'{explanation.target}, by {explanation.method}']


def _explanation_level(heat: np.ndarray) -> Level:
    """The level that stands for all explanations in the table: merged, with one cell per pixel."""
    return Level('explanation', 0, 1, (1.0, 1.0), heat)


def _share_of_maximum(explanation: Explanation) -> np.ndarray:
    heatmap = explanation.heatmap
    return heatmap / (heatmap.max() or 1)


def _pages(groups: int, most: int) -> Iterator[tuple[str, str, int]]:
    """Split groups over pages: suffixes of the file name and of the title, number of groups. A single page has none."""
    count = math.ceil(groups / most)
    for page in range(count):
        number = f'_{page + 1:0{len(str(count))}d}' if count > 1 else ''
        title = f' (page {page + 1} of {count})' if count > 1 else ''
        yield number, title, min(most, groups - page * most)


def _entry(shot: Snapshot, key: str, group: LevelGroup, scores: ComparisonScores, name: str) -> dict[str, Any]:
    """The manifest entry of a group. It also names the tables, so that they are deleted with the pictures."""
    partners = level_names(group)[1:]
    return dict(
        image=shot.path,
        key=key,
        augmentation=shot.augmentation,
        layer=group[0].layer,
        level=group[0].level,
        partner=partners[0] if len(partners) == 1 else partners,
        stride=group[0].stride_text,
        **{score: None if math.isnan(value) else value for score, value in scores.named().items()},
        files=[name, *TABLES, DATA],
    )


def _describe(run: Run) -> dict[str, Any]:
    """Folder, config, checkpoint and reduction of a run, without those that are unknown."""
    facts = dict(folder=run.folder, **{name: run.info.get(name) for name in ('config', 'checkpoint', 'reduction')})
    return {name: value for name, value in facts.items() if value is not None}


def _image_keys(names: Iterable[str]) -> list[str]:
    """Image keys of saved maps, given by their paths inside the run folder; each once."""
    return list(dict.fromkeys(osp.dirname(name) for name in names))
