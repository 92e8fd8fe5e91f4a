"""The report page in a real browser, opened from disk."""

import csv
import io
import shutil
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from conftest import read
from page_driver import Page
from report_pages import (
    HOSTILE_NAMES,
    PLACEMENTS,
    make_snapshot,
    random_values,
    read_data,
    write_report,
    write_run,
)

from mmdet_featviz.capture.feature_compression import compress_features
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.colors import quantize, to_unit
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Views


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('report #1 100%')
    snapshots = []
    for number, placement in enumerate(PLACEMENTS.values()):
        one = make_snapshot(f'street/{number}', folder / f'{number}.png', number * 5)
        snapshots.append(Snapshot(**{**vars(one), 'placement': placement}))
    return write_run(folder / 'run', snapshots)


@pytest.fixture(scope='module')
def page(browser, run):
    return Page(browser, write_report(run))


def draw_with_hook(run, number, level, **style):
    """The overlay and heatmap that the hook draws of an image of a run."""
    one = list(run.snapshots())[number]
    views = Views(Style(save=('overlay', 'heatmap'), **style))
    pictures = {picture.name: picture.pixels for picture in views.draw(one, views.place(one))}
    return pictures[f'{level}.jpg'], pictures[f'{level}.heatmap.png']


@pytest.mark.parametrize('number', range(len(PLACEMENTS)), ids=PLACEMENTS)
@pytest.mark.parametrize('colormap', ['jet', 'viridis', 'gray'])
def test_the_browser_draws_what_the_hook_draws(page, run, number, colormap):
    for level in ('backbone_0', 'neck_1'):
        page.open(f'image=street/{number}&level={level}&colormap={colormap}')
        heatmap = draw_with_hook(run, number, level, colormap=colormap)[1]
        found, seen = page.pixels(), list(PLACEMENTS.values())[number].seen
        assert found[seen][:, 3].min() == 255
        assert np.abs(found[..., 2::-1].astype(int) - heatmap)[seen].mean() < 1
    assert page.errors() == []


@pytest.mark.parametrize(('number', 'is_cropped'), [(0, False), (1, False), (2, True), (3, True), (4, False)])
def test_what_the_network_did_not_see_is_hatched_as_the_hook_hatches_it(page, run, number, is_cropped):
    page.open(f'image=street/{number}&level=neck_0&colormap=gray&threshold=0.7')
    found, unseen = page.pixels()[~list(PLACEMENTS.values())[number].seen], np.array([[0, 0, 0, 0]])
    assert (len(found) > 0) == is_cropped
    if is_cropped:
        hook = draw_with_hook(run, number, 'neck_0')[1][~list(PLACEMENTS.values())[number].seen]
        is_line = (found != unseen).any(1)
        np.testing.assert_array_equal(found[hook.max(1) < 255], [[0, 0, 0, 255]] * np.sum(hook.max(1) < 255))
        assert set(map(tuple, found[is_line].tolist())) == {(0, 0, 0, 255), (255, 255, 255, 255)}
        assert 0.1 < is_line.mean() < 0.4
    assert ('Hatched: not seen by the network' in page.text('#notes')) == is_cropped


@pytest.mark.parametrize('normalize', ['max', 'layer', 'percentile'])
def test_ranges_are_those_of_the_hook(page, run, normalize):
    """The values are partly negative."""
    for number, placement in enumerate(PLACEMENTS.values()):
        page.open(f'image=street/{number}&level=neck_0&colormap=gray&range={normalize}')
        expected = draw_with_hook(run, number, 'neck_0', normalize=normalize, colormap='gray')[1]
        assert np.abs(page.pixels()[..., :3].astype(int) - expected)[placement.seen].max() <= 1


