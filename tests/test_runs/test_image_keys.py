"""Image keys: unique, stable, and safe as folder names."""

import re
import unicodedata

from conftest import pictures

from mmdet_featviz.runs.image_keys import ImageKeys
from mmdet_featviz.runs.manifest import read_entries
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.storage import get_storage


def test_keys_are_paths_relative_to_the_root_without_extension():
    keys = ImageKeys('/data/images/')
    assert keys.key_of('/data/images/a/1.jpg') == 'a/1'
    assert keys.key_of('/data/images/b/1.jpg') == 'b/1'
    assert keys.key_of('/data/images/猫 1.2.png') == '猫 1.2'


def test_the_key_of_a_path_outside_the_root_is_the_whole_path():
    keys = ImageKeys('/data/images')
    assert keys.key_of('/data/images/../../x.jpg') == 'x'
    assert keys.key_of('/data/images/../other/x.jpg') == 'data/other/x'
    assert keys.key_of('/data/images_of_others/x.jpg') == 'data/images_of_others/x'
    assert '..' not in ImageKeys(None).key_of('../../../../../../x.jpg').split('/')


def test_keys_without_a_root_are_whole_paths_and_urls():
    keys = ImageKeys(None)
    assert keys.key_of('/data/a/1.jpg') == 'data/a/1'
    assert keys.key_of('s3://bucket/a/../b/1.jpg') == 's3/bucket/b/1'


def test_two_images_never_share_a_key_and_one_image_keeps_its_own():
    keys = ImageKeys('/data')
    names = ['/data/1.jpg', '/data/1.png', '/1.jpg', '/data/1.webp']
    first = [keys.key_of(name) for name in names]
    assert len(set(first)) == 4
    assert first[0] == '1'
    assert [keys.key_of(name) for name in names] == first
    assert [keys.key_of(None), keys.key_of(None)] == ['array_000000', 'array_000001']


def test_known_paths_get_keys_that_do_not_depend_on_their_order():
    paths = ['/data/1.jpg', '/data/1.png', '/data/2.jpg', '/data/A/x.jpg', '/data/a/X.jpg', '/1.jpg']
    one, other = ImageKeys('/data', paths), ImageKeys('/data', iter([*paths[::-1], *paths]))
    found = {path: one.key_of(path) for path in paths}
    assert found == {path: other.key_of(path) for path in reversed(paths)}
    assert found['/data/2.jpg'] == '2'
    assert found['/data/1.jpg'].startswith('1~')
    assert len({key.casefold() for key in found.values()}) == 6


def test_unsafe_names_become_valid_folder_names(tmp_path):
    run_folder, names = (
        RunFolder(str(tmp_path / 'out')),
        ['x' * 300, 'x' * 299 + 'y', '猫' * 100, 'con', 'a\nb', 'manifest.jsonl', 'C:x', 'Cx'],
    )
    keys = ImageKeys('/data')
    found = [keys.key_of(f'/data/{name}.jpg') for name in names]
    run_folder.record([dict(key=key) for key in found])
    for key in found:
        run_folder.write(f'{key}/neck_0.pass_1.heatmap.png', b'')
    assert len(pictures(tmp_path / 'out')) == 8
    assert found[3].startswith('con~')
    assert found[4] == 'a\nb'
    assert found[6].startswith('C_x~')
    assert [entry['key'] for entry in read_entries(get_storage(tmp_path / 'out'))] == found


def test_arrays_are_named_by_their_position():
    keys = ImageKeys('/data')
    assert [keys.key_of(None, 7), keys.key_of(None, 3), keys.key_of(None, 7)] == [
        'array_000007',
        'array_000003',
        'array_000007',
    ]


def test_names_that_windows_or_macos_cannot_keep_apart_are_made_distinct():
    composed, decomposed = unicodedata.normalize('NFC', 'é'), unicodedata.normalize('NFD', 'é')
    pairs = [('a..jpg', 'a.jpg'), ('a .jpg', 'a.jpg'), (f'{composed}.jpg', f'{decomposed}.jpg'), ('a?.jpg', 'a*.jpg')]
    for pair in pairs:
        for keys in (ImageKeys('/d'), ImageKeys('/d', [f'/d/{name}' for name in pair])):
            found = {keys.key_of(f'/d/{name}') for name in pair}
            assert len({unicodedata.normalize('NFC', key.rstrip('. ')).casefold() for key in found}) == 2
    for name in ('CONIN$', 'conout$.x', 'COM¹', 'LPT³', 'con .x', 'a:b', 'a?', 'a\\b', 'a"', 'a.', 'a '):
        key = ImageKeys('/d').key_of(f'/d/{name}.jpg')
        assert re.search('~[0-9a-f]{8}$', key), name
        assert not set(key) & set('<>:"|?*\\'), name
        assert key.partition('~')[0] == key.partition('~')[0].rstrip('. ')


