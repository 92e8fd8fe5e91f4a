"""Report builder: writes the report page of a run, or of several runs side by side, with its images and data."""

from __future__ import annotations

import logging
import os.path as osp
import traceback
from dataclasses import replace
from functools import cached_property
from typing import Iterator, Sequence

import cv2
from mmengine.logging import print_log

from mmdet_featviz.capture.reductions import PCA
from mmdet_featviz.evaluation.comparison_pictures import DIFFERENCE_COLORMAP
from mmdet_featviz.evaluation.explanation_matching import match_explanations
from mmdet_featviz.evaluation.level_matching import level_names, match_levels
from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.report.box_map_data import box_map_data, box_map_summary
from mmdet_featviz.report.box_table import read_boxes
from mmdet_featviz.report.cell_files import CellFiles
from mmdet_featviz.report.error_data import (
    contrast_rows,
    error_names,
    error_rows,
    error_summary,
    error_values,
    join_boxes,
)
from mmdet_featviz.report.error_tables import ErrorTables
from mmdet_featviz.report.explanation_data import explanation_data
from mmdet_featviz.report.found_objects import FoundObjects
from mmdet_featviz.report.image_passes import ImagePass, distinct_names, passes_by_image
from mmdet_featviz.report.image_values import ImageFocus, box_values
from mmdet_featviz.report.page_data import IMAGE_SIZE, box_rows, colormap_data, page_levels
from mmdet_featviz.report.page_files import PAGE, PageFolder, SingleFile
from mmdet_featviz.report.summary import summarize_runs
from mmdet_featviz.runs.component_fit import Components, fit_run
from mmdet_featviz.runs.explanation_files import explanation_name, saved_explanations
from mmdet_featviz.runs.manifest import manifest_names, read_entries
from mmdet_featviz.runs.maps_file import MapsError
from mmdet_featviz.runs.percentiles import run_ranges
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.runs.run_folder import COMPARED_REPORT, REPORT, check_apart
from mmdet_featviz.runs.run_info import RUN_INFO_FILE
from mmdet_featviz.runs.run_names import are_comparable, check_run_names, short_names
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.dependencies import require
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.visualization.box_drawing import BoxStyle
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.sheets import shrink_to_tile
from mmdet_featviz.visualization.style import EMBEDDINGS, Style

PAGE_COLORMAP = 'turbo'  # of runs with the default, jet, whose brightness rises and falls along the scale
COLORMAPS = 'jet', PAGE_COLORMAP, 'viridis', 'magma', 'inferno', 'cividis', 'gray'
THUMB_SIZE = 200  # longest side in pixels
MOST_CLASSES = 2**15  # that a page lists
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 85]


def write_report(folder: str) -> str:
    """Write or renew the report of a run. An error is returned as text: the run itself is complete.

    Args:
        folder: The run folder.

    Returns:
        One line: where the report is, or why there is none.
    """
    try:
        report = Report(Run(folder))
        report.write()
    except Exception as error:  # the report can be written later
        if not isinstance(error, (OSError, ValueError)):  # messages of these are enough
            print_log(traceback.format_exc(), 'current', logging.WARNING)
        return f'no report: {error or type(error).__name__}'
    return report.summary()


