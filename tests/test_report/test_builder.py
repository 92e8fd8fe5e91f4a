"""The files of a report, and reports written by the hook, a detector and the command line."""

import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import featviz
from commands import run as run_command
from conftest import noise, pool_detector, read, resnet_detector, runner_config, train_config, write_dataset
from mmengine.runner import Runner
from report_pages import SIZE, make_snapshot, random_values, read_data, read_photo, write_report, write_run

from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.structures.snapshot import Level


def test_the_list_of_images_has_their_values(tmp_path):
    run = write_run(tmp_path / 'run', [make_snapshot(f'p/{n}', tmp_path / f'{n}.png', n) for n in range(3)])
    report = write_report(run)
    assert report.summary() == f'report of 3 images: {report.page}'
    index = read_data(run)
    assert [image['key'] for image in index['images']] == ['p/0', 'p/1', 'p/2']
    one = index['images'][1]
    assert one['values'] == [dict(scores={'0': [4100], '1': [9000]}, truth={'0': 1})]
    assert set(one['energy']) == {'backbone_0', 'neck_0', 'neck_1'}
    assert index['classes'] == [['cat', '\u003cb>dog\u003c/b>']]
    shot = read_data(run, '000001')
    assert shot['size'] == [130, 90]
    assert shot['sides'][0]['boxes'][0] == [20, 10, 60, 50, 0, None]
    assert read_photo(run, '000001').shape == (*SIZE, 3)


def test_a_label_far_beyond_the_classes_costs_no_memory(tmp_path):
    snapshot = make_snapshot('p/0', tmp_path / '0.png')
    far = replace(snapshot.boxes, labels=np.array([3, 10**6, -1]))
    run = write_run(tmp_path / 'run', [replace(snapshot, boxes=far)])
    report = write_report(run)
    assert report.summary() == f'report of 1 image: {report.page}'
    (names,) = read_data(run)['classes']
    assert names[2:4] == ['2', '3'] and len(names) <= 2**15
    assert [row[4] for row in read_data(run, '000000')['sides'][0]['boxes']] == [3, 10**6, -1]


def test_large_images_are_shrunk(tmp_path):
    size = 1400, 700
    levels = [Level('neck', 0, 4, (16.0, 16.0), random_values(44, 22))]
    run = write_run(tmp_path / 'run', [make_snapshot('a', tmp_path / 'a.png', size=size, levels=levels)])
    write_report(run)
    assert read_photo(run, '000000').shape == (1000, 500, 3)
    assert read(tmp_path / 'run/report/thumbs/000000.jpg').shape == (200, 100, 3)
    assert read_data(run, '000000')['canvas'] == [500, 1000]


def test_images_keep_their_pixels_on_request(tmp_path):
    size = 1400, 700
    levels = [Level('neck', 0, 4, (16.0, 16.0), random_values(44, 22))]
    run = write_run(tmp_path / 'run', [make_snapshot('a', tmp_path / 'a.png', size=size, levels=levels)])
    report = write_report(run, image_size=4000)
    assert read_photo(run, '000000').shape == (1400, 700, 3)
    assert read_data(run, '000000')['canvas'] == [500, 1000]
    megabytes = (tmp_path / 'run/report/photos/000000.js').stat().st_size / 1e6
    assert report.summary().endswith(f'; images of at most 4000 pixels take {megabytes:.1f} MB')


def test_one_file_that_would_be_too_large_is_an_error_that_says_how_large(tmp_path, monkeypatch):
    run = write_run(tmp_path / 'run', [make_snapshot(str(n), tmp_path / f'{n}.png', n) for n in range(4)])
    kept = write_report(run, single_file=True)
    size = Path(kept.page).stat().st_size
    remark = float(re.search(r'; one file of (\d\.\d) MB$', kept.summary())[1])
    assert remark == pytest.approx(size / 1e6, abs=0.06)
    monkeypatch.setattr('mmdet_featviz.report.page_files.MAX_BYTES', 20_000)
    with pytest.raises(ValueError, match=r'would have about 0 MB, more than .*: show fewer images \(--max-images\)'):
        write_report(run, single_file=True)
    assert Path(kept.page).stat().st_size == size  # the earlier one is still there
    result = featviz('report', str(tmp_path / 'run'), '--single-file', '--max-images', '1')
    assert result.returncode == 0 and 'report of 1 image: ' in result.stdout
    write_report(run)
    assert Path(kept.page).stat().st_size < 50_000


