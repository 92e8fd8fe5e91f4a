"""Errors on the report page: filters, counts, orders, types of outlines, and the panel of a box."""

import csv
import io
import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from error_runs import CLASSES, SIZE, count_types, make_record, read_rows, write_error_run
from page_driver import Page
from report_pages import make_snapshot, read_data, write_report, write_run

from mmdet_featviz.evaluation.detection_errors import error_costs
from mmdet_featviz.evaluation.miss_mechanisms import MECHANISMS

HOSTILE = '<img src=x onerror=alert(1)>'
NAMES = 'f', 'a', 'c', 'b', 'e', HOSTILE
SLIDE = (
    "const slider = document.getElementById('score'); slider.value = arguments[0];"
    "slider.dispatchEvent(new Event('input', { bubbles: true }));"
)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return write_error_run(tmp_path_factory.mktemp('errors') / 'run', NAMES)


@pytest.fixture(scope='module')
def rows(run):
    """The rows of each image, by its name."""
    return {Path(image).stem: of_image for image, of_image in read_rows(run[1]['']).items()}


@pytest.fixture(scope='module')
def page(browser, run):
    return Page(browser, write_report(run[0]))


def ranked(figures, sign=-1):
    """Names by a figure, those of equal figures in the order of the data set."""
    return sorted(NAMES, key=lambda name: sign * figures[name])


def test_orders_by_errors(page, rows, run):
    page.open()
    page.choose('sort', 'missed')
    for score in (0.3, 0.62):
        page.js(SLIDE, score)
        missed = {name: count_types(rows[name], score)['missed'] for name in NAMES}
        assert len(set(missed.values())) < len(NAMES)  # some are equal
        assert page.names() == ranked(missed)
        assert page.texts('#grid li small') == [f'{missed[name]} missed' for name in ranked(missed)]
    page.choose('sort', 'false')
    wrong = {name: count_types(rows[name], score)['false'] for name in NAMES}
    assert page.names() == ranked(wrong)
    page.wait("location.hash.includes('sort=false&down=1')")
    page.find('#direction').click()
    assert page.names() == ranked(wrong, 1)
    page.choose('sort', 'ap')
    records = [make_record(Path(run[0].folder).parent / f'{name}.png', n) for n, name in enumerate(NAMES)]
    precision = {name: error_costs([one.errors.above(score)])['AP50'] for name, one in zip(NAMES, records)}
    assert page.names() == ranked(precision, 1)
    found = [float(text) for text in page.texts('#grid li small')]
    assert found == pytest.approx([precision[name] for name in page.names()], rel=1e-3, abs=1e-6)
    page.open('sort=missed&down=1&score=0.62')  # as the address had it
    assert page.names() == ranked(missed)
    page.choose('sort', 'run')  # which begins with the first image again
    assert page.names() == list(NAMES)
    assert page.errors() == []


def shown(page):
    """Number of outlines on view."""
    return page.js(
        "return [...document.querySelectorAll('#pictures .box')].filter(({ offsetWidth }) => offsetWidth).length"
    )


@pytest.mark.parametrize(
    ('filters', 'score'),
    [
        ({}, 0.3),
        ({'type': 'missed'}, 0.5),
        ({'type': 'false'}, 0.3),
        ({'type': 'localization', 'size': 'medium'}, 0.3),
        ({'class': 'dog', 'type': 'found'}, 0.4),
        ({'mechanism': 'suppressed', 'class': HOSTILE}, 0.3),
        ({'size': 'small'}, 0.3),
    ],
)
def test_filters_and_counts(page, rows, filters, score):
    page.open('sort=missed&down=1')
    for name, value in filters.items():
        page.choose(name, value)
    page.js(SLIDE, score)
    others = {name: value for name, value in filters.items() if name != 'type'}
    counted = {name: count_types(rows[name], score, **others) for name in NAMES}
    wanted = filters.get('type')

    def boxes(of_image):
        kinds = [wanted] if wanted else ['true', 'false', 'found', 'missed']
        return sum(of_image[kind] for kind in kinds)

    is_missed = wanted in (None, 'missed')
    figures = {name: counted[name]['missed'] * is_missed for name in NAMES}
    listed = [name for name in ranked(figures) if boxes(counted[name]) or not filters]
    assert page.names() == listed
    total = sum(counted.values(), start=type(counted[NAMES[0]])())
    words = page.text('#error-counts')
    objects, predictions = total['missed'] + total['found'], total['true'] + total['false']
    plural = ['' if count == 1 else 's' for count in (objects, predictions)]
    assert words == (
        f'{total["missed"]} of {objects} object{plural[0]} missed, {total["false"]} of {predictions} '
        f'prediction{plural[1]} false, in 6 images, score from {score:.2f}'
    )
    if listed:
        page.find('#grid a').click()
        page.wait("document.getElementById('name').textContent === arguments[0]", listed[0])
        one = counted[listed[0]]
        page.wait("document.querySelector('#types button') !== null")
        legend = dict(
            re.match(r'(\d+) (.+)', text).groups()[::-1] for text in page.texts('#types button > :last-child')
        )
        assert {type_: int(number) for type_, number in legend.items()} == {
            type_: one[type_] for type_ in one if type_ != 'false' and (one[type_] or type_ == wanted)
        }
        assert shown(page) == boxes(one)
    assert page.errors() == []


