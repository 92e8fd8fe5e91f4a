"""The values that images are sorted by, and the focus table of the images on a page."""

import numpy as np
import pytest
from report_pages import SIZE, make_snapshot, read_data, read_tables, with_truth, write_report, write_run

from mmdet_featviz.evaluation.heat_measures import inside_boxes
from mmdet_featviz.report.image_values import box_values
from mmdet_featviz.report.page_data import box_rows
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot

TRUTH = np.array([[5.0, 5, 25, 30], [30, 10, 90, 80]])  # a small and a medium one


def test_focus_is_the_energy_inside_boxes_in_float64(tmp_path):
    snapshots = [with_truth(make_snapshot(str(n), tmp_path / f'{n}.png', n), TRUTH[: 2 - n]) for n in range(2)]
    snapshots.append(with_truth(make_snapshot('none', tmp_path / '2.png'), TRUTH[:0]))
    snapshots.append(with_truth(make_snapshot('beyond', tmp_path / '3.png'), TRUTH + 500))
    report = write_report(write_run(tmp_path / 'run', snapshots))
    images = read_data(report.run)['images']
    assert not {'energy', 'share'} & {*images[2], *images[3]}
    tables = read_tables(report)
    for number, row in enumerate(tables['Focus: 2 images of this page'][2:]):
        found = {'all': [], 'small': [], 'medium': []}
        for image, one, truth in zip(images, snapshots, (TRUTH, TRUTH[:1])):
            level = one.levels[number]
            heat = Grid(level.values.shape, level.stride, one.placement).heatmap(level.values).astype(np.float64)
            heat = np.clip(heat - np.percentile(heat, 5, method='lower'), 0, None)
            for size, boxes in (('all', truth), ('small', truth[:1]), ('medium', truth[1:])):
                if len(boxes):
                    inside = inside_boxes(boxes, SIZE)
                    found[size].append((heat[inside].sum() / heat.sum(), inside.mean()))
            assert image['energy'][level.name] == pytest.approx(found['all'][-1][0], abs=1e-4)
            assert image['share'] == pytest.approx(found['all'][-1][1], abs=1e-4)
        energies = [f'{100 * np.mean([energy for energy, _ in found[size]]):.1f} %' for size in found]
        gains = [f'{np.mean([energy / share for energy, share in found[size]]):.2f}' for size in found]
        assert row[:9] == [snapshots[0].levels[number].name, *energies, '–', *gains, '–']


def test_boxes_that_cover_the_whole_image_have_gain_1(tmp_path):
    one = with_truth(make_snapshot('a', tmp_path / 'a.png'), np.array([[0.0, 0, SIZE[1], SIZE[0]]]))
    rows = list(read_tables(write_report(write_run(tmp_path / 'run', [one]))).values())[-1][2:]
    assert [(row[5], row[9]) for row in rows] == [('1.00', '100.0 %')] * 3


def test_large_images_are_measured_at_page_size(tmp_path):
    """The maximum is in one cell of 16 pixels: 10 pixels beside a box it is a hit, 30 pixels beside it is not."""
    size = 1600, 2400
    values = np.zeros((100, 150), np.float32)
    values[50, 100] = 1  # its center is at (1608, 808)
    images = []
    for number, beside in enumerate((10, 30)):
        level = Level('neck', 0, 4, (16.0, 16.0), values)
        one = make_snapshot(str(number), tmp_path / f'{number}.png', levels=[level], size=size, matrix=np.eye(3))
        placement = identity_placement(size, size)
        truth = np.array([[1608.0 + beside, 700, 1800, 900]])
        images.append(with_truth(Snapshot(**{**vars(one), 'placement': placement}), truth))
    for one, expected in zip(images, ('100.0 %', '0.0 %')):
        report = write_report(write_run(tmp_path / f'run {one.key}', [one]))
        row = list(read_tables(report).values())[-1][2]
        assert row[9] == expected
        assert row[12] == expected  # of large objects


def test_scores_decide_as_the_slider_of_the_page_does():
    """At each of its hundred steps, also for scores that lie a rounding error below one."""
    scores = np.array([n / 100 for n in range(101)] + [0.29999, 0.57 - 1e-9, 0.123456, 1e-5, np.nan, np.nan])
    boxes = Boxes(np.zeros((len(scores), 4)), np.array([3] * 101 + [1] * 4 + [2, 2]), scores)
    values = box_values(boxes)
    assert values['truth'] == {2: 2}
    assert values['scores'][1] == [5700, 2999, 1234, 0]
    shown = [row[5] for row in box_rows(boxes) if row[5] is not None]
    counted = [one for of_label in values['scores'].values() for one in of_label]
    for step in range(101):
        assert sum(one >= 100 * step for one in counted) == sum(score >= step / 100 for score in shown)
