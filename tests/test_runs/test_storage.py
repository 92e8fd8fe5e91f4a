"""Storage: a run written through a file backend has the same files as one on a disk."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bucket
import numpy as np
import pytest
from conftest import (
    manifest,
    noise,
    pictures,
    pool_detector,
    runner_config,
    same_files,
    test_predictions,
    test_project,
    write_dataset,
    write_project,
)

from mmdet_featviz.evaluation.run_comparison import RunComparison
from mmdet_featviz.report.builder import write_report
from mmdet_featviz.runs.manifest import read_entries
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.storage import PUT_EVERY, BackendStorage, get_storage


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder that bucket:// stands for."""
    monkeypatch.setenv('BUCKET', str(tmp_path / 'bucket'))
    return tmp_path / 'bucket'


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', {f'{n}/猫.png': noise(seed=n) for n in range(4)})


def draw(data, tmp_path, out_dir, **options):
    cfg = runner_config(data, tmp_path / 'work', pool_detector((8, 32)), hook=dict(out_dir=str(out_dir), **options))
    cfg.experiment_name = f'{out_dir}{len(options)}{options.get("resume")}'.replace('/', '_')
    return test_predictions(cfg)


def write_bucket_project(folder, **options):
    """Write a project of five images whose processes can use bucket://."""
    write_project(folder, images=5, **options)
    code = f'import sys\nsys.path.append({str(Path(bucket.__file__).parent)!r})\nimport bucket\n'
    (folder / 'trouble.py').write_text(code + (folder / 'trouble.py').read_text())


@pytest.mark.parametrize('normalize', ['image', 'run'])
def test_a_url_gets_the_same_files_as_a_folder(data, tmp_path, folder, normalize):
    style = dict(normalize=normalize, save=('overlay', 'raw'), image_format='png')
    draw(data, tmp_path, 'bucket://data/run/', **style)
    draw(data, tmp_path, tmp_path / 'disk', **style)
    assert len(manifest(tmp_path / 'disk')) == (8 if normalize == 'image' else 16)
    assert same_files(folder / 'data/run', tmp_path / 'disk')
    info = [json.loads((run / 'run.json').read_text()) for run in (folder / 'data/run', tmp_path / 'disk')]
    assert info[0].pop('id') != info[1].pop('id')
    assert info[0] == info[1]


def test_a_run_at_a_url_is_read_like_one_in_a_folder(data, tmp_path, folder):
    for out_dir in ('bucket://run', tmp_path / 'disk'):
        draw(data, tmp_path, out_dir, save=('raw',), workers=0)
    at_url, on_disk = Run('bucket://run'), Run(str(tmp_path / 'disk'))
    # By key, because threads write in any order.
    by_key = [{snapshot.key: snapshot for snapshot in run.snapshots()} for run in (at_url, on_disk)]
    assert by_key[0].keys() == by_key[1].keys()
    for first, second in ((by_key[0][key], by_key[1][key]) for key in by_key[0]):
        assert (first.key, first.placement.image_size) == (second.key, second.placement.image_size)
        np.testing.assert_array_equal(first.image(), second.image())
        for level, same in zip(first.levels, second.levels):
            np.testing.assert_array_equal(level.values, same.values)
            np.testing.assert_array_equal(level.raw, same.raw)
    with pytest.raises(ValueError, match='is one of the runs'):
        RunComparison([at_url, on_disk], 'bucket://run/')
    RunComparison([at_url, on_disk], 'bucket://compared').run()
    RunComparison([at_url, on_disk], str(tmp_path / 'compared')).run()
    assert same_files(folder / 'compared', tmp_path / 'compared')
    assert 'report of 4 images: bucket://run/report' in write_report('bucket://run')
    write_report(str(tmp_path / 'disk'))
    names = pictures(tmp_path / 'disk' / 'report')
    assert pictures(folder / 'run' / 'report') == names
    for name in names:
        page = (folder / 'run' / 'report' / name).read_bytes().replace(b'"runs":["run"]', b'"runs":["disk"]')
        if name != 'index.html':  # it names the folder
            assert page == (tmp_path / 'disk' / 'report' / name).read_bytes()


