"""Labels of boxes on the report page: none covers another, as in the pictures of the hook."""

import numpy as np
import pytest
from page_driver import Page
from report_pages import make_snapshot, write_report, write_run

from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.visualization.label_places import free_place

SIZE = (400, 600)
TEXTS = (  # of the labels and letters on view: the outer sides of each, in the window
    "return [...document.querySelectorAll('#pictures .box > span, #pictures .box > b')]"
    '.filter(({ offsetWidth }) => offsetWidth).map((one) => { '
    'const { left, top, right, bottom } = one.getBoundingClientRect(); return [left, top, right, bottom]; })'
)
SETTLED = 'requestAnimationFrame(() => requestAnimationFrame(arguments[0]))'  # labels are placed before the next frame


def crowd(count, size=SIZE, seed=0):
    """Boxes that lie over each other, as many predictions as ground truth."""
    random = np.random.default_rng(seed)
    corners = random.uniform(-0.1, 0.8, (count, 2)) * size[::-1]
    corners = np.c_[corners, corners + random.uniform(20, 150, (count, 2))]
    scores = np.where(np.arange(count) % 2, random.uniform(0.31, 1, count), np.nan)
    return Boxes(corners.round(2), random.integers(0, 2, count), scores)


@pytest.fixture(scope='module')
def page(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp('crowd')
    one = make_snapshot('a', folder / 'a.png', size=SIZE, boxes=crowd(60))
    return Page(browser, write_report(write_run(folder / 'run', [one], classes=('cat', 'a dog'))))


def overlap(texts):
    """The largest depth, in pixels, to which a text covers another."""
    left, top, right, bottom = np.array(texts).T
    across = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    down = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
    depth = np.minimum(across, down)
    np.fill_diagonal(depth, 0)
    return depth.max()


@pytest.mark.parametrize('seed', range(3))
def test_labels_have_the_places_of_the_hooks(page, seed):
    random = np.random.default_rng(seed)
    size = (300, 200)
    boxes = np.round(crowd(40, size[::-1], seed).corners)
    widths = random.integers(25, 60, 40)
    page.open()
    items = [dict(box=box.tolist(), letters=None, labels=[[int(w), 14], [20, 14]]) for box, w in zip(boxes, widths)]
    found = page.js('return labelPlaces.place(arguments[0], arguments[1])', items, size)
    taken, choices = [], []
    for box, width, one in zip(boxes, widths, found):
        is_inside = box[2] > 0 and box[3] > 0 and box[0] < size[0] and box[1] < size[1]
        places = [free_place(box, (text, 14), size, taken) if is_inside else None for text in (int(width), 20)]
        choice = next((number for number, place in enumerate(places) if place is not None), None)
        assert one['choice'] == choice
        choices.append(choice)
        if choice is not None:
            assert one['label'] == dict(zip(('left', 'top', 'right', 'bottom'), places[choice]))
            taken.append(places[choice])
    assert set(choices) == {0, 1, None}


def test_letters_cover_nothing_where_there_is_space(page):
    page.open()
    box = [100, 50, 200, 90]
    items = [dict(box=box, letters=[12, 14], labels=[[60, 14]]) for _ in range(6)]
    found = page.js('return labelPlaces.place(arguments[0], arguments[1])', items, (300, 200))
    corners = [[one['letters']['left'], one['letters']['top']] for one in found]
    assert corners == [[200, 50], [88, 50], [200, 76], [88, 76], [200, 50], [200, 50]]  # the last have none
    texts = [[*one['letters'].values()] for one in found[:4]] + [
        [*one['label'].values()] for one in found if one['label']
    ]
    assert overlap([[text[0], text[1], text[2], text[3]] for text in texts]) <= 0


def test_no_label_covers_another_at_any_zoom(page):
    for width in (1300, 375):
        page.open(size=(width, 900))
        shown = []
        for _ in range(3):
            page.browser.execute_async_script(SETTLED)
            texts = page.js(TEXTS)
            assert overlap(texts) < 1  # sizes are measured in whole pixels
            shown.append(len(texts))
            page.js('zoom.by(1)')
        assert 3 < shown[0] < 60
    assert page.errors() == []


def test_a_label_without_a_place_shows_under_the_pointer(page):
    page.open(size=(375, 900))
    page.browser.execute_async_script(SETTLED)
    hidden = page.js(
        "const box = document.querySelector('.box.crowded'), label = box.querySelector('span');"
        "const was = label.offsetWidth; box.classList.add('hovered'); return [was, label.offsetWidth];"
    )
    assert hidden[0] == 0 < hidden[1]
    page.press('l')  # without labels none is hidden for want of space
    page.browser.execute_async_script(SETTLED)
    assert page.js("return document.querySelector('.box.crowded')") is None
    page.press('l')
    page.browser.execute_async_script(SETTLED)
    assert page.js("return document.querySelectorAll('.box.crowded').length") > 3
