"""What is missing is named with the command that installs it, before a run begins."""

import sys

import pytest
from commands import featviz, run_process
from conftest import MMDET_TOOLS, ROOT

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.utils.dependencies import MINIMUM, require

NO_JINJA2 = 'the report needs jinja2, which is not installed: run pip install jinja2'


@pytest.fixture
def without(monkeypatch):
    """Makes a module as good as not installed, in this process."""
    return lambda module: monkeypatch.setitem(sys.modules, module, None)


def test_a_module_that_is_there_is_no_error():
    require('json', 'this test')


def test_what_pip_installs_may_have_another_name_than_the_module():
    with pytest.raises(ImportError, match="needs no_such, which is not installed: run pip install 'such>=2'$"):
        require('no_such', 'this test', "'such>=2'")


def test_a_report_without_jinja2_is_an_error_where_it_is_asked_for(without):
    without('jinja2')
    FeatureVisualizer()  # only the report needs it
    with pytest.raises(ImportError, match=f'^{NO_JINJA2}$'):
        FeatureVisualizer(report=True)


def test_what_draws_after_the_loop_is_looked_for_before_it(without):
    """mmdet 3.0 and 3.1 do not bring tqdm."""
    without('tqdm')
    with pytest.raises(ImportError, match='^drawing needs tqdm, which is not installed: run pip install tqdm$'):
        FeatureVisualizer()


@pytest.mark.parametrize('tool', ['test.py', MMDET_TOOLS / 'test.py'])
def test_a_report_without_jinja2_costs_no_evaluation(trained_project, tool, tmp_path):
    """Neither with the option nor with mmdet's own tool and a config that asks for a report."""
    config = tmp_path / 'reported.py'
    config.write_text(
        f'_base_ = {str(trained_project / "plain.py")!r}\n'
        "__import__('sys').modules['jinja2'] = None\n"
        "custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)\n"
        "custom_hooks = [dict(type='FeatVizHook', report=True)]\n"
    )
    options = ['--featviz-dir', 'drawn'] if tool == 'test.py' else []
    done = run_process(tool, config, trained_project / 'work' / 'epoch_1.pth', *options, cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].endswith(NO_JINJA2)
    assert 'Epoch(test)' not in done.stdout
    assert not (tmp_path / 'drawn').exists()


def test_commands_without_a_runner_end_with_one_sentence(pools_project, without, tmp_path):
    without('jinja2')
    drawn = featviz('image', 'images', 'pools.py', 'pools.pth', '--report', '--out-dir', tmp_path, cwd=pools_project)
    assert (drawn.returncode, drawn.stderr) == (1, f'{NO_JINJA2}\n')
    assert not list(tmp_path.iterdir())
    without_report = ['image', 'images', 'pools.py', 'pools.pth', '--save', 'maps', '--out-dir', tmp_path / 'run']
    assert featviz(*without_report, cwd=pools_project).returncode == 0
    reported = featviz('report', tmp_path / 'run')
    assert (reported.returncode, reported.stderr) == (1, f'{NO_JINJA2}\n')


def test_a_command_whose_module_is_missing_ends_with_one_sentence(without, monkeypatch):
    without('tqdm')
    monkeypatch.delitem(sys.modules, 'mmdet_featviz.cli.render', raising=False)
    done = featviz('render', 'run')
    assert (done.returncode, done.stderr) == (
        1,
        'featviz render needs tqdm, which is not installed: run pip install tqdm\n',
    )


def test_the_check_at_import_wants_the_versions_that_setup_declares():
    lines = (ROOT / 'requirements' / 'mminstall.txt').read_text(encoding='utf-8').split()
    declared = dict(line.split('>=') for line in lines)
    assert declared.keys() == MINIMUM.keys()
    for name, version in declared.items():
        assert tuple(map(int, version.split('.')[:2])) == MINIMUM[name]