def test_the_table_counts_by_class_and_mechanism_and_shows_what_is_clicked(page, rows):
    score = 0.7  # at which the classes are not in the order in which they come
    page.open(f'score={score}')
    page.find('#errors summary').click()
    page.wait("document.querySelectorAll('#error-tables table').length === 2")
    lines = page.js(
        "return [...document.querySelectorAll('#error-tables tr')].map((line) => [...line.cells].map((cell) => "
        'cell.textContent))'
    )
    head, *body = lines
    by_class = {line[0]: dict(zip(head[1:], line[1:])) for line in body[: len(CLASSES) + 1]}
    for name in (*CLASSES, 'all'):
        of_class = {} if name == 'all' else {'class': name}
        counts = [count_types(rows[image], score, **of_class) for image in NAMES]
        for type_ in ('missed', 'found', 'true', 'localization', 'both', 'background', 'duplicate', 'classification'):
            assert int(by_class[name][type_]) == sum(one[type_] for one in counts)
        missed, found = (sum(one[type_] for one in counts) for type_ in ('missed', 'found'))
        assert by_class[name]['missed share'] == f'{100 * missed / (missed + found):.1f} %'
    numbers = [int(by_class[name]['missed']) for name in by_class]
    assert numbers[:-1] == sorted(numbers[:-1], reverse=True)
    assert list(by_class)[:-1] != list(dict.fromkeys(row['class'] for image in NAMES for row in rows[image]))
    for name, *cells in lines[len(CLASSES) + 3 :]:
        expected = [
            sum(count_types(rows[image], score, mechanism=name.replace(' ', '_'), **size)['missed'] for image in NAMES)
            for size in (*({'size': size} for size in ('small', 'medium', 'large')), {})
        ]
        assert list(map(int, cells)) == expected
    worst = body[0][0]
    button = page.find('#error-tables tbody button')
    button.send_keys('\n')
    page.wait("document.getElementById('type').value === 'missed'")
    assert page.js("return document.getElementById('class').value") == worst
    assert set(page.names()) == {
        name for name in NAMES if count_types(rows[name], score, **{'class': worst, 'type': 'missed'})['missed']
    }
    assert page.js("return document.activeElement === document.querySelector('#error-tables tbody button')")
    assert -1 <= page.js("return document.getElementById('viewer').getBoundingClientRect().top") < 100


