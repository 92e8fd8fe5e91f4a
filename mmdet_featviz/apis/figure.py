"""Figures for print: draw_figure() arranges images and maps of runs in rows and columns of a matplotlib figure."""

from __future__ import annotations

import difflib
import os
import os.path as osp
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np

from mmdet_featviz.apis.figure_spec import BOXES, EXPLAIN, ColumnSpec, FigureSpec, RowSpec, parse_figure
from mmdet_featviz.explanation.explanation import LOOK, Explanation
from mmdet_featviz.runs.component_fit import views_of_run
from mmdet_featviz.runs.explanation_files import explanation_name, load_explanation
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.messages import first_names
from mmdet_featviz.visualization.box_drawing import BoxStyle
from mmdet_featviz.visualization.figure_drawing import draw_figure_rows
from mmdet_featviz.visualization.figure_layout import FigureLook, FigureRow, FigureTile
from mmdet_featviz.visualization.label_places import Area
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import PlacedLevel, Views

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_figure(spec: FigureSpec | Mapping[str, Any] | str | os.PathLike) -> Figure:
    """Draw a figure for print from the saved maps of runs.

    Args:
        spec: The figure: the path of a YAML file, a mapping with the same content, or a ``FigureSpec``. The guide on
            figures lists its entries.

    Returns:
        A matplotlib figure. Its ``savefig()`` writes PDF, SVG and PNG; in the first two, text, boxes and ticks are
        vectors.

    Raises:
        OSError: If a file, a run or an image cannot be read.
        TypeError, ValueError: If an entry is wrong, or a run has no such image, level, boxes or explanation.
    """
    spec = parse_figure(spec)
    style = Style(**spec.style)
    sources = {folder: _Source(folder, style) for folder in {column.run or spec.run for column in spec.columns}}
    rows = [_row(row, [(column, sources[column.run or spec.run]) for column in spec.columns]) for row in spec.rows]
    look = FigureLook(
        style.table, spec.width, spec.dpi, spec.font, spec.font_size, _share(spec, rows), spec.colorbar, spec.labels
    )
    return draw_figure_rows(rows, [column.title for column in spec.columns], look)


def _share(spec: FigureSpec, rows: Sequence[FigureRow]) -> str:
    kinds = {tile.kind for row in rows for tile in row.tiles if tile.limits is not None}
    return spec.share if spec.share != 'auto' else 'row' if len(kinds) <= 1 else 'column'


def _row(row: RowSpec, columns: Sequence[tuple[ColumnSpec, _Source]]) -> FigureRow:
    """The tiles of an image."""
    sizes = {source.any_snapshot(row.image).placement.image_size for _, source in columns}
    if len(sizes) > 1:
        raise ValueError(f'{row.image} has different sizes in the runs: {" and ".join(map(str, sorted(sizes)))}')
    ((height, width),) = sizes
    crop = _part('crop', row.crop, Area(0, 0, width, height), row.image) if row.crop else Area(0, 0, width, height)
    zoom = _part('zoom', row.zoom, crop, row.image) if row.zoom else None
    return FigureRow(row.name, [source.tile(row, column) for column, source in columns], crop, zoom)


def _part(option: str, corners: Sequence[float], whole: Area, key: str) -> Area:
    """A part of an image in whole pixels, inside what is shown."""
    part = Area(*map(round, corners))
    if part.width < 1 or part.height < 1 or part.overlap(whole) < part.width * part.height:
        raise ValueError(
            f'{option}={list(corners)} of {key} is not inside what is shown: '
            f'left, top, right, bottom are {", ".join(map(str, whole))}'
        )
    return part


