"""Explanations on the report page: a click on a box shows what it rests on."""

from dataclasses import replace

import numpy as np
import pytest
from page_driver import Page
from report_pages import make_snapshot, random_values, read_data, write_report, write_run

from mmdet_featviz.evaluation.detection_errors import find_errors
from mmdet_featviz.evaluation.error_records import ErrorRecord, errors_csv
from mmdet_featviz.explanation.explanation import LOOK, explanation_of
from mmdet_featviz.explanation.targets import Target
from mmdet_featviz.runs.explanation_files import explanation_name
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.snapshot import Level
from mmdet_featviz.visualization.colors import quantize, to_unit
from mmdet_featviz.visualization.style import Style

DOG = Target(0, 3, 0, 'detection', (70.0, 30.0, 120.0, 80.0), 1, 0.9)
MISSED = Target(
    0, 7, 0, 'ground truth', (15.0, 8.0, 50.0, 48.0), 0, 0.05, 'score', (20.0, 10.0, 60.0, 50.0), 0.6, False
)
DRAWN = Target(0, 1, 0, 'drawn box', (60.0, 5.0, 125.0, 85.0), 1, 0.3, 'score', (58.0, 4.0, 126.0, 86.0), 0.9)


def levels(*seeds):
    """Levels of the neck; those without a seed have no heat."""
    values = [random_values(rows, columns, seed or 0).clip(0) * (seed is not None) for (rows, columns), seed in seeds]
    strides = [64 / heat.shape[0] for heat in values]
    return [Level('neck', n, 8, (stride, stride), heat) for n, (stride, heat) in enumerate(zip(strides, values))]


def write_explained(folder, factor=1, only_dog=False):
    """A run of two images. In the first one, a detection, a missed object and a drawn box are explained."""
    snapshots = [make_snapshot(f'street/{n}', folder.parent / f'{n}.png', n) for n in (0, 1)]
    write_run(folder, snapshots, classes=('cat', 'dog'), align='center')
    style = Style(save='maps', align='center')
    info = dict(
        layers=['backbone', 'neck'],
        reduction='max',
        dataset_meta=dict(classes=('cat', 'dog')),
        config='configs/<i>a</i>.py',
    )
    maps = {
        DOG: levels(((8, 12), 1), ((4, 6), None)),
        MISSED: levels(((8, 12), 2), ((4, 6), 3)),
        DRAWN: levels(((8, 12), None), ((4, 6), None)),
    }
    explanations = [
        explanation_of(
            target,
            'odam',
            [replace(level, values=level.values * factor) for level in of_target],
            replace(snapshots[0], dataset_meta=dict(classes=('cat', 'dog'))),
            Style(**{**LOOK, 'align': 'center'}),
        )
        for target, of_target in maps.items()
    ]
    writer = RunWriter(RunFolder(str(folder), resume=True), style, info)
    writer.explain_and_write({0: '0.png'}, lambda: {0: explanations[: 1 if only_dog else None]})
    writer.finish()
    return Run(str(folder)), explanations


@pytest.fixture(scope='module')
def explained(tmp_path_factory):
    return write_explained(tmp_path_factory.mktemp('report #2') / 'run')


@pytest.fixture(scope='module')
def page(browser, explained):
    return Page(browser, write_report(explained[0]))


def in_gray(heatmap):
    return quantize(to_unit(heatmap, (0, max(heatmap.max(), 1e-9))))


def shown(page):
    """Gray levels of the heat."""
    return page.pixels()[..., 0].astype(int)


def test_a_click_on_a_box_shows_its_explanation(page, explained):
    dog = explained[1][0]
    page.open('image=street/0&level=backbone_0&colormap=gray&score=0')
    before = shown(page)
    page.find('#pictures .box:nth-child(3)').click()
    page.wait("document.querySelector('#why [aria-pressed=true]') !== null")
    assert np.abs(shown(page) - in_gray(dog.heatmap)).max() <= 1
    assert page.text('#pictures strong') == 'Why dog 0.90'
    assert page.text('#pictures figcaption small') == 'score of detection 0, by odam: neck_0 100%'
    assert f'why={explanation_name(dog)}&' in page.js('return location.hash')
    assert page.text('.legend span') == '0'
    page.find('#pictures .box.chosen').click()  # again: back to the level
    page.wait("document.querySelector('#why [aria-pressed=true]') === null")
    np.testing.assert_array_equal(shown(page), before)
    assert page.errors() == []


