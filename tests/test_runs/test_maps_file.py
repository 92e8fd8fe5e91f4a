"""Maps file: a snapshot is loaded as it was saved."""

import contextlib
import copy
import io
import json
import os
import zipfile

import numpy as np
import pytest
from conftest import pictures
from drawn_run import draw

from mmdet_featviz.cli import main
from mmdet_featviz.evaluation.run_comparison import RunComparison
from mmdet_featviz.runs.maps_file import MapsError, dump_snapshot, load_snapshot
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.channel_maps import ChannelMaps
from mmdet_featviz.structures.placement import Placement, identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot


def test_half_precision_clips_large_values(tmp_path):
    values = np.array([[0.1, 1e6], [-1e6, np.nan]], np.float32)
    snapshot = Snapshot('a', None, 0, identity_placement((2, 2), (2, 2)), [Level('neck', 0, 4, (1, 1), values)])
    (tmp_path / 'maps.npz').write_bytes(dump_snapshot(snapshot, 'float16'))
    found = load_snapshot(str(tmp_path / 'maps.npz')).levels[0].values
    np.testing.assert_allclose(found, [[0.1, 65504], [-65504, np.nan]], rtol=1e-3)


def test_a_file_without_maps_is_an_error(tmp_path):
    (tmp_path / 'maps.npz').write_bytes(b'PK no')
    with pytest.raises(ValueError, match=r'maps.npz holds no maps of this package'):
        load_snapshot(str(tmp_path / 'maps.npz'))


VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
CHANNELS = ChannelMaps(np.array([3, 0]), np.stack([VALUES, VALUES]), np.arange(4, dtype=np.float32))
SNAPSHOT = Snapshot(
    '猫/a',
    '/images/猫/a.png',
    1,
    Placement(np.array([[0.5, 0, -3], [0, -0.5, 10], [0, 0, 1.0]]), (20, 30), (16, 24)),
    [Level('neck.p', 2, 4, (8.0, 8.5), VALUES, picked=CHANNELS, offset=(0.5, -1.25))],
    [Level('se', 0, 4, (8.0, 8.0), VALUES, pooled=CHANNELS)],
    Boxes(np.array([[1.0, 2, 3, 4], [0, 0, 9, 9]]), np.array([1, 0]), np.array([np.nan, 0.5])),
    np.array([[0.0, 1, 2, 3]]),
    folder='epoch_3',
    position=7,
)


def write_maps(path, edit=None, **arrays):
    """Write SNAPSHOT with other arrays, and with a meta part that `edit` changed."""
    with np.load(io.BytesIO(dump_snapshot(SNAPSHOT))) as archive:
        content = {**archive, **arrays}
    meta = json.loads(str(content['meta']))
    if edit is not None:
        edit(meta)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**content, 'meta': np.array(json.dumps(meta))})
    return str(path)


def test_a_snapshot_is_loaded_as_it_was_saved(tmp_path):
    loaded = load_snapshot(write_maps(tmp_path / 'maps.npz'))
    for name in ('key', 'path', 'augmentation', 'is_file', 'folder', 'position'):
        assert getattr(loaded, name) == getattr(SNAPSHOT, name)
    for name in ('matrix', 'image_size', 'input_size'):
        np.testing.assert_array_equal(getattr(loaded.placement, name), getattr(SNAPSHOT.placement, name))
    for name in ('corners', 'labels', 'scores'):
        np.testing.assert_array_equal(getattr(loaded.boxes, name), getattr(SNAPSHOT.boxes, name))
    np.testing.assert_array_equal(loaded.ignored, SNAPSHOT.ignored)
    for levels, saved_levels in ((loaded.levels, SNAPSHOT.levels), (loaded.attention, SNAPSHOT.attention)):
        ((level, saved),) = zip(levels, saved_levels)
        for name in ('name', 'channels', 'stride', 'offset'):
            assert getattr(level, name) == getattr(saved, name)
        np.testing.assert_array_equal(level.values, VALUES)
        for name in ('indices', 'maps', 'weights'):
            channels = level.picked or level.pooled
            np.testing.assert_array_equal(getattr(channels, name), getattr(CHANNELS, name))
    (tmp_path / 'neck.p_2.pass_1.raw.npy').write_bytes(npy(np.ones((4, 2, 3), np.float16)))
    np.testing.assert_array_equal(load_snapshot(str(tmp_path / 'maps.npz')).levels[0].raw, np.ones((4, 2, 3)))


