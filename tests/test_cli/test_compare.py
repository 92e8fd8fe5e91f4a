"""featviz compare: errors of the command line."""

from commands import run
from conftest import pictures

TWO_DETECTORS = ('--config-a', 'pools.py', '--images', 'images', '--out-dir')


def test_a_missing_checkpoint_is_an_error_before_a_detector_runs(pools_project, tmp_path):
    out = tmp_path / 'compared'
    checkpoints = '--checkpoint-a', 'pools.pth', '--checkpoint-b', 'nothing.pth'
    result = run('compare.py', *TWO_DETECTORS, out, *checkpoints, cwd=pools_project)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == 'checkpoint nothing.pth does not exist'
    assert not [path for path in out.rglob('*') if path.is_file()]


def test_the_run_of_a_detector_in_the_folder_is_an_error_in_one_sentence(pools_project, tmp_path):
    out = tmp_path / 'compared'
    checkpoints = '--checkpoint-a', 'pools.pth', '--checkpoint-b', 'pools.pth'
    (out / 'b').mkdir(parents=True)
    (out / 'b' / 'manifest.jsonl').touch()
    result = run('compare.py', *TWO_DETECTORS, out, *checkpoints, cwd=pools_project)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith(f'{str(out / "b")!r} holds the pictures of another run')
    assert not (out / 'a' / 'run.json').exists()


def test_a_folder_above_the_runs_is_refused_and_one_beside_them_is_not(pools_project, tmp_path):
    arguments = ['images/a.jpg', 'pools.py', 'pools.pth', '--save', 'maps', '--out-dir']
    for name in 'ab':
        assert run('image_demo.py', *arguments, tmp_path / name, cwd=pools_project).returncode == 0
    before = pictures(tmp_path)
    for folder in (tmp_path, tmp_path / 'a', tmp_path / 'a' / 'inside'):
        refused = run('compare.py', tmp_path / 'a', tmp_path / 'b', '--out-dir', folder, '--overwrite', cwd=tmp_path)
        message = f'out_dir {str(folder)!r} is, contains or is inside {str(tmp_path / "a")!r}, which is read: choose a'
        assert refused.returncode == 1
        assert refused.stderr.strip().splitlines()[-1].startswith(message)
        assert pictures(tmp_path) == before
    done = run('compare.py', tmp_path / 'a', tmp_path / 'b', '--out-dir', tmp_path / 'c', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'c/compare.md' in pictures(tmp_path)