def fitting_contrasts(rows, score, **filters):
    """Row by row: of each level of the table that fits the filters the cells of all sizes, as the page writes them."""
    levels = [name for name in rows[NAMES[0]][0] if name.startswith('contrast ')]
    mechanism = filters.pop('mechanism', '')
    values = {}  # (level, size, type): contrasts of each image
    for of_image in rows.values():
        scores = {row['number']: float(row['score']) for row in of_image if row['kind'] == 'prediction'}
        objects = [row for row in of_image if row['kind'] == 'ground truth']
        for level, size, type_ in itertools.product(levels, ('all', 'small', 'medium', 'large'), ('found', 'missed')):
            chosen = [
                float(row[level])
                for row in objects
                if row[level]
                and size in ('all', row['size'])
                and type_ == ('found' if row['match'] and scores[row['match']] >= score else 'missed')
                and all(row[name] == value for name, value in filters.items())
                and (type_ == 'found' or mechanism in ('', row['mechanism']))
            ]
            values.setdefault((level, size, type_), []).append(chosen)
    lines = []
    shown = (filters['size'],) if 'size' in filters else ('all', 'small', 'medium', 'large')
    for level in levels:
        lines.append([level[len('contrast ') :]])
        for size in shown:
            parts = [values[level, size, type_] for type_ in ('found', 'missed')]
            means = [np.mean(np.concatenate(part)) if any(part) else None for part in parts]
            counts = [sum(map(len, part)) for part in parts]
            lines[-1] += ['–' if mean is None else f'{mean:.3f} ({count})' for mean, count in zip(means, counts)]
            if None in means:
                lines[-1].append('–')
                continue
            text = f'{means[0] - means[1]:.3f}'
            if all(sum(map(bool, part)) >= 5 for part in parts):
                # How the difference would change with the weight of each image.
                slopes = []
                for image in range(len(NAMES)):
                    weights = np.ones(len(NAMES))
                    changed = []
                    for weights[image] in (1 - 1e-6, 1 + 1e-6):
                        totals = [np.dot(weights, [sum(one) for one in part]) for part in parts]
                        numbers = [np.dot(weights, [len(one) for one in part]) for part in parts]
                        changed.append(totals[0] / numbers[0] - totals[1] / numbers[1])
                    slopes.append((changed[1] - changed[0]) / 2e-6)
                reach = 1.96 * np.std(slopes, ddof=1) * len(NAMES) ** 0.5
                text += f' [{means[0] - means[1] - reach:.3f}, {means[0] - means[1] + reach:.3f}]'
            lines[-1].append(text)
    return lines


@pytest.mark.parametrize(
    ('filters', 'score'),
    [({}, 0.4), ({'class': 'dog'}, 0.3), ({'size': 'medium', 'mechanism': 'background'}, 0.5)],
)
def test_contrasts_follow_the_filters(page, rows, filters, score):
    page.open()
    page.find('#errors summary').click()
    page.wait("!document.getElementById('all-contrasts').hidden")
    for name, value in filters.items():
        page.choose(name, value)
    page.js(SLIDE, score)
    page.wait("document.querySelector('#fitting-contrasts table') !== null")
    expected = fitting_contrasts(rows, score, **filters)
    assert any('[' in text for line in expected for text in line) is (not filters)
    page.wait(
        "document.querySelector('#fitting-contrasts tbody').rows[0].cells[1].textContent === arguments[0]",
        expected[0][1],
    )
    lines = page.js(
        "return [...document.querySelectorAll('#fitting-contrasts tbody tr')].map((line) => "
        '[...line.cells].map((cell) => cell.textContent))'
    )
    assert lines == expected
    assert page.js("return document.getElementById('all-contrasts').hidden")
    for name in filters:
        page.choose(name, '')
    page.js(SLIDE, 0.3)
    page.wait("document.getElementById('fitting-contrasts').hidden && !document.getElementById('all-contrasts').hidden")
    assert page.errors() == []


def test_a_clicked_number_opens_an_image_with_these_boxes(page, rows):
    page.open('image=a')
    page.find('#errors summary').click()
    cells = [(m, s) for m in MECHANISMS for s in ('small', 'medium', 'large')]
    images = {
        cell: [n for n in NAMES if count_types(rows[n], mechanism=cell[0], size=cell[1])['missed']] for cell in cells
    }
    cell = next(cell for cell in cells if images[cell] and 'a' not in images[cell])
    find = (
        "[...document.querySelectorAll('#error-tables tr')].find(({ cells: [head] }) => "
        'head.textContent === arguments[0])'
    )
    page.wait(find, cell[0].replace('_', ' '))
    column = 1 + ('small', 'medium', 'large').index(cell[1])
    page.js(f"{find}.cells[arguments[1]].querySelector('button').click()", cell[0].replace('_', ' '), column)
    page.wait("document.getElementById('name').textContent === arguments[0]", images[cell][0])
    assert page.names() == images[cell]
    assert page.texts('#grid li small') == [
        f'{count_types(rows[name], mechanism=cell[0], size=cell[1])["missed"]} missed' for name in images[cell]
    ]
    page.browser.back()
    page.wait("document.getElementById('name').textContent === 'a'")
    assert page.errors() == []