def test_max_images_limits_the_report(tmp_path):
    run = write_run(tmp_path / 'run', [make_snapshot(str(n), tmp_path / f'{n}.png', n) for n in range(4)])
    assert write_report(run, max_images=2).summary().startswith('report of 2 images')
    assert len(list((tmp_path / 'run/report/data').iterdir())) == 3


def test_an_earlier_report_is_deleted(tmp_path):
    run = write_run(tmp_path / 'run', [make_snapshot(str(n), tmp_path / f'{n}.png', n) for n in range(3)])
    write_report(run)
    (tmp_path / 'run/report/notes.txt').write_text('mine')
    write_report(run, max_images=1)
    names = {path.name for path in (tmp_path / 'run/report').rglob('*') if path.is_file()}
    assert {'notes.txt', 'index.html', '000000.js', '000000.jpg'} <= names
    assert not {'000001.js', '000001.jpg'} & names


def test_no_report_is_written_through_a_link(tmp_path):
    other = write_run(tmp_path / 'other', [make_snapshot('a', tmp_path / 'a.png')])
    before = {path: path.read_bytes() for path in (tmp_path / 'other').rglob('*') if path.is_file()}
    run = write_run(tmp_path / 'run', [make_snapshot('a', tmp_path / 'a.png')])
    (tmp_path / 'run' / 'report').symlink_to(tmp_path / 'other')
    with pytest.raises(ValueError, match='report is a link, so no report is written there'):
        write_report(run)
    assert {path: path.read_bytes() for path in (tmp_path / 'other').rglob('*') if path.is_file()} == before
    assert other.folder != run.folder


def test_missing_images_and_maps_are_reported(tmp_path):
    run = write_run(tmp_path / 'run', [make_snapshot(f'p{n}', tmp_path / f'{n}.png', n) for n in range(3)])
    (tmp_path / '1.png').unlink()
    Path(run.paths[2]).write_bytes(b'no maps')
    report = write_report(run)
    assert (
        '1 skipped, maps not readable (p2/maps.npz); 1 shown without the original image, which cannot be read (p1)'
        in report.summary()
    )
    page = Path(report.page).read_text(encoding='utf-8')
    assert '1 left out, as their maps cannot be read: p2/maps.npz' in page
    assert read_data(run)['images'][1]['thumb'] is None


def test_an_unreadable_image_counts_once_for_all_epochs(tmp_path, monkeypatch):
    from mmdet_featviz.runs import reader

    snapshots = [make_snapshot(f'epoch_{n}/{key}', tmp_path / f'{key}.png', n) for n in range(5) for key in 'ab']
    run = write_run(tmp_path / 'run', snapshots, images=False)
    tries, real = [], reader.read_image
    monkeypatch.setattr(reader, 'read_image', lambda path, *args: tries.append(Path(path).name) or real(path, *args))
    report = write_report(run)
    expected = '2 shown without the original image, which cannot be read'
    assert report.summary() == f'report of 2 images: {report.page}; {expected} (a, b)'
    assert tries == ['a.png', 'b.png']
    assert f'{expected}: a, b' in Path(report.page).read_text(encoding='utf-8')


def test_one_image_is_held_at_a_time(tmp_path, monkeypatch):
    """When an image is read, nothing refers to the one before."""
    import weakref

    from mmdet_featviz.report import builder

    run = write_run(tmp_path / 'run', [make_snapshot(str(n), tmp_path / f'{n}.png', n) for n in range(4)])
    alive, load = [], builder.load_with_image

    def watched(*args):
        assert not [reference for reference in alive if reference() is not None]
        loaded = load(*args)
        alive.append(weakref.ref(loaded.levels[0].values))
        return loaded

    monkeypatch.setattr(builder, 'load_with_image', watched)
    write_report(run)
    assert len(alive) == 4