def test_the_panel_of_a_box_has_its_explanation(browser, tmp_path):
    run, (dog, *_) = write_explained(tmp_path / 'run')
    boxes = next(run.snapshots()).boxes
    errors = find_errors(boxes[~boxes.are_truth], boxes[boxes.are_truth], boxes[:0])
    style = Style(save='maps', align='center')
    RunWriter(RunFolder(run.folder, resume=True), style, run.info_to_copy).write_evaluation(
        {'errors.csv': errors_csv([ErrorRecord(next(run.snapshots()).path, errors)], ('cat', 'dog'), 0.3)}
    )
    page = Page(browser, write_report(Run(run.folder))).open('image=street/0&level=neck_0&score=0')
    page.find('#pictures .box:nth-child(3)').click()
    page.wait("document.querySelector('#pictures strong').textContent === 'Why dog 0.90'")
    facts = page.texts('#box dd')
    assert facts == ['background: it overlaps no object by more than 0.1', '0', 'medium', str(dog).partition(', ')[2]]
    page.find('#box [aria-pressed=true]').click()
    page.wait("document.querySelector('#pictures strong').textContent === 'neck_0'")
    assert page.js("return document.activeElement.getAttribute('aria-pressed')") == 'false'
    page.find('#box [aria-pressed=false]').click()
    page.wait("document.querySelector('#pictures strong').textContent === 'Why dog 0.90'")
    assert page.texts('#box dd') == facts
    assert page.errors() == []


def test_merged_levels_and_a_missed_object(page, explained):
    missed = explained[1][1]
    page.open('image=street/0&level=backbone_0&colormap=gray&score=0')
    page.find('#pictures .box.truth').click()
    page.wait("document.querySelector('#why [aria-pressed=true]') !== null")
    assert len([share for share in missed.levels.values() if share]) == 2
    assert np.abs(shown(page) - in_gray(missed.heatmap)).max() <= 2
    assert 'score of ground truth 0, missed, by odam' in page.text('#pictures figcaption small')
    # The candidate that is explained is no detection: its own outline appears.
    assert page.texts('#pictures .box span') == ['cat', 'cat 0.40', 'dog 0.90', 'cat 0.05']
    assert page.errors() == []


def test_buttons_also_name_what_has_no_box_on_the_page(page, explained):
    from selenium.webdriver.common.keys import Keys

    page.open('image=street/0&colormap=gray&score=0')
    assert page.texts('#why button') == ['dog 0.90', 'cat 0.05', 'dog 0.30']
    page.js("document.querySelector('#why button:nth-of-type(3)').focus()")
    page.press(Keys.ENTER)
    page.wait("document.querySelector('#why [aria-pressed=true]') !== null")
    assert not shown(page).any()
    assert page.texts('#pictures .box span')[3:] == ['dog', 'dog 0.30']
    assert page.js("return document.activeElement.getAttribute('aria-pressed')") == 'true'  # the focus stays
    page.choose('level', 'neck_1')
    page.wait("document.querySelector('#why [aria-pressed=true]') === null")
    assert page.text('#pictures strong') == 'neck_1'
    page.wait("!location.hash.includes('why=')")


def test_another_image_and_all_levels_leave_the_explanation(page, explained):
    name = explanation_name(explained[1][0])
    page.open(f'image=street/0&why={name}&score=0')
    assert page.text('#pictures strong') == 'Why dog 0.90'
    page.find('#next').click()
    page.wait("document.getElementById('name').textContent === 'street/1'")
    assert page.js("return document.getElementById('why').hidden")
    page.open(f'image=street/0&why={name}&score=0')
    page.find('#all').click()
    page.wait("document.querySelectorAll('#pictures .picture').length === 3")
    assert page.js("return document.querySelector('#why [aria-pressed=true]') === null")
    page.open('image=street/0&why=unknown')
    assert page.text('#pictures strong') == 'neck_0'
    assert page.errors() == []


def test_a_click_beside_explained_boxes_changes_nothing(page):
    page.open('image=street/0&level=backbone_0&score=0')
    page.find('#pictures .box:nth-child(2)')  # a detection that was not explained
    assert page.js("return [...document.querySelectorAll('#pictures .explained')].length") == 2
    page.find('#pictures .picture').click()  # its middle is in no explained box
    assert page.text('#pictures strong') == 'backbone_0'


def test_the_same_box_of_another_run_is_beside_it(browser, explained, tmp_path):
    other, explanations = write_explained(tmp_path / 'other', factor=0.5, only_dog=True)
    page = Page(browser, write_report(explained[0], [other]))
    page.open('image=street/0&colormap=gray&score=0')
    page.find('#pictures .picture .box:nth-child(3)').click()
    page.wait("document.querySelector('#why [aria-pressed=true]') !== null")
    assert page.texts('#pictures strong') == ['A: Why dog 0.90', 'B: Why dog 0.90']
    page.find('#why button:nth-of-type(2)').click()
    page.wait("document.querySelectorAll('#pictures strong')[1].textContent === 'B: –'")
    assert page.errors() == []
    write_report(explained[0])  # for the other tests


def test_data_of_many_cells_is_small(explained):
    data = read_data(explained[0], '000000')
    for one in data['sides'][0]['explanations']:
        assert max(one['rows'], one['columns']) <= 256
    assert data['sides'][0]['explanations'][0]['clicks'] == [2]
    assert data['sides'][0]['explanations'][1]['clicks'] == [0]
