"""The page of three runs side by side, in a real browser, and the files of such a report."""

from pathlib import Path

import numpy as np
import pytest
from commands import run as run_command
from page_driver import Page
from report_pages import make_snapshot, random_values, read_data, read_tables, write_report, write_run

from mmdet_featviz.evaluation.comparison_pictures import DIFFERENCE_COLORMAP
from mmdet_featviz.evaluation.heat_measures import heat_on_image
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.colors import get_colormap
from mmdet_featviz.visualization.value_ranges import visible_range

CAT, DOG = [20.0, 10.0, 60.0, 50.0], [70.0, 30.0, 120.0, 80.0]
CUT_OFF = Placement(np.array([[1, 0, -30.0], [0, 1, -20.0], [0, 0, 1]]), (90, 130), (64, 96))


def snapshot(folder, number, layer, factor, scores, placement=None, **options):
    """An image with a cat and a dog, which have the labels 0 and 1, found by these scores; 0 is missed."""
    made = make_snapshot(f'{number}', folder / f'{number}.png', number, **options)
    levels = [
        Level(layer, level, 4, (8.0, 8.0), factor * random_values(8, 12, 100 * abs(factor) + 10 * number + level))
        for level in (0, 1)
    ]
    boxes = Boxes(
        np.array([CAT, DOG, *([CAT, DOG] if any(scores) else [])]),
        np.array([0, 1, 0, 1][: 4 if any(scores) else 2]),
        np.array([np.nan, np.nan, *(scores if any(scores) else [])]),
    )
    return Snapshot(**{**vars(made), 'levels': levels, 'boxes': boxes, 'placement': placement or made.placement})


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A and C have the levels of one layer, B those of another; B lacks image 2, C has image 1 in another size.

    In image 0 B and C miss the cat, below a score of 0.5 C misses the dog, too; in image 1 only B finds something.
    """
    folder = tmp_path_factory.mktemp('runs')
    a = [snapshot(folder, 0, 'neck', 1, (0.9, 0.8)), snapshot(folder, 1, 'neck', 1, (0, 0))]
    a.append(snapshot(folder, 2, 'neck', 1, (0.9, 0.8)))
    b = [snapshot(folder, 0, 'fpn', 2, (0.2, 0.7)), snapshot(folder, 1, 'fpn', 2, (0.6, 0.6), CUT_OFF)]
    c = [snapshot(folder, 0, 'neck', -3, (0.1, 0.5)), make_snapshot('1', folder / 'small.png', size=(60, 80))]
    c.append(snapshot(folder, 2, 'neck', 1, (0.9, 0.8)))
    return [write_run(folder / name, made, ('cat', 'dog')) for name, made in zip('abc', (a, b, c))]


@pytest.fixture(scope='module')
def page(browser, runs):
    return Page(browser, write_report(runs[0], runs[1:], names=['Baseline', '<b>Ours</b>', '第三']))


def expected_difference(runs, image, number, is_common):
    """Run `number` minus A in level 0 in RGB colors (height, width, 3), the end of its range, and what both saw."""
    heats, seen = [], np.ones((90, 130), bool)
    for run in (runs[number], runs[0]):
        shot = next(one for one in run.snapshots() if one.key == image)
        level, align = shot.levels[0], run.info['style']['align']
        heat = heat_on_image(level, shot.placement, align).astype(np.float64)
        low, high = visible_range(level.values, Grid(level.values.shape, level.stride, shot.placement, align))
        heats.append(heat if is_common else (heat - low) / (high - low))
        seen &= shot.placement.seen
    difference = np.where(seen, heats[0] - heats[1], 0)
    largest = np.abs(difference).max()
    table = get_colormap(DIFFERENCE_COLORMAP)[:, 0, ::-1].astype(int)
    return table[((difference / largest + 1) / 2 * 255).astype(int)], largest, seen


def test_three_runs_side_by_side(page, runs):
    page.open('image=0&level=neck_0&colormap=gray&score=0.3', (1440, 900))
    assert page.texts('#pictures figcaption strong') == ['A: neck_0', 'B: fpn_0', 'C: neck_0']
    names = page.texts('#pictures figcaption small:nth-of-type(1)')
    assert names == ['Baseline', '<b>Ours</b>', '第三']
    tops, lefts, widths = zip(
        *page.js(
            "return [...document.querySelectorAll('#pictures figure')].map((one) => one.getBoundingClientRect())"
            '.map(({ top, left, width }) => [top, left, width])'
        )
    )
    assert len(set(tops)) == 1
    assert lefts[0] < lefts[1] < lefts[2]
    assert min(widths) > 300
    ranges = [float(text) for text in page.texts('#pictures .legend span')]
    assert ranges[:2] == ranges[2:4] == ranges[4:]  # one config and reduction: a common range
    page.find('#pictures .picture').click()
    assert page.texts('#values thead th') == ['A', 'B', 'C']
    page.open('image=0&level=neck_0&all=1', (375, 900))
    assert page.js('return document.documentElement.scrollWidth') <= 375
    assert page.texts('#pictures .match:first-child strong') == ['A: neck_0', 'B: fpn_0', 'C: neck_0']
    page.open('image=2&level=neck_0', (1440, 900))
    assert page.texts('#pictures figcaption')[1].endswith('no such image')
    assert page.text('#notes') == 'Run B has no such image.'
    page.open('image=1&level=neck_0&difference=1', (1440, 900))
    assert page.texts('#pictures figcaption strong') == ['A: neck_0', 'B: fpn_0', 'C: –', 'B − A']
    assert page.text('#notes') == 'Hatched: not seen by the network. Run C has this image in another size.'
    assert page.errors() == []


@pytest.mark.parametrize('common', [1, 0])
def test_a_difference_is_of_the_values_or_of_their_shares_of_the_ranges(page, runs, common):
    page.open(f'image=0&level=neck_0&common={common}', (1440, 900))
    page.press('d')
    page.wait(
        "document.querySelectorAll('.difference').length === 2 && "
        "document.getElementById('pictures').dataset.painted === '5'"
    )
    assert page.texts('#pictures figcaption strong')[3:] == ['B − A', 'C − A']
    mark = 'one.id = `change-${at + 1}`'
    page.js(f"document.querySelectorAll('.difference canvas.heat').forEach((one, at) => {{ {mark}; }})")
    for number in (1, 2):
        colors, largest, _ = expected_difference(runs, '0', number, bool(common))
        drawn = page.pixels(f'#change-{number}')
        assert (drawn[..., 3] == 255).all()
        assert np.abs(drawn[..., :3].astype(int) - colors).max() <= 8  # one step of the color map
        ends = [float(text) for text in page.texts('.difference ~ .legend span')][2 * number - 2 : 2 * number]
        assert ends == pytest.approx([-largest, largest], rel=1e-3)
    below = page.js(
        "const left = (one) => one.closest('figure').getBoundingClientRect().left;"
        "const all = [...document.querySelectorAll('#pictures .picture')];"
        'return [left(all[1]) === left(all[3]), left(all[2]) === left(all[4])]'
    )
    assert below == [True, True]
    page.open(f'image=1&level=neck_0&difference=1&common={common}', (1440, 900))
    colors, _, seen = expected_difference(runs, '1', 1, bool(common))
    drawn = page.pixels('.difference canvas.heat')
    assert not seen.all()
    assert np.abs(drawn[seen][:, :3].astype(int) - colors[seen]).max() <= 8
    assert (drawn[~seen].reshape(-1, 4).max(axis=1) == 0).any()  # between the lines of the hatching


def test_images_are_sorted_by_what_changed(page):
    page.open('score=0.3')
    assert page.texts('#sort option')[-5:] == [
        'objects that changed', 'found by A, missed by B', 'found by B, missed by A',
        'found by A, missed by C', 'found by C, missed by A',
    ]  # fmt: skip
    figures = {}
    for order in ('changed', 'lost-b', 'gained-b', 'lost-c'):
        page.choose('sort', order)
        figures[order] = dict(zip(page.names(), page.texts('#grid li small')))
    assert figures['changed'] == {'1': '2', '0': '1', '2': '0'}
    assert figures['lost-b'] == {'0': '1', '1': '0', '2': '–'}
    assert figures['gained-b'] == {'1': '2', '0': '0', '2': '–'}
    assert figures['lost-c'] == {'0': '1', '2': '0', '1': '–'}
    assert list(figures['changed']) == list(figures['gained-b']) == ['1', '0', '2']  # most first
    page.open('image=0&score=0.6&sort=lost-c&down=1')
    assert page.texts('#grid li small')[0] == '2'
    assert page.text('#changes') == '1 object found by A, missed by B. 2 objects found by A, missed by C.'
    page.choose('class', 'dog')
    assert page.text('#changes') == '1 object found by A, missed by C.'


def test_the_report_of_a_comparison_has_a_folder_of_its_own(runs, tmp_path):
    alone = write_report(runs[0])
    before = read_data(runs[0])
    compared = write_report(runs[0], runs[1:])
    assert Path(compared.page).parent == Path(runs[0].folder) / 'report_compared'
    assert read_data(runs[0]) == before
    assert Path(alone.page).exists()
    folders = [run.folder for run in runs]
    done = run_command('report.py', folders[0], '--compare', *folders[1:], '--out-dir', tmp_path / 'out', cwd=tmp_path)
    assert done.stdout.startswith(f'report of 3 images: {tmp_path / "out" / "index.html"}'), done.stderr
    for wrong in (folders[1], f'{folders[2]}/inside', str(Path(folders[0]).parent)):
        with pytest.raises(ValueError, match='is, contains or is inside'):
            write_report(runs[0], runs[1:], out_dir=wrong)
    other = write_run(tmp_path / 'run', [make_snapshot('0', tmp_path / '0.png')])
    with pytest.raises(FileExistsError, match='holds the pictures of another run: choose another folder'):
        write_report(runs[0], runs[1:], out_dir=other.folder)
    assert Path(other.paths[0]).exists()
    write_report(runs[0], max_images=1, out_dir=str(tmp_path / 'out'))  # replaces the earlier report
    assert not (tmp_path / 'out' / 'data' / '000001.js').exists()
    with pytest.raises(ValueError, match='give each run a name of its own'):
        write_report(runs[0], runs[1:], names=['one', 'two'])


def test_epochs_are_compared(tmp_path):
    """Each has its own metrics."""
    made = [
        make_snapshot(f'{epoch}/{key}', tmp_path / f'{key}.png', folder=epoch)
        for epoch in ('epoch_1', 'epoch_3')
        for key in ('0', '1')
    ]
    run = write_run(tmp_path / 'run', made)
    first, other = (Run(f'{run.folder}/{epoch}') for epoch in ('epoch_1', 'epoch_3'))
    assert {entry['key'] for entry in first.entries.values()} == {'0', '1'}
    for one, value in ((first, 0.25), (other, 0.5)):
        one.info['metrics'] = {Path(one.folder).name: {'mAP': value}}
    with pytest.raises(ValueError, match='is, contains or is inside'):
        write_report(first, [other], out_dir=f'{run.folder}/beside the epochs')
    report = write_report(first, [other])
    assert Path(report.page).parent == Path(run.folder) / 'report_compared'
    table = read_tables(report)['Results']
    assert table[1:] == [['A epoch 1', '0.250'], ['B epoch 3', '0.500']]
    assert [image['key'] for image in read_data(run, folder='report_compared')['images']] == ['0', '1']
    assert read_data(run, folder='report_compared')['runs'] == ['epoch_1', 'epoch_3']
    assert all(read_data(run, '000000', folder='report_compared')['sides'])