# Written by the hook, a detector and the command line


def test_the_hook_writes_a_report(tmp_path):
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(seed=n) for n in range(2)})
    hook = dict(out_dir=str(tmp_path / 'run'), report=True, save='maps')
    Runner.from_cfg(runner_config(data, tmp_path / 'work', resnet_detector(), hook=hook)).test()
    index = read_data(Run(str(tmp_path / 'run')))
    assert [image['key'] for image in index['images']] == ['0', '1']
    assert len(index['levels']) == 9
    assert index['classes'] == [['cat', 'dog']]


def test_without_a_runner_the_report_is_written_at_the_end(tmp_path):
    from drawn_run import draw
    from mmdet.registry import MODELS

    model = MODELS.build(pool_detector((8, 16, 32))).eval()
    assert draw(model, tmp_path, report=True, save='heatmap').style.save == ('heatmap', 'maps')
    assert [image['key'] for image in read_data(Run(str(tmp_path / 'run')))['images']] == ['图 0', '图 1', '图 2']
    draw(model, tmp_path, 'none', save='maps')
    assert not (tmp_path / 'none/report').exists()


def test_a_run_without_pictures_ends_without_a_report(tmp_path):
    from drawn_run import draw
    from mmdet.registry import MODELS

    draw(MODELS.build(pool_detector((8, 16, 32))).eval(), tmp_path, count=0, report=True)
    assert not (tmp_path / 'run/report').exists()


def delay_the_first_image(monkeypatch):
    """Let the manifest get the first image of each validation after the second one, if both are drawn."""
    second, record = threading.Event(), RunFolder.record

    def record_in_another_order(run_folder, entries):
        position = entries[0].get('position')
        if position == 0:
            second.wait(1)
        record(run_folder, entries)
        if position == 1:
            second.set()
        elif position == 0:
            second.clear()

    monkeypatch.setattr(RunFolder, 'record', record_in_another_order)


@pytest.mark.parametrize(('options', 'keys'), [({}, '012'), (dict(max_images=2), '01'), (dict(image_names='2'), '2')])
def test_a_training_writes_one_report_of_all_epochs(tmp_path, monkeypatch, options, keys):
    delay_the_first_image(monkeypatch)
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(seed=n) for n in range(3)})
    hook = dict(out_dir=str(tmp_path / 'run'), report=True, save='maps', stages=('val',), **options)
    Runner.from_cfg(train_config(data, tmp_path / 'work', pool_detector((8, 16)), hook=hook)).train()
    run = Run(str(tmp_path / 'run'))
    shots = [(image['key'], [label for _, label in image['shots']]) for image in read_data(run)['images']]
    assert shots == [(key, ['epoch 1', 'epoch 2']) for key in keys]
    page = (tmp_path / 'run/report/index.html').read_text(encoding='utf-8')
    assert 'coco/bbox_mAP after each validation' in page


def test_report_command(tmp_path):
    snapshots = [make_snapshot(str(number), tmp_path / f'{number}.png', number) for number in range(3)]
    for name in 'ab':
        write_run(tmp_path / name, snapshots)
    done = run_command('report.py', 'a', '--compare', 'b', '--max-images', 2, cwd=tmp_path)
    assert done.stdout.startswith('report of 2 images: '), done.stderr
    assert read_data(Run(str(tmp_path / 'a')), folder='report_compared')['runs'] == ['a', 'b']
    assert not (tmp_path / 'a' / 'report').exists()
    done = run_command('report.py', 'a', '--names', 'one', cwd=tmp_path)
    assert '--names are those of a comparison' in done.stderr
    done = run_command('report.py', 'a', cwd=tmp_path)
    assert done.stdout.startswith('report of 3 images: '), done.stderr
    assert read_data(Run(str(tmp_path / 'a')))['runs'] == ['a']
    done = run_command('report.py', 'a', '--image-size', 0, cwd=tmp_path)
    assert '--image-size must be at least 1' in done.stderr
    assert 'is no run' in run_command('report.py', 'c', cwd=tmp_path).stderr