def test_another_run_at_a_url_is_an_error_or_resumed_or_overwritten(data, tmp_path, folder):
    draw(data, tmp_path, 'bucket://run')
    before = {name: (folder / 'run' / name).stat().st_mtime_ns for name in pictures(folder / 'run')}
    with pytest.raises(FileExistsError, match="'bucket://run' holds the pictures of another run"):
        draw(data, tmp_path, 'bucket://run', interval=1)
    lost = '2/猫/backbone_1.jpg'
    (folder / 'run' / lost).unlink()
    draw(data, tmp_path, 'bucket://run', resume=True)
    after = {name: (folder / 'run' / name).stat().st_mtime_ns for name in pictures(folder / 'run')}
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {lost, lost.replace('_1', '_0')}
    draw(data, tmp_path, 'bucket://run', overwrite=True, max_images=1)
    assert {name.split('/')[0] for name in pictures(folder / 'run')} == {'0'}
    assert {entry['key'] for entry in manifest(folder / 'run')} == {'0/猫'}


def test_two_ranks_write_one_manifest_at_a_url(tmp_path, folder):
    write_bucket_project(tmp_path)
    for name, options in (('bucket://two', dict(ranks=2)), ('one', {})):
        done = test_project(tmp_path, '--featviz-dir', name, **options)
        assert done.returncode == 0, done.stderr
    assert same_files(folder / 'two', tmp_path / 'one')


def test_a_picture_that_a_backend_cannot_store_is_counted(data, tmp_path, folder, monkeypatch):
    put = bucket.BucketBackend.put

    def fail(self, picture, url):
        if '/1/' in url:
            raise ConnectionError('the bucket is gone')
        put(self, picture, url)

    monkeypatch.setattr(bucket.BucketBackend, 'put', fail)
    runner = draw(data, tmp_path, 'bucket://run')[2]
    line = next(hook for hook in runner.hooks if type(hook).__name__ == 'FeatVizHook').visualizer.summary()
    assert line == (
        '6 pictures of 3 images in bucket://run; skipped: 1 image, picture not written, the bucket is gone (猫.png)'
    )
    assert {entry['key'] for entry in manifest(folder / 'run')} == {'0/猫', '2/猫', '3/猫'}


