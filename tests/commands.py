"""Runs the scripts in tools/ and the featviz commands, in a new process or in this one."""

import io
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial

import pytest
from conftest import ROOT

from mmdet_featviz.cli import main


def run_process(tool, *arguments, cwd):
    """Run a script of tools/ in a new process."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT / 'tests'), str(ROOT)])}
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, encoding='utf-8')


def run(tool, *arguments, cwd):
    """Run a script of tools/ in this process, which is faster."""
    return _run(tool, partial(runpy.run_path, str(ROOT / 'tools' / tool), run_name='__main__'), arguments, cwd)


def featviz(*arguments, cwd=ROOT):
    """Run the command line ``featviz`` in this process."""
    return _run('featviz', main, arguments, cwd)


def _run(name, start, arguments, cwd):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.syspath_prepend(str(ROOT / 'tools'))
        patch.setattr(sys, 'argv', [name, *map(str, arguments)])
        patch.chdir(cwd)
        try:
            start()
        except SystemExit as end:
            code = end.code
            if isinstance(code, str):
                print(code, file=err)
                code = 1
    return subprocess.CompletedProcess(name, code or 0, out.getvalue(), err.getvalue())
