"""Image keys: unique, stable, and safe as folder names."""

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
        ['x' * 300, 'x' * 299 + 'y', '猫' * 100, 'con', 'a\nb', 'manifest.jsonl'],
    )
    keys = ImageKeys('/data')
    found = [keys.key_of(f'/data/{name}.jpg') for name in names]
    run_folder.record([dict(key=key) for key in found])
    for key in found:
        run_folder.write(f'{key}/neck_0.pass_1.heatmap.png', b'')
    assert len(pictures(tmp_path / 'out')) == 6
    assert found[3].startswith('con~')
    assert found[4] == 'a\nb'
    assert [entry['key'] for entry in read_entries(get_storage(tmp_path / 'out'))] == found
