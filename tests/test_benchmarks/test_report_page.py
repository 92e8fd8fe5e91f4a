"""Report page benchmark: the figures of a small page, in a real browser."""

from types import SimpleNamespace

import numpy as np

from mmdet_featviz.benchmarks.page_run import OBJECTS, STRIDES, write_page_run
from mmdet_featviz.benchmarks.report_page import measure_page
from mmdet_featviz.benchmarks.tables import TARGETS
from mmdet_featviz.report.error_tables import ErrorTables


def test_the_run_has_levels_boxes_and_errors_of_each_image(tmp_path):
    run = write_page_run(tmp_path, 3)
    snapshots = list(run.snapshots())
    assert len({snapshot.path for snapshot in snapshots}) == 3
    records = ErrorTables(run)
    for snapshot in snapshots:
        assert [level.stride for level in snapshot.levels] == [(stride, stride) for stride in STRIDES]
        truth = records.of(snapshot).errors.truth
        np.testing.assert_array_equal(truth.corners, snapshot.boxes[snapshot.boxes.are_truth].corners)
        assert len(truth) == OBJECTS


def test_a_small_page_is_measured(browser):  # which skips without one
    figures = measure_page(SimpleNamespace(memory_images=3))['figures']
    assert all(value > 0 for value in figures.values())
    assert figures['page: heap, MB'] < figures['page: process of the tab, MB']
    bounded = {name.replace('after 200 images', 'after 2 images') for name in TARGETS if name.startswith('page: ')}
    assert bounded <= figures.keys()