def test_ranges_without_the_border_and_of_maps_that_are_not_finite(browser, tmp_path):
    """Hot cells at the sides, which the border leaves out, and some that are not finite."""
    fixed, snapshots = (-1.5, 6.0), []
    placements = [PLACEMENTS[name] for name in ('scaled', 'cut off', 'turned')]
    for number, placement in enumerate(placements):
        values = random_values(*(side // 8 for side in placement.input_size), number)
        values[:, 0] += 30
        values[2, 1], values[3, 4], values[1, 5] = np.nan, np.inf, -np.inf
        one = make_snapshot(
            f'street/{number}', tmp_path / f'{number}.png', levels=[Level('neck', 0, 4, (8.0, 8.0), values)]
        )
        snapshots.append(Snapshot(**{**vars(one), 'placement': placement}))
    run = write_run(tmp_path / 'run', snapshots, normalize=fixed, border=1, percentiles=(5.0, 95.0))
    page = Page(browser, write_report(run))
    for number, placement in enumerate(placements):
        spans = []
        for normalize, bound in ((fixed, 1), ('image', 2), ('percentile', 2), ('max', 2)):
            choice = normalize if isinstance(normalize, str) else 'fixed'
            page.open(f'image=street/{number}&colormap=gray&range={choice}')
            style = dict(normalize=normalize, border=1, percentiles=(5.0, 95.0), colormap='gray')
            expected = draw_with_hook(run, number, 'neck_0', **style)[1]
            assert np.abs(page.pixels()[..., :3].astype(int) - expected)[placement.seen].max() <= bound
            spans.append(tuple(page.texts('.legend span')))
        assert len(set(spans)) == 4
    assert page.errors() == []


@pytest.mark.parametrize('limits', [(2.0, 2.1), (-1e-3, 1e-3), (0.0, 1e38), (-3e38, 3e38)])
def test_a_narrow_or_huge_range_is_drawn_as_the_hook_draws_it(browser, tmp_path, limits):
    """With values far outside it, and some that are not finite, at 0.01 gray levels and less per 8-bit step."""
    values = random_values(8, 12)
    values[1, 2], values[3, 4], values[5, 3] = 3e38, -3e38, 1e4
    values[2, 8], values[6, 5], values[7, 7] = np.nan, np.inf, -np.inf
    snapshots = []
    for number, placement in enumerate(PLACEMENTS.values()):
        rows, columns = (side // 8 for side in placement.input_size)
        level = Level('neck', 0, 4, (8.0, 8.0), np.resize(values, (rows, columns)))
        one = make_snapshot(f'street/{number}', tmp_path / f'{number}.png', levels=[level])
        snapshots.append(Snapshot(**{**vars(one), 'placement': placement}))
    run = write_run(tmp_path / 'run', snapshots, normalize=limits)
    page = Page(browser, write_report(run))
    for number in range(len(PLACEMENTS)):
        page.open(f'image=street/{number}&colormap=gray')
        expected = draw_with_hook(run, number, 'neck_0', normalize=limits, colormap='gray')[1]
        seen = list(PLACEMENTS.values())[number].seen
        assert np.abs(page.pixels()[..., :3].astype(int) - expected)[seen].max() <= 1
    assert page.errors() == []


def test_principal_components_are_drawn_as_the_hook_draws_them(browser, tmp_path):
    snapshots = []
    for number, placement in enumerate(PLACEMENTS.values()):
        rows, columns = (side // 8 for side in placement.input_size)
        features = np.stack([random_values(rows, columns, number * 4 + channel) for channel in range(4)])
        features[2, 1, 2] = np.nan
        compact = compress_features(torch.from_numpy(features))
        level = Level('neck', 0, 4, (8.0, 8.0), np.linalg.norm(features, axis=0), compact=compact)
        one = make_snapshot(f'street/{number}', tmp_path / f'{number}.png', levels=[level])
        snapshots.append(Snapshot(**{**vars(one), 'placement': placement}))
    run = write_run(tmp_path / 'run', snapshots, reduction='pca', save=('heatmap', 'maps'))
    page = Page(browser, write_report(run))
    for number, placement in enumerate(PLACEMENTS.values()):
        page.open(f'image=street/{number}&level=neck_0')
        picture = read(f'{run.folder}/street/{number}/neck_0.heatmap.png').astype(int)
        assert picture[placement.seen].std(0).min() > 20  # a picture in three colors
        assert np.abs(page.pixels()[..., 2::-1] - picture)[placement.seen].max() <= 1
        assert 'Principal components as red, green and blue' in page.text('#notes')
    assert page.js("return document.querySelector('.legend')") is None
    assert page.text('figcaption small').startswith('PCA: ')
    assert page.errors() == []


def difference_on_screen(page, run, **style):
    """Mean difference, in gray levels, between the page's picture of a level and the hook's overlay."""
    page.open(f'image=street/1&level=neck_0&colormap=jet&pred=0&truth=0&alpha={style["alpha"]}')
    page.js("document.querySelector('.picture').style.width = '130px'")
    page.wait("document.querySelector('.picture img').naturalWidth > 0")
    expected = draw_with_hook(run, 1, 'neck_0', **style)[0]
    shown = page.screenshot('.picture')
    assert shown.shape == expected.shape
    return np.abs(shown.astype(int) - expected).mean()


def test_the_picture_on_screen_equals_the_hooks_overlay(page, run):
    assert difference_on_screen(page, run, alpha=0.6) < 3


def test_the_saved_picture_equals_the_hooks_overlay(page, run, tmp_path):
    page.open('image=street/1&level=neck_0&colormap=jet&alpha=0.4&pred=0&truth=0')
    page.wait("document.querySelector('.picture img').naturalWidth > 0")
    data = page.download(tmp_path, '#save-png', '1.neck_0.png')
    saved = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    expected = draw_with_hook(run, 1, 'neck_0', alpha=0.4)[0]
    assert saved.shape == expected.shape
    assert np.abs(saved.astype(int) - expected).mean() < 3
    page.press('p')
    data = page.download(tmp_path, '#save-png', '1.neck_0.png')
    with_boxes = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    changed = (with_boxes != saved).any(2)
    assert changed[29:32, 75:115].all()  # the upper side of the box of the dog
    assert not changed[40:70, 80:110].any()
    assert page.errors() == []


def test_a_picture_saved_as_svg_has_boxes_as_shapes_and_is_the_png(page, tmp_path):
    page.open('image=street/1&level=neck_0&alpha=0.4')
    page.wait("document.querySelector('.picture img').naturalWidth > 0")
    png = page.download(tmp_path, '#save-png', '1.neck_0.png')
    page.press('l')
    without_labels = ElementTree.fromstring(page.download(tmp_path, '#save-svg', '1.neck_0.svg'))
    assert without_labels.find('.//{*}text') is None
    page.press('l')
    svg = page.download(tmp_path, '#save-svg', '1.neck_0.svg')
    root = ElementTree.fromstring(svg)
    texts = root.findall('.//{*}text')
    assert [text.text for text in texts] == ['<b>dog</b> 0.90', 'cat 0.45', 'cat']
    # 4 pixels above the lower side of a label of 16: above the dog, whose wide label leaves the cats the space below
    # the box, and inside it.
    assert [float(text.get('y')) for text in texts] == pytest.approx([30 - 4, 56 + 12, 50 - 4], abs=1e-3)
    rects = [rect for rect in root.findall('.//{*}rect') if rect.get('fill') == 'none' and rect.get('stroke') != '#000']
    shown = [[float(rect.get(name)) for name in ('x', 'y', 'width', 'height')] for rect in rects]
    assert shown == [pytest.approx(box, abs=1e-3) for box in ([20, 10, 40, 40], [22, 12, 42, 44], [70, 30, 50, 50])]
    assert [rect.get('stroke-dasharray') is not None for rect in rects] == [True, False, False]
    (tmp_path / 'saved.svg').write_bytes(svg)
    page.browser.get((tmp_path / 'saved.svg').as_uri())
    shown = cv2.imdecode(np.frombuffer(page.browser.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert expected.shape == (90, 130, 3)
    assert np.abs(shown[:90, :130].astype(int) - expected).mean() < 4  # text is not drawn to the pixel


@pytest.mark.parametrize('alpha', [0.3, 1])
@pytest.mark.parametrize('blend', ['add', 'fade'])
def test_blended_heat_on_screen_equals_the_hooks_overlay(browser, run, tmp_path, alpha, blend):
    blended = write_run(tmp_path / 'run', run.snapshots(), blend=blend)
    assert difference_on_screen(Page(browser, write_report(blended)), blended, alpha=alpha, blend=blend) < 3


def test_the_page_says_that_it_does_not_interpolate_as_the_pictures(browser, page, run, tmp_path):
    page.open('image=street/1')
    assert 'bilinear' not in page.text('#notes')
    nearest = write_run(tmp_path / 'run', run.snapshots(), interpolation='nearest')
    page = Page(browser, write_report(nearest))
    page.open('image=street/1')
    assert 'Drawn bilinearly here, not nearest as in the pictures.' in page.text('#notes')


def test_a_pixel_of_the_canvas_has_the_value_of_the_map(page, run):
    """Read back from the gray colormap, for each level."""
    one = next(iter(run.snapshots()))
    for level in one.levels:
        page.open(f'image=street/0&level={level.name}&colormap=gray')
        grid = Grid(level.values.shape, level.stride, one.placement)
        visible = grid.visible(level.values)
        heatmap = np.clip(grid.heatmap(to_unit(level.values, (visible.min(), visible.max()))), 0, 1)
        found = page.pixels()
        for x, y in ((10, 20), (64, 45), (120, 80)):
            assert abs(found[y, x, 0] - heatmap[y, x] * 255) <= 1


def test_the_value_under_the_pointer(page, run):
    from selenium.webdriver import ActionChains

    page.open('image=street/0&level=backbone_0')
    picture = page.find('.picture')
    ActionChains(page.browser).move_to_element_with_offset(picture, 30, -20).perform()
    words = page.wait("document.querySelector('#value output').textContent")
    x, y = (int(part.split()[1]) for part in words.split(':')[0].split(', '))
    level = next(iter(run.snapshots())).levels[0]
    heatmap = Grid(level.values.shape, level.stride, PLACEMENTS['scaled']).heatmap(level.values)
    around = heatmap[y - 1 : y + 2, x - 1 : x + 2]
    rounding = 1e-3 * np.abs(level.values).max()
    assert around.min() - rounding <= float(words.rpartition(' ')[2]) <= around.max() + rounding


def test_a_click_lists_the_values_of_all_levels(page, run):
    from selenium.webdriver.common.keys import Keys

    page.open('image=street/0&level=backbone_0&score=1')
    assert not page.find('#values').is_displayed()
    page.find('.picture').click()
    page.wait("!document.getElementById('values').hidden")
    words = page.text('#values caption')
    x, y = (int(part.split()[1]) for part in words.rpartition(' at ')[2].split(', '))
    one = next(iter(run.snapshots()))
    assert page.texts('#values th[scope=row]') == [level.name for level in one.levels]
    for level, text in zip(one.levels, page.texts('#values tbody td')):
        heatmap = Grid(level.values.shape, level.stride, one.placement).heatmap(level.values)
        around = heatmap[y - 1 : y + 2, x - 1 : x + 2]
        assert around.min() - 0.01 <= float(text) <= around.max() + 0.01
    page.press(Keys.ARROW_RIGHT)
    page.wait("document.getElementById('values').hidden")
    page.js("document.querySelector('.picture').focus()")
    page.js(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', shiftKey: true,"
        ' bubbles: true }))'
    )
    page.press(Keys.ENTER)
    assert page.text('#values caption') == 'Values of all levels at x 75 px, y 45 px'
    assert page.errors() == []


def test_zoom_and_pan_to_single_pixels(page):
    """Frames keep their size; the point under the pointer stays, and values are read where the pointer is."""
    from selenium.webdriver import ActionChains

    page.open('image=street/0&level=backbone_0&score=1')
    places = (
        "return ['.picture', '.stage'].map((one) => document.querySelector(`#pictures ${one}`).getBoundingClientRect())"
        '.map(({ left, top, width, height }) => [left, top, width, height])'
    )
    frame, stage = np.array(page.js(places))
    np.testing.assert_allclose(stage, frame, atol=0.01)
    picture, offset = page.find('.picture'), (60, -40)
    ActionChains(page.browser).move_to_element_with_offset(picture, *offset).perform()
    before = page.wait("document.querySelector('#value output').textContent")
    wheel = (
        "const { left, top, width, height } = document.querySelector('.picture').getBoundingClientRect();"
        'const at = { clientX: left + width / 2 + arguments[0], clientY: top + height / 2 + arguments[1] };'
        "document.querySelector('.picture').dispatchEvent(new WheelEvent('wheel', { ...at, deltaY: -1, ctrlKey: true,"
        ' cancelable: true }))'
    )
    page.js(wheel, *offset)
    page.js(wheel, *offset)
    same, stage = np.array(page.js(places))
    np.testing.assert_allclose(same, frame, atol=0.01)
    assert stage[2:] == pytest.approx(frame[2:] * 1.5**2, rel=1e-3)
    ActionChains(page.browser).move_to_element_with_offset(picture, offset[0] + 1, offset[1]).perform()
    ActionChains(page.browser).move_to_element_with_offset(picture, *offset).perform()
    numbers = [
        [int(part.split()[1]) for part in words.split(':')[0].split(', ')]
        for words in (before, page.text('#value output'))
    ]
    assert np.abs(np.subtract(*numbers)).max() <= 1
    pressed = page.text('#value output')
    chain = ActionChains(page.browser).move_to_element_with_offset(picture, *offset).click_and_hold()
    chain.move_by_offset(-50, 30).release().perform()
    moved = np.array(page.js(places))[1] - stage
    assert moved == pytest.approx([-50, 30, 0, 0], abs=1)
    assert page.text('#value output').split(':')[0] == pressed.split(':')[0]  # the point moved with the pointer
    assert not page.find('#values').is_displayed()  # a drag is no click
    for _ in range(20):
        page.press('+')
    (_, _, width, _), stage = page.js(places)
    assert stage[2] / 130 == pytest.approx(16, rel=1e-3)  # screen pixels of a pixel of the image
    assert page.js("return getComputedStyle(document.querySelector('.stage img')).imageRendering") == 'pixelated'
    page.choose('level', 'neck_1')
    assert page.js(places)[1] == stage  # stays with another level
    page.find('#next').click()
    page.wait("document.querySelector('.box:not(.truth) span')?.textContent === 'cat 0.45'")
    assert page.js(places)[1][2] == width
    page.press('+', '0')
    assert page.js(places)[1][2] == width
    assert page.errors() == []


def test_dragged_sliders_change_opacity_and_threshold(page):
    page.open('level=backbone_0')
    before = page.pixels()
    page.drag('alpha', 0.9)
    assert float(page.text('output[for=alpha]')) > 0.8
    opacity = page.js("return getComputedStyle(document.querySelector('.heat')).opacity")
    assert float(opacity) == pytest.approx(float(page.text('output[for=alpha]')))
    np.testing.assert_array_equal(page.pixels(), before)
    page.drag('threshold', 0.5)
    threshold = float(page.text('output[for=threshold]'))
    hidden = page.pixels()[..., 3] == 0
    page.open('level=backbone_0&colormap=gray')
    gray = page.pixels()[..., 0] / 255
    assert 0.3 < threshold < 0.7
    certain = np.abs(gray - threshold) > 0.01
    np.testing.assert_array_equal(hidden[certain], (gray < threshold)[certain])


def test_boxes_are_placed_and_switched(page):
    page.open('image=street/0&score=0.1')
    place = page.js(
        "const box = document.querySelector('.box.truth').getBoundingClientRect();"
        "const frame = document.querySelector('.picture').getBoundingClientRect();"
        'return [box.left - frame.left, box.top - frame.top, box.right - frame.left, box.bottom - frame.top]'
        '.map((edge) => edge / frame.width * 130)'
    )
    assert place == pytest.approx([20, 10, 60, 50], abs=0.5)
    assert page.texts('.box span') == ['cat', 'cat 0.40', '<b>dog</b> 0.90']

    def shown():
        return page.js("return [...document.querySelectorAll('.box')].map((one) => one.offsetWidth > 0)")

    assert shown() == [True, True, True]
    page.find('#pred').click()
    assert shown() == [True, False, False]
    page.press('p', 'g')
    assert shown() == [False, True, True]
    page.drag('score', 0.6)
    assert shown() == [False, False, True]


def test_search_and_order(page):
    from selenium.webdriver.common.keys import Keys

    page.open()
    assert page.names() == ['0', '1', '2', '3', '4']
    page.press('/', '3')
    page.wait("document.getElementById('count').textContent === '1 of 5 images'")
    assert page.names() == ['3']
    page.press(Keys.ESCAPE)
    assert page.js("return [document.activeElement.id, document.getElementById('search').value]") == ['', '3']
    assert page.text('#count') == '1 of 5 images'
    page.press('/', Keys.BACKSPACE, 'STREET')
    assert page.text('#count') == '5 images'
    page.press(' cat')  # a class is no name
    assert page.text('#count') == 'No image matches the search and the filters.'
    page.find('#search').clear()
    page.open()
    page.choose('sort', 'lowest')
    assert page.names() == ['0', '1', '2', '3', '4']
    page.find('#direction').click()
    assert page.names() == ['4', '3', '2', '1', '0']
    assert page.texts('#grid li small') == ['0.6', '0.55', '0.5', '0.45', '0.4']


def test_images_are_sorted_by_the_heat_inside_boxes_of_the_chosen_level(page, run):
    energies = [image['energy'] for image in read_data(run)['images']]
    for level in ('backbone_0', 'neck_1'):
        page.open(f'sort=energy&level={level}')
        order = sorted(range(5), key=lambda number: energies[number][level])
        assert page.names() == [str(number) for number in order]
        assert page.texts('#grid li small')[0] == f'{energies[order[0]][level] * 100:.1f} %'


def test_equal_file_names_have_enough_of_their_path(browser, tmp_path):
    keys = 'a/x/1', 'b/x/1', 'a/y/1', '2', 'c/2', 'c/3'
    run = write_run(tmp_path / 'run', [make_snapshot(key, tmp_path / f'{n}.png') for n, key in enumerate(keys)])
    page = Page(browser, write_report(run))
    page.open()
    assert page.names() == ['a/x/1', 'b/x/1', 'y/1', '2', 'c/2', '3']


def test_the_button_next_is_enabled_where_the_key_works(page):
    from selenium.webdriver.common.keys import Keys

    page.open('image=street/1&search=street%2F3')  # the image on view is not in the list
    states = "return ['previous', 'next'].map((one) => document.getElementById(one).ariaDisabled)"
    assert page.js(states) == ['true', 'false']
    page.find('#next').click()
    page.wait("document.getElementById('name').textContent === 'street/3'")
    assert page.js(states) == ['true', 'true']
    page.open('image=street/1&search=street%2F3')
    page.press(Keys.ARROW_RIGHT)
    page.wait("document.getElementById('name').textContent === 'street/3'")
    page.open('image=street/1&search=nothing')
    assert page.js(states) == ['true', 'true']


def test_the_page_opens_with_the_neck_and_a_perceptual_color_map(browser, page, run, tmp_path):
    page.open()
    assert page.text('#pictures figcaption strong') == 'neck_0'
    assert page.js("return document.getElementById('colormap').value") == 'turbo'
    assert {'jet', 'turbo', 'inferno'} <= set(page.texts('#colormap option'))
    chosen = Page(browser, write_report(write_run(tmp_path / 'run', list(run.snapshots())[:1], colormap='magma')))
    chosen.open()
    assert chosen.js("return document.getElementById('colormap').value") == 'magma'


def test_units_and_words_are_explained_where_they_stand(page):
    page.open('image=street/0')
    assert page.text('#pictures figcaption small') == 'max of 8 channels, stride 16 px'
    assert page.text('.legend small') == 'activation, in no unit'
    assert page.texts('#level option')[0] == 'backbone_0 (stride 8 px)'
    meanings = set()
    for order in page.js("return [...document.getElementById('sort').options].map(({ value }) => value)"):
        page.choose('sort', order)
        meanings.add(page.text('#meaning'))
    assert len(meanings) == 7
    assert 'Share of the heat inside ground-truth boxes, divided by their share of the area: 1 is chance.' in meanings


def test_a_class_filters_images_boxes_and_counts(browser, tmp_path):
    """Image 0 has a cat with 0.4 and a dog with 0.9, image 1 only a dog, image 2 nothing above 0.2."""
    rows = [([0, 1], [0.4, 0.9]), ([1], [0.6]), ([0, 1], [0.2, 0.1])]
    snapshots = []
    for number, (labels, scores) in enumerate(rows):
        boxes = Boxes(np.array([[20.0, 10, 60, 50]] * len(labels)), np.array(labels), np.array(scores))
        snapshots.append(make_snapshot(str(number), tmp_path / f'{number}.png', boxes=boxes))
    page = Page(browser, write_report(write_run(tmp_path / 'run', snapshots)))
    page.open('image=0')
    assert page.texts('#class option') == ['all', 'cat', '<b>dog</b>']

    def shown():
        return page.texts('#pictures .box:not([hidden]) span')

    assert shown() == ['cat 0.40', '<b>dog</b> 0.90']
    page.choose('class', 'cat')
    assert (page.names(), page.texts('#grid li small'), shown()) == (['0'], ['1 detection'], ['cat 0.40'])
    page.choose('class', '<b>dog</b>')
    assert (page.names(), shown()) == (['0', '1'], ['<b>dog</b> 0.90'])
    page.drag('score', 0.05)
    assert page.names() == ['0', '1', '2']
    page.wait("location.hash.includes('class=')")
    settings = page.js('return location.hash').lstrip('#')
    page.open(settings)
    assert page.js("return document.getElementById('class').value") == '<b>dog</b>'


def test_labels_are_switched_off_and_hover_shows_one(page):
    from selenium.webdriver import ActionChains

    page.open('image=street/0&score=0')
    labels = "return [...document.querySelectorAll('#pictures .box span')].map((one) => one.offsetWidth > 0)"
    assert page.js(labels) == [True, True, True]
    page.press('l')
    assert page.js(labels) == [False, False, False]
    box = page.find('#pictures .box:nth-child(3)')
    ActionChains(page.browser).move_to_element(box).perform()
    page.wait("document.querySelector('#pictures .box.hovered') !== null")
    assert page.js(labels) == [False, False, True]
    ActionChains(page.browser).move_to_element(page.find('#name')).perform()
    page.wait("document.querySelector('#pictures .box.hovered') === null")
    page.find('#labels').click()
    assert page.js(labels) == [True, True, True]


def test_all_levels_have_boxes_and_color_bars_and_use_the_width(page, run):
    page.open('image=street/0&all=1&score=0')
    assert page.js(
        "return [...document.querySelectorAll('#pictures .match')].map((one) => one.querySelectorAll('.box').length)"
    ) == [3, 3, 3]
    one = next(iter(run.snapshots()))
    for number, level in enumerate(one.levels):
        visible = Grid(level.values.shape, level.stride, one.placement).visible(level.values)
        texts = page.texts(f'#pictures .match:nth-child({number + 1}) .legend span')
        assert [float(text) for text in texts] == pytest.approx([visible.min(), visible.max()], rel=1e-3)
    edges = page.js(
        "const place = document.getElementById('pictures').getBoundingClientRect();"
        "const tiles = [...document.querySelectorAll('#pictures .match')].map((one) => one.getBoundingClientRect());"
        'return [Math.max(...tiles.map(({ right }) => right)) - place.right, new Set(tiles.map(({ top }) => top)).size]'
    )
    assert edges == [0, 1]


def test_images_are_marked_and_the_selection_is_exported(browser, tmp_path):
    """The notes and names are such that a spreadsheet would run them, or take them apart."""
    keys = ['a/1', 'b,"x"', '=1+1', 'epoch_1/a/1']
    snapshots = [make_snapshot(key, tmp_path / f'{n}.png', n) for n, key in enumerate(keys)]
    page = Page(browser, write_report(write_run(tmp_path / 'run', snapshots)))
    page.open('image=a/1')
    page.press('m')
    assert page.text('#grid li small').startswith('★')
    page.find('#next').click()
    page.wait("document.getElementById('name').textContent.startsWith('b,')")
    assert page.text('#mark') == '☆'
    page.find('#note').send_keys('=HYPERLINK("x"), ü')
    assert page.text('#mark') == '★'
    page.open('sort=name&down=1')  # they are still there in a new page
    page.find('#marked').click()
    assert page.names() == ['b,"x"', '1']
    names = {}
    exec(page.download(tmp_path, '#export-list', 'image_names.py'), names)
    assert names['image_names'] == ['b,"x"', 'a/1']
    page.find('#marked').click()
    page.find('#direction').click()
    page.drag('score', 0.6)
    table = page.download(tmp_path, '#export-table', 'images.csv').decode('utf-8-sig')
    lines = list(csv.reader(io.StringIO(table, newline='')))
    assert lines[0] == ['image', 'marked', 'note', 'detections', 'best_score', 'lowest_score', 'ground_truth_boxes']
    found = {line[0]: line[1:] for line in lines[1:]}
    assert found['b,"x"'][:2] == ['1', '\'=HYPERLINK("x"), ü']
    assert found['a/1'] == ['1', '', '1', '0.9', '0.9', '1']
    assert found["'=1+1"][0] == '0'
    names = {}
    exec(page.download(tmp_path, '#export-list', 'image_names.py'), names)
    assert sorted(names['image_names']) == sorted(['a/1', 'b,"x"', '=1+1', 'a/1'])  # as ends of paths, also of a/1 (2)
    page.open('image=a/1')
    page.press('m')
    page.find('#marked').click()
    assert page.names() == ['b,"x"']
    assert page.errors() == []


def test_keys(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.open()
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.wait("document.getElementById('name').textContent === 'street/2'")
    page.press(Keys.ARROW_LEFT)
    page.wait("document.getElementById('name').textContent === 'street/1'")
    assert page.text('#grid [aria-current] span') == '1'
    page.wait("document.querySelector('#pictures figcaption strong')")
    page.press('3')
    assert page.text('#pictures figcaption strong') == 'neck_1'
    page.press(Keys.ARROW_UP)
    assert page.text('#pictures figcaption strong') == 'neck_0'
    page.press('a')
    assert page.texts('#pictures figcaption strong') == ['backbone_0', 'neck_0', 'neck_1']
    page.press('a')
    ActionChains(page.browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    assert page.text('#value output').startswith('x 75 px, y 45 px: neck_0 ')
    page.press('/', 'a3')  # letters in the search field are not shortcuts
    assert page.text('#pictures figcaption strong') == 'neck_0'


def test_arrows_scroll_when_there_is_no_further_level(page):
    from selenium.webdriver.common.keys import Keys

    # Whether the page keeps a key for itself is decided when it is pressed; the browser scrolls when it likes.
    page.open('level=neck_0')
    page.js("window.kept = []; addEventListener('keydown', (event) => window.kept.push(event.defaultPrevented))")
    page.press(Keys.ARROW_DOWN)
    assert page.text('#pictures figcaption strong') == 'neck_1'
    page.press(Keys.ARROW_DOWN)
    assert page.text('#pictures figcaption strong') == 'neck_1'
    page.choose('level', 'backbone_0')
    page.js('document.activeElement.blur()')
    page.press(Keys.ARROW_UP)
    assert page.text('#pictures figcaption strong') == 'backbone_0'
    assert page.js('return window.kept') == [True, False, False]


def test_a_range_from_zero_of_negative_values_is_empty(browser, tmp_path):
    levels = [Level('neck', 0, 4, (8.0, 8.0), -1 - np.abs(random_values(8, 12)))]
    page = Page(
        browser, write_report(write_run(tmp_path / 'run', [make_snapshot('a', tmp_path / 'a.png', levels=levels)]))
    )
    page.open('range=max&colormap=gray')
    assert page.texts('.legend span') == ['0', '0']
    np.testing.assert_array_equal(np.unique(page.pixels().reshape(-1, 4), axis=0), [[0, 0, 0, 255]])


def test_the_address_names_image_and_settings(page):
    page.open()
    page.choose('level', 'neck_1')
    page.choose('colormap', 'magma')
    page.find('#grid li:nth-child(3) a').click()
    page.wait("document.getElementById('name').textContent === 'street/2'")
    settings = page.js('return location.hash').lstrip('#')
    assert settings == 'image=street%2F2&level=neck_1&colormap=magma'
    before = page.wait_until_painted().pixels()
    page.open(settings)
    assert page.text('#name') == 'street/2'
    np.testing.assert_array_equal(page.pixels(), before)
    page.open('image=nowhere&level=none&colormap=x&alpha=y&sort=z&range=fixed')  # unknown values are ignored
    assert page.text('#name') == 'street/0'
    assert page.errors() == []


def test_the_address_names_the_image_that_is_seen(page):
    """Also if only the order of the list was chosen, of which another image is the first."""
    page.open()
    page.choose('sort', 'lowest')
    page.find('#direction').click()
    page.choose('level', 'neck_1')
    page.wait("location.hash.includes('level=neck_1')")
    settings = page.js('return location.hash').lstrip('#')
    assert page.names()[0] == '4'
    page.open(settings)
    assert page.text('#name') == 'street/0'
    page.open('image=nowhere')
    page.wait("location.hash === '#image=street%2F0'")
    assert 'There is no image nowhere.' in page.text('#notes')


def test_back_goes_back_one_image(page):
    from selenium.webdriver.common.keys import Keys

    page.open('image=street/0')
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.find('#next').click()
    page.wait("document.getElementById('name').textContent === 'street/3'")
    page.choose('level', 'neck_1')  # is no step, and stays with the image
    page.find('#grid li:nth-child(1) a').click()
    page.wait("document.getElementById('name').textContent === 'street/0'")
    for name, level in (('3', 'neck_1'), ('2', 'neck_0'), ('1', 'neck_0'), ('0', 'neck_0')):
        page.browser.back()
        page.wait("document.getElementById('name').textContent === arguments[0]", f'street/{name}')
        assert page.js("return document.getElementById('level').value") == level
    page.browser.forward()
    page.wait("document.getElementById('name').textContent === 'street/1'")
    held = "dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', repeat: true, bubbles: true }))"
    steps = page.js(f'const before = history.length; document.body.{held}; document.body.{held}; return before')
    page.wait("location.hash.includes('street%2F3')")
    assert page.js('return history.length') == steps  # a held key is one step


SLIDE = (
    "const slide = (...values) => values.forEach((value) => { const slider = document.getElementById('alpha');"
    " slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); });"
)


def test_a_dragged_slider_updates_the_address_once_it_rests(page):
    """Browsers drop or forbid hundreds of updates; the picture follows at once."""
    page.open('image=street/1')
    page.js(
        'window.updates = 0; const real = history.replaceState.bind(history);'
        'history.replaceState = (...given) => { updates++; real(...given); };'
    )
    opacity = "getComputedStyle(document.querySelector('.heat')).opacity"
    assert (
        page.js(f'{SLIDE} slide(...Array.from({{ length: 99 }}, (_, n) => (n + 1) / 100)); return {opacity}') == '0.99'
    )
    page.wait("location.hash === '#image=street%2F1&alpha=0.99'")
    links = "return [...document.querySelectorAll('#grid a')].map((one) => one.hash)"
    assert page.js(links) == [f'#image=street%2F{n}&alpha=0.99' for n in range(5)]
    assert page.js('return updates') <= 2
    page.press('3')
    assert page.js('return location.hash') == '#image=street%2F1&level=neck_1&alpha=0.99'


def test_a_pending_address_update_does_not_overwrite_a_newer_address(page):
    page.open('image=street/1')
    page.js(f"{SLIDE} slide(0.7, 0.8); document.querySelector('#grid li:nth-child(3) a').click()")
    page.wait("document.getElementById('name').textContent === 'street/2'")
    assert page.js('return location.hash') == '#image=street%2F2&alpha=0.8'
    # The page may learn of a new address only after the pending update is due: pushState() fires no event.
    page.js(f"{SLIDE} slide(0.6, 0.5); history.pushState(null, '', '#image=street%2F3&alpha=0.1')")
    rest = 'new Promise((done) => setTimeout(() => done(true), 300))'
    page.wait(rest)
    assert page.js('return location.hash') == '#image=street%2F3&alpha=0.1'
    page.js("dispatchEvent(new HashChangeEvent('hashchange'))")
    page.wait("document.getElementById('name').textContent === 'street/3'")
    page.wait(rest)
    assert page.js('return location.hash') == '#image=street%2F3&alpha=0.1'
    assert page.text('output[for=alpha]') == '0.10'
    page.browser.back()
    page.wait("document.getElementById('name').textContent === 'street/2'")


def test_images_with_equal_names_get_distinct_names(browser, tmp_path):
    """As in a validation and a test set, or if an address cannot hold the difference between their names."""
    keys = 'epoch_1/a', 'a', 'a (2)', '\udc80', '\udc81'
    snapshots = [make_snapshot(key, tmp_path / f'{number}.png', number) for number, key in enumerate(keys)]
    run = write_run(tmp_path / 'run', snapshots)
    page = Page(browser, write_report(run))
    assert [image['key'] for image in read_data(run)['images']] == ['a', 'a (2)', 'a (2) (2)', '\udc80', '\udc81 (2)']
    scores = [image['values'][0]['scores']['0'] for image in read_data(run)['images']]
    assert scores == [[4000], [4100], [4200], [4300], [4400]]
    page.open()
    current = "[...document.querySelectorAll('#grid li')].findIndex((one) => one.querySelector('[aria-current]'))"
    for number in range(1, 5):
        page.find('#next').click()
        page.wait(f'{current} === {number}')
        page.wait("document.querySelector('.box:not(.truth) span')?.textContent === arguments[0]", f'cat 0.4{number}')
    for number in (0, 3, 1, 4, 2):
        page.find(f'#grid li:nth-child({number + 1}) a').click()
        page.wait(f'{current} === {number}')
        page.wait("document.querySelector('.box:not(.truth) span')?.textContent === arguments[0]", f'cat 0.4{number}')


def test_clicking_one_of_all_levels_shows_it(page):
    page.open('all=1')
    assert len(page.texts('#pictures figure')) == 3
    page.find('#pictures .match:nth-child(2) button').click()
    assert page.texts('#pictures figcaption strong') == ['neck_0']
    assert not page.find('#all').is_selected()


def test_the_range_of_the_run_is_used(page, run):
    low, high = read_data(run)['ranges'][0]['neck_0']
    page.open('image=street/2&level=neck_0&range=run&colormap=gray')
    one = list(run.snapshots())[2]
    level = one.levels[1]
    grid = Grid(level.values.shape, level.stride, one.placement)
    expected = quantize(grid.heatmap(to_unit(level.values, (low, high)))).astype(int)
    assert np.abs(page.pixels()[..., 0] - expected)[one.placement.seen].max() <= 1
    assert [float(text) for text in page.texts('.legend span')] == pytest.approx([low, high], rel=1e-3)


@pytest.mark.parametrize('settings', ['', 'all=1'])
def test_a_narrow_screen_needs_no_scrolling_sideways(page, settings):
    page.open(settings, size=(375, 700))
    page.open_details()
    assert page.too_wide() == [0, []]


@pytest.mark.parametrize('size', [(375, 700), (650, 450), (960, 540)], ids=['phone', '1300 at 200 %', '1920 at 200 %'])
def test_a_chosen_image_is_in_sight(page, size):
    from selenium.webdriver.common.keys import Keys

    page.open(size=size)
    assert page.js('return scrollY') == 0
    for number, choose in (
        (1, lambda: page.js("document.querySelector('#grid li:nth-child(2) a').click()")),
        (2, lambda: page.js("document.getElementById('next').click()")),
        (3, lambda: page.press(Keys.ARROW_RIGHT)),
    ):
        page.js('scrollTo(0, 0)')
        choose()
        page.wait("document.getElementById('name').textContent === arguments[0]", f'street/{number}')
        page.wait(
            "document.querySelector('.box:not(.truth) span').textContent === arguments[0]", f'cat 0.{40 + 5 * number}'
        )
        top, bottom = page.js(
            "const { top, bottom } = document.querySelector('#pictures .picture').getBoundingClientRect();"
            'return [top, bottom]'
        )
        assert -1 <= top < bottom <= size[1] + 1


@pytest.mark.parametrize('width', [375, 1300])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_the_focus_plot_matches_its_table(page, width, scheme):
    """Marks are above the names of their levels, at the heights of their values, in visible colors."""
    chosen = dict(features=[dict(name='prefers-color-scheme', value=scheme)])
    page.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', chosen)
    page.open(size=(width, 800))
    page.find('#facts summary').click()
    middle = (
        'const {left, right, top, bottom} = one.getBoundingClientRect(), at = [(left + right) / 2, (top + bottom) / 2];'
    )
    marks = page.js(
        "return [...document.querySelectorAll('.plot svg path[class] title')].map(({parentNode: one, textContent}) => {"
        f'{middle}'
        'return [textContent, ...at, getComputedStyle(one).stroke]; })'
    )
    ticks = page.js(
        f"return [...document.querySelectorAll('.plot .grid')].map((one) => {{ {middle}"
        'return [Number(one.nextElementSibling.textContent), at[1]]; })'
    )
    rows = page.js(
        "return [...document.querySelectorAll('.focus tbody tr')]"
        '.map((one) => [...one.children].map((cell) => cell.textContent))'
    )
    assert [row[0] for row in rows] == ['backbone_0', 'neck_0', 'neck_1']
    values = {
        (row[0], size): float(row[5 + n])
        for row in rows
        for n, size in enumerate(('all', 'small', 'medium'))
        if row[5 + n] != '–'
    }
    assert len(marks) == len(values) >= 6
    assert len({color for *_, color in marks}) == len({size for _, size in values})
    (low, bottom), (high, top) = ticks[0], ticks[-1]
    names = page.js(
        "const left = document.querySelector('.plot > svg').getBoundingClientRect().left;"
        "return Object.fromEntries([...document.querySelectorAll('.plot svg svg > text')]"
        '.map((one) => [one.textContent, left + one.parentNode.x.baseVal.value]))'
    )
    assert list(names) == [row[0] for row in rows]
    for text, x, y, color in marks:
        size, level = text.partition(':')[0].split(', ')
        assert low + (bottom - y) / (bottom - top) * (high - low) == pytest.approx(values[level, size], abs=0.06)
        assert x == pytest.approx(names[level], abs=0.6)
        rgb = [int(part) for part in color[4:-1].split(',')]
        assert (max(rgb) < 190) == (scheme == 'light')
    assert list(names.values()) == sorted(names.values())
    assert page.js("return document.querySelector('.plot > svg').getAttribute('aria-label')").startswith(
        'Focus: gain by level'
    )
    assert page.js('return document.documentElement.scrollWidth') <= width
    assert page.errors() == []
    page.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[]))


def accessible_names(page, *roles):
    """{role: names}, as the browser exposes them to screen readers."""
    found = {}
    for node in page.browser.execute_cdp_cmd('Accessibility.getFullAXTree', {})['nodes']:
        role = node.get('role', {}).get('value')
        if role in roles and not node['ignored']:
            found.setdefault(role, []).append(node.get('name', {}).get('value', '').strip())
    return found


@pytest.mark.parametrize(('width', 'scheme'), [(1440, 'light'), (375, 'dark')])
def test_axe_finds_no_barrier(page, width, scheme):
    with page.color_scheme(scheme):
        for settings in ('', 'all=1'):
            page.open(settings, (width, 900))
            page.open_details()
            if not settings:  # values of all levels
                page.js("document.querySelector('.picture').click()")
            assert page.barriers() == []


@pytest.mark.parametrize('settings', ['', 'all=1'])
def test_controls_and_pictures_have_accessible_names(page, settings):
    page.open(settings)
    page.open_details()
    operated = 'button', 'checkbox', 'combobox', 'link', 'searchbox', 'slider', 'textbox', 'DisclosureTriangle'
    names = accessible_names(page, *operated, 'image', 'img', 'region', 'table')
    assert [role for role, texts in names.items() if not all(texts)] == []
    assert names['searchbox'] == ['Search']
    assert names['combobox'] == ['Class', 'Sort by', 'Level', 'Colors', 'Range']
    assert names['slider'] == ['Opacity', 'Threshold', 'Score from']
    assert names['checkbox'] == ['marked only', 'all levels', 'predictions', 'ground truth', 'labels']
    assert len(names['link']) == 5
    assert names['textbox'] == ['Note on this image']
    assert {'Mark this image', 'list', 'CSV', 'Zoom in', 'Reverse the order', 'Previous image', 'Next image'} <= set(
        names['button']
    )
    pictures = [name for role in ('image', 'img') for name in names.get(role, []) if name.startswith('Heat of')]
    assert len(pictures) == (3 if settings else 1)


def test_tab_visits_all_controls_with_a_visible_outline(page):
    """Of the images, it visits only one: there may be thousands, and arrow keys move on from it."""
    from selenium.webdriver.common.keys import Keys

    page.open('image=street/1')
    page.find('summary').click()
    page.js('document.activeElement.blur()')
    walked = []
    for _ in range(30):
        page.press(Keys.TAB)
        one = page.js(
            'const one = document.activeElement, style = getComputedStyle(one);'
            "return one === document.body ? null : [one.id || one.title || one.getAttribute('aria-label')"
            " || one.className || one.tagName, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];"
        )
        if one is None:
            break
        walked.append(one)
    order = [name for name, _ in walked]
    wanted = [
        'search',
        'class',
        'sort',
        'direction',
        'street/1',
        'previous',
        'next',
        'level',
        'all',
        'colormap',
        'range',
    ]
    wanted += ['alpha', 'threshold', 'pred', 'truth', 'labels', 'score']
    assert [name for name in order if name in wanted or name.startswith('street/')] == wanted
    assert {'Focus', 'Picture: Shift and arrows read values, Enter those of all levels'} <= set(order)
    assert [name for name, is_shown in walked if not is_shown] == []


def test_arrows_move_the_focus_through_the_gallery(page):
    from selenium.webdriver.common.keys import Keys

    page.open()
    focused = 'return document.activeElement.title'
    page.js("document.querySelector('#grid a').focus()")
    page.press(Keys.ARROW_RIGHT)
    page.wait("document.getElementById('name').textContent === 'street/1'")
    assert page.js(focused) == 'street/1'
    tabbed = "return [...document.querySelectorAll('#grid a')].filter((one) => !one.tabIndex).map((one) => one.title)"
    assert page.js(tabbed) == ['street/1']
    page.press('/', 'street/4', *[Keys.TAB] * 7)
    assert page.js(focused) == 'street/4'
    page.press(Keys.ENTER)
    page.wait("document.getElementById('name').textContent === 'street/4'")


def test_keys_in_the_gallery_move_in_rows_and_pages(many_images):
    from selenium.webdriver.common.keys import Keys

    page = many_images
    page.open('image=0100')
    across = page.js("return Math.floor(document.getElementById('grid').clientWidth / 120)")
    rows = page.js("return Math.floor(document.getElementById('grid').clientHeight / 132)")
    assert across > 1
    page.js("document.querySelector('#grid [aria-current]').focus()")
    place = 100
    for key, steps in (
        (Keys.ARROW_DOWN, across),
        (Keys.ARROW_UP, -across),
        (Keys.ARROW_RIGHT, 1),
        (Keys.PAGE_DOWN, across * rows),
        (Keys.PAGE_UP, -across * rows),
        (Keys.END, 300),
        (Keys.ARROW_DOWN, 0),
        (Keys.HOME, -300),
        (Keys.PAGE_UP, 0),
    ):
        page.press(key)
        place = min(max(place + steps, 0), 299)
        page.wait("document.getElementById('name').textContent === arguments[0]", f'{place:04d}')
        assert page.js('return document.activeElement.title') == f'{place:04d}'


def test_a_tile_out_of_sight_keeps_the_focus(many_images):
    page = many_images
    page.open('image=0000')
    page.js("document.querySelector('#grid [aria-current]').focus(); document.getElementById('grid').scrollTop = 1e6")
    page.wait("[...document.querySelectorAll('#grid li span')].some((one) => one.textContent === '0299')")
    assert page.js('return document.activeElement.title') == '0000'
    assert '0060' not in page.names()


def test_buttons_keep_the_focus_at_the_last_image(page):
    from selenium.webdriver.common.keys import Keys

    page.open('image=street/3')
    page.js("document.getElementById('next').focus()")
    page.press(Keys.ENTER, Keys.ENTER)
    page.wait("document.getElementById('name').textContent === 'street/4'")
    assert page.js('return document.activeElement.id') == 'next'
    assert page.js("return document.activeElement.getAttribute('aria-disabled')") == 'true'


def test_a_chosen_tile_leaves_the_focus_on_its_picture(page):
    from selenium.webdriver.common.keys import Keys

    page.open('all=1&level=neck_0')
    current = "[...document.querySelectorAll('#pictures [aria-current]')].map((one) => one.querySelector('strong'))"
    assert page.js(f'return {current}.map((one) => one.textContent)') == ['neck_0']
    page.js("document.querySelector('#pictures .match:nth-child(3) button').focus()")
    page.press(Keys.ENTER)
    assert page.texts('#pictures figcaption strong') == ['neck_1']
    assert page.js('return document.activeElement.className') == 'picture'
    page.press('a')
    assert page.js("return document.activeElement.querySelector('strong').textContent") == 'neck_1'


def luminance(color):
    """Relative luminance of a #rrggbb color, as WCAG (the Web Content Accessibility Guidelines) defines it."""
    parts = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_colors_have_the_contrast_that_wcag_requires(page, scheme):
    chosen = dict(features=[dict(name='prefers-color-scheme', value=scheme)])
    page.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', chosen)
    page.open()
    names = 'ground', 'raised', 'ink', 'faint', 'accent', 'edge', 'second', 'third', 'fourth'
    read_all = (
        'return arguments[0].map((one) => getComputedStyle(document.documentElement).getPropertyValue(`--${one}`))'
    )
    values = {name: luminance(color) + 0.05 for name, color in zip(names, page.js(read_all, names))}
    for ground in ('ground', 'raised'):
        for name in names[2:]:
            low, high = sorted((values[ground], values[name]))
            assert high / low >= (4.5 if name in ('ink', 'faint', 'accent') else 3), (name, ground)
    page.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[]))


def test_a_dark_screen_gets_a_dark_page(page):
    dark = dict(features=[dict(name='prefers-color-scheme', value='dark')])
    page.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dark)
    page.open()
    assert page.js('return getComputedStyle(document.documentElement).backgroundColor') == 'rgb(23, 24, 26)'
    page.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[]))


@pytest.mark.parametrize('settings', ['', 'all=1'])
def test_forced_colors_show_the_current_tile(page, settings):
    forced = dict(features=[dict(name='forced-colors', value='active')])
    page.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', forced)
    page.open(settings)
    tiles = '#pictures button' if settings else '#grid a'
    borders = page.js(
        'return [...document.querySelectorAll(arguments[0])].map((one) => '
        "[one.hasAttribute('aria-current'), getComputedStyle(one).borderTopColor])",
        tiles,
    )
    marked = {color for is_current, color in borders if is_current}
    others = {color for is_current, color in borders if not is_current}
    assert (len(marked), len(others)) == (1, 1)
    assert marked != others
    ground = page.js('return getComputedStyle(document.body).backgroundColor')
    assert ground not in marked
    page.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[]))


