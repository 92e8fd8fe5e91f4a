"""Every command and every snippet of README and documentation runs, page by page, and every link leads somewhere."""

import contextlib
import inspect
import io
import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import mmdet
import pytest
from commands import run as run_tool
from conftest import ROOT, manifest
from mmdet.registry import MODELS
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from pages import chinese_page, chinese_pages, english_pages, heading_anchors, links, read_page, runnable_blocks
from workplace import make_workplace

from mmdet_featviz import EXPLAINERS, REDUCTIONS, DetectionErrorMetric, FeatureFocusMetric, FeatureVisualizer, Style
from mmdet_featviz.cli import main
from mmdet_featviz.explanation import gradient_methods, perturbation_methods  # noqa: F401  as the detectors
from mmdet_featviz.models.detectors import featviz_detectors  # noqa: F401  registered for good, not for one page

PAGES = english_pages()
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'

# Commands that cannot run here, by how they begin, and why. An entry that no page needs any more fails a test.
NOT_RUN = {
    'pip install': 'installs packages',
    'CFLAGS=-g0 pip install': 'installs packages',
    'mim install': 'installs packages',
    'make demo': 'installs everything; its command is that of the demo in get_started.md',
    'make test': 'installs everything',
    'featviz demo-data': 'a thousand scenes; with fewer it runs in the same page',
    'featviz train configs/demo/': 'trains for an hour',
    'featviz test configs/zoo/': 'downloads a checkpoint, and needs COCO',
    'featviz image image.jpg rtmdet_tiny_8xb32-300e_coco': 'downloads a checkpoint',
    'featviz test my_config.py my_checkpoint.pth --featviz-dir s3://': 'needs a bucket; test_storage.py',
    'bash tools/dist_test.sh': 'starts many processes; tests/test_runs/test_ranks.py',
    'NNODES=2': 'needs two machines',
    'srun': 'needs Slurm',
    'featviz benchmark': 'takes many minutes',
    'featviz coverage': 'takes many minutes; tests/test_benchmarks/test_zoo_coverage.py',
}
EXACT = {'featviz demo-data'}  # this whole command only, not all that begin like it


@pytest.fixture(scope='module')
def template(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp('workplace'))


