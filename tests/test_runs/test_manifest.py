"""Manifest: readable at any time, and a resumed run trusts only complete entries."""

import io
import json

import pytest
from conftest import manifest, pictures

from mmdet_featviz.runs.manifest import read_entries
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.storage import get_storage


def entry(key, *files, **notes):
    return dict(key=key, augmentation=0, layer='neck', level=len(files), files=list(files), **notes)


VECTORS = {'vectors': {}, 'key': 'a', 'pass': 0, 'image': None, 'folder': '', 'boxes': 3, 'files': ['a']}


def test_the_manifest_is_readable_after_each_record(tmp_path):
    run_folder = RunFolder(str(tmp_path))
    for number in range(3):
        run_folder.record([dict(image=f'名 {number}\n"'), dict(image='x')])
        lines = (tmp_path / 'manifest.jsonl').read_text(encoding='utf-8').splitlines()
        assert len(lines) == 2 * (number + 1)
        assert json.loads(lines[-2])['image'] == f'名 {number}\n"'


def test_a_resumed_run_counts_only_complete_levels_as_finished(tmp_path):
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


def test_an_incomplete_line_leaves_the_others_readable(tmp_path, monkeypatch):
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


@pytest.mark.parametrize(
    ('line', 'problem'),
    [
        (dict(augmentation=0), "an entry with 'augmentation' has no 'key'"),
        (dict(method='odam', key='a', files=[]), "an entry with 'method' has no 'pass'"),
        (dict(vectors={}, key='a', image=None, files=[]), "an entry with 'vectors' has no 'pass'"),
        (dict(evaluation='test'), "an entry with 'evaluation' has no 'files'"),
        (dict(entry('a'), key=['a']), r"the 'key' of an entry is \['a'\]"),
        (dict(entry('a'), augmentation=[0]), r"the 'augmentation' of an entry is \[0\]"),
        (dict(entry('a'), position='first'), "the 'position' of an entry is 'first'"),
        (dict(entry('a'), folder=None), "the 'folder' of an entry is None"),
        (dict(entry('a'), level='0'), "the 'level' of an entry is '0'"),
        (dict(entry('a'), files='run.json'), "the 'files' of an entry is 'run.json'"),
        (dict(VECTORS, boxes=10**15), r"an entry has 1000000000000000 boxes in \['a'\]"),
        (dict(VECTORS, boxes=-1), 'an entry has -1 boxes'),
        (dict(VECTORS, files=[]), r'an entry has 3 boxes in \[\]'),
        (dict(entry('a'), files=[['x']]), r"the 'files' of an entry are \[\['x'\]\]"),
    ],
)
def test_entries_from_outside_that_do_not_fit_are_refused(tmp_path, line, problem):
    (tmp_path / 'manifest.jsonl').write_text(json.dumps(line) + '\n')
    with pytest.raises(ValueError, match=f'manifest.jsonl was not written by this package, or is damaged: {problem}'):
        list(read_entries(get_storage(tmp_path)))


def test_lines_that_are_no_entries_are_left_out(tmp_path):
    lines = ['[' * 100_000, '[]', '5', json.dumps(entry('a')), '{"level": "neck_0", "files": []}', '']
    (tmp_path / 'manifest.jsonl').write_text('\n'.join(lines))
    assert list(read_entries(get_storage(tmp_path))) == [entry('a'), dict(level='neck_0', files=[])]
    with open(tmp_path / 'manifest.jsonl', 'a') as file:
        file.write(json.dumps(entry('b')))  # perhaps the beginning of a longer line
    assert [one.get('key') for one in read_entries(get_storage(tmp_path))] == ['a', None]