@pytest.mark.parametrize('single_file', [False, True])
def test_hostile_names_are_text(browser, tmp_path, single_file):
    """Also on a page that is one file, which works alone, wherever it is moved."""
    snapshots = []
    for number, name in enumerate(HOSTILE_NAMES):
        one = make_snapshot(name, tmp_path / f'{number}.png', number)
        levels = [Level(f'neck.{name}', 0, 8, (8.0, 8.0), random_values(8, 12))]
        snapshots.append(Snapshot(**{**vars(one), 'levels': levels, 'key': f'd/{name}'.replace('</', '<_')}))
    run = write_run(tmp_path / 'run', snapshots, classes=HOSTILE_NAMES[:2])
    heatmap = draw_with_hook(run, 0, f'neck.{HOSTILE_NAMES[0]}_0', colormap='turbo')[1]
    report = write_report(run, single_file=single_file)
    if single_file:
        assert sorted(path.name for path in (tmp_path / 'run/report').iterdir()) == ['index.html', 'manifest.jsonl']
        report.page = shutil.move(report.page, tmp_path / 'my page #1.html')
        for path in (tmp_path / 'run', *tmp_path.glob('*.png')):
            path.rename(f'{path}.gone')
    page = Page(browser, report)
    page.open(f'image={quote(snapshots[0].key)}')
    assert np.abs(page.pixels()[..., 2::-1].astype(int) - heatmap).mean() < 1
    page.wait("[...document.querySelectorAll('#grid img, .picture img')].every((image) => image.naturalWidth)")
    assert page.js("return document.querySelectorAll('#grid img').length") == len(snapshots)
    page.open()
    assert sorted(page.names()) == sorted(one.key.split('/')[-1] for one in snapshots)
    for one in snapshots:
        page.js('document.querySelector(`#grid a[title="${CSS.escape(arguments[0])}"]`).click()', one.key)
        page.wait("document.getElementById('name').textContent === arguments[0]", one.key)
        settings = page.js('return location.hash').lstrip('#')
        page.open(settings)
        assert page.text('#name') == one.key
        page.choose('level', one.levels[0].name)
        assert page.texts('.box.truth span') == [HOSTILE_NAMES[0]]
    assert page.js("return document.querySelectorAll('#grid img[onerror], h2 img').length") == 0
    own = "return document.querySelectorAll('script:not([src]):not([type])').length"
    assert page.js(own) == (2 if single_file else 0)
    assert '<i>a</i>' in page.text('#facts')
    assert page.errors() == []  # an alert would also have stopped the driver
    check_that_injected_scripts_do_not_run(page)


