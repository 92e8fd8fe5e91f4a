"""Figures for print: pixels, vectors, fonts, layout, ranges, and errors of what is asked for."""

import re
from dataclasses import fields
from itertools import combinations

import cv2
import numpy as np
import pytest
from conftest import ROOT, noise, read
from figure_runs import BOXES, CORNERS, SIZE, map_of, save_figure_run
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from mmdet_featviz import draw_figure
from mmdet_featviz.apis.figure_spec import ColumnSpec, FigureSpec, RowSpec, parse_figure
from mmdet_featviz.visualization.colors import get_colormap

DPI = 100
GAP = round(1.5 / 25.4 * DPI)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return save_figure_run(tmp_path_factory.mktemp('one'))


@pytest.fixture(scope='module')
def brighter(tmp_path_factory):
    """The same images; all values are doubled."""
    return save_figure_run(tmp_path_factory.mktemp('two'), factor=2.0)


def width_of(tiles):
    """Width in mm of a figure whose tiles have the size of the image, without names and bars."""
    return (tiles * SIZE[1] + (tiles - 1) * GAP) / DPI * 25.4


def png_of(spec, tmp_path):
    draw_figure(spec).savefig(tmp_path / 'figure.png')
    return read(tmp_path / 'figure.png')


def plain(run, columns, **options):
    """A figure of pixels only: no names, no bars, tiles of the size of the image."""
    columns = [{'name': '', **({'show': column} if isinstance(column, str) else column)} for column in columns]
    settings = dict(run=run, rows=['a'], width=width_of(len(columns)), dpi=DPI, colorbar=False, labels='none')
    return dict(settings, columns=columns, **options)


def tile_of(picture, column, row=0):
    left, top = column * (SIZE[1] + GAP), row * (SIZE[0] + GAP)
    return picture[top : top + SIZE[0], left : left + SIZE[1]]


def texts_of(figure):
    """All visible texts with their places in pixels."""
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent()) for text in texts]


def test_pixels_of_a_tile_are_those_of_the_pictures_of_the_run(run, tmp_path):
    picture = png_of(plain(run, ['image', 'neck_0', 'neck_1'], share='tile'), tmp_path)
    np.testing.assert_array_equal(tile_of(picture, 0), noise(*SIZE, seed=0))
    for column, level in ((1, 'neck_0'), (2, 'neck_1')):
        np.testing.assert_array_equal(tile_of(picture, column), read(f'{run}/a/{level}.png'))
    assert (picture[:, SIZE[1] : SIZE[1] + GAP] == 255).all()


@pytest.mark.parametrize(
    'style',
    [
        dict(normalize='percentile', percentiles=(10, 90)),
        dict(normalize='layer', border=1),
        dict(normalize='run'),
        dict(normalize='max', blend='fade', alpha=0.8, colormap='viridis'),
        dict(normalize=(0.2, 0.6), interpolation='nearest', blend='add'),
        dict(interpolation='cubic', colormap='cividis', alpha=1.0),
    ],
    ids=str,
)
def test_each_option_of_the_style_does_what_it_does_in_the_pictures_of_a_run(tmp_path, style):
    styled = save_figure_run(tmp_path, **style)
    picture = png_of(plain(styled, ['neck_0', 'neck_1'], share='tile', style=style), tmp_path)
    for column, level in enumerate(('neck_0', 'neck_1')):
        np.testing.assert_array_equal(tile_of(picture, column), read(f'{styled}/a/{level}.png'))


def test_an_explanation_has_the_heat_of_its_picture(run, tmp_path):
    picture = tile_of(png_of(plain(run, ['explain']), tmp_path), 0)
    expected = read(f'{run}/a/explain/000_star_0.90.odam.png')
    away = np.ones(SIZE, bool)
    away[:66, 5:100] = False  # the explained box and its label are drawn in another way
    np.testing.assert_array_equal(picture[away], expected[away])
    inside = (slice(36, 50), slice(20, 45))
    np.testing.assert_array_equal(picture[inside], expected[inside])


def test_style_and_crop_are_those_that_are_asked_for(run, tmp_path):
    crop = [20, 10, 80, 50]
    spec = plain(run, ['neck_0'], style=dict(colormap='viridis', alpha=1.0, normalize=[0.0, 2.0]))
    spec.update(rows=[dict(image='a', crop=crop)], width=25.4, dpi=60)
    heat = cv2.resize(map_of(0).astype(np.float64), (112, 80), interpolation=cv2.INTER_LINEAR)[10:50, 20:80]
    expected = get_colormap('viridis')[np.floor(heat / 2 * 255).astype(int), 0]
    drawn = png_of(spec, tmp_path)
    assert drawn.shape == (40, 60, 3)
    assert np.abs(drawn.astype(int) - expected).max() <= 3  # one step of the color map: OpenCV rounds positions


