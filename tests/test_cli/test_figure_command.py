"""featviz figure: from a file, from options, and errors of the command line."""

import pytest
from commands import featviz
from conftest import read
from figure_runs import save_figure_run


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with two runs, `one/run` and `two/run`, and a figure of them."""
    folder = tmp_path_factory.mktemp('figures')
    for name in ('one', 'two'):
        save_figure_run(folder / name, keys=('a',))
    text = 'run: one/run\nrows: [a]\ncolumns: [image, neck_0]\nwidth: 88\n'
    (folder / 'figure.yaml').write_text(text, encoding='utf-8')
    return folder


def test_a_file_becomes_a_figure_in_each_format(folder):
    done = featviz('figure', 'figure.yaml', '--out', 'one.png', 'one.pdf', 'one.svg', '--dpi', '150', cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'a figure of 88 x 30 mm: one.png, one.pdf, one.svg'
    assert read(folder / 'one.png').shape[1] == round(88 / 25.4 * 150)
    assert (folder / 'one.pdf').read_bytes().startswith(b'%PDF')
    assert b'<svg' in (folder / 'one.svg').read_bytes()


def test_options_become_a_figure_with_maps_of_each_run(folder):
    (folder / 'same.yaml').write_text(
        """
rows: [a]
columns:
- {show: image, run: one/run}
- {show: gt, run: one/run}
- {show: neck_1, run: one/run, name: "one/run\\nneck_1"}
- {show: neck_1, run: two/run, name: "two/run\\nneck_1"}
style: {colormap: magma}
""",
        encoding='utf-8',
    )
    options = ['--runs', 'one/run', 'two/run', '--images', 'a', '--show', 'image', 'gt', 'neck_1']
    for arguments in ([*options, '--colormap', 'magma', '--out', 'a.png'], ['same.yaml', '--out', 'b.png']):
        done = featviz('figure', *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    assert (read(folder / 'a.png') == read(folder / 'b.png')).all()


def test_a_file_that_exists_is_kept_unless_asked_for(folder):
    (folder / 'kept.png').write_bytes(b'mine')
    done = featviz('figure', 'figure.yaml', '--out', 'kept.png', cwd=folder)
    assert done.returncode == 1
    assert done.stderr.strip() == 'kept.png exists: choose another name, or add --overwrite'
    assert (folder / 'kept.png').read_bytes() == b'mine'
    assert featviz('figure', 'figure.yaml', '--out', 'kept.png', '--overwrite', cwd=folder).returncode == 0
    assert read(folder / 'kept.png') is not None


@pytest.mark.parametrize(
    ('arguments', 'code', 'message'),
    [
        (['figure.yaml', '--out', 'x.bmp'], 1, "the ending of --out='bmp' is not known: choose from pdf, svg, png"),
        (
            ['figure.yaml', '--out', 'nowhere/x.png'],
            1,
            'nowhere is no folder: make it first, or choose another for nowhe',
        ),
        (['none.yaml', '--out', 'x.png'], 1, "No such file or directory: 'none.yaml'"),
        (['--runs', 'one/run', '--out', 'x.png'], 2, 'name a SPEC, or all of --runs, --images and --show'),
        (['figure.yaml', '--show', 'gt', '--out', 'x.png'], 2, 'name a SPEC, or all of --runs, --images and --show'),
        (['figure.yaml', '--width', '5', '--out', 'x.png'], 1, 'width must lie between 20 and 1000, but is 5'),
        (['figure.yaml', '--colormap', 'jett', '--out', 'x.png'], 1, "unknown color map 'jett'"),
        (
            ['--runs', 'no', '--images', 'a', '--show', 'gt', '--out', 'x.png'],
            1,
            'no is no run: it has no manifest.jsonl',
        ),
    ],
)
def test_mistakes_end_with_a_message(folder, arguments, code, message):
    done = featviz('figure', *arguments, cwd=folder)
    assert done.returncode == code
    assert message in done.stderr.strip().splitlines()[-1]
    assert not (folder / 'x.png').exists()


def test_an_image_that_is_gone_is_named(tmp_path):
    save_figure_run(tmp_path, keys=('a',))
    (tmp_path / 'images' / 'a.png').unlink()
    arguments = ['--runs', 'run', '--images', 'a', '--show', 'image', '--out', 'x.png']
    done = featviz('figure', *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert 'a.png' in done.stderr
