"""featviz render: drawing again from saved maps, and errors."""

import pytest
from commands import run
from conftest import pictures


@pytest.fixture
def saved_run(pools_project, tmp_path):
    """A run of one image that saved its maps."""
    options = ['--layers', 'backbone', '--save', 'channels', 'heatmap', 'maps', '--channels', '1', '0']
    arguments = ['images/a.jpg', 'pools.py', 'pools.pth', '--out-dir', tmp_path / 'out', *options]
    done = run('image_demo.py', *arguments, cwd=pools_project)
    assert done.returncode == 0, done.stderr
    return tmp_path / 'out'


def test_selected_levels_are_drawn_in_the_style_of_the_run(saved_run, tmp_path):
    later = run('render.py', saved_run, '--out-dir', tmp_path / 'later', '--levels', '*_1', cwd=tmp_path)
    assert later.returncode == 0, later.stderr
    assert later.stdout.strip().splitlines()[-1] == f'2 pictures of 1 image in {tmp_path / "later"}'
    names = ['a/backbone_1.channels.jpg', 'a/backbone_1.heatmap.png']
    assert pictures(tmp_path / 'later') == names
    for name in names:
        assert (tmp_path / 'later' / name).read_bytes() == (saved_run / name).read_bytes()


def test_overlays_cannot_be_drawn_without_the_images(pools_project, tmp_path):
    image = tmp_path / 'gone.jpg'
    image.write_bytes((pools_project / 'images' / 'a.jpg').read_bytes())
    options = ['--out-dir', tmp_path / 'out', '--save', 'maps']
    assert run('image_demo.py', image, 'pools.py', 'pools.pth', *options, cwd=pools_project).returncode == 0
    image.unlink()
    later = run('render.py', tmp_path / 'out', '--out-dir', tmp_path / 'later', cwd=pools_project)
    assert later.returncode == 1
    assert later.stderr.strip().splitlines()[-1].endswith('skipped: 1 image, image not readable (gone.jpg)')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--levels', 'neck_*'], '--images and --levels match nothing: manifest.jsonl of the run lists'),
        (['--channels', '1'], 'the run saved only the channels that it drew, so --channels has no effect'),
        (['--save', 'attention'], 'the run saved nothing to draw attention from: repeat it with --save raw'),
    ],
)
def test_mistakes_end_with_a_message(saved_run, tmp_path, options, message):
    done = run('render.py', saved_run, '--out-dir', tmp_path / 'later', *options, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr.strip().splitlines()[-1]


def test_a_channel_that_does_not_exist_is_named_once(pools_project, tmp_path):
    arguments = ['images/a.jpg', 'pools.py', 'pools.pth', '--out-dir', tmp_path / 'out', '--layers', 'backbone']
    done = run('image_demo.py', *arguments, '--save', 'raw', cwd=pools_project)
    assert done.returncode == 0, done.stderr
    options = ['--save', 'channels', '--channels', '1', '10000']
    done = run('render.py', tmp_path / 'out', '--out-dir', tmp_path / 'later', *options, cwd=tmp_path)
    assert done.returncode == 1
    message = 'channel 10000 does not exist: backbone_0 has 2 channels, 0-1'
    assert done.stderr.strip().splitlines()[-1].startswith(message)
    assert done.stderr.count('10000') == 1
    assert not pictures(tmp_path / 'later')
    done = run('render.py', tmp_path / 'out', '--out-dir', tmp_path / 'later', *options[:-1], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'a/backbone_0.channels.jpg' in pictures(tmp_path / 'later')


def test_a_folder_without_a_run_is_an_error(pools_project):
    done = run('render.py', 'images', '--out-dir', 'x', cwd=pools_project)
    assert done.returncode == 1
    assert 'images is no run: it has no manifest.jsonl' in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize('folder', ['out', 'out/later', '.'])
def test_a_run_is_not_drawn_over_itself(saved_run, tmp_path, folder):
    before = pictures(saved_run)
    done = run('render.py', saved_run, '--out-dir', tmp_path / folder, '--overwrite', cwd=tmp_path)
    assert done.returncode == 1
    assert 'is, contains or is inside' in done.stderr.strip().splitlines()[-1]
    assert pictures(saved_run) == before