def test_an_inset_is_the_part_enlarged_in_the_corner_with_the_fewest_boxes(run, tmp_path):
    spec = plain(run, ['image', 'gt'])
    spec['rows'] = [dict(image='a', zoom=[60, 5, 80, 18])]
    drawn = png_of(spec, tmp_path)
    scale = min(0.42 * SIZE[1] / 20, 0.42 * SIZE[0] / 13)
    width, height = round(20 * scale), round(13 * scale)
    enlarged = cv2.resize(noise(*SIZE, seed=0)[5:18, 60:80], (width, height), interpolation=cv2.INTER_LINEAR)
    inner = (slice(3, -3), slice(3, -3))  # without the frame
    bottom, right = SIZE[0] - 2, SIZE[1] - 2
    for column in (0, 1):
        inset = tile_of(drawn, column)[bottom - height : bottom, right - width : right]
        np.testing.assert_array_equal(inset[inner], enlarged[inner])
    # Two boxes, of which the right one covers more of its corner.
    spec = plain(run, ['image', 'pred'], rows=spec['rows'], style=dict(score_thr=0.1))
    inset = tile_of(png_of(spec, tmp_path), 0)[bottom - height : bottom, 2 : 2 + width]
    np.testing.assert_array_equal(inset[inner], enlarged[inner])


@pytest.mark.parametrize(('width', 'dpi'), [(88, 300), (180, 150), (123.4, 237)])
def test_the_figure_has_the_width_and_the_text_that_are_asked_for(run, width, dpi):
    columns = ['image', 'gt', 'pred', dict(show='neck_0', name='A long name of a column')]
    rows = [dict(image='a', name='First', zoom=[60, 5, 80, 18]), dict(image='b', name='Second')]
    figure = draw_figure(dict(run=run, rows=rows, columns=columns, width=width, dpi=dpi))
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(width, abs=25.4 / dpi)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 6


@pytest.mark.parametrize('share', ['tile', 'row', 'column', 'figure'])
@pytest.mark.parametrize('width', [120, 180])
def test_no_text_covers_another_or_is_cut(run, brighter, share, width):
    columns = [
        dict(show='gt', name='Ground truth'),
        dict(show='pred', name='Predictions of the one'),
        dict(show='neck_0', name='One\nP3', boxes='both'),
        dict(show='neck_0', run=brighter, name='bbox_head.of/a.long_path_of_modules_0'),
        dict(show='explain', name='Why $x = 5$'),
    ]
    rows = [dict(image='a', name='A', zoom=[60, 5, 80, 18]), dict(image='b', name='B')]
    style = dict(score_thr=0.1)
    figure = draw_figure(dict(run=run, rows=rows, columns=columns, share=share, width=width, style=style))
    texts = texts_of(figure)
    names = [text for text, _ in texts]
    own = [''.join(name.split()) for name in (*(column['name'] for column in columns), *(row['name'] for row in rows))]
    assert set(own) <= {''.join(name.split()) for name in names} and 'One\nP3' in names and 'Why $x = 5$' in names
    assert names.count('star 0.90') >= 2
    for (one, a), (other, b) in combinations(texts, 2):
        assert not a.overlaps(b), (one, other)
    for text, box in texts:
        assert box.x0 >= -0.5 and box.y0 >= -0.5, text
        assert box.x1 <= figure.bbox.width + 0.5 and box.y1 <= figure.bbox.height + 0.5, text
    pictures = [axes.get_window_extent() for axes in figure.axes]
    for text, box in texts:
        if ''.join(text.split()) in own:
            assert not any(box.overlaps(picture) for picture in pictures), text


def test_a_long_name_of_a_row_is_broken_beside_its_tiles(run):
    rows = [dict(image='a', name='The longest of all names of a row'), dict(image='b', name='B')]
    figure = draw_figure(dict(run=run, rows=rows, columns=['image', 'gt'], width=60, labels='none'))
    ((_, _), (_, _), (long, place), (short, other)) = texts_of(figure)
    first, second = (axes.get_window_extent() for axes in (figure.axes[0], figure.axes[2]))
    assert ' '.join(long.split()) == rows[0]['name'] and long.count('\n') >= 1 and short == 'B'
    assert first.y0 - 1 <= place.y0 and place.y1 <= first.y1 + 1 and place.x0 >= 0
    assert second.y0 < other.y0 and other.y1 < second.y1
    assert 0 < first.x0 - place.x1 < 25 and 0 < second.x0 - other.x1 < 25  # pixels; fonts differ


