"""The map of boxes on the report page, in a browser."""

import json
from pathlib import Path

import numpy as np
import pytest
from box_runs import LEVELS, SIZE, write_box_run
from page_driver import Page, start_chromium
from report_pages import read_photo, write_report

from mmdet_featviz.evaluation.neighbor_purity import neighbor_purity
from mmdet_featviz.evaluation.plane_map import plane_map
from mmdet_featviz.report.box_map_data import box_map_data
from mmdet_featviz.report.box_table import read_boxes
from mmdet_featviz.report.error_data import ALL_TYPES
from mmdet_featviz.report.error_tables import ErrorTables
from mmdet_featviz.runs.maps_file import load_snapshot

COUNT = 16


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return write_box_run(tmp_path_factory.mktemp('map') / 'run', COUNT)


@pytest.fixture(scope='module')
def report(run):
    return write_report(run)


@pytest.fixture(scope='module')
def browser():
    browser = start_chromium()
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, report):
    return Page(browser, report)


def data_of(run):
    text = (Path(run.folder) / 'report' / 'boxes' / '000000.js').read_text(encoding='ascii')
    assert '<' not in text
    return json.loads('[' + text[text.index('(') + 1 : text.rindex(')')] + ']')[-1]


def open_map(page, settings='', **size):
    page.open(settings, **size)
    page.js("document.getElementById('boxmap').open = true")
    page.wait("document.getElementById('map').dataset.drawn !== undefined")
    return page


def test_the_data_has_all_boxes_where_the_map_puts_them(run, report):
    data, table = data_of(run), read_boxes(run, ErrorTables(run))
    assert len(data['images']) == len(table.boxes) == 4 * COUNT
    for level, name in zip(data['levels'], LEVELS):
        points = plane_map(table.vectors[name]).points
        columns, rows = np.array(level['points'])
        assert level['name'] == name and min(columns.min(), rows.min()) >= 0 and max(columns.max(), rows.max()) == 10000
        # One scale along both axes, upwards.
        scale = 10000 / np.ptp(points, axis=0).max()
        np.testing.assert_allclose(columns - columns[0], (points[:, 0] - points[0, 0]) * scale, atol=1.5)
        np.testing.assert_allclose(rows - rows[0], -(points[:, 1] - points[0, 1]) * scale, atol=1.5)
    for row, (image, number) in enumerate(zip(data['images'], data['numbers'])):
        boxes = load_snapshot(run.paths[image]).boxes
        np.testing.assert_allclose(data['corners'][row], boxes.corners[number], atol=0.06)
        assert data['labels'][row] == boxes.labels[number] and data['truth'][row] == np.isnan(boxes.scores[number])
        assert ALL_TYPES[data['types'][row]] == {0: 'found', 1: 'missed', 3: 'true', 4: 'background'}[number]
        assert data['steps'][row] == {0: 9000 - 100 * image, 1: -1, 3: 9000 - 100 * image, 4: 4000}[number]


def test_boxes_of_images_that_the_page_does_not_show_are_left_out(run):
    table = read_boxes(run, ErrorTables(run))
    data = box_map_data(table, {('4', table.files[4].image): 0}, [(120, 90)])
    assert data['images'] == [0] * 4 and data['labels'] == table.boxes.labels[table.images == 4].tolist()
    nothing = box_map_data(table, {}, [])
    assert nothing['images'] == [] and nothing['levels'][0]['points'] == [[], []]


def test_a_run_without_features_has_no_map(browser, tmp_path):
    page = Page(browser, write_report(write_box_run(tmp_path / 'run', 1, boxes=False)))
    page.open()
    assert page.js("return document.getElementById('boxmap').hidden") and not page.errors()


def test_the_table_has_the_purity(run, report, page):
    page.open()
    table = read_boxes(run, ErrorTables(run))
    rows = [row for row in neighbor_purity(table.vectors, table.boxes, table.images) if row.label is None]
    assert page.texts('#purity tbody tr:nth-child(3) :is(th, td)') == [
        rows[2].level,
        rows[2].kind,
        str(rows[2].boxes),
        f'{100 * rows[2].purity:.1f} %',
        f'{100 * rows[2].chance:.1f} %',
    ]
    assert page.js('return document.getElementById("maplevel").value') == 'neck_1'  # the purest
    assert f'{COUNT} boxes left out, not seen by the network or not finite' in page.text('#boxmap')


def places_on(page, data, level):
    """Where boxes are in the canvas, in its pixels."""
    size = page.js("const map = document.getElementById('map'); return [map.clientWidth, map.clientHeight]")
    return [12 + np.array(steps) / 10000 * (side - 24) for steps, side in zip(data['levels'][level]['points'], size)]


