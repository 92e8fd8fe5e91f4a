"""The report: its data, and the page in a real browser, opened from disk."""

import base64
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import (
    noise,
    pool_detector,
    read,
    resnet_detector,
    runner_config,
    train_config,
    write_dataset,
)
from mmengine.runner import Runner

from mmdet_featviz.evaluation.heat_measures import inside_boxes
from mmdet_featviz.report.builder import Report
from mmdet_featviz.report.page_data import level_data
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement, identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.colors import to_unit
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Views

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


def write_run(folder, snapshots, classes=('cat', '<b>dog</b>'), images=True, **style):
    """Save the maps of snapshots, and their images where they say they are."""
    info = dict(
        layers=['backbone', 'neck'], reduction='max', dataset_meta=dict(classes=classes), config='configs/<i>a</i>.py'
    )
    writer = RunWriter(RunFolder(str(folder)), Style(**{'save': 'maps', **style}), info)
    for number, one in enumerate(snapshots):
        if images and not Path(one.path).exists():
            Path(one.path).parent.mkdir(parents=True, exist_ok=True)
            Path(one.path).write_bytes(cv2.imencode('.png', noise(*one.placement.image_size, seed=number))[1].tobytes())
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


class Tables(HTMLParser):
    """The texts of the cells of all tables of a page, by caption."""

    def __init__(self, page):
        super().__init__()
        self.found, self.caption, self.inside = {}, '', ''
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        if tag == 'caption':
            self.caption = ''
        elif tag == 'tr':
            self.found.setdefault(self.caption, []).append([])
        elif tag in ('td', 'th'):
            self.found[self.caption][-1].append('')

    def handle_endtag(self, tag):
        self.inside = ''

    def handle_data(self, text):
        if self.inside == 'caption':
            self.caption += text
        elif self.inside in ('td', 'th'):
            self.found[self.caption][-1][-1] += text


def read_tables(report):
    return Tables(Path(report.page).read_text(encoding='utf-8')).found


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
    'turned': Placement(np.array([[0.5, 0.1, -13.02], [-0.1, 0.5, 12.03], [0, 0.0005, 1]]), SIZE, (64, 96)),
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


def test_what_is_not_finite_has_a_byte_of_its_own():
    values = np.array([[1, np.nan, 3], [np.inf, 2, -1]], np.float32)
    data = level_data(Level('neck', 0, 4, (16.0, 16.0), values), identity_placement((32, 48), (32, 48)), 'center')
    np.testing.assert_allclose(cells_of(data), [[1, np.nan, 3], [np.nan, 2, -1]], atol=4 / 254 / 2)
    assert list(data['range']) == [-1, 3]


@pytest.mark.parametrize('value', [0, 7, np.nan])
def test_a_map_of_one_value_is_told_without_a_warning(value):
    values = np.full((2, 3), value, np.float32)
    data = level_data(Level('neck', 0, 4, (16.0, 16.0), values), identity_placement((32, 48), (32, 48)), 'center')
    np.testing.assert_array_equal(cells_of(data), values)


def test_maps_with_a_cell_for_each_pixel_become_no_larger_than_the_image_on_the_page():
    """The mean of passes has such. It is a slope here, which scaling down leaves as it is."""
    size = 1500, 2400
    values = np.add.outer(np.arange(size[0]), 2 * np.arange(size[1])).astype(np.float32)
    data = level_data(Level('neck', 0, 4, (1.0, 1.0), values), identity_placement(size, size), 'center')
    assert (data['rows'], data['columns']) == (1000, 1000)
    matrix, cells = np.array(data['matrix']).reshape(3, 3), cells_of(data)
    for x, y in ((100.5, 80.5), (2000.5, 1400.5), (1200.5, 700.5)):
        column, row, _ = matrix @ (x, y, 1)
        step = (data['high'] - data['low']) / 254
        assert cells[round(row), round(column)] == pytest.approx(y + 2 * x - 1.5, abs=step + 4)


TRUTH = np.array([[5.0, 5, 25, 30], [30, 10, 90, 80]])  # a small and a medium one


def with_truth(one, truth):
    """A snapshot with other boxes, all of them ground truth."""
    boxes = Boxes(truth, np.zeros(len(truth), np.int64), np.full(len(truth), np.nan))
    return Snapshot(**{**vars(one), 'boxes': boxes})


def test_focus_is_the_energy_inside_boxes_in_float64(tmp_path):
    snapshots = [with_truth(snapshot(str(n), tmp_path / f'{n}.png', n), TRUTH[: 2 - n]) for n in range(2)]
    snapshots.append(with_truth(snapshot('none', tmp_path / '2.png'), TRUTH[:0]))
    snapshots.append(with_truth(snapshot('beyond', tmp_path / '3.png'), TRUTH + 500))
    report = write_report(write_run(tmp_path / 'run', snapshots))
    images = data_of(report.run)['images']
    assert not {'energy', 'share'} & {*images[2], *images[3]}
    tables = read_tables(report)
    for number, row in enumerate(tables['Focus: 2 images of this page'][2:]):
        found = {'all': [], 'small': [], 'medium': []}
        for image, one, truth in zip(images, snapshots, (TRUTH, TRUTH[:1])):
            level = one.levels[number]
            heat = Grid(level.values.shape, level.stride, one.placement).heatmap(level.values).astype(np.float64)
            heat -= heat.min()
            for size, boxes in (('all', truth), ('small', truth[:1]), ('medium', truth[1:])):
                if len(boxes):
                    inside = inside_boxes(boxes, SIZE)
                    found[size].append((heat[inside].sum() / heat.sum(), inside.mean()))
            assert image['energy'][level.name] == pytest.approx(found['all'][-1][0], abs=1e-4)
            assert image['share'] == pytest.approx(found['all'][-1][1], abs=1e-4)
        energies = [f'{100 * np.mean([energy for energy, _ in found[size]]):.1f} %' for size in found]
        gains = [f'{np.mean([energy / share for energy, share in found[size]]):.2f}' for size in found]
        assert row[:9] == [snapshots[0].levels[number].name, *energies, '–', *gains, '–']