def bars_of(figure):
    """Labels of the ticks of each color bar."""
    bars = []
    for axes in figure.axes:
        labels = [tick.get_text() for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_ticklabels()]
        bars += [[float(label) for label in labels if label]] if any(labels) else []
    return bars


@pytest.mark.parametrize(('share', 'count'), [('tile', 4), ('row', 2), ('column', 2), ('figure', 1)])
def test_there_is_one_bar_for_each_range_and_its_ticks_are_round_numbers_in_it(run, brighter, share, count):
    columns = ['image', 'neck_0', dict(show='neck_0', run=brighter, name='Two')]
    figure = draw_figure(dict(run=run, rows=['a', 'b'], columns=columns, share=share))
    bars = bars_of(figure)
    assert len(bars) == count
    largest = {'tile': [1, 2, 10, 20], 'row': [2, 20], 'column': [10, 20], 'figure': [20]}[share]
    for ticks, high in zip(sorted(bars, key=max), largest):
        assert len(ticks) >= 2
        assert high / 2 <= max(ticks) <= high
        steps = np.diff(ticks)
        np.testing.assert_allclose(steps, steps[0])
        digits = steps[0] / 10 ** np.floor(np.log10(steps[0]) + 1e-9)
        assert np.isclose(digits, [1, 2, 2.5, 5]).any()


def test_shared_ranges_make_values_comparable(run, brighter, tmp_path):
    """With one range, twice the value has twice the heat; with ranges of their own, both look the same."""
    columns = ['neck_0', dict(show='neck_0', run=brighter)]
    style = dict(colormap='gray', alpha=1.0, normalize='max')
    shared, own = (
        png_of(plain(run, columns, share=share, style=style), tmp_path)[..., 0].astype(int) for share in ('row', 'tile')
    )
    assert np.abs(2 * tile_of(shared, 0) - tile_of(shared, 1)).max() <= 2
    np.testing.assert_array_equal(tile_of(own, 0), tile_of(own, 1))


@pytest.mark.parametrize(
    ('info', 'show', 'count'),
    [
        (dict(config='one.py', reduction='max'), 'neck_0', 1),
        (dict(config='other.py', reduction='max'), 'neck_0', 2),
        (dict(config='one.py', reduction='mean'), 'neck_0', 2),
        (dict(config='one.py', reduction='max'), 'neck_1', 2),
    ],
)
def test_only_what_can_be_compared_shares_a_range_by_default(run, tmp_path, info, show, count):
    other = save_figure_run(tmp_path, keys=('a',), info=None, factor=3.0)
    path = tmp_path / 'run' / 'run.json'
    text = path.read_text(encoding='utf-8')
    for name, value in info.items():
        text = re.sub(rf'("{name}": )"[^"]*"', rf'\1"{value}"', text)
    path.write_text(text, encoding='utf-8')
    columns = ['neck_0', dict(show=show, run=other, name='Other')]
    assert len(bars_of(draw_figure(dict(run=run, rows=['a'], columns=columns)))) == count


def test_boxes_are_vectors_at_their_corners(run):
    figure = draw_figure(dict(run=run, rows=['a'], columns=['gt', 'pred', 'both', 'image'], style=dict(score_thr=0.5)))
    drawn = [
        [[*patch.get_xy(), patch.get_width(), patch.get_height()] for patch in axes.patches if patch.get_zorder() < 3]
        for axes in figure.axes[:4]
    ]
    truth, predicted = ([left, top, right - left, bottom - top] for left, top, right, bottom in CORNERS[[0, 2]])
    assert drawn == [[truth], [predicted], [truth, predicted], []]


def test_a_pdf_has_its_fonts_text_and_boxes(run, tmp_path):
    pypdf = pytest.importorskip('pypdf', reason='reads PDF files')
    columns = [dict(show='both', name='Käse'), 'neck_0']
    spec = dict(run=run, rows=[dict(image='a', name='Row')], columns=columns, width=88, style=dict(score_thr=0.1))
    draw_figure(spec).savefig(tmp_path / 'figure.pdf')
    page = pypdf.PdfReader(tmp_path / 'figure.pdf').pages[0]
    assert float(page.mediabox.width) / 72 * 25.4 == pytest.approx(88, abs=0.1)
    text = page.extract_text()
    assert all(word in text for word in ('Käse', 'Row', 'neck_0', 'star 0.90', 'Straße $5 0.40'))
    for font in page['/Resources']['/Font'].values():
        (descendant,) = font['/DescendantFonts']
        assert descendant.get_object()['/Subtype'] == '/CIDFontType2'  # TrueType
        assert '/FontFile2' in descendant.get_object()['/FontDescriptor']
    sizes = [float(size) for size in re.findall(rb'/F\d+ ([\d.]+) Tf', page.get_contents().get_data())]
    assert sizes and min(sizes) >= 6
    assert len(page.images) == 3  # two pictures and a bar