def check_that_injected_scripts_do_not_run(page):
    """Even if something got into the page, the content security policy would stop it."""
    page.js(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">');"
        "const script = document.createElement('script'); script.textContent = 'window.ran = 2';"
        'document.body.append(script);'
        "document.querySelector('body > img').dispatchEvent(new Event('error'));"
    )
    assert page.js('return window.ran') is None
    assert any('Content Security Policy' in error for error in page.errors())


def check_ranges(page, a, b, is_common):
    """The heat of both runs is drawn, and its color bars labeled, on a common range or each on its own."""
    values = [list(run.snapshots())[0].levels[0].values for run in (a, b)]
    grid = Grid((8, 12), (8.0, 8.0), make_snapshot('0', '').placement)
    own = [(grid.visible(one).min(), grid.visible(one).max()) for one in values]
    common = min(low for low, _ in own), max(high for _, high in own)
    for number, map_ in enumerate(values):
        limits = common if is_common else own[number]
        expected = quantize(grid.heatmap(to_unit(map_, limits))).astype(int)
        figure = f'#pictures figure:nth-of-type({number + 1})'
        assert np.abs(page.pixels(f'{figure} .heat')[..., 0] - expected).max() <= 1
        assert [float(text) for text in page.texts(f'{figure} .legend span')] == pytest.approx(limits, rel=1e-3)