def test_boxes_that_cover_the_whole_image_are_as_good_as_chance(tmp_path):
    one = with_truth(snapshot('a', tmp_path / 'a.png'), np.array([[0.0, 0, SIZE[1], SIZE[0]]]))
    rows = list(read_tables(write_report(write_run(tmp_path / 'run', [one]))).values())[-1][2:]
    assert [(row[5], row[9]) for row in rows] == [('1.00', '100.0 %')] * 3


def test_large_images_are_judged_at_the_size_of_the_page(tmp_path):
    """The maximum lies in one cell of 16 pixels: 10 pixels beside a box are near, and 30 are not."""
    size = 1600, 2400
    values = np.zeros((100, 150), np.float32)
    values[50, 100] = 1  # its centre is at (1608, 808)
    images = []
    for number, beside in enumerate((10, 30)):
        level = Level('neck', 0, 4, (16.0, 16.0), values)
        one = snapshot(str(number), tmp_path / f'{number}.png', levels=[level], size=size, matrix=np.eye(3))
        placement = identity_placement(size, size)
        truth = np.array([[1608.0 + beside, 700, 1800, 900]])
        images.append(with_truth(Snapshot(**{**vars(one), 'placement': placement}), truth))
    for one, expected in zip(images, ('100.0 %', '0.0 %')):
        report = write_report(write_run(tmp_path / f'run {one.key}', [one]))
        row = list(read_tables(report).values())[-1][2]
        assert row[9] == expected
        assert row[12] == expected  # of large objects


def test_the_list_of_images_has_their_figures(tmp_path):
    run = write_run(tmp_path / 'run', [snapshot(f'p/{n}', tmp_path / f'{n}.png', n) for n in range(3)])
    report = write_report(run)
    assert report.summary() == f'report of 3 images: {report.page}'
    index = data_of(run)
    assert [image['key'] for image in index['images']] == ['p/0', 'p/1', 'p/2']
    one = index['images'][1]
    assert (one['detections'], one['best'], one['lowest'], one['truth'], one['labels']) == (2, 0.9, 0.41, 1, [0, 1])
    assert set(one['energy']) == {'backbone_0', 'neck_0', 'neck_1'}
    assert index['classes'] == ['cat', '\u003cb>dog\u003c/b>']
    shot = data_of(run, '000001')
    assert shot['size'] == [130, 90]
    assert shot['sides'][0]['boxes'][0] == [20, 10, 60, 50, 0, None]
    assert read(tmp_path / 'run' / 'report' / 'images' / '000001.jpg').shape == (*SIZE, 3)


def test_images_are_made_no_larger_than_a_screen(tmp_path):
    size = 1400, 700
    levels = [Level('neck', 0, 4, (16.0, 16.0), shape(44, 22))]
    run = write_run(tmp_path / 'run', [snapshot('a', tmp_path / 'a.png', size=size, levels=levels)])
    write_report(run)
    assert read(tmp_path / 'run/report/images/000000.jpg').shape == (1000, 500, 3)
    assert read(tmp_path / 'run/report/thumbs/000000.jpg').shape == (200, 100, 3)
    assert data_of(run, '000000')['canvas'] == [500, 1000]


def test_epochs_and_passes_of_one_image_are_its_shots(tmp_path):
    snapshots = [snapshot(f'epoch_{epoch}/p/a', tmp_path / 'a.png', epoch) for epoch in (1, 2, 10)]
    snapshots.append(snapshot('b', tmp_path / 'b.png'))
    snapshots.append(snapshot('b', tmp_path / 'b.png', augmentation=1))
    # A data set may have folders of such names: these are two images.
    snapshots += [snapshot(f'epoch_{n}/c', tmp_path / f'epoch_{n}' / 'c.png') for n in (1, 2)]
    run = write_run(tmp_path / 'run', snapshots)
    write_report(run)
    shots = [(image['key'], [label for _, label in image['shots']]) for image in data_of(run)['images']]
    assert shots == [
        ('p/a', ['epoch 1', 'epoch 2', 'epoch 10']),
        ('b', ['', 'pass 1']),
        ('c', ['epoch 1']),
        ('c (2)', ['epoch 2']),
    ]
    assert data_of(run)['images'][0]['lowest'] == 0.5  # of the last epoch
    assert len(list((tmp_path / 'run/report/images').iterdir())) == 4


def test_only_some_images(tmp_path):
    run = write_run(tmp_path / 'run', [snapshot(str(n), tmp_path / f'{n}.png', n) for n in range(4)])
    assert write_report(run, max_images=2).summary().startswith('report of 2 images')
    assert len(list((tmp_path / 'run/report/data').iterdir())) == 3


