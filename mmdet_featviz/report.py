"""The report: a page that opens from disk, on which the browser draws a run's heat from its small maps.

What stands in the folder: the page, its scripts in ``page``, the list of all images in ``data/index.js``, and of each
snapshot its maps and boxes in ``data/000012.js``. A page from disk may not read files, but it may run scripts: each of
these calls a function with its data.
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
import math
import os
import os.path as osp
import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

import cv2
import numpy as np
from mmengine.logging import print_log

from .agreement import match_levels
from .boxes import NO_BOXES, Boxes, BoxStyle
from .comparison import short_names
from .focus import TOLERANCE, FocusMeans, by_size, focus_of
from .geometry import Grid, Placement
from .head import head_of
from .photos import PhotoError
from .rendering import finite_range, get_colormap, shrink
from .runs import Run, load_with_photo, run_ranges
from .sinks import REPORT, FileSink
from .snapshots import Level, Snapshot
from .style import Style
from .views import visible_range

PAGE = Path(__file__).parent / 'page'
SCRIPTS = 'heat.js', 'store.js', 'gallery.js', 'viewer.js', 'page.js'
COLORMAPS = 'jet', 'turbo', 'viridis', 'magma', 'inferno', 'cividis', 'gray'
PHOTO_SIZE, THUMB_SIZE, MOST_CELLS = 1000, 200, 1000
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 85]
STEPS = 254  # grey levels above 0, which stands for what is not finite
ROUND = re.compile(r'(epoch|iter)_(\d+)/(.+)', re.DOTALL)


def write_report(folder: str) -> str:
    """Write or renew the report of a run; returns a line that says where it is, or why there is none."""
    try:
        report = Report(Run(folder))
        report.write()
    except Exception as error:  # the run itself is done, and a report can be written later
        if not isinstance(error, (OSError, ValueError)):  # these say what is wrong
            print_log(traceback.format_exc(), 'current', logging.WARNING)
        return f'no report: {error or type(error).__name__}'
    return report.summary()


@dataclass(frozen=True)
class Shot:
    """A pass over an image, or that of an epoch: a file of maps.

    Attributes:
        path: Of the maps.
        name: Of the same below the folder of the run.
        label: What tells it from other shots of its image, if anything.
    """

    path: str
    name: str
    label: str


class Report:
    """Writes the page of a run, one image at a time; an earlier page of the run goes.

    Args:
        run: The run.
        other: A second run, which is shown beside the first on one scale. Its images are those of the same keys.
        max_images: Only the first so many images.

    Raises:
        OSError: If the folder cannot be written to.
    """

    def __init__(self, run: Run, other: Run | None = None, max_images: int | None = None) -> None:
        self.run = run
        self.other = other
        self.style = Style(**run.facts.get('style', {}))
        self._aligns = [one.facts.get('style', {}).get('align', 'center') for one in self._runs]
        self._images = dict(list(_by_image(run).items())[:max_images])
        self._shown = 0
        self._levels: dict[str, str] = {}  # strides of all that any image has
        self._focus = FocusMeans()
        self._skipped: list[str] = []
        self._without_photo: list[str] = []
        self.sink = FileSink(osp.join(run.folder, REPORT), overwrite=True)

    @property
    def _runs(self) -> list[Run]:
        return [self.run] if self.other is None else [self.run, self.other]

    @property
    def page(self) -> str:
        """Path of the page."""
        return osp.join(self.sink.out_dir, 'index.html')

    def write(self) -> None:
        """Write the page and all that it shows."""
        shared = ['index.html', 'data/index.js', *(f'page/{name}' for name in (*SCRIPTS, 'report.css'))]
        self.sink.record([dict(files=shared)])  # a report that is replaced takes them with it
        numbers = iter(range(sum(map(len, self._images.values()))))
        names = _told_apart(key for key, _ in self._images)
        images = [
            image for name, shots in zip(names, self._images.values()) for image in self._image(name, shots, numbers)
        ]
        self._shown = len(images)
        for name in (*SCRIPTS, 'report.css'):
            self.sink.write(f'page/{name}', (PAGE / name).read_bytes())
        self.sink.write('data/index.js', _script('run', self._index(images)))
        self.sink.write('index.html', self._html().encode('utf-8', 'surrogateescape'))
        self.sink.settle()

    def summary(self) -> str:
        """One line: how many images, where, and what is missing."""
        parts = [f'report of {self._shown} {"image" if self._shown == 1 else "images"}: {self.page}']
        for what, names in (('skipped, maps not readable', self._skipped), ('without a photo', self._without_photo)):
            if names:
                parts.append(f'{len(names)} {what} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})')
        return '; '.join(parts)

    def _image(self, key: str, shots: Sequence[Shot], numbers: Iterator[int]) -> Iterator[dict]:
        """Write the files of an image; gives what the list says of it, or nothing if none of its maps can be read."""
        written, photo, last, tried = [], None, None, False
        for shot in shots:
            try:
                snapshot = load_with_photo(shot.path, self.run.facts)
            except ValueError as error:
                print_log(f'{error}. It is not in the report.', 'current', logging.WARNING)
                self._skipped.append(shot.name)
                continue
            number = next(numbers)
            files = [f'data/{number:06d}.js']
            if not tried or not snapshot.is_file:  # what training saw is another crop each time
                photo, tried = self._write_photo(key, snapshot, number, files), True
            self.sink.write(files[0], _script('shot', number, self._shot(snapshot, shot, photo)))
            self.sink.record([dict(image=snapshot.path, key=snapshot.key, files=files)])
            written.append([number, shot.label])
            # Figures are those of the last epoch; its first pass, as the mean of passes is no single look.
            if last is None or not snapshot.augmentation:
                last = snapshot
        if last is not None:
            yield dict(key=key, shots=written, thumb=photo, **self._figures(last))

    def _write_photo(self, key: str, snapshot: Snapshot, number: int, files: list[str]) -> int | None:
        """Write the photo and its thumbnail; returns the number that names them, None without a photo."""
        try:
            photo = snapshot.photo()
        except PhotoError as error:
            if not self._without_photo:
                print_log(f'{error}. Its heat is shown alone; others like it are counted.', 'current', logging.WARNING)
            if key not in self._without_photo[-1:]:  # an image counts once, whatever its epochs
                self._without_photo.append(key)
            return None
        for folder, longest in (('photos', PHOTO_SIZE), ('thumbs', THUMB_SIZE)):
            small = shrink(photo, longest) if max(photo.shape) > longest else photo
            name = f'{folder}/{number:06d}.jpg'
            self.sink.write(name, cv2.imencode('.jpg', small, JPEG)[1].tobytes())
            files.append(name)
        return number

    def _shot(self, snapshot: Snapshot, shot: Shot, photo: int | None) -> dict:
        """What the page needs of a snapshot, and of its partner in the other run."""
        sides, partners = [self._side(snapshot, 0)], []
        height, width = snapshot.placement.photo_size
        partner = self._partner(shot)
        resized = partner is not None and partner.placement.photo_size != (height, width)
        if partner is not None and not resized:
            pairs = match_levels(snapshot.levels, partner.levels)[0]
            names = {pair.a.name: pair.b.name for pair in pairs}
            partners = [names.get(level.name) for level in snapshot.levels]
            sides.append(self._side(partner, 1))
        scale = min(1, PHOTO_SIZE / max(height, width))
        canvas = [max(1, round(width * scale)), max(1, round(height * scale))]
        return dict(size=[width, height], canvas=canvas, photo=photo, sides=sides, partners=partners, resized=resized)

    def _partner(self, shot: Shot) -> Snapshot | None:
        """The same image of the other run, if it has it."""
        if self.other is None:
            return None
        try:
            return load_with_photo(osp.join(self.other.folder, shot.name), self.other.facts)
        except ValueError:
            return None

    def _side(self, snapshot: Snapshot, side: int) -> dict:
        levels = [level_data(level, snapshot.placement, self._aligns[side]) for level in snapshot.levels]
        return dict(levels=levels, boxes=_box_rows(snapshot.boxes))

    def _figures(self, snapshot: Snapshot) -> dict:
        """What images can be sorted and searched by."""
        for level in snapshot.levels:
            self._levels.setdefault(level.name, level.stride_text)
        boxes = snapshot.boxes or Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
        boxes = BoxStyle('both', self.style.score_thr).select(boxes)
        scores, truth = boxes.scores[~boxes.are_truth], boxes.corners[boxes.are_truth]
        return dict(
            detections=len(scores),
            best=_rounded(scores.max()) if len(scores) else None,
            lowest=_rounded(scores.min()) if len(scores) else None,
            truth=len(truth),
            labels=np.unique(boxes.labels).tolist(),
            **self._focus_of(snapshot, truth),
        )

    def _focus_of(self, snapshot: Snapshot, truth: np.ndarray) -> dict:
        """How far each level's heat lies inside the ground truth (N, 4), and how far any would by chance."""
        if not len(truth):
            return {}
        placement, scale = _at_most(snapshot.placement, PHOTO_SIZE)
        groups = {size: boxes * scale for size, boxes in {'all': truth, **by_size(truth)}.items()}
        ignored = NO_BOXES if snapshot.ignored is None else snapshot.ignored * scale
        figures = focus_of(snapshot.levels, placement, self._aligns[0], groups, ignored, TOLERANCE * scale)
        self._focus.add(figures)
        found = {name: sizes['all'] for name, sizes in figures.items() if sizes}
        energies = {name: _rounded(focus.energy) for name, focus in found.items()}
        return dict(energy=energies, share=_rounded(next(iter(found.values())).share)) if found else {}

    def _index(self, images: Sequence[dict]) -> dict:
        """What the page needs at its start."""
        style, names = self.style, [self.run.facts.get('dataset_meta') or {}]
        classes = names[0].get('classes') or ()
        colours = BoxStyle('both', 0, names[0])
        labels = range(max([len(classes) - 1, *(label for image in images for label in image['labels'])]) + 1)
        paths = [[shot.path for shots in self._images.values() for shot in shots]]
        if self.other is not None:
            paths.append(self.other.paths)
        return dict(
            runs=list(short_names(self.run, self.other)) if self.other else [osp.basename(self.run.folder)],
            levels=[dict(name=name, stride=stride) for name, stride in self._levels.items()],
            classes=[str(classes[label]) if label < len(classes) else str(label) for label in labels],
            colours=[list(colours.colour(label, 1.0)[::-1]) for label in labels],
            colormaps={name: _table(name) for name in dict.fromkeys([*COLORMAPS, style.colormap])},
            ranges=[run_ranges(*given) for given in zip(paths, self._aligns)],
            settings=dict(
                colormap=style.colormap,
                alpha=style.alpha,
                blend=style.blend,
                normalize=style.normalize,
                score=style.score_thr,
            ),
            images=images,
        )

    def _html(self) -> str:
        from jinja2 import Environment, FileSystemLoader  # comes with torch; only the report needs it

        environment = Environment(
            loader=FileSystemLoader(str(PAGE)), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        return environment.get_template('index.html').render(
            images=self._shown,
            skipped=self._skipped,
            without_photo=self._without_photo,
            levels=self._levels,
            scripts=SCRIPTS,
            **head_of(self._runs, self._focus),
        )


def level_data(level: Level, placement: Placement, align: str) -> dict:
    """A level as the page draws it: an 8-bit map of the cells that the photo shows, and where they lie.

    In the map 0 is what is not finite, and 1 to 255 are `low` to `high`. `matrix` leads from photo coordinates to
    columns and rows of the map; what lies within `bounds` (left, top, right, bottom, in the same) the network saw.
    `range` is the smallest and largest value that the photo shows.
    """
    grid = Grid(level.values.shape, level.stride, placement, align)
    rows, columns = grid.window()
    cells = level.values[rows, columns]
    low, high = finite_range(cells)
    grey = _grey(cells, low, high)
    shrunk = [min(1.0, MOST_CELLS / cells.shape[axis]) for axis in (1, 0)]
    if min(shrunk) < 1:  # the mean of passes has a cell for each pixel
        size = [max(1, round(cells.shape[1 - axis] * shrunk[axis])) for axis in (0, 1)]
        shrunk = [size[axis] / cells.shape[1 - axis] for axis in (0, 1)]
        grey = cv2.resize(grey, tuple(size), interpolation=cv2.INTER_AREA)
    to_window = np.diag([*shrunk, 1.0])
    to_window[:2, 2] = [(0.5 - start.start) * scale - 0.5 for start, scale in zip((columns, rows), shrunk)]
    to_cells = to_window @ grid.input_to_cells
    height, width = placement.input_size
    corners = to_cells @ np.array([[0, 0, 1], [width, height, 1]], np.float64).T
    return dict(
        name=level.name,
        layer=level.layer,
        channels=level.channels,
        stride=level.stride_text,
        rows=grey.shape[0],
        columns=grey.shape[1],
        low=low,
        high=high,
        range=visible_range(level.values, grid),
        matrix=(to_cells @ placement.matrix).ravel().tolist(),
        bounds=corners[:2].T.ravel().tolist(),
        png=base64.b64encode(cv2.imencode('.png', grey)[1]).decode('ascii'),
    )


def _grey(cells: np.ndarray, low: float, high: float) -> np.ndarray:
    """Cells as bytes: 0 for what is not finite, 1 to 255 for low to high."""
    finite = np.isfinite(cells)
    unit = (np.where(finite, cells, low).astype(np.float64) - low) / ((high - low) or 1.0)
    return np.where(finite, 1 + np.round(unit * STEPS), 0).astype(np.uint8)


def _at_most(placement: Placement, longest: int) -> tuple[Placement, float]:
    """The placement of the photo scaled down to a size, and by how much: figures need no more pixels."""
    height, width = placement.photo_size
    scale = min(1.0, longest / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    matrix = placement.matrix @ np.diag([width / size[1], height / size[0], 1.0])
    return (Placement(matrix, size, placement.input_size), scale) if scale < 1 else (placement, 1.0)


def _by_image(run: Run) -> dict[tuple, list[Shot]]:
    """The shots of each image of a run: all passes over it, in all epochs."""
    photos = {entry['key']: entry['image'] for entry in run.entries.values()}
    found: dict[tuple, list[Shot]] = {}
    for path in run.paths:
        name = osp.relpath(path, run.folder).replace(os.sep, '/')
        key = osp.dirname(name)
        of_round = ROUND.fullmatch(key)
        turn, number, base = of_round.groups() if of_round else ('', '', key)
        pass_ = osp.basename(name)[len('maps') : -len('.npz')].lstrip('.').replace('_', ' ')
        label = ', '.join(filter(None, [f'{turn} {number}'.strip(), pass_]))
        # Folders of data sets may have such names, too: only the same photo makes the same image.
        found.setdefault((base, photos.get(key)), []).append(Shot(path, name, label))
    return found


def _told_apart(keys: Iterable[str]) -> Iterator[str]:
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


def _box_rows(boxes: Boxes | None) -> list[list]:
    """Left, top, right, bottom, label, and score (None for ground truth) of each box."""
    if boxes is None:
        return []
    corners = np.round(boxes.corners, 2).tolist()
    return [[*box, int(label), _rounded(score)] for box, label, score in zip(corners, boxes.labels, boxes.scores)]


def _table(name: str) -> str:
    """The 256 colours of a map, RGB, as base64."""
    return base64.b64encode(get_colormap(name)[:, 0, ::-1].tobytes()).decode('ascii')


def _rounded(value: float) -> float | None:
    """A number of five digits: the boxes' share of a photo may be tiny, and gains divide by it."""
    return float(f'{value:.5g}') if math.isfinite(value) else None


def _script(function: str, *values: Any) -> bytes:
    """A call of one of the page's functions; harmless even where it is put into a page."""
    texts = (json.dumps(value, allow_nan=False, separators=(',', ':')) for value in values)
    return f'featviz.{function}({",".join(texts)});\n'.replace('<', '\\u003c').encode('ascii')
