"""Report builder: writes the page of a run."""

from __future__ import annotations

import logging
import os.path as osp
import traceback
from pathlib import Path
from typing import Iterator, Sequence

import cv2
import numpy as np
from mmengine.logging import print_log

from mmdet_featviz.evaluation.focus import TOLERANCE, FocusMeans, group_by_size, measure_focus
from mmdet_featviz.evaluation.level_matching import match_levels
from mmdet_featviz.evaluation.run_comparison import short_names
from mmdet_featviz.report.image_passes import ImagePass, distinct_names, passes_by_image
from mmdet_featviz.report.page_data import box_rows, colormap_data, level_data, placement_at_most, rounded, script_call
from mmdet_featviz.report.summary import summarize_runs
from mmdet_featviz.runs.percentiles import run_ranges
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.runs.run_folder import REPORT, RunFolder
from mmdet_featviz.structures.boxes import NO_BOXES, Boxes
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.messages import first_names
from mmdet_featviz.visualization.box_drawing import BoxStyle
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.sheets import shrink_to_tile
from mmdet_featviz.visualization.style import Style

PAGE = Path(__file__).parent / 'page'
SCRIPTS = (
    'dom.js',
    'heat.js',
    'store.js',
    'orders.js',
    'settings.js',
    'address.js',
    'gallery.js',
    'controls.js',
    'pairs.js',
    'picture.js',
    'image_view.js',
    'strip.js',
    'readout.js',
    'keys.js',
    'page.js',
)
COLORMAPS = 'jet', 'turbo', 'viridis', 'magma', 'inferno', 'cividis', 'gray'
IMAGE_SIZE, THUMB_SIZE = 1000, 200
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 85]


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
        self.style = Style(**run.info.get('style', {}))
        self._aligns = [one.info.get('style', {}).get('align', 'center') for one in self._runs]
        self._images = dict(list(passes_by_image(run).items())[:max_images])
        self._shown = 0
        self._levels: dict[str, str] = {}  # strides of all that any image has
        self._focus = FocusMeans()
        self._skipped: list[str] = []
        self._without_image: list[str] = []
        self.run_folder = RunFolder(osp.join(run.folder, REPORT), overwrite=True)

    @property
    def _runs(self) -> list[Run]:
        return [self.run] if self.other is None else [self.run, self.other]

    @property
    def page(self) -> str:
        """Path of the page."""
        return osp.join(self.run_folder.out_dir, 'index.html')

    def write(self) -> None:
        """Write the page and all that it shows."""
        shared = ['index.html', 'data/index.js', *(f'page/{name}' for name in (*SCRIPTS, 'report.css'))]
        self.run_folder.record([dict(files=shared)])  # a report that is replaced takes them with it
        numbers = iter(range(sum(map(len, self._images.values()))))
        names = distinct_names(key for key, _ in self._images)
        images = [
            image for name, shots in zip(names, self._images.values()) for image in self._image(name, shots, numbers)
        ]
        self._shown = len(images)
        for name in (*SCRIPTS, 'report.css'):
            self.run_folder.write(f'page/{name}', (PAGE / name).read_bytes())
        self.run_folder.write('data/index.js', script_call('run', self._index(images)))
        self.run_folder.write('index.html', self._html().encode('utf-8', 'surrogateescape'))
        self.run_folder.flush()

    def summary(self) -> str:
        """One line: how many images, where, and what is missing."""
        parts = [f'report of {self._shown} {"image" if self._shown == 1 else "images"}: {self.page}']
        for what, names in (('skipped, maps not readable', self._skipped), ('without a image', self._without_image)):
            if names:
                parts.append(f'{len(names)} {what} ({first_names(names)})')
        return '; '.join(parts)

    def _image(self, key: str, shots: Sequence[ImagePass], numbers: Iterator[int]) -> Iterator[dict]:
        """Write the files of an image; gives what the list says of it, or nothing if none of its maps can be read."""
        written, image, last, tried = [], None, None, False
        for shot in shots:
            try:
                snapshot = load_with_image(shot.path, self.run.info)
            except ValueError as error:
                print_log(f'{error}. It is not in the report.', 'current', logging.WARNING)
                self._skipped.append(shot.name)
                continue
            number = next(numbers)
            files = [f'data/{number:06d}.js']
            if not tried or not snapshot.is_file:  # what training saw is another crop each time
                image, tried = self._write_image(key, snapshot, number, files), True
            self.run_folder.write(files[0], script_call('shot', number, self._shot(snapshot, shot, image)))
            self.run_folder.record([dict(image=snapshot.path, key=snapshot.key, files=files)])
            written.append([number, shot.label])
            # Figures are those of the last epoch; its first pass, as the mean of passes is no single look.
            if last is None or not snapshot.augmentation:
                last = snapshot
        if last is not None:
            yield dict(key=key, shots=written, thumb=image, **self._figures(last))

    def _write_image(self, key: str, snapshot: Snapshot, number: int, files: list[str]) -> int | None:
        """Write the image and its thumbnail; returns the number that names them, None without a image."""
        try:
            image = snapshot.image()
        except ImageError as error:
            if not self._without_image:
                print_log(f'{error}. Its heat is shown alone; others like it are counted.', 'current', logging.WARNING)
            if key not in self._without_image[-1:]:  # an image counts once, whatever its epochs
                self._without_image.append(key)
            return None
        for folder, longest in (('photos', IMAGE_SIZE), ('thumbs', THUMB_SIZE)):
            small = shrink_to_tile(image, longest) if max(image.shape) > longest else image
            name = f'{folder}/{number:06d}.jpg'
            self.run_folder.write(name, cv2.imencode('.jpg', small, JPEG)[1].tobytes())
            files.append(name)
        return number

    def _shot(self, snapshot: Snapshot, shot: ImagePass, image: int | None) -> dict:
        """What the page needs of a snapshot, and of its partner in the other run."""
        sides, partners = [self._side(snapshot, 0)], []
        height, width = snapshot.placement.image_size
        partner = self._partner(shot)
        resized = partner is not None and partner.placement.image_size != (height, width)
        if partner is not None and not resized:
            pairs = match_levels(snapshot.levels, partner.levels)[0]
            names = {pair.a.name: pair.b.name for pair in pairs}
            partners = [names.get(level.name) for level in snapshot.levels]
            sides.append(self._side(partner, 1))
        scale = min(1, IMAGE_SIZE / max(height, width))
        canvas = [max(1, round(width * scale)), max(1, round(height * scale))]
        return dict(size=[width, height], canvas=canvas, photo=image, sides=sides, partners=partners, resized=resized)

    def _partner(self, shot: ImagePass) -> Snapshot | None:
        """The same image of the other run, if it has it."""
        if self.other is None:
            return None
        try:
            return load_with_image(osp.join(self.other.folder, shot.name), self.other.info)
        except ValueError:
            return None

    def _side(self, snapshot: Snapshot, side: int) -> dict:
        levels = [level_data(level, snapshot.placement, self._aligns[side]) for level in snapshot.levels]
        return dict(levels=levels, boxes=box_rows(snapshot.boxes))

    def _figures(self, snapshot: Snapshot) -> dict:
        """What images can be sorted and searched by."""
        for level in snapshot.levels:
            self._levels.setdefault(level.name, level.stride_text)
        boxes = snapshot.boxes or Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
        boxes = BoxStyle('both', self.style.score_thr).select(boxes)
        scores, truth = boxes.scores[~boxes.are_truth], boxes.corners[boxes.are_truth]
        return dict(
            detections=len(scores),
            best=rounded(scores.max()) if len(scores) else None,
            lowest=rounded(scores.min()) if len(scores) else None,
            truth=len(truth),
            labels=np.unique(boxes.labels).tolist(),
            **self._focus_of(snapshot, truth),
        )

    def _focus_of(self, snapshot: Snapshot, truth: np.ndarray) -> dict:
        """How far each level's heat lies inside the ground truth (N, 4), and how far any would by chance."""
        if not len(truth):
            return {}
        placement, scale = placement_at_most(snapshot.placement, IMAGE_SIZE)
        groups = {size: boxes * scale for size, boxes in {'all': truth, **group_by_size(truth)}.items()}
        ignored = NO_BOXES if snapshot.ignored is None else snapshot.ignored * scale
        figures = measure_focus(snapshot.levels, placement, self._aligns[0], groups, ignored, TOLERANCE * scale)
        self._focus.add(figures)
        found = {name: sizes['all'] for name, sizes in figures.items() if sizes}
        energies = {name: rounded(focus.energy) for name, focus in found.items()}
        return dict(energy=energies, share=rounded(next(iter(found.values())).share)) if found else {}

    def _index(self, images: Sequence[dict]) -> dict:
        """What the page needs at its start."""
        style, names = self.style, [self.run.info.get('dataset_meta') or {}]
        classes = names[0].get('classes') or ()
        colors = BoxStyle('both', 0, names[0])
        labels = range(max([len(classes) - 1, *(label for image in images for label in image['labels'])]) + 1)
        paths = [[shot.path for shots in self._images.values() for shot in shots]]
        if self.other is not None:
            paths.append(self.other.paths)
        return dict(
            runs=list(short_names(self.run, self.other)) if self.other else [osp.basename(self.run.folder)],
            levels=[dict(name=name, stride=stride) for name, stride in self._levels.items()],
            classes=[str(classes[label]) if label < len(classes) else str(label) for label in labels],
            colors=[list(colors.color(label, 1.0)[::-1]) for label in labels],
            colormaps={name: colormap_data(name) for name in dict.fromkeys([*COLORMAPS, style.colormap])},
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
            without_photo=self._without_image,
            levels=self._levels,
            scripts=SCRIPTS,
            **summarize_runs(self._runs, self._focus),
        )