def test_an_earlier_report_is_replaced_wholly(tmp_path):
    run = write_run(tmp_path / 'run', [snapshot(str(n), tmp_path / f'{n}.png', n) for n in range(3)])
    write_report(run)
    (tmp_path / 'run/report/notes.txt').write_text('mine')
    write_report(run, max_images=1)
    names = {path.name for path in (tmp_path / 'run/report').rglob('*') if path.is_file()}
    assert {'notes.txt', 'index.html', '000000.js', '000000.jpg'} <= names
    assert not {'000001.js', '000001.jpg'} & names


def test_what_is_missing_is_told(tmp_path):
    run = write_run(tmp_path / 'run', [snapshot(f'p{n}', tmp_path / f'{n}.png', n) for n in range(3)])
    (tmp_path / '1.png').unlink()
    Path(run.paths[2]).write_bytes(b'no maps')
    report = write_report(run)
    assert '1 skipped, maps not readable (p2/maps.npz); 1 without a image (p1)' in report.summary()
    page = Path(report.page).read_text(encoding='utf-8')
    assert '1 left out, as their maps cannot be read: p2/maps.npz' in page
    assert data_of(run)['images'][1]['thumb'] is None


def test_an_image_without_its_image_counts_once_whatever_its_epochs(tmp_path, monkeypatch):
    from mmdet_featviz.runs import reader

    snapshots = [snapshot(f'epoch_{n}/{key}', tmp_path / f'{key}.png', n) for n in range(5) for key in 'ab']
    run = write_run(tmp_path / 'run', snapshots, images=False)
    tries, real = [], reader.read_image
    monkeypatch.setattr(reader, 'read_image', lambda path, *args: tries.append(Path(path).name) or real(path, *args))
    report = write_report(run)
    assert report.summary() == f'report of 2 images: {report.page}; 2 without a image (a, b)'
    assert tries == ['a.png', 'b.png']
    said = '2 shown without the original image, which cannot be read: a, b'
    assert said in Path(report.page).read_text(encoding='utf-8')


def test_the_head_says_what_counts_as_a_hit(tmp_path):
    report = write_report(write_run(tmp_path / 'run', [snapshot('a', tmp_path / 'a.png')]))
    said = 'Hit: how often the maximum is inside a box or at most 15 pixels from one. '
    assert said in Path(report.page).read_text(encoding='utf-8')


def test_one_image_is_held_at_a_time(tmp_path, monkeypatch):
    """When the next is read, nothing refers to the one before."""
    import weakref

    from mmdet_featviz.report import builder

    run = write_run(tmp_path / 'run', [snapshot(str(n), tmp_path / f'{n}.png', n) for n in range(4)])
    alive, load = [], builder.load_with_image

    def watched(*args):
        assert not [reference for reference in alive if reference() is not None]
        loaded = load(*args)
        alive.append(weakref.ref(loaded.levels[0].values))
        return loaded

    monkeypatch.setattr(builder, 'load_with_image', watched)
    write_report(run)
    assert len(alive) == 4


# In a real browser.


def chromium():
    """A headless Chromium, or the reason why there is none."""
    selenium = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
    from selenium.webdriver.chrome.service import Service

    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    driver = shutil.which('chromedriver')
    if browser is None or driver is None:
        pytest.skip('no Chromium with chromedriver (Debian: apt-get install chromium chromium-driver)')
    options = selenium.ChromeOptions()
    options.binary_location = browser
    # Of the tests' own pages alone; a container has no sandbox and little shared memory.
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--force-device-scale-factor=1'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    return selenium.Chrome(options=options, service=Service(driver))


@pytest.fixture(scope='module')
def browser():
    driver = chromium()
    yield driver
    driver.quit()


