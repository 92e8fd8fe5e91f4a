"""Runs on several ranks, started by a launcher."""

from pathlib import Path

import numpy as np
import pytest
from conftest import manifest, pictures, same_files, test_project, write_project

from mmdet_featviz.runs.box_features_file import load_box_features
from mmdet_featviz.runs.explanation_files import saved_explanations
from mmdet_featviz.runs.manifest import read_entries
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.storage import get_storage


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    write_project(folder, images=7)  # the second rank of two gets the first image again
    return folder


@pytest.mark.parametrize('options', [(), ('--interval', '3', '--max-images', '3', '--normalize', 'run')])
def test_two_ranks_write_the_same_as_one_process(project, tmp_path, options):
    one = test_project(project, '--featviz-dir', str(tmp_path / 'one'), *options)
    assert one.returncode == 0, one.stderr
    two = test_project(project, '--featviz-dir', str(tmp_path / 'two'), *options, ranks=2)
    assert two.returncode == 0, two.stderr
    assert same_files(tmp_path / 'one', tmp_path / 'two')
    keys = {entry['key'] for entry in manifest(tmp_path / 'two')}
    assert keys == (set('036') if options else set('0123456'))  # of both ranks
    assert f'{9 * len(keys)} pictures' in two.stdout + two.stderr  # the summary counts both ranks
    if options:
        return
    again = test_project(project, '--featviz-dir', str(tmp_path / 'two'), ranks=2)
    assert again.returncode != 0
    assert 'FileExistsError: ' in again.stderr  # of the rank that fails first: the launcher then ends the other
    assert same_files(tmp_path / 'one', tmp_path / 'two')


def test_two_ranks_explain_and_score_the_same_as_one_process(project, tmp_path):
    save = '--save', 'overlay', 'scores', 'maps', 'embeddings', 'box_features'
    options = *save, '--max-images', '3', '--score-thr', '0.005', '--explain', 'targets=top 2'
    options += '--reduction', 'pca'  # of the images of both ranks
    for name, ranks in dict(one=None, two=2).items():
        done = test_project(project, '--featviz-dir', str(tmp_path / name), *options, ranks=ranks)
        assert done.returncode == 0, done.stderr
    assert same_files(tmp_path / 'one', tmp_path / 'two')  # pictures, saved maps and manifest
    assert any('/bbox_head.merged_scores.' in name for name in pictures(tmp_path / 'two'))
    kept = [load_box_features(saved.path) for saved in Run(str(tmp_path / 'two')).box_features]
    assert len(kept) == 3 and all({True, False} == set(one.boxes.are_truth.tolist()) for one in kept)
    explanations = {}
    for name in ('one', 'two'):
        run = Run(str(tmp_path / name))
        for snapshot in run.snapshots():
            for one in saved_explanations(run, snapshot, 'center'):
                explanations.setdefault((snapshot.key, one.target.number), []).append(one)
    assert sorted(explanations) == [(key, number) for key in '012' for number in (0, 1)]
    for one, other in explanations.values():
        assert one.target == other.target
        assert one.heatmap.max() > 0
        np.testing.assert_array_equal(one.heatmap, other.heatmap)


def test_a_killed_rank_ends_the_others_and_the_run_can_be_resumed(project, tmp_path):
    write_project(tmp_path, images=7, trouble='rank == 1 and batch_idx == 2 and os.kill(os.getpid(), signal.SIGKILL)')
    killed = test_project(tmp_path, '--featviz-dir', 'two', ranks=2)
    assert killed.returncode != 0
    assert 'SIGKILL' in killed.stderr or 'Signal 9' in killed.stderr
    assert 'two' in {path.name for path in tmp_path.iterdir()}
    before = list(read_entries(get_storage(tmp_path / 'two')))
    assert all((tmp_path / 'two' / name).exists() for entry in before for name in entry['files'])
    write_project(tmp_path, images=7)
    done = test_project(tmp_path, '--featviz-dir', 'two', '--resume')
    assert done.returncode == 0, done.stderr
    one = test_project(tmp_path, '--featviz-dir', 'one')
    assert one.returncode == 0, one.stderr
    assert same_files(tmp_path / 'one', tmp_path / 'two')
    assert not [name for name in pictures(tmp_path / 'two') if 'rank' in name]


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='needs the names of threads that Linux lists')
def test_no_gloo_thread_outlives_the_command(tmp_path):
    write_project(tmp_path, images=2)
    with open(tmp_path / 'trouble.py', 'a') as trouble:
        trouble.write(
            'import atexit, glob\n'
            'def left():\n'
            "    names = [open(name).read() for name in glob.glob('/proc/self/task/*/comm')]\n"
            "    with open('left_' + os.environ['RANK'], 'w') as file:\n"
            "        file.write(str(sum('gloo_runloop' in name for name in names)))\n"
            'atexit.register(left)\n'
        )
    done = test_project(tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f'left_{rank}').read_text() for rank in range(2)] == ['0', '0']