class _Source:
    """A run that figures are drawn from.

    Args:
        folder: Folder of the run.
        style: How its maps are drawn; where cells are and which are foreground is as in the run. The range of an
            explanation is always from zero to its largest value.
    """

    def __init__(self, folder: str, style: Style) -> None:
        self.run = Run(folder)
        drawn = {'align': 'center', **self.run.info.get('style', {})}
        own = {name: drawn[name] for name in ('align', 'foreground', 'boxes') if name in drawn}
        self.style = replace(style, **own)
        self._paths: dict[str, str] = {}  # {image key: maps of its first pass}
        for path in self.run.paths:
            key = osp.relpath(osp.dirname(path), self.run.folder).replace(os.sep, '/')
            self._paths.setdefault(key, path)
        self.snapshot = lru_cache(maxsize=1)(self._load)

    def any_snapshot(self, key: str) -> Snapshot:
        """What the run saved of an image, be it an explanation only."""
        if key in self._paths or key not in self.run.explanations:
            return self.snapshot(key)
        return self._explanation(key, ('*',)).snapshot

    def tile(self, row: RowSpec, column: ColumnSpec) -> FigureTile:
        """The picture of an image in a column.

        Raises:
            ValueError: If the run has no such image, level, boxes or explanation.
        """
        if column.show == EXPLAIN:
            return self._explanation_tile(row, column)
        snapshot = self.any_snapshot(row.image)
        if column.show == 'image' or column.show in BOXES:
            kind = None if column.show == 'image' else column.show
            return FigureTile(lambda _: snapshot.image(), **self._boxes(snapshot, kind, self.style))
        return self._level_tile(snapshot, column)

    def _load(self, key: str) -> Snapshot:
        if key not in self._paths:
            close = difflib.get_close_matches(key, self._paths, n=3) or list(self._paths)
            known = f'it has {first_names(close)}' if close else 'it has explanations only'
            raise ValueError(f'{self.run.folder} has no maps of the image {key!r}: {known}')
        return load_with_image(self._paths[key], self.run.info)

    @cached_property
    def _views(self) -> Views:
        return views_of_run(self.style, self.run.paths, self.run.info.get('reduction'))

    def _level_tile(self, snapshot: Snapshot, column: ColumnSpec) -> FigureTile:
        placed = self._views.place(snapshot)
        names = [one.level.name for one in placed]
        if column.show not in names:
            close = difflib.get_close_matches(column.show, names, n=4) or names
            raise ValueError(
                f'{self.run.folder} has no level {column.show!r} of {snapshot.key}: '
                f'show image, gt, pred, both, explain, or a level such as {first_names(close)}'
            )
        chosen = placed[names.index(column.show)]
        info, level = self.run.info, chosen.level
        kind = level.score_of or (level.name, info.get('config'), info.get('reduction'))
        return self._heat_tile(snapshot, chosen, self._views.limits_of(chosen, placed), self._views, kind, column.boxes)

    def _explanation_tile(self, row: RowSpec, column: ColumnSpec) -> FigureTile:
        explanation = self._explanation(row.image, (row.explanation, column.explanation))
        views, placed = Views(explanation.style), explanation.placed()
        kind = explanation.method, explanation.target.of
        limits = views.limits_of(placed, [placed])
        tile = self._heat_tile(explanation.snapshot, placed, limits, views, kind, column.boxes or 'both')
        return replace(tile, points=[point[:3] for point in explanation.points])

    def _explanation(self, key: str, patterns: Sequence[str]) -> Explanation:
        """The first explanation of an image whose name matches all patterns."""
        style = replace(self.style, **LOOK)
        names = []
        for path in self.run.explanations.get(key, ()):
            explanation = load_explanation(path, self.run.info, style)
            names.append(explanation_name(explanation))
            if all(fnmatchcase(names[-1], pattern) for pattern in patterns):
                return explanation
        known = f'it has {first_names(names)}' if names else 'explain the image with --save maps'
        wanted = ' and '.join(dict.fromkeys(patterns))
        raise ValueError(f'{self.run.folder} has no explanation {wanted} of {key}: {known}')

    def _heat_tile(
        self,
        snapshot: Snapshot,
        placed: PlacedLevel,
        limits: tuple[float, float],
        views: Views,
        kind: Any,
        boxes: str | None,
    ) -> FigureTile:
        def paint(shared: tuple[float, float] | None) -> np.ndarray:
            return views.paint_level(placed, shared or limits, snapshot.image())

        shared = limits if placed.colors is None else None  # principal components have no values
        return FigureTile(paint, shared, kind, **self._boxes(snapshot, boxes, views.style))

    def _boxes(self, snapshot: Snapshot, kind: str | None, look: Style) -> dict[str, Any]:
        """The boxes of a tile and how they are drawn."""
        if kind is None:
            return {}
        style = BoxStyle(kind, look.score_thr, snapshot.dataset_meta, look.classes)
        if snapshot.boxes is None or (kind == 'gt' and not snapshot.boxes.are_truth.any()):
            raise ValueError(
                f'{self.run.folder} saved no {BOXES[kind]} of {snapshot.key}'
                + (': draw it in a test of a data set with annotations' if kind != 'pred' else '')
            )
        return dict(boxes=style.select(snapshot.boxes), box_style=style)