@pytest.mark.parametrize('augmentation', ['mean', 'mean_4'])
def test_means_of_passes_are_loaded(tmp_path, augmentation):
    loaded = load_snapshot(write_maps(tmp_path / 'maps.npz', lambda meta: meta.update(augmentation=augmentation)))
    assert loaded.augmentation == augmentation


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


OUTSIDE = ['../../x', 'a/../../x', '/x', '\\x', '..\\..\\x', 'C:/x', 'C:x', 'a\0b', '', 7]


@pytest.mark.parametrize('name', OUTSIDE)
def test_names_that_lead_out_of_the_run_are_refused(tmp_path, name):
    with pytest.raises(MapsError, match='its image key .* leads out of the folder of the run'):
        load_snapshot(write_maps(tmp_path / 'maps.npz', lambda meta: meta.update(key=name)))


@pytest.mark.parametrize('levels', ['levels', 'attention'])
def test_level_names_that_lead_out_of_the_run_are_refused(tmp_path, levels):
    arrays = {'x/../../../y_2': VALUES, 'attention/x/../../../y_0': VALUES}
    path = write_maps(tmp_path / 'maps.npz', lambda meta: meta[levels][0].update(layer='x/../../../y'), **arrays)
    with pytest.raises(MapsError, match='its level .* leads out of the folder of the run'):
        load_snapshot(path)


MATRIX = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        (dict(augmentation='../../x'), 'its pass is'),
        (dict(augmentation=-1), 'its pass is -1'),
        (dict(augmentation=1 << 31), 'its pass is 2147483648'),
        (dict(augmentation='mean_' + 15 * '9'), 'its pass is'),
        (dict(path='\ud800.png'), 'surrogates not allowed'),
        (dict(position=[1]), r'its position in the data set is \[1\]'),
        (dict(path=['a']), 'its image path is'),
        (dict(is_file='yes'), "its folder is 'epoch_3', is_file 'yes'"),
        (dict(matrix=MATRIX[:2]), 'no matrix with an inverse'),
        (dict(matrix=[[float('nan')] * 3] * 3), 'no matrix with an inverse'),
        (dict(matrix=[[1, 0, float('inf')], *MATRIX[1:]]), 'no matrix with an inverse'),
        (dict(matrix=[MATRIX[0], [0, 0, 3], MATRIX[2]]), 'no matrix with an inverse'),
        (dict(matrix='text'), 'holds no maps'),
        (dict(photo_size=[0, 9]), 'a size of 9x0 pixels'),
        (dict(photo_size=[-5, -5]), 'a size of -5x-5 pixels'),
        (dict(photo_size=[1 << 20, 1 << 20]), 'a size of 1048576x1048576 pixels'),
        (dict(input_size=[2.5, 9]), 'a size of 9x2.5 pixels'),
        (dict(input_size=[9]), 'holds no maps'),
        (dict(levels=7), 'holds no maps'),
        (dict(levels=[[]]), 'holds no maps'),
        (dict(format=2), r'was written by another version of this package \(format 2\)'),
    ],
)
def test_facts_that_do_not_fit_are_refused(tmp_path, changes, problem):
    with pytest.raises(MapsError, match=problem):
        load_snapshot(write_maps(tmp_path / 'maps.npz', lambda meta: meta.update(changes)))


@pytest.mark.parametrize('is_file', [True, False])
def test_a_very_large_image_must_be_there(tmp_path, is_file):
    """Drawing 2**30 pixels takes eight gigabytes; the file of maps that claims them takes two kilobytes."""
    image = tmp_path / ('a.png' if is_file else 'photo.pass_1.png')
    facts = dict(photo_size=[20_000, 10_000], path=str(tmp_path / 'a.png'), is_file=is_file)
    path = write_maps(tmp_path / 'maps.npz', lambda meta: meta.update(facts))
    for size in (None, 19_999):
        if size is not None:
            image.write_bytes(b'')
            os.truncate(image, size)
        with pytest.raises(MapsError, match='has 10000x20000 pixels, and .* is not there or too small a file for them'):
            load_snapshot(path)
    os.truncate(image, 20_000)
    assert load_snapshot(path).placement.image_size == (20_000, 10_000)