@pytest.fixture
def eager_threads():
    """Threads take turns as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_lines_appended_by_threads_are_complete(folder, eager_threads):
    store = BackendStorage('bucket://run')
    lines = [b'%d %s\n' % (number, b'x' * (number % 50)) for number in range(PUT_EVERY * 101 // 2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda line: store.append('lines', line), lines))
    assert len((folder / 'run' / 'lines').read_bytes().splitlines()) == len(lines) // PUT_EVERY * PUT_EVERY
    store.flush()
    assert sorted((folder / 'run' / 'lines').read_bytes().splitlines(True)) == sorted(lines)
    store.remove('lines')  # as a merge does
    store.append('lines', b'next\n')
    store.flush()
    assert (folder / 'run' / 'lines').read_bytes() == b'next\n'


def test_appended_lines_are_written_when_the_process_ends(folder, monkeypatch):
    at_exit = []
    monkeypatch.setattr('atexit.register', at_exit.append)
    monkeypatch.setattr('atexit.unregister', at_exit.remove)
    store = BackendStorage('bucket://run')
    for line in (b'one\n', b'two\n'):
        store.append('lines', line)
    assert not (folder / 'run' / 'lines').exists()
    assert at_exit == [store.flush]
    at_exit[0]()
    assert (folder / 'run' / 'lines').read_bytes() == b'one\ntwo\n'
    assert at_exit == []


def test_a_process_that_ends_early_lists_what_it_has_drawn(tmp_path, folder):
    write_bucket_project(tmp_path, trouble='1 / (batch_idx - 2)')
    ended = test_project(tmp_path, '--featviz-dir', 'bucket://run')
    assert 'ZeroDivisionError' in ended.stderr
    assert {entry['key'] for entry in read_entries(get_storage('bucket://run'))} == set('012')


@pytest.mark.parametrize(
    ('url', 'message'),
    [
        ('unknown://bucket/run', "mmengine has no file backend for 'unknown://bucket/run'"),
        ('https://example.org/run', "'https://example.org/run' cannot be written to: HTTPBackend only reads"),
    ],
)
def test_a_url_that_cannot_be_written_to_is_an_error(data, tmp_path, url, message):
    with pytest.raises(ValueError, match=message):
        draw(data, tmp_path, url)
    with pytest.raises(ValueError, match=message):
        RunFolder(url)


def test_ranks_that_probe_a_url_at_the_same_time_do_not_share_a_file(folder, monkeypatch):
    probes = []
    monkeypatch.setattr(BackendStorage, 'remove', lambda self, name: probes.append(name))
    for _ in range(2):
        BackendStorage('bucket://run').prepare()
    assert sorted(probes) == pictures(folder / 'run')
    assert len(set(probes)) == 2


def test_nothing_outside_the_bucket_is_removed(folder, tmp_path):
    run_folder = RunFolder('bucket://run')
    (tmp_path / 'bucket' / 'mine.txt').write_text('kept')
    run_folder.record([dict(image='a', files=['../mine.txt'])])
    run_folder.flush()
    RunFolder('bucket://run', overwrite=True)
    assert (tmp_path / 'bucket' / 'mine.txt').exists()


@pytest.mark.parametrize('name', ['../x', 'a/../../x', '/x', '\\x', '..\\x', 'a\\..\\..\\x', 'C:/x', 'c:x', 'a\0b', ''])
@pytest.mark.parametrize('to_url', [False, True], ids=['disk', 'URL'])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, folder, name, to_url):
    store = get_storage('bucket://a/run' if to_url else tmp_path / 'bucket' / 'a' / 'run')
    store.write('猫/a..b/.c/neck_0.jpg', b'kept')
    for work in (
        lambda: store.write(name, b'outside'),
        lambda: store.append(name, b'outside'),
        lambda: store.remove(name),
        lambda: store.read(name),
    ):
        with pytest.raises(ValueError, match='is no name of a file inside'):
            work()
    store.flush()
    assert store.all_names() == {'猫/a..b/.c/neck_0.jpg'}
    assert pictures(folder) == ['a/run/猫/a..b/.c/neck_0.jpg']


def test_files_of_others_may_have_any_name(tmp_path):
    """A name that this package never writes must not keep a run from beginning."""
    (tmp_path / 'C:..').write_text('')
    assert get_storage(tmp_path).names() == ['C:..']
    RunFolder(str(tmp_path), resume=True).record([])
    RunFolder(str(tmp_path), overwrite=True)
    assert (tmp_path / 'C:..').exists()


@pytest.mark.parametrize('place', ['bucket://run', 'disk'])
def test_a_file_is_created_only_once(tmp_path, place):
    store = get_storage(place if '://' in place else str(tmp_path / place))
    store.prepare()
    assert store.create('run.json', b'first')
    assert not store.create('run.json', b'second')
    assert store.read('run.json') == b'first'


def test_nothing_is_written_through_links(tmp_path):
    """A run folder from elsewhere may have links that lead out of it; the folder itself may be one."""
    for name in ('run', 'outside'):
        (tmp_path / name).mkdir()
    (tmp_path / 'outside' / 'manifest.jsonl').write_bytes(b'theirs')
    (tmp_path / 'run' / 'link').symlink_to(tmp_path / 'outside')
    (tmp_path / 'run' / 'manifest.jsonl').symlink_to(tmp_path / 'outside' / 'manifest.jsonl')
    (tmp_path / 'folder').symlink_to(tmp_path / 'run')
    for folder in ('run', 'folder'):
        store = get_storage(tmp_path / folder)
        for name in ('link/a.png', 'link/b/c.png'):
            with pytest.raises(ValueError, match='is a link that leads out of'):
                store.write(name, b'x')
        with pytest.raises(ValueError, match='is a link, and its target is no file of the run'):
            store.append('manifest.jsonl', b'x')
        store.write('b/c.png', b'ours')
    assert (tmp_path / 'run' / 'b' / 'c.png').read_bytes() == b'ours'
    assert [path.name for path in (tmp_path / 'outside').rglob('*')] == ['manifest.jsonl']
    assert (tmp_path / 'outside' / 'manifest.jsonl').read_bytes() == b'theirs'