class Report:
    """Writes the report page of a run, or of several runs side by side. An earlier report in its folder is deleted.

    Only one image is held in memory at a time.

    Args:
        run: The run.
        others: Further runs, shown beside the first. Only images of the first run are shown.
        max_images: Show only the first N images; None shows all.
        image_size: Longest side of the images on the page, in pixels, as far as the image files have them. The heat is
            drawn at no more than 1000 pixels; a larger image has more to see when the page is zoomed.
        out_dir: Folder of the report. None is ``report`` in the folder of the run, and ``report_compared`` there with
            further runs.
        names: Names of the runs of a comparison. None takes those of their configs, checkpoints or folders.
        single_file: Whether to write one file that has everything in it, instead of a folder.

    Raises:
        OSError: If the folder cannot be written to, or holds something else than a report.
        ValueError: If a run saved explanations only, the names do not fit the runs, or `out_dir` is one of the runs, in
            one or above one.
        ImportError: If jinja2 is not installed.
    """

    def __init__(
        self,
        run: Run,
        others: Sequence[Run] = (),
        max_images: int | None = None,
        image_size: int = IMAGE_SIZE,
        out_dir: str | None = None,
        names: Sequence[str] | None = None,
        single_file: bool = False,
    ) -> None:
        require('jinja2', 'the report')
        self.run = run
        self._runs = [run, *others]
        if others:
            check_run_names(self._runs, names)
        for one in self._runs:
            one.check_has_maps()
        self._title_names = names
        self._names = names or (short_names(self._runs) if others else [osp.basename(run.folder)])
        self.style = Style(**run.info.get('style', {}))
        self._aligns = [one.info.get('style', {}).get('align', 'center') for one in self._runs]
        # Further runs are drawn as the first, but from their own cells.
        self._styles = [replace(self.style, align=align) for align in self._aligns]
        self._passes = dict(list(passes_by_image(run).items())[:max_images])
        self._focus = ImageFocus(self._aligns[0])
        self._found = FoundObjects(self._runs)
        self._image_size = image_size
        self._bytes = 0  # of all images, without thumbnails
        self._shown = 0  # number of images
        self._errors = [ErrorTables(one) for one in self._runs]
        self._error_summary = error_summary(self._errors[0])
        self._contrasts: dict[int, list] = {}  # by number of the pass: those of its objects by level
        self._boxes = read_boxes(run, self._errors[0])
        self._box_summary = None if self._boxes is None else box_map_summary(self._boxes)
        self._sizes: dict[str, tuple[int, int]] = {}  # (width, height) of each image on the page, by its key there
        self._skipped: list[str] = []
        self._without_image: list[str] = []
        folder, count = _folder_of(self._runs, out_dir), sum(map(len, self._passes.values()))
        self._files = SingleFile(folder, count) if single_file else PageFolder(folder)
        self._cells = CellFiles(self._files, self._aligns[0])
        self._without_cells: list[str] = []
        self.page = ''  # path or URL, once it is written

    def write(self) -> None:
        """Write the page with its images, data and scripts.

        Raises:
            ValueError: If it is to be one file, and that would be too large.
        """
        numbers = iter(range(sum(map(len, self._passes.values()))))
        plain_keys = [key for key, _ in self._passes]
        keys = list(distinct_names(plain_keys))
        images = [
            image if key == plain_key else dict(image, name=plain_key)
            for key, plain_key, passes in zip(keys, plain_keys, self._passes.values())
            for image in self._write_image(key, passes, numbers)
        ]
        self._cells.finish()
        self._shown = len(images)
        if self._boxes is not None:
            places = {image['key']: place for place, image in enumerate(images)}
            of_passes = {one: places[key] for one, key in zip(self._passes, keys) if key in places}
            self._files.add_boxes(box_map_data(self._boxes, of_passes, [self._sizes[key] for key in places]))
        if self._contrast_levels:
            self._files.add_contrasts(dict(levels=self._contrast_levels, passes=self._contrasts))
        self.page = self._files.finish(self._index_data(images), **self._template_values())

    def summary(self) -> str:
        """One line: number of images, where the page is, and what was skipped or missing."""
        parts = [f'report of {count_noun(self._shown, "image")}: {self.page}']
        if self._image_size != IMAGE_SIZE:
            parts.append(f'images of at most {self._image_size} pixels take {self._bytes / 1e6:.1f} MB')
        if isinstance(self._files, SingleFile):
            parts.append(f'one file of {self._files.bytes / 1e6:.1f} MB')
        if self._cells.bytes:
            parts.append(f'embeddings take {self._cells.bytes / 1e6:.1f} MB')
        remarks = {
            'skipped, maps not readable': self._skipped,
            'left out, errors not readable': [name for errors in self._errors for name in errors.unreadable],
            'shown without the original image, which cannot be read': self._without_image,
            'without similarity, embeddings not readable': self._without_cells,
        }
        parts += [f'{len(names)} {remark} ({first_names(names)})' for remark, names in remarks.items() if names]
        return '; '.join(parts)

    def _write_image(self, key: str, passes: Sequence[ImagePass], numbers: Iterator[int]) -> Iterator[dict]:
        """Write the files of an image; yields its entry in the list of images, or nothing if no maps can be read.

        Args:
            key: Name of the image on the page.
            passes: The passes over it.
            numbers: Free numbers; each pass takes one to name its files.
        """
        written, values, found, image, last, tried = [], [], [], None, None, False
        for image_pass in passes:
            try:
                snapshot = load_with_image(image_pass.path, self.run.info)
            except ValueError as error:
                print_log(f'{error}. It is not in the report.', 'current', logging.WARNING)
                self._skipped.append(image_pass.name)
                continue
            number = next(numbers)
            files: list[str] = []
            if not tried or not snapshot.is_file:  # an image saved in training is another crop each time
                image, tried = self._write_original(key, snapshot, number, files), True
            shots, resized = _side_by_side([snapshot, *(_load(other, image_pass) for other in self._runs[1:])])
            data = dict(self._pass_data(shots, image), resized=resized)
            files.append(self._files.add_data(number, data))
            self._files.record(snapshot.path, snapshot.key, files)
            if EMBEDDINGS in self.style.save:
                self._write_cells(number, snapshot, image_pass, image)
            written.append([number, image_pass.label])
            values.append(self._values(snapshot, number))
            found.append(self._found.rows(shots))
            # The focus is that of the last epoch and its first pass: the mean over passes is not a pass.
            if last is None or not snapshot.augmentation:
                last = snapshot
        if last is not None:
            self._sizes[key] = last.placement.image_size[::-1]
            changes = dict(found=found) if len(self._runs) > 1 else {}
            yield dict(key=key, shots=written, values=values, thumb=image, **changes, **self._focus.add(last))

    def _write_cells(self, number: int, snapshot: Snapshot, image_pass: ImagePass, image: int | None) -> None:
        """Write the embeddings of a pass; the mean of passes has none."""
        if snapshot.is_mean:
            return
        try:
            self._cells.add(number, snapshot, image_pass.path, image)
        except MapsError as error:
            print_log(f'{error}. Its cells are not compared.', 'current', logging.WARNING)
            self._without_cells.append(image_pass.name)

    @property
    def _contrast_levels(self) -> list[str]:
        return self._error_summary['levels'] if self._error_summary else []

    def _values(self, snapshot: Snapshot, number: int) -> dict:
        """What the page sorts and filters a pass by: scores and numbers of its boxes, and its errors if it has some."""
        record = self._errors[0].of(snapshot)
        if record is None:
            return box_values(snapshot.boxes)
        self._contrasts[number] = contrast_rows(record, self._contrast_levels)
        return dict(box_values(join_boxes(snapshot.boxes, record).boxes), errors=error_values(record))

    def _write_original(self, key: str, snapshot: Snapshot, number: int, files: list[str]) -> int | None:
        """Write the original image and its thumbnail, and append their names to `files`.

        Returns:
            The number that names them; None if the image cannot be read.
        """
        try:
            image = snapshot.image()
        except ImageError as error:
            if not self._without_image:
                print_log(
                    f'{error}. Its heat is shown without the image; further images are only counted.',
                    'current',
                    logging.WARNING,
                )
            if key not in self._without_image[-1:]:  # count an image once, not once per epoch
                self._without_image.append(key)
            return None
        for folder, longest in (('photos', self._image_size), ('thumbs', THUMB_SIZE)):
            small = shrink_to_tile(image, longest) if max(image.shape) > longest else image
            jpeg = cv2.imencode('.jpg', small, JPEG)[1].tobytes()
            self._bytes += len(jpeg) * 4 // 3 if folder == 'photos' else 0  # as text, in base64
            files.append(self._files.add_image(folder, number, jpeg))
        return number

    def _pass_data(self, shots: Sequence[Snapshot | None], image: int | None) -> dict:
        """The data of a pass over an image.

        Args:
            shots: The pass, and the same pass in further runs; None of those that do not have it.
            image: Number of the file with the original image; None without one.
        """
        height, width = shots[0].placement.image_size
        groups, _ = match_levels([[] if shot is None else shot.levels for shot in shots])
        partners = {group[0].name: level_names(group)[1:] for group in groups}
        explained = [[] if shot is None else self._explanations(shot, side) for side, shot in enumerate(shots)]
        scale = min(1, IMAGE_SIZE / max(height, width))
        return dict(
            size=[width, height],
            canvas=[max(1, round(width * scale)), max(1, round(height * scale))],
            photo=image,
            sides=[None if shot is None else self._side_data(shot, side, explained) for side, shot in enumerate(shots)],
            partners=[partners.get(level.name, [None] * (len(shots) - 1)) for level in shots[0].levels],
        )

    def _side_data(self, snapshot: Snapshot, side: int, explained: Sequence[Sequence[Explanation]]) -> dict:
        """Levels, boxes and explanations of a pass.

        Args:
            snapshot: The pass.
            side: Number of its run.
            explained: The explanations of each run. Those of the first name their partners in the others.
        """
        levels = page_levels(snapshot, self._styles[side], self._components[side])
        record, boxes, errors = self._errors[side].of(snapshot), snapshot.boxes, None
        if record is not None:
            joined = join_boxes(boxes, record)
            boxes, errors = joined.boxes, error_rows(record, joined)
        explanations = [explanation_data(one, boxes) for one in explained[side]]
        if side == 0:
            matched = [match_explanations(explained[0], others) for others in explained[1:]]
            for number, data in enumerate(explanations):
                partners = [matches[number][1] for matches in matched]
                data['partners'] = [None if partner is None else explanation_name(partner) for partner in partners]
        cropped = not snapshot.placement.seen.all()
        return dict(levels=levels, boxes=box_rows(boxes), errors=errors, cropped=cropped, explanations=explanations)

    @cached_property
    def _components(self) -> list[Components | None]:
        """The principal components of each run, if it has these."""
        return [
            fit_run(style, run.paths).components if run.info.get('reduction') == PCA else None
            for run, style in zip(self._runs, self._styles)
        ]

    def _explanations(self, snapshot: Snapshot, side: int) -> list[Explanation]:
        """The saved explanations of a pass."""
        return saved_explanations(self._runs[side], snapshot, self._aligns[side])

    def _index_data(self, images: Sequence[dict]) -> dict:
        """The data that the page needs when it opens.

        Args:
            images: Entries of the list of images.
        """
        style = self.style
        used = [label for image in images for label in _labels(image)]
        classes, colors = zip(*(_classes(run, used if run is self.run else []) for run in self._runs))
        known = dict(zip(classes[0], colors[0]))  # a class has one color in all runs
        colors = [[known.get(name, color) for name, color in zip(*pair)] for pair in zip(classes, colors)]
        paths = [[image_pass.path for passes in self._passes.values() for image_pass in passes]]
        paths += [other.paths for other in self._runs[1:]]
        return dict(
            runs=list(self._names),
            reductions=[run.info.get('reduction') for run in self._runs],
            levels=[dict(name=name, stride=stride) for name, stride in self._focus.levels.items()],
            classes=classes,
            colors=colors,
            comparable=are_comparable(self._runs),
            difference=colormap_data(DIFFERENCE_COLORMAP),
            colormaps={name: colormap_data(name) for name in dict.fromkeys([*COLORMAPS, style.colormap])},
            errors=error_names(self._error_summary),
            boxes=_map_choices(self._box_summary),
            cells=self._cells.index,
            ranges=[run_ranges(run_paths, align, style.border) for run_paths, align in zip(paths, self._aligns)],
            settings=dict(
                colormap=PAGE_COLORMAP if style.colormap == Style.colormap else style.colormap,
                alpha=style.alpha,
                blend=style.blend,
                interpolation=style.interpolation,
                normalize=style.normalize,
                percentiles=style.percentiles,
                score=style.score_thr,
            ),
            images=images,
        )

    def _template_values(self) -> dict:
        return dict(
            images=self._shown,
            skipped=self._skipped,
            without_image=self._without_image,
            levels=self._focus.levels,
            errors=self._error_summary,
            box_map=self._box_summary,
            unreadable=[name for errors in self._errors for name in errors.unreadable],
            **summarize_runs(self._runs, self._focus.means, self._title_names),
        )