@pytest.mark.parametrize('reductions', [('max', 'max'), ('max', 'mean')])
def test_two_runs_on_one_range_or_each_on_its_own(browser, tmp_path, reductions):
    """By default on one where reduction and config are the same; each box has the name that its own run has for it."""

    def one(run, number):
        made = make_snapshot(str(number), tmp_path / f'{number}.png', number)
        return Snapshot(
            **{
                **vars(made),
                'levels': [
                    Level(
                        'neck' if run == 'a' else 'fpn',
                        0,
                        4,
                        (8.0, 8.0),
                        random_values(8, 12, number) * (1 if run == 'a' else 3),
                    )
                ],
            }
        )

    a = write_run(tmp_path / 'a', [one('a', number) for number in range(3)])
    b = write_run(tmp_path / 'b', [one('b', 0), make_snapshot('2', tmp_path / 'other size.png', size=(60, 80))])
    b.info.update(reduction=reductions[1], dataset_meta=dict(classes=('<b>dog</b>', 'horse')))
    page = Page(browser, write_report(a, [b]))
    page.open('image=0&colormap=gray&score=0')
    assert page.texts('.box:not(.truth) span') == ['cat 0.40', '<b>dog</b> 0.90', '<b>dog</b> 0.40', 'horse 0.90']
    colors = page.js(
        "return [...document.querySelectorAll('.box')].map((one) => one.style.getPropertyValue('--color'))"
    )
    assert colors[2] == colors[4]  # of a dog in both runs
    is_common = reductions[0] == reductions[1]
    assert page.find('#common').is_selected() == is_common
    check_ranges(page, a, b, is_common)
    page.find('#common').click()
    check_ranges(page, a, b, not is_common)
    page.find('#pictures .picture').click()
    assert page.texts('#values thead th') == ['A', 'B']
    (level, *texts) = page.texts('#values tbody :is(th, td)')
    shown = page.text('#value output').partition(': ')[2]
    assert (level, f'A: neck_0 {texts[0]}; B: fpn_0 {texts[1]}') == ('neck_0', shown)
    assert page.texts('#pictures figcaption strong') == ['A: neck_0', 'B: fpn_0']
    page.open('image=1')
    assert page.text('#notes') == 'The run has one level only. Run B has no such image.'
    assert page.texts('#pictures figcaption')[1].endswith('no such image')
    assert page.js("return document.querySelectorAll('.heat')[1].ariaLabel") == 'No heat'
    page.open('image=2')
    assert page.texts('#pictures figcaption')[1].endswith('this image in another size')
    assert page.text('#notes') == 'The run has one level only. Run B has this image in another size.'


