"""The table of tested stacks has what the runs wrote, and only runs without a failure write."""

import runpy
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from pages import read_page

STACKS = SimpleNamespace(**runpy.run_path(str(ROOT / 'docs' / 'tested_stacks.py'), run_name='tested_stacks'))
PAGE = '# Title\n\n| command | date |\n| --- | --- |\n| `make b` | old |\n\nEnd\n'


def junit(folder, passed=0, failed=0, skipped=0, broken=0):
    """The report that pytest itself writes of as many tests."""
    path, code = folder / 'run.xml', 'import pytest\n'
    for kind, count in dict(passed=passed, failed=failed, skipped=skipped).items():
        body = dict(passed='pass', failed='assert False', skipped="pytest.skip('no')")[kind]
        code += ''.join(f'def test_{kind}_{number}():\n    {body}\n' for number in range(count))
    code += ''.join(f'def test_broken_{number}(no_fixture):\n    pass\n' for number in range(broken))
    (folder / 'test_some.py').write_text(code)
    command = [sys.executable, '-m', 'pytest', f'--junitxml={path}', '-p', 'no:cacheprovider', f'--rootdir={folder}']
    subprocess.run([*command, str(folder)], capture_output=True)
    return path


def test_counts_are_those_of_pytest(tmp_path):
    date, passed, skipped = STACKS.read_run(junit(tmp_path, passed=3, skipped=2))
    assert (passed, skipped) == ('3', '2')
    assert len(date.split('-')) == 3


@pytest.mark.parametrize('counts', [dict(passed=3, failed=1), dict(passed=3, broken=1), dict(skipped=2)])
def test_a_run_that_did_not_pass_writes_nothing(tmp_path, counts):
    failures = counts.get('failed', 0) + counts.get('broken', 0)
    with pytest.raises(SystemExit, match=f'{failures} tests failed, {counts.get("passed", 0)} passed: not a row'):
        STACKS.read_run(junit(tmp_path, **counts))


def test_versions_are_those_of_this_python():
    found = STACKS.versions()
    assert found[0] == sys.version.split()[0]
    assert found[1] == torch.__version__.split('+')[0]
    assert found[5] == np.__version__


def test_a_row_replaces_the_one_of_the_same_run_and_rows_are_sorted():
    page = STACKS.with_row(PAGE, 'b', ['new'])
    assert page == PAGE.replace('old', 'new')
    page = STACKS.with_row(page, 'a', ['first'])
    assert page == PAGE.replace('| `make b` | old |', '| `make a` | first |\n| `make b` | new |')


def rows(page):
    return [line for line in read_page(page).splitlines() if line.startswith('| `make ')]


def test_both_languages_have_the_same_rows_of_commands_that_exist():
    english = rows('docs/en/tested_stacks.md')
    assert english == rows('docs/zh_cn/tested_stacks.md')
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    for row in english:
        assert len(row.split(' | ')) == 12
        command = row.split('`')[1].split()[1]
        variant = command.rpartition('test-matrix-')[2]
        assert f'\n{command}:' in makefile or (ROOT / 'requirements' / 'matrix' / f'{variant}.txt').exists()
