"""featviz compare: errors of the command line."""

from commands import run

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