def test_a_very_large_image_behind_a_url_is_not_asked_for(tmp_path):
    facts = dict(photo_size=[20_000, 10_000], path='s3://bucket/a.png', is_file=True)
    path = write_maps(tmp_path / 'maps.npz', lambda meta: meta.update(facts))
    assert load_snapshot(path).placement.image_size == (20_000, 10_000)


@pytest.mark.parametrize('size', [(8944, 10_004), (8945, 10_004)])
def test_an_image_of_usual_size_may_be_missing(tmp_path, size):
    path = write_maps(tmp_path / 'maps.npz', lambda meta: meta.update(photo_size=size))
    with contextlib.nullcontext() if size[0] == 8944 else pytest.raises(MapsError, match='is not there'):
        assert load_snapshot(path).placement.image_size == size


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        (dict(stride=[0, 8]), 'has a stride of'),
        (dict(stride=[8, float('nan')]), 'has a stride of'),
        (dict(stride=[8, float('inf')]), 'has a stride of'),
        (dict(stride=[10**400, 8]), 'holds no maps'),
        (dict(stride=8), 'holds no maps'),
        (dict(offset=[0, float('nan')]), 'has an offset of'),
        (dict(offset=4), 'holds no maps'),
        (dict(channels=0), 'has 0 channels'),
        (dict(channels='4'), "has '4' channels"),
        (dict(channels=3), 'are not among its 3'),
        (dict(channels=5), r'its weights of neck.p_2 are float32 \(4,\)'),
        (dict(layer='gone'), "it lacks 'gone_2'"),
        (dict(level=-1), 'channels'),
        (dict(score_of='cat', label=-1), 'has the label -1'),
        (dict(score_of='cat', label=True), 'has the label True'),
        (dict(score_of=5), 'has the scores of 5'),
    ],
)
def test_levels_that_do_not_fit_are_refused(tmp_path, changes, problem):
    arrays = {'neck.p_-1': VALUES}
    with pytest.raises(MapsError, match=problem):
        load_snapshot(write_maps(tmp_path / 'maps.npz', lambda meta: meta['levels'][0].update(changes), **arrays))


