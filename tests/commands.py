"""The scripts in tools/, in a process of their own or in this one."""

import io
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from conftest import ROOT


def run_process(tool, *arguments, cwd):
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT / 'tests'), str(ROOT)])}
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, encoding='utf-8')


def run(tool, *arguments, cwd):
    """The same in this process, which saves starting another."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.syspath_prepend(str(ROOT / 'tools'))
        patch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        patch.chdir(cwd)
        try:
            runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
        except SystemExit as end:
            code = end.code
            if isinstance(code, str):
                print(code, file=err)
                code = 1
    return subprocess.CompletedProcess(tool, code or 0, out.getvalue(), err.getvalue())
