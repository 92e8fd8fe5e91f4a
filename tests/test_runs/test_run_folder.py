"""Run folder: complete files, clear errors, and nothing of others is removed."""

import json
import os

import cv2
import numpy as np
import pytest
import torch
from conftest import manifest, noise, pictures, python, read

from mmdet_featviz.runs import rank_agreement
from mmdet_featviz.runs.run_folder import RunFolder, check_apart
from mmdet_featviz.runs.storage import PARTIAL_FILE
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.visualization.encoding import encode_picture
from mmdet_featviz.visualization.style import Style


@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp'])
def test_a_written_picture_leaves_no_other_file(tmp_path, ending):
    run_folder, picture = RunFolder(str(tmp_path / 'out')), noise()
    run_folder.write(f'深い/folder/a.{ending}', encode_picture(picture, f'深い/folder/a.{ending}'))
    assert pictures(tmp_path / 'out') == [f'深い/folder/a.{ending}']
    assert (
        np.abs(read(tmp_path / 'out' / f'深い/folder/a.{ending}').astype(int) - picture).mean()
        < (ending != 'png') * 4 + 1e-9
    )


def test_a_failed_write_keeps_the_old_file_and_leaves_no_partial_one(tmp_path, monkeypatch):
    run_folder, picture = RunFolder(str(tmp_path)), noise()
    run_folder.write('a.png', encode_picture(picture, 'a.png'))

    def fail(*paths):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.replace', fail)
    with pytest.raises(OSError, match='No space left'):
        run_folder.write('a.png', encode_picture(255 - picture, 'a.png'))
    assert pictures(tmp_path) == ['a.png']
    np.testing.assert_array_equal(read(tmp_path / 'a.png'), picture)


def test_a_file_gets_its_name_only_when_it_is_complete(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr('os.replace', lambda source, target: seen.append((source, cv2.imread(source) is not None)))
    RunFolder(str(tmp_path)).write('a.png', encode_picture(noise(), 'a.png'))
    assert not (tmp_path / 'a.png').exists()
    assert seen[0][0].endswith('.part')


def test_a_folder_that_cannot_be_written_to_says_what_to_do(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r"file/out' cannot be written to .*choose another folder with out_dir"):
        RunFolder(str(tmp_path / 'file' / 'out'))


def test_a_folder_with_another_run_is_an_error_unless_overwritten(tmp_path):
    RunFolder(str(tmp_path)).record([dict(image='a')])
    with pytest.raises(FileExistsError, match='another run: set overwrite=True .* resume=True .* another out_dir'):
        RunFolder(str(tmp_path))
    assert len(manifest(tmp_path)) == 1
    RunFolder(str(tmp_path), overwrite=True).record([dict(image='b')])
    assert [entry['image'] for entry in manifest(tmp_path)] == ['b']


def test_overwriting_removes_only_files_listed_in_the_manifest(tmp_path):
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


def test_overwriting_removes_nothing_behind_a_link(tmp_path):
    """A run folder from elsewhere may have links that lead out of it; the folder itself may be one."""
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'run' / 'a').mkdir(parents=True)
    for name in ('outside/mine.png', 'outside/linked.png', 'run/a/1.png'):
        (tmp_path / name).write_text('x')
    (tmp_path / 'run' / 'link').symlink_to(tmp_path / 'outside')
    (tmp_path / 'run' / 'b.png').symlink_to(tmp_path / 'outside' / 'linked.png')
    (tmp_path / 'run' / 'within').symlink_to(tmp_path / 'run' / 'a')
    (tmp_path / 'folder').symlink_to(tmp_path / 'run')
    files = ['link/mine.png', 'b.png', 'within/1.png']
    (tmp_path / 'run' / 'manifest.jsonl').write_text(json.dumps(dict(key='a', files=files)) + '\n')
    RunFolder(str(tmp_path / 'folder'), overwrite=True)
    assert pictures(tmp_path / 'outside') == ['linked.png', 'mine.png']
    assert pictures(tmp_path / 'run') == []


