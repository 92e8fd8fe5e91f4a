"""The report: its data, and the page in a real browser, opened from disk."""

import base64
import functools
import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import keep_ratio_pipeline, noise, pool_detector, read, resnet_detector, runner_config, train_config
from conftest import write_dataset
from mmengine.runner import Runner

from mmdet_featviz.agreement import energy_inside, inside_boxes
from mmdet_featviz.boxes import Boxes
from mmdet_featviz.geometry import Grid, Placement, identity_placement
from mmdet_featviz.rendering import get_colormap, to_unit
from mmdet_featviz.report import Focus, Report, level_data
from mmdet_featviz.runs import Run, RunWriter
from mmdet_featviz.sinks import FileSink
from mmdet_featviz.snapshots import Level, Snapshot
from mmdet_featviz.style import Style
from mmdet_featviz.views import Views

HOSTILE = [
    '<img src=x onerror=alert(1)>',
    '</script><script>alert(1)</script>',
    '"quotes\' & #50% of\\it',
    '图像 🦊',
    'a+b=c&image=d',
]
SIZE = (90, 130)


def shape(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(3, 2, (rows, columns)).astype(np.float32)


def snapshot(key, path, seed=0, levels=None, size=SIZE, matrix=None, **extra):
    """An image under a pipeline that scaled by a half and padded to multiples of 32."""
    matrix = np.diag([0.5, 0.5, 1.0]) if matrix is None else matrix
    placement = Placement(matrix, size, (64, 96))
    if levels is None:
        levels = [
            Level('backbone', 0, 16, (8.0, 8.0), shape(8, 12, seed)),
            Level('neck', 0, 8, (16.0, 16.0), shape(4, 6, seed + 1)),
            Level('neck', 1, 8, (32.0, 32.0), shape(2, 3, seed + 2)),
        ]
    boxes = Boxes(
        np.array([[20.0, 10, 60, 50], [22.0, 12, 64, 56], [70.0, 30, 120, 80]]),
        np.array([0, 0, 1]),
        np.array([np.nan, 0.4 + 0.01 * seed, 0.9]),
    )
    extra = {'augmentation': 0, 'boxes': boxes, **extra}
    return Snapshot(key, str(path), placement=placement, levels=levels, **extra)


def write_run(folder, snapshots, classes=('cat', '<b>dog</b>'), photos=True, **style):
    """Save the maps of snapshots, and their photos where they say they are."""
    facts = dict(
        layers=['backbone', 'neck'], reduction='max', dataset_meta=dict(classes=classes), config='configs/<i>a</i>.py'
    )
    writer = RunWriter(FileSink(str(folder)), Style(**{'save': 'maps', **style}), facts)
    for number, one in enumerate(snapshots):
        if photos and not Path(one.path).exists():
            Path(one.path).parent.mkdir(parents=True, exist_ok=True)
            Path(one.path).write_bytes(cv2.imencode('.png', noise(*one.placement.photo_size, seed=number))[1].tobytes())
        writer.write(one)
    writer.finish()
    return Run(str(folder))


def write_report(run, *args, **kwargs):
    report = Report(run, *args, **kwargs)
    report.write()
    return report


def data_of(run, name='index'):
    """What a data script passes to the page."""
    text = (Path(run.folder) / 'report' / 'data' / f'{name}.js').read_text(encoding='ascii')
    assert '<' not in text
    return json.loads('[' + text[text.index('(') + 1 : text.rindex(')')] + ']')[-1]


def cells_of(data):
    """The values of a level's grey map; NaN for what is not finite."""
    grey = cv2.imdecode(np.frombuffer(base64.b64decode(data['png']), np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (data['rows'], data['columns'])
    values = data['low'] + (grey.astype(np.float64) - 1) / 254 * (data['high'] - data['low'])
    return np.where(grey == 0, np.nan, values)


PLACEMENTS = {
    'scaled': Placement(np.diag([0.5, 0.5, 1.0]), SIZE, (64, 96)),
    'flipped, padded on the left': Placement(np.array([[-0.5, 0, 80.0], [0, 0.5, 9], [0, 0, 1]]), SIZE, (64, 96)),
    'cut off': Placement(np.array([[1, 0, -30.0], [0, 1, -20.0], [0, 0, 1]]), SIZE, (64, 96)),
    'turned': Placement(np.array([[0.5, 0.1, 3.0], [-0.1, 0.5, 12.03], [0, 0.0005, 1]]), SIZE, (64, 96)),
    'itself': identity_placement(SIZE, SIZE),
}


@pytest.mark.parametrize('align', ['center', 'corner'])
@pytest.mark.parametrize('placement', PLACEMENTS.values(), ids=PLACEMENTS)
def test_the_small_map_and_its_matrix_give_the_heatmap_of_the_grid(placement, align):
    """Interpolated here in float64, by SciPy, from nothing but what the page gets."""
    from scipy.ndimage import map_coordinates

    rows, columns = (-(-side // 8) for side in placement.input_size)
    level = Level('neck', 0, 4, (8.0, 8.0), shape(rows, columns))
    data = json.loads(json.dumps(level_data(level, placement, align)))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    u, v, w = np.einsum('ij,jhw->ihw', np.array(data['matrix']).reshape(3, 3), np.stack([x, y, np.ones_like(x)]))
    found = map_coordinates(cells_of(data), [v / w, u / w], order=1, mode='nearest')
    left, top, right, bottom = data['bounds']
    seen = (u / w >= left) & (u / w <= right) & (v / w >= top) & (v / w <= bottom)
    expected = Grid(level.values.shape, level.stride, placement, align).heatmap(level.values)
    half_a_step = (data['high'] - data['low']) / 254 / 2
    assert np.abs(np.where(seen, found, 0) - expected).max() <= half_a_step + 1e-4
    assert data['rows'] * data['columns'] <= level.values.size
