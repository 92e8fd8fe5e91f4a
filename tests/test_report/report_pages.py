"""Saved runs to write reports of, and readers for what the reports hold."""

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import noise

from mmdet_featviz.report.builder import Report
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.placement import Placement, identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style

HOSTILE_NAMES = [
    '<img src=x onerror=alert(1)>',
    '</script><script>alert(1)</script>',
    '"quotes\' & #50% of\\it',
    '图像 🦊',
    'a+b=c&image=d',
]
SIZE = (90, 130)
PLACEMENTS = {
    'scaled': Placement(np.diag([0.5, 0.5, 1.0]), SIZE, (64, 96)),
    'flipped, padded on the left': Placement(np.array([[-0.5, 0, 80.0], [0, 0.5, 9], [0, 0, 1]]), SIZE, (64, 96)),
    'cut off': Placement(np.array([[1, 0, -30.0], [0, 1, -20.0], [0, 0, 1]]), SIZE, (64, 96)),
    'turned': Placement(np.array([[0.5, 0.1, -13.02], [-0.1, 0.5, 12.03], [0, 0.0005, 1]]), SIZE, (64, 96)),
    'itself': identity_placement(SIZE, SIZE),
}


def random_values(rows, columns, seed=0):
    """Cells of a map."""
    return np.random.default_rng(seed).normal(3, 2, (rows, columns)).astype(np.float32)


def make_snapshot(key, path, seed=0, levels=None, size=SIZE, matrix=None, **extra):
    """A pass over an image that was scaled by a half and padded to multiples of 32."""
    matrix = np.diag([0.5, 0.5, 1.0]) if matrix is None else matrix
    placement = Placement(matrix, size, (64, 96))
    if levels is None:
        levels = [
            Level('backbone', 0, 16, (8.0, 8.0), random_values(8, 12, seed)),
            Level('neck', 0, 8, (16.0, 16.0), random_values(4, 6, seed + 1)),
            Level('neck', 1, 8, (32.0, 32.0), random_values(2, 3, seed + 2)),
        ]
    boxes = Boxes(
        np.array([[20.0, 10, 60, 50], [22.0, 12, 64, 56], [70.0, 30, 120, 80]]),
        np.array([0, 0, 1]),
        np.array([np.nan, 0.4 + 0.01 * seed, 0.9]),
    )
    extra = {'augmentation': 0, 'boxes': boxes, **extra}
    return Snapshot(key, str(path), placement=placement, levels=levels, **extra)


def with_truth(snapshot, truth):
    """The snapshot with ground-truth boxes only."""
    boxes = Boxes(truth, np.zeros(len(truth), np.int64), np.full(len(truth), np.nan))
    return Snapshot(**{**vars(snapshot), 'boxes': boxes})


def write_run(folder, snapshots, classes=('cat', '<b>dog</b>'), images=True, reduction='max', **style):
    """Save the maps of snapshots as a run, and with `images` also their image files."""
    info = dict(
        layers=['backbone', 'neck'],
        reduction=reduction,
        dataset_meta=dict(classes=classes),
        config='configs/<i>a</i>.py',
    )
    writer = RunWriter(RunFolder(str(folder)), Style(**{'save': 'maps', **style}), info)
    for number, snapshot in enumerate(snapshots):
        path = Path(snapshot.path)
        if images and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode('.png', noise(*snapshot.placement.image_size, seed=number))[1].tobytes())
        writer.write(snapshot)
    writer.finish()
    return Run(str(folder))


def write_report(run, *args, **kwargs):
    """Write the report of a run and return it."""
    report = Report(run, *args, **kwargs)
    report.write()
    return report


def read_data(run, name='index', folder='report'):
    """The data that a data file passes to the page; of a pass without its number."""
    text = (Path(run.folder) / folder / 'data' / f'{name}.js').read_text(encoding='ascii')
    assert '<' not in text
    return json.loads('[' + text[text.index('(') + 1 : text.rindex(')')] + ']')[-1]


def read_photo(run, name):
    """The image in a file of the page: (height, width, 3), BGR."""
    text = (Path(run.folder) / 'report' / 'photos' / f'{name}.js').read_text(encoding='ascii')
    data = base64.b64decode(json.loads('[' + text[text.index('(') + 1 : text.rindex(')')] + ']')[-1])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


class TableParser(HTMLParser):
    """Collects the texts of the cells of all tables of a page, by caption."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.caption, self.inside = {}, '', ''
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        if tag == 'caption':
            self.caption = ''
        elif tag == 'tr':
            self.tables.setdefault(self.caption, []).append([])
        elif tag in ('td', 'th'):
            self.tables[self.caption][-1].append('')

    def handle_endtag(self, tag):
        self.inside = ''

    def handle_data(self, text):
        if self.inside == 'caption':
            self.caption += text
        elif self.inside in ('td', 'th'):
            self.tables[self.caption][-1][-1] += text


def read_tables(report):
    """The tables of the page: {caption: rows of texts}."""
    return TableParser(Path(report.page).read_text(encoding='utf-8')).tables


def read_run_info(folder):
    """The content of run.json; fails at values that JSON does not know, such as NaN."""
    return json.loads((Path(folder) / 'run.json').read_text(encoding='utf-8'), parse_constant=pytest.fail)