def test_types_differ_without_color(page, rows):
    """By the style of the line, its width or letters; prediction and ground truth never look alike."""
    looks = {}
    for name in NAMES:
        page.open(f'image={name}' if name != HOSTILE else 'image=%3Cimg+src%3Dx+onerror%3Dalert%281%29%3E')
        looks.update(
            page.js(
                "return Object.fromEntries([...document.querySelectorAll('#pictures .box[data-type]')].map((box) => { "
                'const { borderTopStyle, borderTopWidth } = getComputedStyle(box);'
                "return [box.dataset.type, [borderTopStyle, borderTopWidth, box.querySelector('b').textContent]]; }))"
            )
        )
    assert len(looks) == 8
    assert len(set(map(tuple, looks.values()))) == 8
    colors = page.js(
        "return [...document.querySelectorAll('#types .box')].map((one) => getComputedStyle(one).borderTopColor)"
    )
    assert len(set(colors)) == len(colors) > 2
    page.find('#types button').click()
    page.wait("document.getElementById('type').value === 'true'")
    page.find('#types button').click()
    page.wait("document.getElementById('type').value === ''")


def panel(page):
    """Title, facts and contrasts of the box in the panel."""
    return page.js(
        "const box = document.getElementById('box');"
        'const texts = (selector) => [...box.querySelectorAll(selector)].map(({ textContent }) => textContent);'
        "const facts = Object.fromEntries(texts('dt').map((term, number) => [term, texts('dd')[number]]));"
        "return box.hidden ? null : [texts('h3').join(), facts, texts('tbody td')]"
    )


def click_at(page, x, y):
    """Click on a point of the large picture, given as shares of its width and height."""
    page.js(
        "const stage = document.querySelector('.stage').getBoundingClientRect();"
        'const at = { bubbles: true, clientX: stage.left + arguments[0] * stage.width, '
        "clientY: stage.top + arguments[1] * stage.height }; const frame = document.querySelector('.picture');"
        "frame.dispatchEvent(new PointerEvent('pointermove', at)); frame.dispatchEvent(new MouseEvent('click', at));",
        x,
        y,
    )


def click_on(page, row):
    """Click on the middle of a box."""
    x, y = ((float(row[a]) + float(row[b])) / 2 for a, b in (('left', 'right'), ('top', 'bottom')))
    click_at(page, x / SIZE[1], y / SIZE[0])


