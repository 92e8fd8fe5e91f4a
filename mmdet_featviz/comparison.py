"""Comparison: two runs over the same images, as pictures, and as figures of how far their heatmaps agree."""

from __future__ import annotations

import json
import logging
import math
import os.path as osp
from dataclasses import asdict, fields
from typing import Any, Iterator, Sequence

import cv2
import numpy as np
from mmengine.logging import print_log

from .agreement import Figures, Heats, Pair, figures_of, heat_on_photo, inside_boxes, match_levels, reference_boxes
from .photos import PhotoError
from .rendering import finite_range, get_colormap, overlay, quantise, sheet, shrink, to_unit, with_colorbar
from .runs import Run, load_with_photo
from .sinks import FileSink, encode
from .snapshots import Snapshot
from .stores import store_of
from .style import Style

TABLE, DATA = 'compare.md', 'compare.json'
DIVERGING = 'RdBu_r'  # ColorBrewer's: blue is less, white is zero, red is more
MAX_ROWS = 16  # of one picture
ENERGIES = 'inside_a', 'inside_b', 'chance'
EXPLANATION = (
    'Means over images; how many images entered stands in brackets. Correlation: Pearson, of both heatmaps over the '
    'photo. Inside boxes: share of the energy of a heatmap (its values above its smallest) inside the boxes; chance: '
    'the share of the photo that the boxes cover. A constant heatmap has neither, and an image without boxes only a '
    'correlation.'
)


def draw_pair(
    pair: Pair, heats: Heats, figures: Figures, photo: np.ndarray | None, style: Style
) -> list[tuple[list[str], np.ndarray]]:
    """Captions and tiles of a pair: A, B, and B - A."""
    tiles = []
    for letter, level, heat, share in (
        ('A', pair.a, heats.a, figures.inside_a),
        ('B', pair.b, heats.b, figures.inside_b),
    ):
        colours = cv2.applyColorMap(quantise(to_unit(heat, heats.limits)), style.table)
        laid = colours if photo is None else overlay(photo, colours, style.alpha, style.blend)
        caption = [f'{letter}: {level.name}', f'{level.channels} channels, stride {level.stride_text}']
        if not math.isnan(share):
            caption.append(f'{share:.1%} inside boxes (chance {figures.chance:.1%})')
        tiles.append((caption, with_colorbar(shrink(laid), style.table, heats.limits)))
    agreement = 'undefined: one is constant' if math.isnan(figures.correlation) else f'{figures.correlation:.3f}'
    return [*tiles, (['B - A', f'correlation {agreement}'], draw_difference(heats.difference, photo))]


def draw_difference(difference: np.ndarray, photo: np.ndarray | None) -> np.ndarray:
    """A difference (height, width) as a tile with a colour bar: blue is less, red more, zero leaves the photo grey."""
    largest = finite_range(np.abs(difference))[1] or 1.0
    table, limits = get_colormap(DIVERGING), (-largest, largest)
    colours = cv2.applyColorMap(quantise(to_unit(difference, limits)), table)
    if photo is not None:
        # A faint grey photo, tinted: a plain blend would turn the white of zero into fog.
        faint = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY) // 2 + 128, cv2.COLOR_GRAY2BGR)
        colours = cv2.multiply(colours, faint, scale=1 / 255)
    return with_colorbar(shrink(colours), table, limits)


def draw_sheet(rows: Sequence[Sequence[tuple[list[str], np.ndarray]]], title: str) -> np.ndarray:
    """Rows of captioned tiles as one titled sheet."""
    width = max(tile.shape[1] for row in rows for _, tile in row)  # numbers beside colour bars differ in length
    return sheet([[(caption, _widened(tile, width)) for caption, tile in row] for row in rows], title)


def _widened(tile: np.ndarray, width: int) -> np.ndarray:
    return cv2.copyMakeBorder(tile, 0, 0, 0, width - tile.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255))


