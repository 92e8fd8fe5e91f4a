"""Report builder: writes the report page of a run, with its images and data."""

from __future__ import annotations

import base64
import logging
import os.path as osp
import traceback
from dataclasses import replace
from typing import Iterator, Sequence

import cv2
from mmengine.logging import print_log

from mmdet_featviz.evaluation.explanation_matching import match_explanations
from mmdet_featviz.evaluation.level_matching import match_levels
from mmdet_featviz.evaluation.run_comparison import short_names
from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.report.explanation_data import explanation_data
from mmdet_featviz.report.image_passes import ImagePass, distinct_names, passes_by_image
from mmdet_featviz.report.image_values import ImageFocus, box_values
from mmdet_featviz.report.page_data import IMAGE_SIZE, box_rows, colormap_data, page_levels, script_call
from mmdet_featviz.report.page_template import STATIC_FILES, render_page
from mmdet_featviz.report.summary import summarize_runs
from mmdet_featviz.runs.explanation_files import explanation_name, saved_explanations
from mmdet_featviz.runs.percentiles import run_ranges
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.runs.run_folder import REPORT, RunFolder
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.dependencies import require
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.visualization.box_drawing import BoxStyle
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.sheets import shrink_to_tile
from mmdet_featviz.visualization.style import Style

PAGE_COLORMAP = 'turbo'  # of runs with the default, jet, whose brightness rises and falls along the scale
COLORMAPS = 'jet', PAGE_COLORMAP, 'viridis', 'magma', 'inferno', 'cividis', 'gray'
THUMB_SIZE = 200  # longest side in pixels
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
    """Writes the report page of a run. An earlier report of the run is deleted.

    Only one image is held in memory at a time.

    Args:
        run: The run.
        other: A second run, shown beside the first. Only images of the first run are shown.
        max_images: Show only the first N images; None shows all.
        image_size: Longest side of the images on the page, in pixels, as far as the image files have them. The heat is
            drawn at no more than 1000 pixels; a larger image has more to see when the page is zoomed.

    Raises:
        OSError: If the folder cannot be written to.
        ValueError: If a run saved explanations only.
        ImportError: If jinja2 is not installed.
    """

    def __init__(
        self, run: Run, other: Run | None = None, max_images: int | None = None, image_size: int = IMAGE_SIZE
    ) -> None:
        require('jinja2', 'the report')
        for one in (run, other):
            if one is not None:
                one.check_has_maps()
        self.run = run
        self.other = other
        self.style = Style(**run.info.get('style', {}))
        self._aligns = [run.info.get('style', {}).get('align', 'center') for run in self._runs]
        self._passes = dict(list(passes_by_image(run).items())[:max_images])
        self._focus = ImageFocus(self._aligns[0])
        self._image_size = image_size
        self._bytes = 0  # of all images, without thumbnails
        self._shown = 0  # number of images
        self._skipped: list[str] = []
        self._without_image: list[str] = []
        folder = osp.join(run.folder, REPORT)
        if osp.islink(folder):  # its target is no part of the run, and may be another run
            raise ValueError(f'{folder} is a link, so no report is written there: remove the link')
        self.run_folder = RunFolder(folder, overwrite=True)

    @property
    def _runs(self) -> list[Run]:
        return [self.run] if self.other is None else [self.run, self.other]

    @property
    def page(self) -> str:
        """Path or URL of the page."""
        return osp.join(self.run_folder.out_dir, 'index.html')

    def write(self) -> None:
        """Write the page with its images, data and scripts."""
        # Recorded in the manifest, so that the next report deletes them.
        self.run_folder.record([dict(files=['index.html', 'data/index.js', *STATIC_FILES])])
        numbers = iter(range(sum(map(len, self._passes.values()))))
        plain_keys = [key for key, _ in self._passes]
        images = [
            image if key == plain_key else dict(image, name=plain_key)
            for key, plain_key, passes in zip(distinct_names(plain_keys), plain_keys, self._passes.values())
            for image in self._write_image(key, passes, numbers)
        ]
        self._shown = len(images)
        for name, source in STATIC_FILES.items():
            self.run_folder.write(name, source.read_bytes())
        self.run_folder.write('data/index.js', script_call('run', self._index_data(images)))
        self.run_folder.write('index.html', self._html())
        self.run_folder.flush()

    def summary(self) -> str:
        """One line: number of images, where the page is, and what was skipped or missing."""
        parts = [f'report of {count_noun(self._shown, "image")}: {self.page}']
        if self._image_size != IMAGE_SIZE:
            parts.append(f'images of at most {self._image_size} pixels take {self._bytes / 1e6:.1f} MB')
        remarks = {
            'skipped, maps not readable': self._skipped,
            'shown without the original image, which cannot be read': self._without_image,
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
        written, values, image, last, tried = [], [], None, None, False
        for image_pass in passes:
            try:
                snapshot = load_with_image(image_pass.path, self.run.info)
            except ValueError as error:
                print_log(f'{error}. It is not in the report.', 'current', logging.WARNING)
                self._skipped.append(image_pass.name)
                continue
            number = next(numbers)
            files = [f'data/{number:06d}.js']
            if not tried or not snapshot.is_file:  # an image saved in training is another crop each time
                image, tried = self._write_original(key, snapshot, number, files), True
            self.run_folder.write(files[0], script_call('shot', number, self._pass_data(snapshot, image_pass, image)))
            self.run_folder.record([dict(image=snapshot.path, key=snapshot.key, files=files)])
            written.append([number, image_pass.label])
            values.append(box_values(snapshot.boxes))
            # The focus is that of the last epoch and its first pass: the mean over passes is not a pass.
            if last is None or not snapshot.augmentation:
                last = snapshot
        if last is not None:
            yield dict(key=key, shots=written, values=values, thumb=image, **self._focus.add(last))

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
            data = cv2.imencode('.jpg', small, JPEG)[1].tobytes()
            if folder == 'photos':  # a page may not save a picture that it drew from an image file, but from a script
                data = script_call('photo', number, base64.b64encode(data).decode('ascii'))
                self._bytes += len(data)
            name = f'{folder}/{number:06d}.{"js" if folder == "photos" else "jpg"}'
            self.run_folder.write(name, data)
            files.append(name)
        return number

    def _pass_data(self, snapshot: Snapshot, image_pass: ImagePass, image: int | None) -> dict:
        """The data of a pass and of the same pass in the other run.

        Args:
            snapshot: The pass.
            image_pass: Where it is saved.
            image: Number of the file with the original image; None without one.
        """
        sides, partners = [self._side_data(snapshot, 0)], []
        height, width = snapshot.placement.image_size
        other = self._load_other(image_pass)
        resized = other is not None and other.placement.image_size != (height, width)
        if other is not None and not resized:
            pairs = match_levels(snapshot.levels, other.levels)[0]
            names = {pair.a.name: pair.b.name for pair in pairs}
            partners = [names.get(level.name) for level in snapshot.levels]
            sides.append(self._side_data(other, 1))
            explained = [self._explanations(one, side) for side, one in enumerate((snapshot, other))]
            for data, (_, partner) in zip(sides[0]['explanations'], match_explanations(*explained)):
                data['partner'] = None if partner is None else explanation_name(partner)
        scale = min(1, IMAGE_SIZE / max(height, width))
        canvas = [max(1, round(width * scale)), max(1, round(height * scale))]
        return dict(size=[width, height], canvas=canvas, photo=image, sides=sides, partners=partners, resized=resized)

    def _load_other(self, image_pass: ImagePass) -> Snapshot | None:
        """The same pass in the other run; None if it does not have it."""
        if self.other is None:
            return None
        try:
            return load_with_image(osp.join(self.other.folder, image_pass.name), self.other.info)
        except ValueError:
            return None

    def _side_data(self, snapshot: Snapshot, side: int) -> dict:
        """Levels and boxes of a pass; `side` is 0 for the run and 1 for the other run."""
        levels = page_levels(snapshot, replace(self.style, align=self._aligns[side]))
        explanations = [explanation_data(one, snapshot.boxes) for one in self._explanations(snapshot, side)]
        cropped = not snapshot.placement.seen.all()
        return dict(levels=levels, boxes=box_rows(snapshot.boxes), cropped=cropped, explanations=explanations)

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
        known = dict(zip(classes[0], colors[0]))  # a class has one color in both runs
        colors = [[known.get(name, color) for name, color in zip(*pair)] for pair in zip(classes, colors)]
        facts = [[run.info.get(fact) for fact in ('reduction', 'config')] for run in self._runs]
        paths = [[image_pass.path for passes in self._passes.values() for image_pass in passes]]
        if self.other is not None:
            paths.append(self.other.paths)
        return dict(
            runs=list(short_names(self.run, self.other)) if self.other else [osp.basename(self.run.folder)],
            reductions=[run.info.get('reduction') for run in self._runs],
            levels=[dict(name=name, stride=stride) for name, stride in self._focus.levels.items()],
            classes=classes,
            colors=colors,
            comparable=facts[0] == facts[-1],
            colormaps={name: colormap_data(name) for name in dict.fromkeys([*COLORMAPS, style.colormap])},
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

    def _html(self) -> bytes:
        return render_page(
            images=self._shown,
            skipped=self._skipped,
            without_image=self._without_image,
            levels=self._focus.levels,
            **summarize_runs(self._runs, self._focus.means),
        )


def _labels(image: dict) -> set[int]:
    """Labels of all boxes in an entry of the list of images."""
    return {label for values in image['values'] for group in values.values() for label in group}


def _classes(run: Run, labels: Sequence[int]) -> tuple[list[str], list[list[int]]]:
    """Names and RGB colors of the classes of a run, by label: its own classes, and `labels` beyond them."""
    style = BoxStyle('both', 0, run.info.get('dataset_meta'))
    names = list(map(str, style.classes))
    names += [str(label) for label in range(len(names), max(labels, default=-1) + 1)]
    return names, [list(style.color(label, 1.0)[::-1]) for label in range(len(names))]
