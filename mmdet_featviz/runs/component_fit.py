"""Component fit: the principal components of each level over all images of a run, for pictures and embeddings.

The whole features of a run fit neither into memory nor, for a large data set, on a disk. So the forward hook keeps, of
each image, the leading principal components of that image alone, :class:`CompactFeatures`, and the maps file saves
them. When the images are complete, the saved files are read once to add up the covariance of each level, and once more
to draw. Nothing but the files is needed, so ranks, stopped runs, ``render`` and the report find the same components.
What is lost is the part of an image that its own components do not span. The scheme is that of Liang, Balcan,
Kanchanapally and Woodruff, Improved distributed principal component analysis, NeurIPS 2014, with the images as
servers.
"""

from __future__ import annotations

import hashlib
from typing import Callable, Iterable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from mmdet_featviz.capture.reductions import PCA
from mmdet_featviz.runs.maps_file import load_snapshot
from mmdet_featviz.runs.percentiles import run_ranges
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.principal_components import ComponentFit, PrincipalComponents
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import EMBEDDINGS, Style
from mmdet_featviz.visualization.views import Views

Components = Mapping[str, PrincipalComponents]
Choice = Callable[[Level, Grid, Snapshot], np.ndarray]  # which cells (rows, columns) of a level count


class RunFit(NamedTuple):
    """The principal components of a run.

    Attributes:
        components: {level name: components}.
        name: Names the images that they were found of. Vectors along the components of other images mean something
            else: each validation of a training has its own.
    """

    components: Components
    name: str


def views_of_run(style: Style, paths: Sequence[str], reduction: str | None) -> Views:
    """Return the views of a run, with what they need to know of all its images.

    Args:
        style: How the run is drawn.
        paths: Its maps files.
        reduction: The reduction of the run.
    """
    components = fit_run(style, paths).components if reduction == PCA else None
    return views_with(style, paths, components)


def views_with(style: Style, paths: Sequence[str], components: Components | None) -> Views:
    """Return the views of a run whose pictures have the colors of these components, or show values without any."""
    limits = run_ranges(paths, style.align, style.border) if style.normalize == 'run' else None
    return Views(style, limits, components)


def needs_components(style: Style, reduction: str | None) -> bool:
    """Whether pictures or embeddings are made of principal components."""
    return reduction == PCA or EMBEDDINGS in style.save


def fit_run(style: Style, paths: Sequence[str], root: str = '') -> RunFit:
    """Find the principal components of a run from its maps files, as :func:`fit_components` does.

    Args:
        style: How the run is drawn.
        paths: Its maps files.
        root: Its folder, which the name of the fit does not depend on.
    """
    names = sorted(path[len(root) :].replace('\\', '/') for path in paths)
    name = hashlib.sha1('\n'.join(names).encode('utf-8', 'surrogateescape')).hexdigest()[:12]
    return RunFit(fit_components(lambda: _snapshots(paths), style), name)


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