def test_overwriting_also_removes_the_report_and_partial_files(tmp_path):
    for folder, name in (('', 'a/1.png'), ('report', 'data/0.js')):
        run_folder = RunFolder(str(tmp_path / folder))
        run_folder.write(name, b'')
        run_folder.record([dict(key='a', files=[name])])
    for name in ('a/.2.png.4711.part', 'a/.mine.part', 'report/notes.txt'):
        (tmp_path / name).write_text('')
    RunFolder(str(tmp_path), overwrite=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*') if path.is_file()}
    assert left == {'a/.mine.part', 'report/notes.txt'}


def test_a_folder_is_taken_when_a_run_begins_and_free_again_if_nothing_was_drawn(tmp_path):
    writer = RunWriter(RunFolder(str(tmp_path / 'run')), Style(), {})
    for options in ({}, dict(overwrite=True), dict(resume=True)):
        with pytest.raises(FileExistsError, match='another hook or detector of this process still writes to'):
            RunFolder(str(tmp_path / 'other' / '..' / 'run'), **options)
    code = f'from mmdet_featviz.runs.run_folder import RunFolder; RunFolder({str(tmp_path / "run")!r})'
    assert 'FileExistsError' in python(code).stderr
    writer.finish()
    assert list((tmp_path / 'run').iterdir()) == []
    RunFolder(str(tmp_path / 'run'))


def test_two_runs_that_find_a_folder_free_do_not_both_take_it(tmp_path):
    one, other = RunFolder(str(tmp_path)), RunFolder(str(tmp_path))
    one.take({})
    one.record([dict(key='a')])
    one.release()
    with pytest.raises(FileExistsError, match='another run'):
        other.take({})
    assert json.loads((tmp_path / 'run.json').read_text())['id'] == one.id


def test_a_run_without_pictures_does_not_free_a_folder_that_another_process_has_taken_over(tmp_path):
    one = RunFolder(str(tmp_path))
    one.take({})
    theirs = json.dumps(dict(id='of another run'))
    (tmp_path / 'run.json').write_text(theirs)
    one.release()
    assert (tmp_path / 'run.json').read_text() == theirs


@pytest.mark.parametrize('has', ['metrics', 'postponed images'])
def test_a_run_with_metrics_or_postponed_images_keeps_its_folder(tmp_path, has):
    run_folder = RunFolder(str(tmp_path))
    run_folder.take(dict(metrics=dict(test=dict(mAP=0.5))) if has == 'metrics' else {})
    if has == 'postponed images':
        (tmp_path / 'postponed.rank1.maps').write_bytes(b'maps')
    run_folder.release()
    assert (tmp_path / 'run.json').exists()


def test_of_two_that_resume_a_run_at_once_only_one_may(tmp_path):
    RunFolder(str(tmp_path)).record([dict(key='a', augmentation=0, layer='neck', level=0, files=[])])
    first, second = (RunFolder(str(tmp_path), resume=True) for _ in range(2))
    first.take({})
    with pytest.raises(FileExistsError, match='another hook or detector of this process still writes to'):
        second.take({})


def test_overwriting_also_removes_images_that_a_stopped_run_postponed(tmp_path):
    run_folder = RunFolder(str(tmp_path))
    run_folder.take({})
    (tmp_path / 'postponed.rank1.maps').write_bytes(b'maps')
    (tmp_path / 'mine.maps').write_bytes(b'kept')
    run_folder.release()
    RunFolder(str(tmp_path), overwrite=True)
    assert pictures(tmp_path) == ['mine.maps']


def test_ranks_that_begin_by_themselves_write_parts_until_they_are_merged(tmp_path, monkeypatch):
    store, folders = torch.distributed.HashStore(), []
    monkeypatch.setattr(rank_agreement, '_default_store', lambda: store)
    for rank in (1, 0):
        for module in ('run_folder', 'rank_agreement'):
            monkeypatch.setattr(f'mmdet_featviz.runs.{module}.get_dist_info', lambda rank=rank: (rank, 2))
        folders.append(RunFolder(str(tmp_path), topic='run'))
        folders[-1].record([dict(key=str(rank), files=[])])
    assert [one.is_first for one in folders] == [True, False]
    assert folders[0].id == folders[1].id
    assert pictures(tmp_path) == ['manifest.rank0.jsonl', 'manifest.rank1.jsonl']
    folders[0].merge()
    assert pictures(tmp_path) == []
    assert [entry['key'] for entry in manifest(tmp_path)] == ['0', '1']


def test_a_resumed_run_keeps_its_id_and_one_that_replaces_it_gets_another(tmp_path):
    found = []
    for options in ({}, dict(resume=True), dict(overwrite=True)):
        run_folder = RunFolder(str(tmp_path), **options)
        run_folder.take({})
        run_folder.record([dict(key='a', augmentation=0, layer='neck', level=0, files=[])])
        run_folder.release()
        found.append(json.loads((tmp_path / 'run.json').read_text())['id'])
    assert found[0] == found[1] != found[2]


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')
def test_the_end_of_a_fork_does_not_free_the_folder(tmp_path):
    code = f"""
import os, sys
from mmdet_featviz.runs.run_folder import RunFolder
run_folder = RunFolder({str(tmp_path)!r})
run_folder.take({{}})
if os.fork() == 0:
    sys.exit()
os.wait()
print(os.listdir({str(tmp_path)!r}))
"""
    assert python(code).stdout == "['run.json']\n"
    assert not list(tmp_path.iterdir())  # free again at the end of the process itself


def test_two_writers_of_one_file_do_not_share_a_temporary_one(tmp_path, monkeypatch):
    temporary = []
    monkeypatch.setattr('os.replace', lambda source, target: temporary.append(source))
    for _ in range(2):
        RunFolder(str(tmp_path)).write('a.png', b'')
    assert len(set(temporary)) == 2
    assert all(PARTIAL_FILE.fullmatch(os.path.basename(name)) for name in temporary)


@pytest.mark.parametrize('options', [{}, dict(overwrite=True), dict(resume=True)])
def test_a_run_inside_another_one_does_not_take_its_pictures(tmp_path, options):
    outer = RunFolder(str(tmp_path / 'run'))
    outer.take({})
    outer.write('val/0/a.png', b'outer')
    outer.record([dict(key='val/0', files=['val/0/a.png'])])
    (tmp_path / 'link').symlink_to(tmp_path / 'run' / 'val')
    for folder in (tmp_path / 'run' / 'val', tmp_path / 'run' / 'val' / '0', tmp_path / 'link'):
        with pytest.raises(FileExistsError, match='holds pictures of the run in .*run.: choose an out_dir outside'):
            RunFolder(str(folder), **options)
    RunFolder(str(tmp_path / 'run' / 'va'), **options).write('0/a.png', b'inner')
    assert (tmp_path / 'run' / 'val' / '0' / 'a.png').read_bytes() == b'outer'


def test_a_run_above_another_one_does_not_overwrite_its_pictures(tmp_path):
    inner = RunFolder(str(tmp_path / 'run' / 'val'))
    inner.take({})
    inner.write('0/a.png', b'inner')
    outer = RunFolder(str(tmp_path / 'run'))
    with pytest.raises(FileExistsError, match='0/a.png is of another run, in .*val.: choose another out_dir'):
        outer.write('val/0/a.png', b'outer')
    outer.write('val/0/b.png', b'outer')  # as the comparison of two runs that it keeps in its folder
    outer.write('val2/0/a.png', b'outer')
    outer.write('val2/0/a.png', b'again')
    assert (tmp_path / 'run' / 'val' / '0' / 'a.png').read_bytes() == b'inner'


def test_an_output_folder_apart_from_what_is_read(tmp_path):
    (tmp_path / 'run' / 'sub').mkdir(parents=True)
    (tmp_path / 'link').symlink_to(tmp_path / 'run')
    check_apart(str(tmp_path / 'run_2'), str(tmp_path / 'run'))
    for out_dir in ('run', 'run/sub', 'link', 'link/new', '', 'run/../run'):
        with pytest.raises(ValueError, match='is, contains or is inside'):
            check_apart(str(tmp_path / out_dir), str(tmp_path / 'run'))
    with pytest.raises(ValueError, match='is, contains or is inside'):
        check_apart('s3://a/b/c', 's3://a/b/')
    check_apart('s3://a/bc', 's3://a/b')


def test_resuming_removes_what_a_killed_process_left_half_written(tmp_path):
    (tmp_path / 'a').mkdir()
    for name in ('run.json', 'a/.neck_0.jpg.12.34.0.part', 'a/mine.part'):
        (tmp_path / name).write_text('{}')
    RunFolder(str(tmp_path), resume=True)
    assert [path.name for path in (tmp_path / 'a').iterdir()] == ['mine.part']


def test_a_line_that_was_not_written_to_its_end_spoils_no_line_of_another_rank(tmp_path):
    for rank, content in enumerate((b'{"a": 1}\n{"b"', b'{"c": 3}\n')):
        (tmp_path / f'manifest.rank{rank}.jsonl').write_bytes(content)
    RunFolder(str(tmp_path), resume=True)
    assert (tmp_path / 'manifest.jsonl').read_bytes() == b'{"a": 1}\n{"c": 3}\n'
