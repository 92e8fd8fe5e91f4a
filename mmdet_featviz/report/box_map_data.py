"""Box map data: where the boxes of a run are on the page's map, and what the page knows of each."""

from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np

from mmdet_featviz.evaluation.error_records import box_sizes
from mmdet_featviz.evaluation.miss_mechanisms import MECHANISMS
from mmdet_featviz.evaluation.neighbor_purity import NEIGHBORS, Purity, neighbor_purity, purest_level
from mmdet_featviz.evaluation.plane_map import plane_map
from mmdet_featviz.report.box_table import BoxTable
from mmdet_featviz.report.error_data import ALL_TYPES
from mmdet_featviz.report.image_passes import split_key
from mmdet_featviz.report.image_values import score_steps

STEPS = 10_000  # of a place on the map, along each axis


def box_map_data(table: BoxTable, places: Mapping[tuple, int], sizes: Sequence[tuple[int, int]]) -> dict:
    """The boxes of the images on the page, in lists of equal length, and their places at each level.

    Args:
        table: The boxes.
        places: {(key without epoch, path) of an image: its index on the page}.
        sizes: (width, height) of each image on the page, in pixels.
    """
    of_file = np.array([places.get((split_key(file.key)[1], file.image), -1) for file in table.files], int)
    shown = table[np.flatnonzero(of_file[table.images] >= 0)]
    boxes, truth = shown.boxes, shown.boxes.are_truth
    deciding = np.where(truth, shown.finders, boxes.scores)
    return dict(
        levels=[
            dict(name=name, method=one.method, points=_in_steps(one.points))
            for name, one in ((name, plane_map(vectors)) for name, vectors in shown.vectors.items())
        ],
        images=of_file[shown.images].tolist(),
        numbers=shown.numbers.tolist(),
        corners=np.round(boxes.corners, 1).tolist(),
        labels=boxes.labels.tolist(),
        truth=truth.astype(int).tolist(),
        steps=[-1 if np.isnan(score) else score_steps(score) for score in deciding.tolist()],
        types=[ALL_TYPES.index(type_) if type_ in ALL_TYPES else -1 for type_ in shown.types],
        sizes=box_sizes(boxes.corners).tolist(),
        mechanisms=[MECHANISMS.index(one) if one in MECHANISMS else -1 for one in shown.mechanisms],
        image_sizes=list(map(list, sizes)),
    )


def _in_steps(points: np.ndarray) -> list[list[int]]:
    """Places (N, 2) as columns and rows of a square, on one scale along both axes."""
    if not len(points):
        return [[], []]
    low, high = points.min(axis=0), points.max(axis=0)
    half = max((high - low).max() / 2, np.finfo(np.float32).tiny)
    units = ((points - (low + high) / 2) / half + 1) / 2
    units[:, 1] = 1 - units[:, 1]  # rows count downwards
    return np.round(units * STEPS).astype(int).T.tolist()


def box_map_summary(table: BoxTable) -> dict:
    """What the page says above the map.

    Returns:
        ``boxes``, ``neighbors``: numbers; ``purity``: a :class:`Purity` of each level and kind; ``purest``: name of the
        level with the largest, or of the first; ``levels``; ``remarks``: what is not in the map.
    """
    rows: list[Purity] = neighbor_purity(table.vectors, table.boxes, table.images)
    levels = list(table.vectors)
    return dict(
        boxes=len(table.boxes),
        neighbors=NEIGHBORS,
        purity=[row for row in rows if row.label is None],
        purest=purest_level(rows) or next(iter(levels), ''),
        levels=levels,
        remarks=table.remarks,
    )
