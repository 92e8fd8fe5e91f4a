import json

import cv2
import numpy as np
import pytest
from conftest import manifest, noise, pictures, read

from mmdet_featviz.sinks import FileSink, ImageKeys, encode


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


@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp'])
def test_pictures_are_written_whole_and_leave_nothing_behind(tmp_path, ending):
    sink, picture = FileSink(str(tmp_path / 'out')), noise()
    sink.write(f'深い/folder/a.{ending}', encode(picture, f'深い/folder/a.{ending}'))
    assert pictures(tmp_path / 'out') == [f'深い/folder/a.{ending}']
    assert (
        np.abs(read(tmp_path / 'out' / f'深い/folder/a.{ending}').astype(int) - picture).mean()
        < (ending != 'png') * 4 + 1e-9
    )


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    sink, picture = FileSink(str(tmp_path)), noise()
    sink.write('a.png', encode(picture, 'a.png'))

    def fail(*paths):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.replace', fail)
    with pytest.raises(OSError, match='No space left'):
        sink.write('a.png', encode(255 - picture, 'a.png'))
    assert pictures(tmp_path) == ['a.png']
    np.testing.assert_array_equal(read(tmp_path / 'a.png'), picture)


def test_half_written_files_never_have_the_final_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr('os.replace', lambda source, target: seen.append((source, cv2.imread(source) is not None)))
    FileSink(str(tmp_path)).write('a.png', encode(noise(), 'a.png'))
    assert not (tmp_path / 'a.png').exists()
    assert seen[0][0].endswith('.part')


def test_a_folder_that_cannot_be_written_to_says_what_to_do(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r"file/out' cannot be written to .*choose another folder with out_dir"):
        FileSink(str(tmp_path / 'file' / 'out'))


def test_another_runs_folder_is_refused_unless_it_may_be_overwritten(tmp_path):
    FileSink(str(tmp_path)).record([dict(image='a')])
    with pytest.raises(FileExistsError, match='holds the pictures of another run: choose another out_dir'):
        FileSink(str(tmp_path))
    assert len(manifest(tmp_path)) == 1
    FileSink(str(tmp_path), overwrite=True).record([dict(image='b')])
    assert [entry['image'] for entry in manifest(tmp_path)] == ['b']


def test_overwriting_removes_what_the_other_run_listed_and_nothing_else(tmp_path):
    sink = FileSink(str(tmp_path / 'out'))
    sink.write('a/old.png', encode(noise(), 'a/old.png'))
    sink.record([dict(image='a', files=['a/old.png', '../outside.txt'])])
    (tmp_path / 'out' / 'mine.txt').write_text('kept')
    (tmp_path / 'outside.txt').write_text('kept')
    with open(tmp_path / 'out' / 'manifest.jsonl', 'a') as file:
        file.write('{"image": "half a li')
    FileSink(str(tmp_path / 'out'), overwrite=True)
    assert pictures(tmp_path / 'out') == ['mine.txt']
    assert (tmp_path / 'outside.txt').exists()


@pytest.mark.parametrize(('ending', 'width'), [('jpg', 70000), ('webp', 17000)])
def test_a_picture_too_large_for_its_format_is_an_error_of_the_file(tmp_path, ending, width):
    with pytest.raises(OSError, match=f'1 pixels cannot be encoded as {ending}; try png'):
        FileSink(str(tmp_path)).write(f'a/b.{ending}', encode(np.zeros((1, width, 3), np.uint8), f'a/b.{ending}'))
    assert pictures(tmp_path) == []


def test_the_manifest_is_readable_after_each_record(tmp_path):
    sink = FileSink(str(tmp_path))
    for number in range(3):
        sink.record([dict(image=f'名 {number}\n"'), dict(image='x')])
        lines = (tmp_path / 'manifest.jsonl').read_text(encoding='utf-8').splitlines()
        assert len(lines) == 2 * (number + 1)
        assert json.loads(lines[-2])['image'] == f'名 {number}\n"'