class Page:
    """A report in the browser."""

    def __init__(self, browser, report):
        self.browser = browser
        self.url = Path(report.page).as_uri()

    def open(self, settings='', size=(1300, 900)):
        # A window cannot be as narrow as a telephone, but its contents can.
        metrics = dict(width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
        self.browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
        self.browser.get('about:blank')
        self.browser.get_log('browser')
        self.browser.get(f'{self.url}#{settings}')
        return self.painted()

    def wait(self, condition, *args):
        """Wait until a JavaScript expression is true; returns its value."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 30, 0.05).until(lambda _: self.js(f'return {condition}', *args))

    def painted(self):
        self.wait("document.getElementById('pictures').dataset.painted > 0")
        return self

    def js(self, code, *args):
        return self.browser.execute_script(code, *args)

    def find(self, selector):
        return self.browser.find_element('css selector', selector)

    def text(self, selector):
        return self.js('return document.querySelector(arguments[0]).textContent', selector)

    def texts(self, selector):
        return self.js('return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)', selector)

    def choose(self, name, value):
        from selenium.webdriver.support.ui import Select

        place = (
            'return [...document.getElementById(arguments[0]).options].findIndex(({ value }) => value === arguments[1])'
        )
        Select(self.find(f'#{name}')).select_by_index(self.js(place, name, value))

    def drag(self, name, across):
        """Drag a slider's thumb to a part of its way."""
        from selenium.webdriver import ActionChains

        slider = self.find(f'#{name}')
        width = slider.size['width']
        ActionChains(self.browser).drag_and_drop_by_offset(slider, 0, 0).perform()
        chain = ActionChains(self.browser).move_to_element(slider).click_and_hold()
        chain.move_by_offset(round((across - 0.5) * width), 0).release().perform()

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def pixels(self, selector='.heat'):
        """Of a canvas, (height, width, 4) RGBA."""
        width, height, data = self.js(
            'const canvas = document.querySelector(arguments[0]), {width, height} = canvas;'
            "const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;"
            "return [width, height, btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(''))];",
            selector,
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)

    def screenshot(self, selector):
        """Of an element, BGR."""
        return cv2.imdecode(np.frombuffer(self.find(selector).screenshot_as_png, np.uint8), cv2.IMREAD_COLOR)

    def names(self):
        return self.texts('#grid li span')

    def errors(self):
        return [entry['message'] for entry in self.browser.get_log('browser') if entry['level'] == 'SEVERE']


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('report #1 100%')
    snapshots = []
    for number, placement in enumerate(PLACEMENTS.values()):
        one = snapshot(f'street/{number}', folder / f'{number}.png', number * 5)
        snapshots.append(Snapshot(**{**vars(one), 'placement': placement}))
    return write_run(folder / 'run', snapshots)


@pytest.fixture(scope='module')
def page(browser, run):
    return Page(browser, write_report(run))


def drawn_by_the_hook(run, number, level, **style):
    """The hook's overlay and heatmap of an image of a run."""
    one = list(run.snapshots())[number]
    views = Views(Style(save=('overlay', 'heatmap'), **style))
    pictures = {picture.name: picture.pixels for picture in views.draw(one, views.place(one))}
    return pictures[f'{level}.jpg'], pictures[f'{level}.heatmap.png']


@pytest.mark.parametrize('number', range(len(PLACEMENTS)), ids=PLACEMENTS)
@pytest.mark.parametrize('colormap', ['jet', 'viridis', 'gray'])
def test_the_browser_draws_what_the_hook_draws(page, run, number, colormap):
    for level in ('backbone_0', 'neck_1'):
        page.open(f'image=street/{number}&level={level}&colormap={colormap}')
        heatmap = drawn_by_the_hook(run, number, level, colormap=colormap)[1]
        found = page.pixels()
        assert found[..., 3].min() == 255
        assert np.abs(found[..., 2::-1].astype(int) - heatmap).mean() < 1
    assert page.errors() == []


def difference_on_the_screen(page, run, **style):
    """Mean of grey levels between the page's picture of a level and the hook's overlay."""
    page.open(f'image=street/1&level=neck_0&pred=0&truth=0&alpha={style["alpha"]}')
    page.js("document.querySelector('.picture').style.width = '130px'")
    page.wait("document.querySelector('.picture img').complete")
    expected = drawn_by_the_hook(run, 1, 'neck_0', **style)[0]
    shown = page.screenshot('.picture')
    assert shown.shape == expected.shape
    return np.abs(shown.astype(int) - expected).mean()


def test_the_picture_on_the_screen_is_the_hooks_overlay(page, run):
    assert difference_on_the_screen(page, run, alpha=0.6) < 3


@pytest.mark.parametrize('alpha', [0.3, 1])
def test_added_heat_on_the_screen_is_the_hooks_overlay(browser, run, tmp_path, alpha):
    added = write_run(tmp_path / 'run', run.snapshots(), blend='add')
    assert difference_on_the_screen(Page(browser, write_report(added)), added, alpha=alpha, blend='add') < 3


def test_a_pixel_of_the_canvas_has_the_value_of_the_map(page, run):
    """Read back from the grey color map, of each level."""
    one = next(iter(run.snapshots()))
    for level in one.levels:
        page.open(f'image=street/0&level={level.name}&colormap=gray')
        grid = Grid(level.values.shape, level.stride, one.placement)
        visible = grid.visible(level.values)
        heatmap = grid.heatmap(to_unit(level.values, (visible.min(), visible.max())))
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
    step = np.ptp(level.values) / 254
    assert around.min() - step <= float(words.rpartition(' ')[2]) <= around.max() + step


def test_sliders_are_dragged(page):
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
    page.open('colormap=gray')
    grey = page.pixels()[..., 0] / 255
    assert 0.3 < threshold < 0.7
    certain = np.abs(grey - threshold) > 0.01
    np.testing.assert_array_equal(hidden[certain], (grey < threshold)[certain])


def test_a_map_that_is_decoded_late_is_painted_in_the_colors_of_now(page):
    page.open('level=neck_0&colormap=viridis')
    expected = page.pixels()
    page.open()
    page.js(
        'window.waiting = []; const decode = heat.decode;'
        'heat.decode = async (level) => { await decode(level);'
        ' if (waiting.length < 1) await new Promise((done) => waiting.push(done)); };'
    )
    page.press('2')
    page.wait('waiting.length === 1')
    page.choose('colormap', 'viridis')
    rest = 'new Promise((done) => setTimeout(() => done(true), 200))'
    page.wait(rest)
    np.testing.assert_array_equal(page.pixels(), expected)
    page.js('waiting[0]()')
    page.wait(rest)
    np.testing.assert_array_equal(page.pixels(), expected)


def test_boxes_are_switched_and_lie_where_they_should(page):
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
    page.press(Keys.BACKSPACE, 'DOG street')
    assert page.text('#count') == '5 images'
    page.press(' zebra')
    assert page.text('#count') == 'No image matches the search.'
    page.find('#search').clear()
    page.open()
    page.choose('sort', 'lowest')
    assert page.names() == ['0', '1', '2', '3', '4']
    page.find('#direction').click()
    assert page.names() == ['4', '3', '2', '1', '0']
    assert page.texts('#grid li small') == ['0.6', '0.55', '0.5', '0.45', '0.4']


def test_images_are_sorted_by_the_heat_inside_boxes_of_the_chosen_level(page, run):
    energies = [image['energy'] for image in data_of(run)['images']]
    for level in ('backbone_0', 'neck_1'):
        page.open(f'sort=energy&level={level}')
        order = sorted(range(5), key=lambda number: energies[number][level])
        assert page.names() == [str(number) for number in order]
        assert page.texts('#grid li small')[0] == f'{energies[order[0]][level] * 100:.1f} %'


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
    assert page.text('#value output').startswith('x 75, y 45: neck_0 ')
    page.press('/', 'a3')  # letters of a search are no keys
    assert page.text('#pictures figcaption strong') == 'neck_0'


def test_arrows_scroll_a_small_window_where_there_is_no_further_level(page):
    from selenium.webdriver.common.keys import Keys

    page.open('level=neck_0', size=(1300, 300))
    page.press(Keys.ARROW_DOWN)
    assert page.text('#pictures figcaption strong') == 'neck_1'
    assert page.js('return scrollY') == 0
    page.press(Keys.ARROW_DOWN)
    page.wait('scrollY > 0')
    assert page.text('#pictures figcaption strong') == 'neck_1'
    page.choose('level', 'backbone_0')
    page.js('document.activeElement.blur(); scrollTo(0, 100)')
    page.press(Keys.ARROW_UP)
    page.wait('scrollY < 100')
    assert page.text('#pictures figcaption strong') == 'backbone_0'


def test_a_range_from_zero_of_negative_values_is_empty(browser, tmp_path):
    levels = [Level('neck', 0, 4, (8.0, 8.0), -1 - np.abs(shape(8, 12)))]
    page = Page(browser, write_report(write_run(tmp_path / 'run', [snapshot('a', tmp_path / 'a.png', levels=levels)])))
    page.open('range=max&colormap=gray')
    assert page.texts('.legend span') == ['0', '0']
    np.testing.assert_array_equal(np.unique(page.pixels().reshape(-1, 4), axis=0), [[0, 0, 0, 255]])


def test_the_address_names_image_and_settings(page):
    page.open()
    page.choose('level', 'neck_0')
    page.choose('colormap', 'magma')
    page.find('#grid li:nth-child(3) a').click()
    page.wait("document.getElementById('name').textContent === 'street/2'")
    settings = page.js('return location.hash').lstrip('#')
    assert settings == 'image=street%2F2&level=neck_0&colormap=magma'
    before = page.painted().pixels()
    page.open(settings)
    assert page.text('#name') == 'street/2'
    np.testing.assert_array_equal(page.pixels(), before)
    page.open('image=nowhere&level=none&colormap=x&alpha=y&sort=z&range=fixed')  # what there is not does no harm
    assert page.text('#name') == 'street/0'
    assert page.errors() == []


SLIDE = (
    "const slide = (...values) => values.forEach((value) => { const slider = document.getElementById('alpha');"
    " slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); });"
)


def test_a_dragged_slider_renews_the_address_once_it_rests(page):
    """Browsers drop or forbid hundreds of renewals; what is painted follows at once."""
    page.open('image=street/1')
    page.js(
        'window.renewals = 0; const real = history.replaceState.bind(history);'
        'history.replaceState = (...given) => { renewals++; real(...given); };'
    )
    opacity = "getComputedStyle(document.querySelector('.heat')).opacity"
    assert (
        page.js(f'{SLIDE} slide(...Array.from({{ length: 99 }}, (_, n) => (n + 1) / 100)); return {opacity}') == '0.99'
    )
    page.wait("location.hash === '#image=street%2F1&alpha=0.99'")
    links = "return [...document.querySelectorAll('#grid a')].map((one) => one.hash)"
    assert page.js(links) == [f'#image=street%2F{n}&alpha=0.99' for n in range(5)]
    assert page.js('return renewals') <= 2
    page.press('2')
    assert page.js('return location.hash') == '#image=street%2F1&level=neck_0&alpha=0.99'


def test_a_renewal_of_the_address_that_waits_overwrites_no_later_one(page):
    page.open('image=street/1')
    page.js(f"{SLIDE} slide(0.7, 0.8); document.querySelector('#grid li:nth-child(3) a').click()")
    page.wait("document.getElementById('name').textContent === 'street/2'")
    assert page.js('return location.hash') == '#image=street%2F2&alpha=0.8'
    # The page may be told of a new address only after the time of the renewal: pushState() does not tell.
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


def test_images_of_one_name_are_told_apart(browser, tmp_path):
    """As of a validation and a test set, or where an address cannot hold what tells their names apart."""
    keys = 'epoch_1/a', 'a', 'a (2)', '\udc80', '\udc81'
    snapshots = [snapshot(key, tmp_path / f'{number}.png', number) for number, key in enumerate(keys)]
    run = write_run(tmp_path / 'run', snapshots)
    page = Page(browser, write_report(run))
    assert [image['key'] for image in data_of(run)['images']] == ['a', 'a (2)', 'a (2) (2)', '\udc80', '\udc81 (2)']
    assert [image['lowest'] for image in data_of(run)['images']] == [0.4, 0.41, 0.42, 0.43, 0.44]
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


def test_all_levels_lead_to_each(page):
    page.open('all=1')
    assert len(page.texts('#pictures figure')) == 3
    page.find('#pictures .pair:nth-child(2) button').click()
    assert page.texts('#pictures figcaption strong') == ['neck_0']
    assert not page.find('#all').is_selected()


def test_one_range_for_the_run(page, run):
    low, high = data_of(run)['ranges'][0]['neck_0']
    page.open('image=street/2&level=neck_0&range=run&colormap=gray')
    one = list(run.snapshots())[2]
    level = one.levels[1]
    grid = Grid(level.values.shape, level.stride, one.placement)
    expected = grid.heatmap(to_unit(level.values, (low, high))) * 255
    assert np.abs(page.pixels()[..., 0] - expected).max() <= 2
    assert [float(text) for text in page.texts('.legend span')] == pytest.approx([low, high], rel=1e-3)


@pytest.mark.parametrize('settings', ['', 'all=1'])
def test_a_narrow_screen_needs_no_scrolling_sideways(page, settings):
    page.open(settings, size=(375, 700))
    page.js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.js('return document.documentElement.scrollWidth') <= 375
    right_edges = "[...document.querySelectorAll('#viewer *')].map((one) => one.getBoundingClientRect().right)"
    assert page.js(f'return Math.max(...{right_edges})') <= 375


@pytest.mark.parametrize('width', [375, 1300])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_the_plot_of_focus_is_drawn_where_it_says(page, width, scheme):
    """Its marks above the names of their levels, at the heights of their values, in colors that can be seen."""
    chosen = dict(features=[dict(name='prefers-color-scheme', value=scheme)])
    page.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', chosen)
    page.open(size=(width, 800))
    page.find('#info summary').click()
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


def names_of(page, *roles):
    """{role: names}, as the browser tells them to a screen reader."""
    found = {}
    for node in page.browser.execute_cdp_cmd('Accessibility.getFullAXTree', {})['nodes']:
        role = node.get('role', {}).get('value')
        if role in roles and not node['ignored']:
            found.setdefault(role, []).append(node.get('name', {}).get('value', '').strip())
    return found


@pytest.mark.parametrize('settings', ['', 'all=1'])
def test_everything_that_can_be_used_or_seen_has_a_name(page, settings):
    page.open(settings)
    page.js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    operated = 'button', 'checkbox', 'combobox', 'link', 'searchbox', 'slider', 'DisclosureTriangle'
    names = names_of(page, *operated, 'image', 'img', 'region', 'table')
    assert [role for role, texts in names.items() if not all(texts)] == []
    assert names['searchbox'] == ['Search']
    assert names['combobox'] == ['Sort by', 'Level', 'Colors', 'Range']
    assert names['slider'] == ['Opacity', 'Threshold', 'Score from']
    assert names['checkbox'] == ['all levels', 'predictions', 'ground truth']
    assert len(names['link']) == 5
    assert {'Reverse the order', 'Previous image', 'Next image'} <= set(names['button'])
    pictures = [name for role in ('image', 'img') for name in names.get(role, []) if name.startswith('Heat of')]
    assert len(pictures) == (3 if settings else 1)


def test_tab_leads_through_everything_and_shows_where_it_is(page):
    """To one of the images only: there may be thousands, and arrows lead on."""
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
    wanted = ['search', 'sort', 'direction', 'street/1', 'previous', 'next', 'level', 'all', 'colormap', 'range']
    wanted += ['alpha', 'threshold', 'pred', 'truth', 'score']
    assert [name for name in order if name in wanted or name.startswith('street/')] == wanted
    assert {'Focus', 'Picture: Shift and arrows read values'} <= set(order)
    assert [name for name, is_shown in walked if not is_shown] == []


def test_arrows_lead_the_focus_through_the_gallery(page):
    from selenium.webdriver.common.keys import Keys

    page.open()
    focused = 'return document.activeElement.title'
    page.js("document.querySelector('#grid a').focus()")
    page.press(Keys.ARROW_RIGHT)
    page.wait("document.getElementById('name').textContent === 'street/1'")
    assert page.js(focused) == 'street/1'
    tabbed = "return [...document.querySelectorAll('#grid a')].filter((one) => !one.tabIndex).map((one) => one.title)"
    assert page.js(tabbed) == ['street/1']
    page.press('/', 'street/4', Keys.TAB, Keys.TAB, Keys.TAB)
    assert page.js(focused) == 'street/4'
    page.press(Keys.ENTER)
    page.wait("document.getElementById('name').textContent === 'street/4'")


def luminance(color):
    """Of a #rrggbb color, as the Web Content Accessibility Guidelines define it."""
    parts = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_colors_have_the_contrast_that_the_guidelines_ask_for(page, scheme):
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


def test_hostile_names_are_text(browser, tmp_path):
    snapshots = []
    for number, name in enumerate(HOSTILE):
        one = snapshot(name, tmp_path / f'{number}.png', number)
        levels = [Level(f'neck.{name}', 0, 8, (8.0, 8.0), shape(8, 12))]
        snapshots.append(Snapshot(**{**vars(one), 'levels': levels, 'key': f'd/{name}'.replace('</', '<_')}))
    run = write_run(tmp_path / 'run', snapshots, classes=HOSTILE[:2])
    page = Page(browser, write_report(run))
    page.open()
    assert sorted(page.names()) == sorted(one.key.split('/')[-1] for one in snapshots)
    for one in snapshots:
        page.js('document.querySelector(`#grid a[title="${CSS.escape(arguments[0])}"]`).click()', one.key)
        page.wait("document.getElementById('name').textContent === arguments[0]", one.key)
        settings = page.js('return location.hash').lstrip('#')
        page.open(settings)
        assert page.text('#name') == one.key
        page.choose('level', one.levels[0].name)
        assert page.texts('.box.truth span') == [HOSTILE[0]]
    assert page.js("return document.querySelectorAll('#grid img[onerror], h2 img, script:not([src])').length") == 0
    assert '<i>a</i>' in page.text('#info')
    assert page.errors() == []  # an alert would also have stopped the driver


def test_the_page_lets_nothing_run_that_is_not_its_own(page):
    """Were something put into the page after all, the policy would stop it."""
    page.open()
    page.js(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">');"
        "const script = document.createElement('script'); script.textContent = 'window.ran = 2';"
        'document.body.append(script);'
        "document.querySelector('body > img').dispatchEvent(new Event('error'));"
    )
    assert page.js('return window.ran') is None
    assert any('Content Security Policy' in error for error in page.errors())


def test_two_runs_on_one_scale(browser, tmp_path):
    def one(run, number):
        made = snapshot(str(number), tmp_path / f'{number}.png', number)
        return Snapshot(
            **{
                **vars(made),
                'levels': [
                    Level(
                        'neck' if run == 'a' else 'fpn',
                        0,
                        4,
                        (8.0, 8.0),
                        shape(8, 12, number) * (1 if run == 'a' else 3),
                    )
                ],
            }
        )

    a = write_run(tmp_path / 'a', [one('a', number) for number in range(3)])
    b = write_run(tmp_path / 'b', [one('b', 0), snapshot('2', tmp_path / 'other size.png', size=(60, 80))])
    page = Page(browser, write_report(a, b))
    page.open('image=0&colormap=gray')
    assert page.texts('#pictures figcaption strong') == ['A: neck_0', 'B: fpn_0']
    values = [list(run.snapshots())[0].levels[0].values for run in (a, b)]
    grid = Grid((8, 12), (8.0, 8.0), snapshot('0', '').placement)
    limits = min(grid.visible(v).min() for v in values), max(grid.visible(v).max() for v in values)
    for number, map_ in enumerate(values, 1):
        expected = grid.heatmap(to_unit(map_, limits)) * 255
        found = page.pixels(f'figure:nth-of-type({number}) .heat')[..., 0]
        assert np.abs(found - expected).max() <= 2
    page.open('image=1')
    assert page.text('#notes') == 'The run has one level only. Run B has no such image.'
    page.open('image=2')
    assert page.text('#notes') == 'The run has one level only. Run B has this image in another size.'


def test_an_image_over_the_epochs(browser, tmp_path):
    snapshots = [snapshot(f'epoch_{epoch}/a', tmp_path / 'a.png', epoch) for epoch in (1, 2, 3)]
    page = Page(browser, write_report(write_run(tmp_path / 'run', snapshots)))
    page.open('level=neck_0')
    page.wait("document.querySelectorAll('#strip canvas').length === 3")
    assert page.texts('#strip figcaption') == ['epoch 1', 'epoch 2', 'epoch 3']
    assert page.text('#strip [aria-current]') == 'epoch 3'
    last = page.pixels()
    page.find('#strip figure:nth-child(1) button').click()
    page.wait("document.querySelector('#strip [aria-current]').textContent === 'epoch 1'")
    page.painted()
    assert 'shot=epoch+1' in page.js('return location.hash')
    assert (page.pixels() != last).any()


@pytest.fixture(scope='module')
def long_run(tmp_path_factory):
    """An image over more epochs than the page keeps of other images."""
    folder = tmp_path_factory.mktemp('epochs')
    levels = [[Level('neck', level, 4, (32.0, 32.0), shape(2, 3, level)) for level in range(2)] for _ in range(30)]
    return write_run(
        folder / 'run',
        [snapshot(f'epoch_{n}/a', folder / 'a.png', levels=one, boxes=None) for n, one in enumerate(levels, 1)],
    )


def test_an_image_over_many_epochs(browser, long_run):
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


def test_a_file_is_sent_for_once_at_a_time_and_always_comes(browser, long_run):
    """Also one that is dropped and sent for again before the browser is done with its first script."""
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


def test_an_epoch_of_which_the_file_is_missing_is_told(browser, long_run):
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


def test_a_page_of_many_images_holds_only_the_visible_thumbnails(browser, tmp_path):
    image = tmp_path / 'a.png'
    levels = [Level('neck', 0, 4, (32.0, 32.0), shape(2, 3))]
    run = write_run(tmp_path / 'run', [snapshot(f'{n:04d}', image, levels=levels, boxes=None) for n in range(300)])
    page = Page(browser, write_report(run))
    page.open()
    assert 4 < len(page.names()) < 60
    assert page.names()[0] == '0000'
    for place in ('0060', '0150'):  # those that were passed are gone
        tile = "document.querySelector('#grid li').offsetHeight"
        page.js(f"document.getElementById('grid').scrollTop = arguments[0] / 2 * {tile}", int(place))
        page.wait(f"[...document.querySelectorAll('#grid li span')].some((one) => one.textContent === '{place}')")
    page.js("document.getElementById('grid').scrollTop = 1e6")
    page.wait("[...document.querySelectorAll('#grid li span')].some((one) => one.textContent === '0299')")
    assert not {'0000', '0060', '0150'} & set(page.names())
    page.open('image=0200')
    assert '0200' in page.names()


def test_a_page_with_nothing_to_show_says_so(browser, tmp_path):
    run = write_run(tmp_path / 'run', [snapshot('a', tmp_path / 'a.png')])
    Path(run.paths[0]).write_bytes(b'no maps')
    page = Page(browser, write_report(run))
    page.browser.get(page.url)
    assert page.text('#count') == 'No images to show.'
    assert not page.find('#viewer').is_displayed()
    assert page.errors() == []


def test_an_image_without_boxes_image_and_other_levels_says_so(browser, tmp_path):
    one = snapshot('a', tmp_path / 'a.png', levels=[Level('neck', 0, 4, (8.0, 8.0), shape(8, 12))], boxes=None)
    page = Page(browser, write_report(write_run(tmp_path / 'run', [one], images=False)))
    page.open()
    expected = (
        'The run has one level only. No boxes: neither predictions nor ground truth. The image file could not be read.'
    )
    assert page.text('#notes') == expected
    assert 'No ground truth in this run' in page.text('#info')
    assert [option for option in page.texts('#sort option') if 'boxes' in option] == []


def test_a_page_of_which_files_are_missing_says_so(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    run = write_run(tmp_path / 'run', [snapshot(str(n), tmp_path / f'{n}.png', n) for n in range(6)])
    page = Page(browser, write_report(run))
    (tmp_path / 'run/report/data/000004.js').unlink()
    (tmp_path / 'run/report/data/000005.js').write_text('')
    page.open('image=1')
    for name in '45':
        page.wait("document.querySelector('#pictures .heat')")
        page.find(f'#grid li:nth-child({int(name) + 1}) a').click()
        page.wait("!document.getElementById('trouble').hidden")
        assert f"00000{name}.js cannot be read: is the report's folder complete?" in page.text('#trouble')
        for level in ('backbone_0', 'neck_1'):  # nothing of another image stands there, nor does a level bring it back
            page.choose('level', level)
            page.press('2')
            assert page.text('#name') == name
            assert page.texts('#viewer :is(canvas, .box, .mark)') == []
            assert not page.find('#legend').is_displayed()
        page.find('#grid li:nth-child(1) a').click()
        page.wait("document.getElementById('trouble').hidden")
    page.find('#grid li:nth-child(5) a').click()
    page.wait("!document.getElementById('trouble').hidden")
    page.press(Keys.ARROW_LEFT)
    page.wait("document.getElementById('name').textContent === '3'")
    page.wait("document.querySelector('#pictures .heat')")
    assert page.text('.box:not(.truth) span') == 'cat 0.43'


def test_a_file_that_fails_late_clears_no_later_image(page):
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


# From the hook, the detectors and the tool.


def test_the_hook_writes_a_report(tmp_path):
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(seed=n) for n in range(2)})
    hook = dict(out_dir=str(tmp_path / 'run'), report=True, save='maps')
    Runner.from_cfg(runner_config(data, tmp_path / 'work', resnet_detector(), hook=hook)).test()
    index = data_of(Run(str(tmp_path / 'run')))
    assert [image['key'] for image in index['images']] == ['0', '1']
    assert len(index['levels']) == 9
    assert index['classes'] == ['cat', 'dog']