def test_an_svg_has_boxes_as_paths(run, tmp_path):
    draw_figure(dict(run=run, rows=['a'], columns=['gt'], width=100, labels='none')).savefig(tmp_path / 'figure.svg')
    svg = (tmp_path / 'figure.svg').read_text(encoding='utf-8')
    points = 100 / 25.4 * 72 / SIZE[1]  # for each pixel of the image
    paths = re.findall(r'<path d="M ([\d.]+) ([\d.]+) \s*L ([\d.]+) ([\d.]+) \s*L ([\d.]+) ([\d.]+)', svg)
    left, top, right, bottom = CORNERS[0]
    height = float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg).group(1))
    offset = height - SIZE[0] * points
    found = [np.array(path, float).reshape(3, 2) for path in paths]
    boxes = [(p[:, 0].min(), p[:, 1].min(), p[:, 0].max(), p[:, 1].max()) for p in found]
    wanted = np.array([left * points, top * points + offset, right * points, bottom * points + offset])
    assert any(np.abs(np.subtract(box, wanted)).max() < 0.3 for box in boxes)
    assert svg.count('<image') == 1
    assert '<!-- ground truth -->' in svg


def test_the_same_figure_from_a_file(run, tmp_path):
    (tmp_path / 'figure.yaml').write_text(
        f'run: "{run}"\nrows: [a, {{image: b, name: B}}]\ncolumns:\n- image\n- {{show: neck_1, name: P4}}\nwidth: 88\n',
        encoding='utf-8',
    )
    spec = dict(
        run=run, rows=['a', dict(image='b', name='B')], columns=['image', dict(show='neck_1', name='P4')], width=88
    )
    assert parse_figure(tmp_path / 'figure.yaml') == parse_figure(spec) == FigureSpec(**spec)
    pictures = []
    for one in (spec, str(tmp_path / 'figure.yaml'), FigureSpec(**spec)):
        pictures.append(png_of(one, tmp_path))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


def test_labels_without_a_place_are_left_out_and_counted(tmp_path, capsys):
    """Forty boxes at one place."""
    crowd = BOXES[np.full(40, 2)]
    run = save_figure_run(tmp_path, keys=('a',), boxes=crowd)
    figure = draw_figure(dict(run=run, rows=['a'], columns=['pred'], width=60))
    labels = [(text, box) for text, box in texts_of(figure) if text.startswith('star')]
    assert 1 <= len(labels) < 10
    assert not any(a.overlaps(b) for (_, a), (_, b) in combinations(labels, 2))
    assert len([p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_zorder() < 3]) == 40
    assert f'{40 - len(labels)} labels of boxes left out' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(colum=['image']), "the figure has an unknown option 'colum': use columns"),
        (dict(columns=[]), 'columns must be a list with at least one entry'),
        (dict(columns='image'), 'columns must be a list with at least one entry'),
        (dict(columns=[dict(name='x')]), 'an entry of columns lacks show'),
        (dict(columns=[dict(show='image', nam='x')]), "an entry of columns has an unknown option 'nam': use name"),
        (dict(columns=[dict(show='image', boxes='gt')]), "boxes has no effect on show='image'"),
        (dict(columns=['neck_7']), r'has no level .neck_7. of a: show image, .*, or a level such as neck_1, neck_0'),
        (
            dict(columns=[dict(show='explain', explanation='*.drise')]),
            'no explanation .*drise of a: it has 000_star_0.90',
        ),
        (dict(rows=['c']), r"has no maps of the image 'c': it has a, b"),
        (dict(rows=[7]), 'an entry of rows must have options such as image, but is 7'),
        (dict(rows=[dict(image=7)]), 'image must be text, but is 7 .in YAML, put it in quotes.'),
        (
            dict(rows=[dict(image='a', crop=[0, 0, 200, 20])]),
            r'crop=.* of a is not inside what is shown: .* 0, 0, 111, 75',
        ),
        (
            dict(rows=[dict(image='a', crop=[0, 0, 20, 20], zoom=[10, 10, 30, 20])]),
            'zoom=.* is not inside what is shown',
        ),
        (dict(rows=[dict(image='a', crop=[5, 5, 1, 9])]), 'left and top are the smaller numbers'),
        (dict(rows=[dict(image='a', zoom=[1, 2, 3])]), 'zoom must be four numbers'),
        (
            dict(width=20, rows=[dict(image='a', name='Donaudampfschifffahrt, long')]),
            "the name 'Donaudampfschifffahrt,' is longer",
        ),
        (dict(columns=['image'] * 30), '30 columns do not fit into 180 mm'),
        (
            dict(columns=['neck_0'] * 4, share='column', width=40, style=dict(normalize=[1.00011, 1.00099])),
            'columns of 9 mm are too narrow for the ticks of their color bars: make the figure wider',
        ),
        (
            dict(columns=['neck_0'], share='row', rows=[dict(image='a', crop=[0, 0, 111, 4])], width=60),
            'tiles of 2 mm are too low for the ticks of their color bars: set share to column',
        ),
        (dict(run=None), "no run is named for the column 'image'"),
        (dict(font='Helvetiva'), "no font 'Helvetiva' is installed"),
        (dict(font_size=5), 'font_size must lie between 6 and 72'),
        (dict(width='wide'), 'width must be a number'),
        (dict(dpi=2401), 'dpi must lie between 50 and 2400, but is 2401'),
        (dict(dpi=2400, width=1000), r'the figure would have 94488 x \d+ pixels, more than fit into memory'),
        (dict(colorbar='figure'), 'colorbar must be true or false'),
        (dict(share='rows'), "share='rows' is not known: choose from auto, tile, row"),
        (dict(style=dict(colourmap='jet')), "style has an unknown option 'colourmap': use colormap"),
        (dict(style='jet'), 'style must be options such as colormap: magma'),
    ],
)
def test_mistakes_end_with_a_message(run, change, message):
    spec = {**dict(run=run, rows=['a'], columns=['image']), **change}
    with pytest.raises((TypeError, ValueError), match=message):
        draw_figure(spec)