def test_a_click_on_a_box_tells_what_is_known_of_it(page, rows):
    from selenium.webdriver.common.keys import Keys

    of_image = rows['f']
    missed = next(row for row in of_image if row['type'] == 'missed' and row['candidate_score'])
    page.open('image=f&type=missed')
    click_on(page, missed)
    title, facts, contrasts = panel(page)
    assert title == f'{missed["class"]}, ground truth'
    assert facts['type'] == 'missed: no prediction is true for it'
    assert facts['mechanism'].startswith(missed['mechanism'].replace('_', ' ') + ': ')
    score, overlap = float(missed['candidate_score']), float(missed['candidate_iou'])
    assert facts['best candidate'] == f'{missed["candidate_class"]} {score:.2f}, IoU {overlap:g} (thin line)'
    assert page.js("return document.querySelectorAll('.box.candidate, .box.selected').length") == 2
    means = read_data_of(page)['errors']['contrasts']
    for number, level in enumerate(('neck_0', 'neck_1')):
        own, found, lost = contrasts[3 * number : 3 * number + 3]
        assert float(own) == pytest.approx(float(missed[f'contrast {level}']), rel=1e-3)
        assert [float(found), float(lost)] == pytest.approx(means[level][missed['size']], rel=1e-3)
    page.js(SLIDE, 0.31)
    assert panel(page)[0] == title  # it stays with other settings
    page.choose('level', 'backbone_0')
    assert panel(page)[0] == title
    page.js(SLIDE, 0.3)

    page.choose('type', 'found')
    found = next(row for row in of_image if row['type'] == 'found')
    click_on(page, found)
    title, facts, _ = panel(page)
    assert facts['type'] == 'found: a prediction is true for it'
    finder = next(row for row in of_image if row['kind'] == 'prediction' and row['number'] == found['match'])
    score, overlap = float(finder['score']), float(found['iou'])
    assert facts['match'] == f'{finder["class"]} {score:.2f}, prediction IoU {overlap:.4g}'
    page.find('#box button').click()  # its partner
    assert panel(page)[0] == f'{finder["class"]} {score:.2f}, prediction'
    assert panel(page)[1]['match'].startswith(f'{found["class"]}, ground truth')
    assert page.js("return document.activeElement.closest('#box') !== null")
    page.find('#box button').click()
    page.choose('type', '')
    page.js(SLIDE, min(1, score + 0.02))  # its prediction no longer counts
    lost = panel(page)[1]
    assert lost['type'] == f'missed: its prediction, {score:.2f}, is below the lowest score'
    assert 'match' not in lost

    page.open('image=f')
    page.js("document.querySelector('.picture').focus()")
    left, top = float(missed['left']) + 4, float(missed['top']) + 4
    click_at(page, left / SIZE[1], top / SIZE[0])
    by_pointer = panel(page)
    click_at(page, 0.999, 0.999)
    assert panel(page) is None  # no box is there
    click_at(page, left / SIZE[1], top / SIZE[0])
    page.press(Keys.ENTER)
    assert panel(page) == by_pointer
    page.press(Keys.ARROW_RIGHT)
    page.wait("document.getElementById('name').textContent === 'a'")
    page.wait("document.getElementById('box').hidden")
    assert page.errors() == []


