"""Runs to draw figures from: their maps, boxes and an explanation of each image."""

import cv2
import numpy as np
from conftest import noise

from mmdet_featviz.explanation.explanation import LOOK, explanation_of
from mmdet_featviz.explanation.targets import Target
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style

SIZE = 75, 111
META = dict(classes=('star', 'Straße $5'), palette=[(220, 20, 60), (0, 120, 240)])
CORNERS = np.array([[10.0, 12, 50, 60], [60.0, 20, 100, 70], [11.0, 12, 50, 60]])
BOXES = Boxes(CORNERS, np.array([0, 1, 0]), np.array([np.nan, 0.4, 0.9]))
TARGET = Target(0, 2, 0, 'detection', tuple(CORNERS[2]), 0, 0.9)


def map_of(seed, level=0, factor=1.0):
    """A random map on the grid of a level."""
    cells = (10, 14) if level == 0 else (5, 7)
    return (factor * np.random.default_rng(100 * level + seed).random(cells)).astype(np.float32)


def save_figure_run(folder, keys=('a', 'b'), factor=1.0, boxes=BOXES, info=None, **style):
    """Save a run with maps, overlays as PNG, and an explanation of each image; returns its folder."""
    (folder / 'images').mkdir(parents=True)
    info = dict(dataset_meta=META, config='one.py', reduction='max', **(info or {}))
    style = Style(**dict(dict(save=('maps', 'overlay'), image_format='png', align='center'), **style))
    writer = RunWriter(RunFolder(str(folder / 'run')), style, info)
    for seed, key in enumerate(keys):
        path = folder / 'images' / f'{key}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode('.png', noise(*SIZE, seed=seed))[1].tobytes())
        levels = [
            Level('neck', level, 4, (8.0 * 2**level,) * 2, map_of(seed, level, factor * (1 + 9 * seed)))
            for level in (0, 1)
        ]
        placement = identity_placement(SIZE, (80, 112))
        snapshot = Snapshot(
            key, str(path), 0, placement, levels, boxes=boxes, dataset_meta=META,
            image=lambda seed=seed: noise(*SIZE, seed=seed),
        )  # fmt: skip
        writer.write(snapshot)
        heat = [Level('neck', 0, 4, (8.0, 8.0), map_of(seed + 50))]
        look = Style(**{**LOOK, 'align': 'center', 'image_format': 'png', 'save': ('overlay',)})
        explanation = explanation_of(TARGET, 'odam', heat, snapshot, look)
        writer.explain_and_write({0: key}, lambda one=explanation: {0: [one]})
    writer.finish()
    return str(folder / 'run')