def _map_choices(summary: dict | None) -> dict | None:
    """What the page can choose on the map of boxes: the levels, and which is shown first; None without boxes."""
    return summary and {name: summary[name] for name in ('levels', 'purest')}


def _folder_of(runs: Sequence[Run], out_dir: str | None) -> str:
    """The folder of the report of runs."""
    if out_dir is not None:
        check_apart(out_dir, *(run.root for run in runs))
        _check_replaceable(out_dir)
        return out_dir
    folder = osp.join(runs[0].root, COMPARED_REPORT) if len(runs) > 1 else osp.join(runs[0].folder, REPORT)
    if osp.islink(folder):  # its target is no part of the run, and may be another run
        raise ValueError(f'{folder} is a link, so no report is written there: remove the link')
    return folder


def _check_replaceable(folder: str) -> None:
    """Raise FileExistsError if a folder holds a run or a comparison: only an earlier report is replaced."""
    store = get_storage(folder)
    is_report = any(PAGE in entry.get('files', ()) for entry in read_entries(store))
    if (manifest_names(store) or RUN_INFO_FILE in store.names()) and not is_report:
        raise FileExistsError(f'out_dir {folder!r} holds the pictures of another run: choose another folder')


def _side_by_side(shots: Sequence[Snapshot | None]) -> tuple[list[Snapshot | None], list[bool]]:
    """The passes over an image in the size of the first, None for others; and which have another size."""
    sizes = [None if shot is None else shot.placement.image_size for shot in shots]
    resized = [size not in (None, sizes[0]) for size in sizes]
    return [None if is_other else shot for shot, is_other in zip(shots, resized)], resized


def _load(run: Run, image_pass: ImagePass) -> Snapshot | None:
    """The same pass in another run; None if it does not have it."""
    try:
        return load_with_image(osp.join(run.folder, image_pass.name), run.info)
    except ValueError:
        return None


def _labels(image: dict) -> set[int]:
    """Labels of all boxes in an entry of the list of images."""
    return {label for values in image['values'] for group in ('scores', 'truth') for label in values[group]}


def _classes(run: Run, labels: Sequence[int]) -> tuple[list[str], list[list[int]]]:
    """Names and RGB colors of the classes of a run, by label: its own classes, and `labels` beyond them.

    A page names labels beyond `MOST_CLASSES` itself: a single one would take the memory of all that lie before it.
    """
    style = BoxStyle('both', 0, run.info.get('dataset_meta'))
    names = list(map(str, style.classes))
    most = min(max(labels, default=-1) + 1, MOST_CLASSES)
    names += [str(label) for label in range(len(names), most)]
    return names, [list(style.color(label, 1.0)[::-1]) for label in range(len(names))]
