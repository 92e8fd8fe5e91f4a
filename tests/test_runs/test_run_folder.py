import io
import json

import cv2
import numpy as np
import pytest
from conftest import manifest, noise, pictures, read

from mmdet_featviz.runs.image_keys import ImageKeys
from mmdet_featviz.runs.manifest import read_entries
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.visualization.encoding import encode_picture


def test_keys_are_paths_below_the_root_without_their_ending():
    keys = ImageKeys('/data/images/')
    assert keys.key_of('/data/images/a/1.jpg') == 'a/1'
    assert keys.key_of('/data/images/b/1.jpg') == 'b/1'
    assert keys.key_of('/data/images/猫 1.2.png') == '猫 1.2'


def test_a_path_that_climbs_out_is_named_by_all_of_it():
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


def test_untrusted_names_become_folders_that_every_file_system_takes(tmp_path):
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


@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp'])
def test_pictures_are_written_whole_and_leave_nothing_behind(tmp_path, ending):
    run_folder, picture = RunFolder(str(tmp_path / 'out')), noise()
    run_folder.write(f'深い/folder/a.{ending}', encode_picture(picture, f'深い/folder/a.{ending}'))
    assert pictures(tmp_path / 'out') == [f'深い/folder/a.{ending}']
    assert (
        np.abs(read(tmp_path / 'out' / f'深い/folder/a.{ending}').astype(int) - picture).mean()
        < (ending != 'png') * 4 + 1e-9
    )


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    run_folder, picture = RunFolder(str(tmp_path)), noise()
    run_folder.write('a.png', encode_picture(picture, 'a.png'))

    def fail(*paths):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.replace', fail)
    with pytest.raises(OSError, match='No space left'):
        run_folder.write('a.png', encode_picture(255 - picture, 'a.png'))
    assert pictures(tmp_path) == ['a.png']
    np.testing.assert_array_equal(read(tmp_path / 'a.png'), picture)


def test_half_written_files_never_have_the_final_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr('os.replace', lambda source, target: seen.append((source, cv2.imread(source) is not None)))
    RunFolder(str(tmp_path)).write('a.png', encode_picture(noise(), 'a.png'))
    assert not (tmp_path / 'a.png').exists()
    assert seen[0][0].endswith('.part')


def test_a_folder_that_cannot_be_written_to_says_what_to_do(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r"file/out' cannot be written to .*choose another folder with out_dir"):
        RunFolder(str(tmp_path / 'file' / 'out'))


def test_another_runs_folder_is_refused_unless_it_may_be_overwritten(tmp_path):
    RunFolder(str(tmp_path)).record([dict(image='a')])
    with pytest.raises(FileExistsError, match='another run: overwrite=True .* resume=True .* another out_dir'):
        RunFolder(str(tmp_path))
    assert len(manifest(tmp_path)) == 1
    RunFolder(str(tmp_path), overwrite=True).record([dict(image='b')])
    assert [entry['image'] for entry in manifest(tmp_path)] == ['b']


def test_overwriting_removes_what_the_other_run_listed_and_nothing_else(tmp_path):
    run_folder = RunFolder(str(tmp_path / 'out'))
    run_folder.write('a/old.png', encode_picture(noise(), 'a/old.png'))
    whole_path = str(tmp_path / 'outside.txt')
    run_folder.record([dict(image='a', files=['a/old.png', '../outside.txt', 'a/../../outside.txt', whole_path])])
    (tmp_path / 'out' / 'mine.txt').write_text('kept')
    (tmp_path / 'outside.txt').write_text('kept')
    with open(tmp_path / 'out' / 'manifest.jsonl', 'a') as file:
        file.write('{"image": "half a li')
    RunFolder(str(tmp_path / 'out'), overwrite=True)
    assert pictures(tmp_path / 'out') == ['mine.txt']
    assert (tmp_path / 'outside.txt').exists()


@pytest.mark.parametrize(('ending', 'width'), [('jpg', 70000), ('webp', 17000)])
def test_a_picture_too_large_for_its_format_is_an_error_of_the_file(tmp_path, ending, width):
    with pytest.raises(OSError, match=f'1 pixels cannot be encoded as {ending}; try png'):
        RunFolder(str(tmp_path)).write(
            f'a/b.{ending}', encode_picture(np.zeros((1, width, 3), np.uint8), f'a/b.{ending}')
        )
    assert pictures(tmp_path) == []


def test_the_manifest_is_readable_after_each_record(tmp_path):
    run_folder = RunFolder(str(tmp_path))
    for number in range(3):
        run_folder.record([dict(image=f'名 {number}\n"'), dict(image='x')])
        lines = (tmp_path / 'manifest.jsonl').read_text(encoding='utf-8').splitlines()
        assert len(lines) == 2 * (number + 1)
        assert json.loads(lines[-2])['image'] == f'名 {number}\n"'


def entry(key, *files, **notes):
    return dict(key=key, augmentation=0, layer='neck', level=len(files), files=list(files), **notes)


def test_what_is_gone_on_with_is_what_is_whole(tmp_path):
    run_folder = RunFolder(str(tmp_path))
    for name in ('a/1.png', 'b/1.png', 'c/1.png'):
        run_folder.write(name, b'')
    run_folder.record(
        [entry('a', 'a/1.png'), entry('b', 'b/1.png', 'b/gone.png'), entry('c', 'c/1.png', incomplete=True)]
    )
    (tmp_path / 'manifest.rank3.jsonl').write_text(json.dumps(entry('d', 'a/1.png')) + '\n')
    with open(tmp_path / 'manifest.jsonl', 'a') as file:
        file.write('{"image": "half a li')
    (tmp_path / 'c' / '.2.png.77.part').write_text('half a picture')
    found = {key: levels for (key, _), levels in RunFolder(str(tmp_path), resume=True).finished.items() if levels}
    assert found == {'a': {'neck_1'}, 'd': {'neck_1'}}
    assert [one['key'] for one in manifest(tmp_path)] == ['a', 'b', 'c', 'd']
    assert pictures(tmp_path) == ['a/1.png', 'b/1.png', 'c/1.png']


def test_a_line_that_could_not_be_written_whole_spoils_no_other(tmp_path, monkeypatch):
    run_folder = RunFolder(str(tmp_path))

    class FullDisk(io.FileIO):
        def write(self, data):
            return super().write(data[: len(data) // 2])

    monkeypatch.setattr('mmdet_featviz.runs.storage.open', lambda path, *a, **k: FullDisk(path, 'a'), raising=False)
    with pytest.raises(OSError, match='No space left'):
        run_folder.record([entry('a', 'a/1.png')])
    monkeypatch.undo()
    for key in 'bc':
        run_folder.record([entry(key, f'{key}/1.png')])
    assert [one['key'] for one in read_entries(get_storage(tmp_path))] == ['b', 'c']
    assert len((tmp_path / 'manifest.jsonl').read_bytes().splitlines()) == 3  # half of a, and both others


def test_a_run_is_replaced_with_its_report_and_halves_and_nothing_else(tmp_path):
    for folder, name in (('', 'a/1.png'), ('report', 'data/0.js')):
        run_folder = RunFolder(str(tmp_path / folder))
        run_folder.write(name, b'')
        run_folder.record([entry('a', name)])
    for name in ('a/.2.png.4711.part', 'a/.mine.part', 'report/notes.txt'):
        (tmp_path / name).write_text('')
    RunFolder(str(tmp_path), overwrite=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*') if path.is_file()}
    assert left == {'a/.mine.part', 'report/notes.txt'}
