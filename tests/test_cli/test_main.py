"""The command line itself: overview, help of each command, and unknown commands."""

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from commands import featviz

import mmdet_featviz.cli
from mmdet_featviz.cli import COMMANDS
from mmdet_featviz.version import __version__

NOT_COMMANDS = {'__init__', 'exporting', 'loading', 'options', 'ranks'}


def test_the_overview_lists_every_command():
    done = featviz('--help')
    assert done.returncode == 0
    assert featviz().stdout == done.stdout
    lines = [line.strip().split(None, 1) for line in done.stdout.splitlines()]
    for command, description in COMMANDS.items():
        assert [command, description] in lines
    modules = {path.stem for path in Path(mmdet_featviz.cli.__file__).parent.glob('*.py')}
    assert {command.replace('-', '_') for command in COMMANDS} == modules - NOT_COMMANDS


def test_version():
    assert featviz('--version').stdout.strip() == f'mmdet_featviz {__version__}'


def test_an_unknown_command_is_an_error_that_lists_the_commands():
    done = featviz('tests', 'my_config.py')
    assert done.returncode == 2
    assert "'tests'" in done.stderr
    for command in COMMANDS:
        assert re.search(rf'\b{command}\b(?!s)', done.stderr), command


@pytest.mark.parametrize('command', COMMANDS)
def test_the_help_has_a_usage_line_examples_and_no_markup(command):
    done = featviz(command, '--help')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'usage: featviz {command} ')
    assert f'examples:\n  featviz {command}' in done.stdout
    for markup in ('`', ':meth:', ':class:', ':func:', '**kwargs'):
        assert markup not in done.stdout, markup


@pytest.mark.parametrize('command', COMMANDS)
def test_the_examples_can_be_parsed(command):
    module = import_module(f'mmdet_featviz.cli.{command.replace("-", "_")}')
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    lines = module.EXAMPLES.replace('\\\n', ' ').strip().splitlines()
    assert lines.pop(0) == 'examples:'
    for line in lines:
        program, name, *arguments = shlex.split(line)
        assert (program, name) == ('featviz', command)
        parser.parse_args(arguments)  # exits on an error