@pytest.fixture
def workplace(template, tmp_path, monkeypatch):
    """A new folder with all that pages assume, and no trace of a page's registrations afterwards."""
    shutil.copytree(template, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in (EXPLAINERS, MODELS, REDUCTIONS):
        monkeypatch.setattr(registry, '_module_dict', dict(registry._module_dict))
    return tmp_path


@pytest.mark.parametrize('page', [page for page in PAGES if runnable_blocks(page)])
def test_all_commands_and_snippets_of_a_page_run(page, workplace):
    namespace = {}
    for block in runnable_blocks(page):
        place = f'{page}:{block.line}'
        if block.is_shell:
            for words in block.commands:
                if reason_not_to_run(words) is None:
                    run_command(words, workplace, place)
        elif block.is_config:
            run_config(block, workplace, place)
        else:
            exec(compile(block.text, place, 'exec'), namespace)  # its errors name page and block


def reason_not_to_run(words):
    command = ' '.join(words)
    for start, reason in NOT_RUN.items():
        if command == start if start in EXACT else command.startswith(start):
            return reason
    return None


def run_command(words, folder, place):
    """Run a command of a page in this process, and fail unless it ends well."""
    kind, *arguments = words
    command = ' '.join(words)
    if command == f'python mmdetection/tools/test.py {" ".join(arguments[1:])}':
        code, output = in_process(folder, run_mmdets_tool, 'test.py', arguments[1:])
    elif kind == 'python' and arguments[0].startswith('tools/'):
        done = run_tool(arguments[0][len('tools/') :], *arguments[1:], cwd=folder)
        code, output = done.returncode, done.stdout + done.stderr
    elif kind == 'featviz' or words[:3] == ['python', '-m', 'mmdet_featviz']:
        code, output = in_process(folder, main, None, arguments if kind == 'featviz' else arguments[2:])
    else:
        pytest.fail(f'{place}: no way is known to run {command!r}: teach it run_command, or list it in NOT_RUN')
    assert code == 0, f'{place}: {command}\n{output[-2000:]}'


def run_config(block, folder, place):
    """Use a config snippet on top of my_config.py with mmdet's own tools, and see that it drew or measured."""
    name = f'page_line_{block.line}'
    base = '' if '_base_' in block.text else "_base_ = './my_config.py'\n"
    (folder / f'{name}.py').write_text(base + block.text, encoding='utf-8')
    (folder / 'my_reductions.py').write_text(MY_REDUCTIONS, encoding='utf-8')
    arguments = [f'{name}.py'] if 'stages' in block.text else [f'{name}.py', 'my_checkpoint.pth']
    code, output = in_process(folder, run_mmdets_tool, 'train.py' if 'stages' in block.text else 'test.py', arguments)
    assert code == 0, f'{place}:\n{block.text}\n{output[-2000:]}'
    if 'FeatureFocusMetric' in block.text:
        assert 'focus/neck_0/energy' in output, place
    elif 'ExplanationMetric' in block.text:
        assert 'explanation/odam/insertion' in output, place
    else:
        (run,) = (folder / 'work_dirs' / name).glob('*/featviz')
        assert manifest(run), place


MY_REDUCTIONS = """
from mmdet_featviz import REDUCTIONS

if 'top_half' not in REDUCTIONS.module_dict:
    @REDUCTIONS.register_module()
    def top_half(features):
        return features.topk(features.shape[1] // 2, 1).values.mean(1)
"""


def run_mmdets_tool(name, arguments):
    sys.argv = [name, *arguments]
    runpy.run_path(str(MMDET_TOOLS / name), run_name='__main__')


def in_process(folder, function, *arguments):
    """Call a command in a folder; returns its exit code and what it printed."""
    output, code = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        patch.chdir(folder)
        patch.setattr(sys, 'argv', ['featviz'])
        patch.delenv('LOCAL_RANK', raising=False)
        try:
            function(*arguments)
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):
                print(code, file=output)
                code = 1
    for manager in (MMLogger, MessageHub, Visualizer):  # nothing of this runner is left for the next command
        manager._instance_dict.clear()
    return code, output.getvalue()


def test_what_is_not_run_is_still_on_some_page():
    commands = [
        ' '.join(words)
        for page in PAGES
        for block in runnable_blocks(page)
        if block.is_shell
        for words in block.commands
    ]
    unused = [start for start in NOT_RUN if not any(command.startswith(start) for command in commands)]
    assert not unused


@pytest.mark.parametrize('page', [*PAGES, *chinese_pages()])
def test_links_and_pictures_are_there(page):
    for target in links(page):
        path, _, anchor = target.partition('#')
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f'{page}: {target}'
        if anchor:
            assert anchor in heading_anchors(os.path.relpath(file, ROOT)), f'{page}: {target}'


def test_the_readme_is_short():
    assert len(read_page('README.md').splitlines()) <= 200


@pytest.mark.parametrize('page', PAGES)
def test_the_chinese_page_has_the_same_commands(page):
    if chinese_page(page) not in chinese_pages():
        pytest.skip('there is no Chinese page yet')
    here, there = ([block.meaning for block in runnable_blocks(name)] for name in (page, chinese_page(page)))
    assert here == there


def test_the_page_of_options_has_all_of_them_with_their_defaults():
    rows = dict(re.findall(r'^\| `(\w+)` \| `(.*?)` \|', read_page('docs/en/options.md'), re.MULTILINE))
    defaults = {
        name: repr(parameter.default)
        for kind in (FeatureVisualizer, Style)
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    assert rows == defaults


@pytest.mark.parametrize(('page', 'metric'), [('metrics', FeatureFocusMetric), ('errors', DetectionErrorMetric)])
def test_the_pages_of_metrics_have_all_options_with_their_defaults(page, metric):
    text = read_page(f'docs/en/user_guides/{page}.md')
    rows = dict(re.findall(r'^\| `(\w+)` \| `(.*?)` \|', text, re.MULTILINE))
    parameters = inspect.signature(metric).parameters.values()
    assert rows == {one.name: repr(one.default) for one in parameters if one.kind is not one.VAR_KEYWORD}