def test_marks_have_the_colors_of_class_type_and_score(run, page):
    open_map(page)
    data = data_of(run)
    columns, rows = places_on(page, data, 1)
    lonely = [
        row
        for row in range(len(columns))
        if sum(np.hypot(columns - columns[row], rows - rows[row]) < 8) == 1 and not data['truth'][row]
    ]
    assert len(lonely) >= 3

    def colors():
        pixels = page.pixels('#map')
        return [tuple(pixels[int(rows[row]), int(columns[row]), :3].tolist()) for row in lonely]

    labels = [data['labels'][row] for row in lonely]
    by_class = dict(zip(labels, colors()))
    assert colors() == [by_class[label] for label in labels] and len(set(by_class.values())) == len(by_class)
    page.choose('mapcolor', 'type')
    types = {'true': (0x5D, 0xFF, 0x8F), 'background': (0xFF, 0x8A, 0x80)}
    assert colors() == [types[ALL_TYPES[data['types'][row]]] for row in lonely]
    assert page.texts('#map-legend > span') == [f'{COUNT} {name}' for name in ('found', 'missed', 'true', 'background')]
    page.choose('mapcolor', 'score')
    dark, bright = (
        np.mean([sum(color) for color, row in zip(colors(), lonely) if (data['steps'][row] > 5000) == high])
        for high in (False, True)
    )
    assert bright > dark
    page.drag('score', 0.9)  # no prediction is left, and no object is found
    page.wait(f"document.getElementById('map').dataset.drawn === '{2 * COUNT}'")
    assert not page.errors()


def test_the_size_of_the_map_is_not_read_for_each_box(page):
    """Reading it may lay out the page anew: with thousands of boxes the pointer would be slow."""
    open_map(page)
    reads = page.js(
        'const map = document.getElementById("map"); let reads = 0;'
        'const width = map.clientWidth, { left, top } = map.getBoundingClientRect();'
        'Object.defineProperty(map, "clientWidth", { get() { reads += 1; return width; }, configurable: true });'
        'map.dispatchEvent(new PointerEvent("pointermove", { clientX: left + width / 2, clientY: top + width / 2 }));'
        'map.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));'
        'delete map.clientWidth; return reads;'
    )
    assert 0 < reads < 10


def test_the_pointer_shows_the_crop_and_a_click_opens_the_image_with_the_box(run, page):
    from selenium.webdriver import ActionChains

    open_map(page, 'type=true')
    data = data_of(run)
    columns, rows = places_on(page, data, 1)
    row = max((row for row in range(len(columns)) if data['numbers'][row] == 3), key=lambda row: data['images'][row])
    middle = page.js("const map = document.getElementById('map'); return [map.clientWidth / 2, map.clientHeight / 2]")
    chain = ActionChains(page.browser)
    chain.move_to_element_with_offset(
        page.find('#map'), *(int(round(place[row] - half)) for place, half in zip((columns, rows), middle))
    ).perform()
    page.wait("!document.getElementById('map-crop').hidden")
    image = data['images'][row]
    assert f'{data["steps"][row] / 10000:.2f}, prediction; true; {image}.' in page.text('#map-text')
    left, top, right, bottom = data['corners'][row]
    photo = read_photo(run, f'{image:06d}')
    assert photo.shape[:2] == SIZE
    crop = page.pixels('#map-crop')[..., 2::-1]
    scale = 180 / (1.6 * max(right - left, bottom - top))
    # Away from the outline, at the middles of pixels of the image.
    for x, y in ((int(left + right) // 2, int(top + bottom) // 2), (int(left) + 4, int(bottom) - 5)):
        column, line = (
            90 + scale * (one + 0.5 - (low + high) / 2) for one, low, high in ((x, left, right), (y, top, bottom))
        )
        np.testing.assert_allclose(crop[int(line), int(column)], photo[y, x], atol=40)
    chain.click().perform()
    page.wait("document.querySelector('.box.selected')")
    assert page.text('#name') == str(image)
    assert page.js("return document.querySelector('.box.selected').dataset.known") == 'true'
    assert 'it found an object' in page.text('#box')
    assert not page.errors()


def test_keys_go_from_box_to_box_and_names_stay_text(run, page):
    from selenium.webdriver.common.keys import Keys

    open_map(page, 'all=1')
    before = page.text('#name')
    canvas, data, seen = page.find('#map'), data_of(run), []
    for key in [Keys.ARROW_RIGHT] * 6 + [Keys.ARROW_UP] * 4:
        canvas.send_keys(key)
        dot = page.js("const {style} = document.querySelector('#map-plot .dot'); return [style.left, style.top]")
        seen.append([float(text[:-2]) for text in dot])
    assert page.text('#name') == before  # arrows on the map do not change the image
    columns, rows = places_on(page, data, 1)
    known = set(zip(columns.round(2), rows.round(2)))
    assert {tuple(np.round(place, 2)) for place in seen} <= known
    assert seen[1][0] > seen[0][0] and all(one[1] >= other[1] for one, other in zip(seen[6:], seen[7:]))
    canvas.send_keys(Keys.ENTER)
    page.wait("document.querySelector('.box.selected')")
    assert any('<img src=x onerror=alert(1)>' in text for text in page.texts('#map-legend > span'))
    assert not page.js("return document.querySelectorAll('#boxmap img').length") and not page.errors()


@pytest.mark.parametrize('single_file', [False, True])
def test_a_phone_and_one_file(run, browser, tmp_path, single_file):
    one = write_report(run, out_dir=str(tmp_path / 'one'), single_file=single_file)
    page = open_map(Page(browser, one), size=(375, 700))
    assert page.js('return document.documentElement.scrollWidth') <= 375
    page.find('#map').send_keys('\ue014')
    page.wait("!document.getElementById('map-crop').hidden")
    assert not page.errors()