def test_the_strip_shows_an_image_over_its_epochs(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    snapshots = [make_snapshot(f'epoch_{epoch}/a', tmp_path / 'a.png', epoch) for epoch in (1, 2, 3)]
    page = Page(browser, write_report(write_run(tmp_path / 'run', snapshots)))
    page.open('level=neck_0')
    page.wait("document.querySelectorAll('#strip canvas').length === 3")
    assert page.texts('#strip figcaption') == ['epoch 1', 'epoch 2', 'epoch 3']
    assert page.text('#strip [aria-current]') == 'epoch 3'
    last = page.pixels()
    page.find('#strip figure:nth-child(1) button').click()
    page.wait("document.querySelector('#strip [aria-current]').textContent === 'epoch 1'")
    page.wait_until_painted()
    assert 'shot=epoch+1' in page.js('return location.hash')
    page.js("document.querySelector('#strip figure:nth-child(2) button').focus()")
    page.press(Keys.ENTER)
    page.wait("document.activeElement.textContent === 'epoch 2'")
    page.find('#strip figure:nth-child(1) button').click()
    page.wait("document.querySelector('#strip [aria-current]').textContent === 'epoch 1'")
    assert (page.pixels() != last).any()


@pytest.fixture(scope='module')
def epochs(browser, tmp_path_factory):
    """A page of two images over two epochs, and a third image in the second one only."""
    folder = tmp_path_factory.mktemp('two epochs')
    drawn = [(1, 'a'), (1, 'b'), (2, 'a'), (2, 'b'), (2, 'c')]
    snapshots = [
        make_snapshot(f'epoch_{epoch}/{key}', folder / f'{key}.png', number, folder=f'epoch_{epoch}', position=ord(key))
        for number, (epoch, key) in enumerate(drawn)
    ]
    return Page(browser, write_report(write_run(folder / 'run', snapshots)))


def test_next_and_previous_keep_the_epoch(epochs):
    epochs.open('image=a&shot=epoch+1')
    assert epochs.text('#name') == 'a, epoch 1'
    epochs.find('#next').click()
    epochs.wait("document.getElementById('name').textContent === 'b, epoch 1'")
    epochs.wait("document.querySelector('.box:not(.truth) span')?.textContent === 'cat 0.41'")
    epochs.find('#next').click()
    epochs.wait("document.getElementById('name').textContent === 'c, epoch 2'")
    epochs.wait("document.getElementById('notes').textContent === 'This image has no epoch 1.'")
    epochs.find('#previous').click()
    epochs.wait("document.getElementById('name').textContent === 'b, epoch 1'")
    epochs.find('#grid li:nth-child(1) a').click()
    epochs.wait("document.getElementById('name').textContent === 'a, epoch 1'")


def test_counts_of_images_are_of_the_epoch_shown_and_above_the_lowest_score(epochs):
    """Each image has detections with 0.9 and with 0.4 and a hundredth per image drawn before."""
    epochs.open('image=a&sort=lowest')
    assert epochs.texts('#grid li small') == ['0.42', '0.43', '0.44']
    epochs.wait("document.querySelectorAll('#strip canvas').length === 2")
    epochs.find('#strip figure:nth-child(1) button').click()
    epochs.wait("document.getElementById('name').textContent === 'a, epoch 1'")
    assert epochs.texts('#grid li small') == ['0.4', '0.41', '0.44']
    epochs.choose('sort', 'run')
    assert epochs.texts('#grid li small') == ['2 detections'] * 3
    slide = (
        "const slider = document.getElementById('score'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input', { bubbles: true }));"
    )
    for score, counts in ((0.41, [1, 2, 2]), (0.42, [1, 1, 2]), (0.9, [1, 1, 1]), (0.91, [0, 0, 0])):
        epochs.js(slide, score)
        words = [f'{count} detection{"" if count == 1 else "s"}' for count in counts]
        assert epochs.texts('#grid li small') == words
        shown = "[...document.querySelectorAll('#pictures .box:not(.truth)')].filter((one) => !one.hidden).length"
        assert epochs.js(f'return {shown}') == counts[0]
    epochs.choose('sort', 'best')
    assert epochs.texts('#grid li small') == ['–'] * 3


@pytest.fixture(scope='module')
def long_run(tmp_path_factory):
    """An image over more epochs than the page keeps in memory for other images."""
    folder = tmp_path_factory.mktemp('epochs')
    levels = [
        [Level('neck', level, 4, (32.0, 32.0), random_values(2, 3, level)) for level in range(2)] for _ in range(30)
    ]
    return write_run(
        folder / 'run',
        [make_snapshot(f'epoch_{n}/a', folder / 'a.png', levels=one, boxes=None) for n, one in enumerate(levels, 1)],
    )


def test_a_strip_of_many_epochs_loads_each_file_once(browser, long_run):
    page = Page(browser, write_report(long_run))
    page.open()
    page.wait("document.querySelectorAll('#strip canvas').length === 30")
    assert page.texts('#strip figcaption') == [f'epoch {n}' for n in range(1, 31)]
    assert page.texts('#strip [aria-current]') == ['epoch 30']
    page.js(
        'window.loads = 0; new MutationObserver((changes) => { loads += changes.flatMap('
        '(change) => [...change.addedNodes]).length; }).observe(document.head, { childList: true });'
    )
    for level, key in enumerate('121'):
        page.press(key)
        page.wait("document.querySelectorAll('#strip canvas').length === 30")
        assert page.js("return document.querySelector('#strip canvas').ariaLabel") == f'Heat of neck_{level % 2}'
    assert page.js('return loads') == 0  # each file is read once
    page.find('#strip figure:nth-child(2) button').click()
    page.wait(
        "[...document.querySelectorAll('#strip [aria-current]')].map((one) => one.textContent).join() === 'epoch 2'"
    )
    assert page.errors() == []


def test_a_file_is_requested_once_at_a_time_and_always_arrives(browser, long_run):
    """Also a file that is dropped and requested again before the browser has finished its first script."""
    page = Page(browser, write_report(long_run))
    page.open()
    page.wait("document.querySelectorAll('#strip canvas').length === 30")
    page.js('store.keep(2 - 24); store.shot(28); store.shot(29)')  # only two are kept
    page.js(
        'window.numbers = [...Array(28).keys()]; const all = numbers.map(store.shot);'
        'window.same = numbers.map((number) => store.shot(number) === all[number]);'
        'Promise.all(all).then((found) => { window.came = found.map(({ number }) => number); });'
    )
    assert page.wait('window.came') == list(range(28))
    assert page.js('return same') == [True] * 28
    page.js(
        'store.shot(0); store.shot(1); store.shot(5).then((first) => {'
        ' store.shot(2); store.shot(3);'
        ' store.shot(5).then((second) => { window.both = [first.number, second.number, first === second]; }); })'
    )
    assert page.wait('window.both') == [5, 5, False]


def test_a_missing_file_of_an_epoch_is_reported(browser, long_run):
    page = Page(browser, write_report(long_run))
    (Path(long_run.folder) / 'report/data/000002.js').unlink()
    page.open()
    page.wait("document.querySelectorAll('#strip canvas').length === 29")
    page.wait("!document.getElementById('trouble').hidden")
    assert "000002.js cannot be read: is the report's folder complete?" in page.text('#trouble')
    assert page.texts('#strip > :nth-child(2)') == ['epoch 2']
    assert page.text('#pictures figcaption strong') == 'neck_0'
    page.js("document.getElementById('trouble').hidden = true")
    page.press('2')
    page.wait("!document.getElementById('trouble').hidden")
    assert '000002.js' in page.text('#trouble')


@pytest.fixture(scope='module')
def many_images(browser, tmp_path_factory):
    """A page of 300 images, named by their numbers."""
    folder = tmp_path_factory.mktemp('many')
    image, levels = folder / 'a.png', [Level('neck', 0, 4, (32.0, 32.0), random_values(2, 3))]
    snapshots = [make_snapshot(f'{n:04d}', image, levels=levels, boxes=None) for n in range(300)]
    return Page(browser, write_report(write_run(folder / 'run', snapshots)))


def test_a_sorted_or_searched_list_shows_its_top(many_images):
    page = many_images
    page.open('image=0200')
    assert '0200' in page.names()
    page.choose('sort', 'name')
    page.wait("document.querySelector('#grid li span').textContent === '0000'")
    assert page.js("return document.getElementById('grid').scrollTop") == 0
    page.find('#direction').click()
    page.wait("document.querySelector('#grid li span').textContent === '0299'")
    assert page.js("return document.getElementById('grid').scrollTop") == 0
    page.open('image=0299')
    page.press('/', '0')
    assert page.text('#count') == '300 images'
    assert page.js("return document.getElementById('grid').scrollTop") == 0
    assert page.text('#name') == '0299'


def test_resizing_keeps_the_place_in_the_list(many_images):
    """The marked image stays if it is visible, else the first visible one."""
    page = many_images
    grid = "const grid = document.getElementById('grid');"
    top = (
        f"{grid} return [...grid.querySelectorAll('li')].filter((one) => one.querySelector('span').textContent ==="
        ' arguments[0]).map((one) => one.offsetTop - grid.scrollTop)'
    )
    laid_out = (
        "parseFloat(document.querySelector('#grid li').style.width).toFixed(3) === "
        "(100 / Math.floor(document.getElementById('grid').clientWidth / 120)).toFixed(3)"
    )
    page.open('image=0150')
    for width in ('200px', '600px', '320px'):
        page.js(f"{grid} grid.style.width = '{width}'")
        page.wait(laid_out)
        (place,) = page.js(top, '0150')
        assert 0 <= place <= page.js(f'{grid} return grid.clientHeight') - 132
    page.js(f"{grid} grid.style.width = '300px'; grid.scrollTop = 30 * 132")
    page.wait("[...document.querySelectorAll('#grid li span')].some((one) => one.textContent === '0060')")
    page.js(f"{grid} grid.style.width = '400px'")
    page.wait(laid_out)
    assert page.js(top, '0060') == [0]


def test_a_page_of_many_images_holds_only_the_visible_thumbnails(many_images):
    page = many_images
    page.open()
    assert 4 < len(page.names()) < 60
    assert page.names()[0] == '0000'
    for place in ('0060', '0150'):  # tiles that scrolled out of view are gone
        tile = "document.querySelector('#grid li').offsetHeight"
        page.js(f"document.getElementById('grid').scrollTop = arguments[0] / 2 * {tile}", int(place))
        page.wait(f"[...document.querySelectorAll('#grid li span')].some((one) => one.textContent === '{place}')")
    page.js("document.getElementById('grid').scrollTop = 1e6")
    page.wait("[...document.querySelectorAll('#grid li span')].some((one) => one.textContent === '0299')")
    assert not {'0000', '0060', '0150'} & set(page.names())
    page.open('image=0200')
    assert '0200' in page.names()


def test_a_page_with_nothing_to_show_says_so(browser, tmp_path):
    run = write_run(tmp_path / 'run', [make_snapshot('a', tmp_path / 'a.png')])
    Path(run.paths[0]).write_bytes(b'no maps')
    page = Page(browser, write_report(run))
    page.browser.get(page.url)
    assert page.text('#count') == 'No images to show.'
    assert not page.find('#viewer').is_displayed()
    assert page.errors() == []


def test_notes_name_what_an_image_lacks(browser, tmp_path):
    one = make_snapshot(
        'a', tmp_path / 'a.png', levels=[Level('neck', 0, 4, (8.0, 8.0), random_values(8, 12))], boxes=None
    )
    page = Page(browser, write_report(write_run(tmp_path / 'run', [one], images=False)))
    page.open()
    expected = (
        'The run has one level only. No boxes: neither predictions nor ground truth. The image file could not be read.'
    )
    assert page.text('#notes') == expected
    assert 'No ground truth in this run' in page.text('#facts')
    assert [option for option in page.texts('#sort option') if 'boxes' in option] == []


def test_missing_data_files_are_reported(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    run = write_run(tmp_path / 'run', [make_snapshot(str(n), tmp_path / f'{n}.png', n) for n in range(6)])
    page = Page(browser, write_report(run))
    (tmp_path / 'run/report/data/000004.js').unlink()
    (tmp_path / 'run/report/data/000005.js').write_text('')
    page.open('image=1')
    for name in '45':
        page.wait("document.querySelector('#pictures .heat')")
        page.find(f'#grid li:nth-child({int(name) + 1}) a').click()
        page.wait("!document.getElementById('trouble').hidden")
        assert f"00000{name}.js cannot be read: is the report's folder complete?" in page.text('#trouble')
        for level in ('backbone_0', 'neck_1'):  # nothing of another image is shown, also after another level is chosen
            page.choose('level', level)
            page.press('2')
            assert page.text('#name') == name
            assert page.texts('#viewer :is(canvas, .box, .mark, .legend)') == []
        page.find('#grid li:nth-child(1) a').click()
        page.wait("document.getElementById('trouble').hidden")
    page.find('#grid li:nth-child(5) a').click()
    page.wait("!document.getElementById('trouble').hidden")
    page.press(Keys.ARROW_LEFT)
    page.wait("document.getElementById('name').textContent === '3'")
    page.wait("document.querySelector('#pictures .heat')")
    assert page.text('.box:not(.truth) span') == 'cat 0.43'


def test_a_late_failure_does_not_clear_a_newer_image(page):
    page.open('image=street/1')
    page.js(
        'store.shot = ((real) => (number) => number === 4 ? new Promise((_, reject) => { window.fail = reject; })'
        ' : real(number))(store.shot);'
    )
    page.find('#grid li:nth-child(5) a').click()
    page.wait('Boolean(window.fail)')
    page.find('#grid li:nth-child(3) a').click()
    page.wait("document.querySelector('.box:not(.truth) span')?.textContent === 'cat 0.50'")
    page.js("window.fail(new Error('too late'))")
    assert not page.find('#trouble').is_displayed()
    assert page.text('#name') == 'street/2'
    assert len(page.texts('#pictures .heat')) == 1