def test_of_several_boxes_at_a_place_the_smallest_is_meant(page, run):
    page.open('image=f')
    side = read_data(run[0], '000000')['sides'][0]
    counted = [box for box, error in zip(side['boxes'], side['errors']) if error]
    for left, top, right, bottom, *_ in counted:
        x, y = (left + right) / 2, (top + bottom) / 2
        hits = [box for box in counted if box[0] <= x < box[2] and box[1] <= y < box[3]]
        _, _, _, _, label, score = min(hits, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
        click_at(page, x / SIZE[1], y / SIZE[0])
        kind = ', ground truth' if score is None else f' {score:.2f}, prediction'
        assert panel(page)[0] == CLASSES[label] + kind
    assert page.errors() == []


def read_data_of(page):
    """The run as the page has it."""
    text = Path(page.url[len('file://') :]).parent.joinpath('data', 'index.js').read_text(encoding='ascii')
    return json.loads(text[text.index('(') + 1 : text.rindex(')')])


def test_exported_counts_follow_the_filters(page, rows, tmp_path):
    page.open('type=missed&sort=name')
    table = list(
        csv.DictReader(io.StringIO(page.download(tmp_path, '#export-table', 'images.csv').decode('utf-8-sig')))
    )
    assert {row['image']: int(row['missed']) for row in table} == {
        name: count_types(rows[name])['missed'] for name in NAMES if count_types(rows[name])['missed']
    }
    assert {row['false'] for row in table} == {'0'}


def test_saved_pictures_have_the_letters_of_the_types(page, tmp_path):
    page.open('image=f&labels=0')
    outlines = page.js(
        "return [...document.querySelectorAll('#pictures .box')].filter(({ offsetWidth }) => offsetWidth).map((box) => "
        "[box.querySelector('b').textContent, getComputedStyle(box).getPropertyValue('--color')])"
    )
    letters = [(letters, color) for letters, color in outlines if letters]
    assert len({text for text, _ in letters}) > 2
    root = ElementTree.fromstring(page.download(tmp_path, '#save-svg', 'f.neck_0.svg'))
    shapes = list(root.find('{*}svg'))
    texts = [number for number, shape in enumerate(shapes) if shape.tag.endswith('text')]
    assert sorted((shapes[n].text, shapes[n - 1].get('fill')) for n in texts) == sorted(letters)
    png = page.download(tmp_path, '#save-png', 'f.neck_0.png')
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    for n in texts:  # each letter stands on its color, which an opaque corner of what it stands on shows
        x, y = (int(float(shapes[n - 1].get(side))) + 1 for side in ('x', 'y'))
        color = [int(shapes[n - 1].get('fill')[place : place + 2], 16) for place in (5, 3, 1)]
        assert picture[y + 1, x + 1].tolist() == color


def test_predictions_below_the_score_of_the_metric_have_no_type(page, rows, run):
    page.open('image=f&score=0')
    boxes = read_data(run[0], '000000')['sides'][0]
    below = sum(error is None for error in boxes['errors'])
    assert below
    words = f'{below} prediction{"s" * (below > 1)} without a type: below the score threshold of errors'
    assert words in page.text('#types')
    (left, top, right, bottom), *_ = (
        box[:4] for box, error in zip(boxes['boxes'], boxes['errors']) if error is None and box[5] is not None
    )
    click_at(page, (left + right) / 2 / SIZE[1], (top + bottom) / 2 / SIZE[0])
    words = panel(page)[1]['type']
    assert words == 'none: below the score threshold of errors'
    assert shown(page) == len(boxes['boxes'])
    page.choose('size', 'large')
    assert shown(page) < len(boxes['boxes']) - below


def test_a_run_without_errors_has_none_of_this(browser, tmp_path):
    run = write_run(tmp_path / 'run', [make_snapshot('a', tmp_path / 'a.png')])
    page = Page(browser, write_report(run)).open('sort=missed&type=missed&mechanism=proposal')
    assert page.js("return document.getElementById('filters').hidden && document.getElementById('types').hidden")
    assert page.js("return document.getElementById('errors')") is None
    assert page.names() == ['a']
    assert 'missed objects' not in page.texts('#sort option')
    page.js("document.querySelector('.picture').click()")
    assert panel(page) is None
    assert page.errors() == []


def test_a_small_screen_and_hostile_names(page, rows):
    page.open(f'image={HOSTILE.replace(" ", "+")}&sort=missed&down=1&type=missed', size=(375, 800))
    page.find('#errors summary').click()
    click_on(page, next(row for row in rows[HOSTILE] if row['type'] == 'missed'))
    assert panel(page)[0].endswith('ground truth')
    page.open_details()
    assert page.too_wide() == [0, []]
    assert HOSTILE in page.text('#error-tables')
    assert page.js("return document.querySelectorAll('img[src=x]').length") == 0
    assert page.errors() == []


@pytest.fixture(scope='module')
def two_runs(browser, tmp_path_factory):
    """A page of two runs with errors."""
    folder = tmp_path_factory.mktemp('two')
    runs = [write_error_run(folder / name, ('a', 'b'))[0] for name in ('run', 'other')]
    return Page(browser, write_report(runs[0], runs[1:]))


def click_on_first(page, kind):
    """Click on the first box of a type in the large pictures."""
    corners = page.js(
        'const { left, top, width, height } = document.querySelector(arguments[0]).style;'
        'return [left, top, width, height].map(parseFloat)',
        f'#pictures .box[data-type={kind}]',
    )
    click_at(page, (corners[0] + corners[2] / 2) / 100, (corners[1] + corners[3] / 2) / 100)


def test_each_of_two_runs_tells_of_its_own_box(two_runs):
    page = two_runs.open('image=a&difference=1')
    click_on_first(page, 'found')
    titles = page.texts('#box h3')
    assert [title[:3] for title in titles] == ['A: ', 'B: ']
    assert titles[0][3:] == titles[1][3:]
    assert page.errors() == []


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [1440, 375])
def test_axe_finds_no_barrier_with_errors_and_two_runs(two_runs, width, scheme):
    page = two_runs
    with page.color_scheme(scheme):
        page.open('image=a&difference=1&type=missed&score=0.5', (width, 900))
        page.open_details()
        page.wait("document.querySelector('#fitting-contrasts table') !== null")
        click_on_first(page, 'missed')
        assert (
            page.js("return ['box', 'values', 'types', 'filters'].some((id) => document.getElementById(id).hidden)")
            is False
        )
        page.wait("document.querySelectorAll('#error-tables table').length === 2")
        assert page.barriers() == []
        assert page.too_wide() == [0, []]