# A few lines that stand for ten to the power of thirty texts, and for two to the power of sixty options.
LAUGHS = (
    'a0: &a0 [x]\n'
    + ''.join(f'a{n + 1}: &a{n + 1} [{", ".join([f"*a{n}"] * 10)}]\n' for n in range(30))
    + 'rows: *a30\n'
)
MERGES = 'a0: &a0 {image: x}\n' + ''.join(f'a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}]}}\n' for n in range(60))


def test_boxes_that_were_not_saved_are_missed(tmp_path):
    run = save_figure_run(tmp_path, keys=('a',), boxes=BOXES[1:])
    with pytest.raises(ValueError, match='saved no ground truth of a: draw it in a test'):
        draw_figure(dict(run=run, rows=['a'], columns=['gt']))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('rows: [a', 'figure.yaml is no YAML'),
        ('- a', 'figure.yaml: the file must have options such as rows'),
        ('rows: [a]', 'figure.yaml: the file lacks columns'),
        ('rows: !!python/object/apply:os.getcwd []', 'figure.yaml is no YAML'),
        ('[' * 10_000, 'figure.yaml is no YAML'),
        (LAUGHS, r'figure.yaml has an alias such as \*name: write out what it stands for'),
        (MERGES, 'figure.yaml has an alias'),
    ],
)
def test_a_wrong_file_ends_with_a_message(tmp_path, content, message):
    (tmp_path / 'figure.yaml').write_text(content, encoding='utf-8')
    with pytest.raises((TypeError, ValueError), match=message):
        draw_figure(tmp_path / 'figure.yaml')


@pytest.mark.parametrize('language', ['en', 'zh_cn'])
def test_the_example_of_the_guide_is_the_bundled_file(language, tmp_path):
    page = (ROOT / 'docs' / language / 'user_guides' / 'figures.md').read_text(encoding='utf-8')
    (tmp_path / 'figure.yml').write_text(re.search('```yaml\n(.*?)```', page, re.DOTALL).group(1), encoding='utf-8')
    assert parse_figure(tmp_path / 'figure.yml') == parse_figure(ROOT / 'configs' / 'demo' / 'figure.yml')


@pytest.mark.parametrize('language', ['en', 'zh_cn'])
def test_the_guide_has_all_entries(language):
    page = (ROOT / 'docs' / language / 'user_guides' / 'figures.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\| (`.*?`) \|', page, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r'`(\w+)`', row)]
    assert named == [
        'rows',
        'columns',
        'run',
        'width',
        'dpi',
        'font',
        'font_size',
        'share',
        'colorbar',
        'labels',
        'style',
    ] + [option.name for kind in (RowSpec, ColumnSpec) for option in fields(kind)]
    assert set(named[:11]) == {option.name for option in fields(FigureSpec)}