class Means:
    """Means of the figures of each pair of levels; holds sums, whatever the number of images."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, pair: Pair, figures: Figures) -> None:
        empty = {field.name: (0.0, 0) for field in fields(Figures)}
        row = self._rows.setdefault(pair.names, dict(stride=pair.a.stride_text, images=0, **empty))
        row['images'] += 1
        for name, value in asdict(figures).items():
            if not math.isnan(value):
                total, count = row[name]
                row[name] = total + value, count + 1

    def rows(self) -> list[dict[str, Any]]:
        """For each pair its levels and stride, its number of images, and of each figure the mean (None if it is never
        defined) and how many images entered."""
        return [
            dict(
                level_a=level_a,
                level_b=level_b,
                stride=row['stride'],
                images=row['images'],
                **{field.name: _mean(*row[field.name]) for field in fields(Figures)},
            )
            for (level_a, level_b), row in self._rows.items()
        ]


def _mean(total: float, count: int) -> dict[str, Any]:
    return dict(mean=total / count if count else None, images=count)


class Comparison:
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
        self._aligns = [run.facts.get('style', {}).get('align', 'center') for run in self.runs]
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
        if store_of(out_dir).folder in [run.folder for run in self.runs]:
            raise ValueError(f'out_dir {out_dir!r} is one of the runs: choose another folder')
        self.sink = FileSink(out_dir, overwrite)
        self.means = Means()
        self._boxes: dict[str, int] = {}  # what boxes were: images
        self._alone: tuple[dict, dict] = {}, {}  # names of levels without a partner
        self._compared: dict[str, None] = {}
        self._skipped: dict[str, list[str]] = {}  # reason: images
        self._without_photo: list[str] = []

    def run(self) -> None:
        """Compare all images that both have, and write the tables."""
        for name in self._common:
            self._compare(name)
        data = self.data()
        for name, text in ((DATA, json.dumps(data, ensure_ascii=False, indent=1)), (TABLE, markdown(data))):
            self.sink.write(name, text.encode('utf-8', 'surrogateescape'))  # names of files may be no UTF-8
        self.sink.settle()

    def data(self) -> dict[str, Any]:
        """All figures, as JSON can hold them."""
        return dict(
            a=_facts(self.runs[0]),
            b=_facts(self.runs[1]),
            images=len(self._compared),
            only_in_a=self._only[0],
            only_in_b=self._only[1],
            skipped=self._skipped,
            without_photo=self._without_photo,
            boxes=self._boxes,
            levels=self.means.rows(),
            alone_in_a=list(self._alone[0]),
            alone_in_b=list(self._alone[1]),
        )

    def summary(self) -> str:
        """One line: how many images were compared, where, and what was not and why."""
        parts = [f'{_count(len(self._compared), "image")} compared in {self.sink.out_dir}']
        noted = {
            'only in A': self._only[0],
            'only in B': self._only[1],
            'drawn without the photo, which is not readable': self._without_photo,
            **{f'skipped, {reason}': keys for reason, keys in self._skipped.items()},
        }
        parts += [f'{_count(len(keys), "image")} {what} ({_some(keys)})' for what, keys in noted.items() if keys]
        reductions = [run.facts.get('reduction') for run in self.runs]
        if reductions[0] != reductions[1]:
            parts.append('values of two kinds: channels were reduced by {} in A and by {} in B'.format(*reductions))
        alone = [f'{name} of {letter}' for letter, names in zip('AB', self._alone) for name in names]
        if alone:
            parts.append(f'levels without a partner of their stride: {", ".join(alone)}')
        return '; '.join(parts)

    def _compare(self, name: str) -> None:
        key = osp.dirname(name)
        try:
            a, b = (load_with_photo(osp.join(run.folder, name), run.facts) for run in self.runs)
        except ValueError as error:
            print_log(f'{error}. The image is skipped.', 'current', logging.WARNING)
            self._skipped.setdefault('maps not readable', []).append(key)
            return
        if a.placement.photo_size != b.placement.photo_size:
            self._skipped.setdefault('photos of different sizes', []).append(key)
            return
        pairs, *alone = match_levels(a.levels, b.levels)
        for names, levels in zip(self._alone, alone):
            names.update(dict.fromkeys(level.name for level in levels))
        if not pairs:
            self._skipped.setdefault('no two levels of one stride', []).append(key)
            return
        self._write(a, b, pairs)
        self._compared[key] = None

    def _write(self, a: Snapshot, b: Snapshot, pairs: Sequence[Pair]) -> None:
        photo, inside = self._photo(a, b), self._inside(a, b)
        name_a, name_b = short_names(*self.runs)
        title = f'{a.key}{a.suffix}: A is {name_a}, B is {name_b}'
        for number, page, chosen in _pages(pairs):
            rows, entries = [], []
            name = f'{a.key}/compare{number}{a.suffix}.{self.style.image_format}'
            for pair in chosen:
                heats = self._heats(pair, a, b)
                figures = figures_of(heats, inside)
                self.means.add(pair, figures)
                rows.append(draw_pair(pair, heats, figures, photo, self.style))
                entries.append(_entry(a, pair, figures, name))
            self.sink.write(name, encode(draw_sheet(rows, f'{title}{page}'), name))
            self.sink.record(entries)

    def _inside(self, a: Snapshot, b: Snapshot) -> np.ndarray | None:
        """Which pixels the boxes hold; None without boxes."""
        corners, source = reference_boxes(a.boxes, b.boxes, self.style.score_thr)
        self._boxes[source] = self._boxes.get(source, 0) + 1
        return inside_boxes(corners, a.placement.photo_size) if len(corners) else None

    def _heats(self, pair: Pair, a: Snapshot, b: Snapshot) -> Heats:
        heat_a = heat_on_photo(pair.a, a.placement, self._aligns[0])
        heat_b = heat_on_photo(pair.b, b.placement, self._aligns[1])
        return Heats(heat_a, heat_b, a.placement.seen & b.placement.seen)

    def _photo(self, a: Snapshot, b: Snapshot) -> np.ndarray | None:
        """The photo of either run; the figures need none."""
        for snapshot in (a, b):
            try:
                return snapshot.photo()
            except PhotoError as error:
                reason = error
        if not self._without_photo:
            print_log(f'{reason}. Its heat is drawn alone; others like it are counted.', 'current', logging.WARNING)
        self._without_photo.append(a.key)
        return None


def markdown(data: dict[str, Any]) -> str:
    """The figures of :meth:`Comparison.data` as a page with a table."""
    lines = ['# A and B compared', '']
    for letter in 'AB':
        lines.append(f'- {letter}: ' + ', '.join(f'{name} `{value}`' for name, value in data[letter.lower()].items()))
    lines.append(f'- {_count(data["images"], "image")} in both')
    lines += [f'- boxes of {_count(count, "image")}: {source}' for source, count in data['boxes'].items()]
    lines += [
        '',
        '| level of A | level of B | stride | correlation | A inside boxes | B inside boxes | chance |',
        '| --- | --- | ---: | ---: | ---: | ---: | ---: |',
    ]
    for row in data['levels']:
        cells = [_cell(row['correlation'], '.3f'), *(_cell(row[name], '.1%') for name in ENERGIES)]
        lines.append(f'| {row["level_a"]} | {row["level_b"]} | {row["stride"]} | {" | ".join(cells)} |')
    return '\n'.join([*lines, '', EXPLANATION, ''])


def _cell(figure: dict[str, Any], form: str) -> str:
    return f'{figure["mean"]:{form}} ({figure["images"]})' if figure['images'] else '- (0)'


def _pages(pairs: Sequence[Pair]) -> Iterator[tuple[str, str, Sequence[Pair]]]:
    """What file name and title say of each page, and its pairs; one page needs no number."""
    count = math.ceil(len(pairs) / MAX_ROWS)
    for page in range(count):
        number = f'_{page + 1:0{len(str(count))}d}' if count > 1 else ''
        title = f' (page {page + 1} of {count})' if count > 1 else ''
        yield number, title, pairs[page * MAX_ROWS : (page + 1) * MAX_ROWS]


def _entry(snapshot: Snapshot, pair: Pair, figures: Figures, name: str) -> dict[str, Any]:
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


def _facts(run: Run) -> dict[str, Any]:
    known = dict(folder=run.folder, **{name: run.facts.get(name) for name in ('config', 'checkpoint', 'reduction')})
    return {name: value for name, value in known.items() if value is not None}


def short_names(a: Run, b: Run) -> tuple[str, str]:
    """Short names of two runs: the first of config, checkpoint and folder in which they differ."""
    for fact in ('config', 'checkpoint'):
        names = [osp.splitext(osp.basename(run.facts.get(fact) or ''))[0] for run in (a, b)]
        if all(names) and names[0] != names[1]:
            return names[0], names[1]
    names = osp.basename(a.folder), osp.basename(b.folder)
    return names if names[0] != names[1] else (a.folder, b.folder)


def _keys_of(maps: Any) -> list[str]:
    """Image keys of files of maps."""
    return list(dict.fromkeys(osp.dirname(name) for name in maps))


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