def test_an_image_does_not_take_the_place_of_the_report_or_of_another_test_or_validation():
    keys = ImageKeys('/d')
    assert keys.key_of('/d/report/index.html.png').startswith('report~')
    assert keys.key_of('/d/Report.png').startswith('Report~')
    assert keys.key_of('/d/test_2/a.png').startswith('test_2~')
    assert keys.key_of('/d/a/report.png') == 'a/report'
    assert keys.key_of('/d/Run.json/a.png').startswith('Run.json~')
    assert keys.key_of('/d/a/epoch_3/b.png') == 'a/epoch_3/b'
    for name in ('report_compared/index.html', 'epoch_3/a', 'iter_20/a', 'Epoch_3_2/a', 'errors.csv', 'errors_low.png'):
        assert '~' in keys.key_of(f'/d/{name}.png').partition('/')[0]
    assert keys.key_of('/d/postponed.rank0.maps.png').startswith('postponed.rank0.maps~')


def test_an_image_does_not_take_the_place_of_the_pictures_and_maps_of_another_one():
    keys = ImageKeys('/d')
    assert keys.key_of('/d/a.jpg') == 'a'
    for name in ('maps.npz', 'maps.raw_neck_0.NPY', 'neck_0.overlay.jpg', 'panel.png', 'box.x.webp', 'photo.jpeg'):
        assert keys.key_of(f'/d/a/{name}.png').startswith(f'a/{name}~')
        assert keys.key_of(f'/d/a/{name}/b.png').startswith(f'a/{name}~')


def test_an_image_that_is_called_as_the_key_of_another_one_gets_its_own():
    for paths in ((), ['/d/a.jpg', '/d/a.png']):
        keys = ImageKeys('/d', paths)
        found = [keys.key_of('/d/a.jpg'), keys.key_of('/d/a.png')]
        for key in filter(lambda key: '~' in key, list(found)):
            found += [keys.key_of(f'/d/{key}.jpg'), keys.key_of(f'/d/{key.upper()}.jpg')]
        assert len({key.casefold() for key in found}) == len(found) > 3


def test_ranks_that_do_not_know_all_images_never_share_a_key(monkeypatch):
    monkeypatch.setattr('mmdet_featviz.runs.image_keys.get_dist_info', lambda: (0, 2))
    ranks = ImageKeys('/d'), ImageKeys('/d')
    seen = [ranks[0].key_of('/d/a.jpg', 0), ranks[1].key_of('/d/a.png', 1), ranks[0].key_of('/d/a.jpg', 2)]
    seen.append(ranks[1].key_of('/d/a.jpg', 3))  # a further sample of the image
    assert len(set(seen)) == 4
    assert all(key.startswith('a~') for key in seen)
    assert ImageKeys('/d', ['/d/a.jpg', '/d/b.png']).key_of('/d/a.jpg', 0) == 'a'
    samples = ImageKeys('/d', ['/d/a.jpg', '/d/a.jpg', '/d/b.jpg'])
    shuffled = [samples.key_of('/d/a.jpg', position) for position in (2, 5)]  # not where the data set has them
    assert len({*shuffled, samples.key_of('/d/a.jpg', 0)}) == 3


def test_ranks_that_train_on_one_image_at_once_do_not_share_its_key(monkeypatch):
    paths = ['/d/a.jpg', '/d/b.jpg', '/d/a.jpg']
    found = []
    for rank in range(3):
        monkeypatch.setattr('mmdet_featviz.runs.image_keys.get_dist_info', lambda rank=rank: (rank, 3))
        keys = ImageKeys('/d', paths, training=True)
        found.append(keys.key_of('/d/a.jpg', 5))
        assert keys.key_of('/d/a.jpg', 0) == found[-1]  # in any iteration
        assert keys.sample_of('/d/a.jpg', 0) is None
    assert found[0] == 'a' and len(set(found)) == 3


def test_samples_of_one_image_are_numbered_by_their_position():
    paths = ['/d/a.jpg', '/d/b.jpg', '/d/a.jpg', '/d/a.jpg']
    keys = ImageKeys('/d', paths)
    assert [keys.sample_of(path, position) for position, path in enumerate(paths)] == [(0, 3), None, (1, 3), (2, 3)]
    assert keys.sample_of('/d/a.jpg', 1) is None  # another order
    keys = ImageKeys('/d', paths, interval=2)
    assert [keys.sample_of(paths[position], position) for position in (0, 2)] == [(0, 2), (1, 2)]
