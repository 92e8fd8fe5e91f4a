"""Component fit: the principal components of each level over all images of a run, for reduction='pca'.

The whole features of a run fit neither into memory nor, for a large data set, on a disk. So the forward hook keeps, of
each image, the leading principal components of that image alone, :class:`CompactFeatures`, and the maps file saves
them. When the images are complete, the saved files are read once to add up the covariance of each level, and once more
to draw. Nothing but the files is needed, so ranks, stopped runs, ``render`` and the report find the same components.
What is lost is the part of an image that its own components do not span. The scheme is that of Liang, Balcan,
Kanchanapally and Woodruff, Improved distributed principal component analysis, NeurIPS 2014, with the images as
servers.
"""

from __future__ import annotations

from typing import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from mmdet_featviz.capture.reductions import PCA
from mmdet_featviz.runs.maps_file import load_snapshot
from mmdet_featviz.runs.percentiles import run_ranges
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.principal_components import ComponentFit, PrincipalComponents
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Views

Components = Mapping[str, PrincipalComponents]
Choice = Callable[[Level, Grid, Snapshot], np.ndarray]  # which cells (rows, columns) of a level count


def views_of_run(style: Style, paths: Sequence[str], reduction: str | None) -> Views:
    """Return the views of a run, with what they need to know of all its images.

    Args:
        style: How the run is drawn.
        paths: Its maps files.
        reduction: The reduction of the run.
    """
    limits = run_ranges(paths, style.align, style.border) if style.normalize == 'run' else None
    components = None
    if reduction == PCA:
        components = fit_components(lambda: _snapshots(paths), style)
    return Views(style, limits, components)


def check_foreground(style: Style, reduction: str | None) -> None:
    """Raise ValueError if a style has a foreground, which the pictures of a reduction do not have."""
    if style.foreground is not None and reduction != PCA:
        raise ValueError(
            f'foreground={style.foreground!r} is for principal components: set reduction={PCA!r}, not {reduction!r}'
        )


def fit_components(snapshots: Callable[[], Iterable[Snapshot]], style: Style) -> Components:
    """Find the principal components of each level over the cells that cover part of an image.

    Args:
        snapshots: Returns the snapshots, each time it is called.
        style: Its `foreground` chooses the cells.

    Returns:
        {level name: components}, without levels that have no features.
    """
    views = Views(style)
    if style.foreground == 'boxes':
        return _fit(snapshots(), style.align, lambda level, grid, snapshot: views.cells_in_boxes(grid, snapshot))
    everything = _fit(snapshots(), style.align, finds_edge=style.foreground == 'component')
    if style.foreground is None:
        return everything

    def is_foreground(level: Level, grid: Grid, snapshot: Snapshot) -> np.ndarray:
        return everything[level.name].is_foreground(level.compact)

    return _fit(snapshots(), style.align, is_foreground, everything)


def _fit(
    snapshots: Iterable[Snapshot],
    align: str,
    choice: Choice | None = None,
    foreground: Components | None = None,
    finds_edge: bool = False,
) -> Components:
    fits: dict[str, ComponentFit] = {}
    for snapshot in snapshots:
        for level in snapshot.levels:
            if level.compact is None:
                continue
            grid = Grid(level.values.shape, level.stride, snapshot.placement, align, level.offset)
            chosen = grid.covers_image()
            edge = chosen & ~grid.covers_image(border=1) if finds_edge else None
            if choice is not None:
                chosen = chosen & choice(level, grid, snapshot)
            fits.setdefault(level.name, ComponentFit()).add(level.compact, level.values, chosen, edge)
    found = {name: fit.components((foreground or {}).get(name)) for name, fit in fits.items()}
    return {name: components for name, components in found.items() if components is not None}


def _snapshots(paths: Sequence[str]) -> Iterator[Snapshot]:
    """Iterate over saved snapshots in an order that does not depend on ranks: sums then have the same rounding."""
    for path in sorted(paths):
        try:
            yield load_snapshot(path)
        except ValueError:  # missing or damaged: counted later, when it should be drawn
            continue