def test_without_a_runner_it_is_written_at_the_end(tmp_path):
    from drawn_run import draw
    from mmdet.registry import MODELS

    model = MODELS.build(pool_detector((8, 16, 32))).eval()
    assert draw(model, tmp_path, report=True, save='heatmap').style.save == ('heatmap', 'maps')
    assert [image['key'] for image in data_of(Run(str(tmp_path / 'run')))['images']] == ['图 0', '图 1', '图 2']
    draw(model, tmp_path, 'none', save='maps')
    assert not (tmp_path / 'none/report').exists()


def test_a_run_of_which_there_is_nothing_to_report_ends_all_the_same(tmp_path):
    from drawn_run import draw
    from mmdet.registry import MODELS

    draw(MODELS.build(pool_detector((8, 16, 32))).eval(), tmp_path, count=0, report=True)
    assert not (tmp_path / 'run/report').exists()


@pytest.mark.parametrize(('options', 'keys'), [({}, '012'), (dict(max_images=2), '01'), (dict(image_names='2'), '2')])
def test_a_report_over_the_epochs_of_a_training(tmp_path, options, keys):
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(seed=n) for n in range(3)})
    hook = dict(out_dir=str(tmp_path / 'run'), report=True, save='maps', stages=('val',), **options)
    Runner.from_cfg(train_config(data, tmp_path / 'work', pool_detector((8, 16)), hook=hook)).train()
    run = Run(str(tmp_path / 'run'))
    shots = [(image['key'], [label for _, label in image['shots']]) for image in data_of(run)['images']]
    assert shots == [(key, ['epoch 1', 'epoch 2']) for key in keys]
    page = (tmp_path / 'run/report/index.html').read_text(encoding='utf-8')
    assert 'coco/bbox_mAP after each validation' in page


def test_the_tool(tmp_path):
    from commands import run as run_tool

    snapshots = [snapshot(str(number), tmp_path / f'{number}.png', number) for number in range(3)]
    for name in 'ab':
        write_run(tmp_path / name, snapshots)
    done = run_tool('report.py', 'a', '--compare', 'b', '--max-images', 2, cwd=tmp_path)
    assert done.stdout.startswith('report of 2 images: '), done.stderr
    assert data_of(Run(str(tmp_path / 'a')))['runs'] == ['a', 'b']
    done = run_tool('report.py', 'a', cwd=tmp_path)
    assert done.stdout.startswith('report of 3 images: '), done.stderr
    assert data_of(Run(str(tmp_path / 'a')))['runs'] == ['a']
    assert 'is no run' in run_tool('report.py', 'c', cwd=tmp_path).stderr