@pytest.mark.parametrize(
    'arrays',
    [
        {'neck.p_2': np.zeros(3, np.float32)},
        {'neck.p_2': np.zeros((2, 3), int)},
        {'neck.p_2': np.zeros((0, 3), np.float32)},
        {'neck.p_2': np.array([['text']])},
        {'neck.p_2.picked.indices': np.array([4, 0])},
        {'neck.p_2.picked.indices': np.array([-1, 0])},
        {'neck.p_2.picked.indices': np.array([0.0, 1.0])},
        {'neck.p_2.picked.indices': np.array([0])},
        {'neck.p_2.picked.maps': np.zeros((2, 2, 4), np.float32)},
        {'neck.p_2.picked.weights': np.array(['a'] * 4)},
        {'attention/se_0.pooled.indices': np.array([9, 0])},
        {'neck.p_2.embedding': np.zeros((16, 2, 3), np.float32)},
        {'neck.p_2.embedding': np.zeros((2, 3), np.int8)},
        {'neck.p_2.embedding': np.zeros((16, 3, 2), np.int8)},
        {'boxes': np.array([[0, 0, np.inf, 9, 0, 0.5]])},
        {'boxes': np.array([[0, 0, 9, 9, 2.0**31, 0.5]])},
        {'boxes': np.array([[0, 0, 9, 9, 0, np.inf]])},
        {'ignored': np.full((1, 4), np.nan)},
        {'boxes': np.zeros((2, 4))},
        {'boxes': np.zeros(6)},
        {'ignored': np.zeros((2, 5))},
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays):
    with pytest.raises(MapsError, match=r'maps\.npz holds no maps of this package: '):
        load_snapshot(write_maps(tmp_path / 'maps.npz', **arrays))


@pytest.mark.parametrize('levels', ['levels', 'attention'])
def test_a_level_is_named_once(tmp_path, levels):
    """A small file could else name one map a million times."""
    path = write_maps(tmp_path / 'maps.npz', lambda meta: meta.update({levels: 2 * meta[levels]}))
    with pytest.raises(MapsError, match='it names a level twice'):
        load_snapshot(path)


def test_raw_maps_that_do_not_fit_are_refused(tmp_path):
    path, raw = write_maps(tmp_path / 'maps.npz'), tmp_path / 'neck.p_2.pass_1.raw.npy'
    for content in (
        npy(np.ones((5, 2, 3), np.float32)),
        npy(np.ones((4, 2, 3), int)),
        npy(np.ones((4, 2, 3), np.float32))[:-4],
        npy(np.array([{}]), allow_pickle=True),
        b'no array',
    ):
        raw.write_bytes(content)
        with pytest.raises(MapsError, match=r'maps\.npz holds no maps of this package: '):
            load_snapshot(path)


class Calls:
    """Is pickled as a call that creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


def test_nothing_in_a_file_from_outside_is_executed(tmp_path):
    harm = np.array([Calls(str(tmp_path / 'harm'))], object)
    with pytest.raises(MapsError, match='allow_pickle=False'):
        load_snapshot(write_maps(tmp_path / 'maps.npz', boxes=harm))
    path = write_maps(tmp_path / 'maps.npz')
    (tmp_path / 'neck.p_2.pass_1.raw.npy').write_bytes(npy(harm, allow_pickle=True))
    with pytest.raises(MapsError, match='maps.npz holds no maps'):
        load_snapshot(path)
    assert not (tmp_path / 'harm').exists()


def test_maps_without_a_path_have_no_image_file(tmp_path):
    assert not load_snapshot(write_maps(tmp_path / 'maps.npz', lambda meta: meta.update(path=None))).is_file


def test_compressed_arrays_are_refused(tmp_path):
    """They could be a thousand times as large as the file."""
    plain, packed = write_maps(tmp_path / 'plain.npz'), tmp_path / 'maps.npz'
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(MapsError, match='its arrays are compressed'):
        load_snapshot(str(packed))


def test_arrays_that_overlap_in_the_file_are_refused(tmp_path):
    """A small archive may name the same bytes a thousand times, and an array may claim more bytes than there are."""
    for name, copies, factor in (('overlap', 1000, 1), ('claim', 1, 2**20)):
        path = write_maps(tmp_path / f'{name}.npz')
        with zipfile.ZipFile(path, 'a') as archive:
            archive.writestr('more.npy', b'')
            for number in range(copies):
                entry = copy.copy(archive.infolist()[0])
                entry.filename, entry.file_size = f'{number}.npy', entry.file_size * factor
                archive.filelist.append(entry)
        with pytest.raises(MapsError, match='its arrays are larger than the file'):
            load_snapshot(str(path))


def test_nothing_is_written_outside_by_a_key_from_outside(pool_model, tmp_path, capsys):
    """`render` draws the other images; `compare` compares them."""
    draw(pool_model, tmp_path, save='maps', count=2)
    path = tmp_path / 'run' / '图 0' / 'maps.npz'
    with np.load(path) as archive:
        content = dict(archive)
    meta = json.loads(str(content['meta']))
    content['meta'] = np.array(json.dumps({**meta, 'key': '../../x'}))
    np.savez(path, **content)
    before = pictures(tmp_path)
    for options in ([], ['--normalize', 'run']):
        main('render', [str(tmp_path / 'run'), '--out-dir', str(tmp_path / 'later'), '--overwrite', *options])
        assert '; skipped: 1 image, maps not readable (图 0)' in capsys.readouterr().out
    RunComparison([Run(str(tmp_path / 'run'))] * 2, str(tmp_path / 'compared')).run()
    written = set(pictures(tmp_path)) - set(before)
    assert {name.split('/')[0] for name in written} == {'later', 'compared'}
    assert {name.split('/')[1] for name in written if name.count('/') > 1} == {'图 1'}
