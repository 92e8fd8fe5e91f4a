"""Options: every argument is an option, and the help shows the defaults of each command."""

import inspect
import re

import pytest
from commands import featviz, run_process
from conftest import MMDET_TOOLS

from mmdet_featviz import FeatureVisualizer, Style


def help_of(command):
    return ' '.join(featviz(command, '--help').stdout.split())


def test_every_argument_is_an_option_with_help_and_default():
    text = help_of('image')
    for kind in (FeatureVisualizer, Style):
        for name in set(inspect.signature(kind).parameters) - {'style', 'stages', 'average_passes', 'backend_args'}:
            assert f'--{name.replace("_", "-")} ' in text, name
    assert '--interval N Draw every n-th image. Default: 1.' in text
    assert "--overwrite Replace another run's pictures in out_dir." in text


@pytest.mark.parametrize(('command', 'default'), [('test', 'test'), ('train', 'val')])
def test_the_default_stage_is_that_of_the_command(command, default):
    assert f'any of train, val, test. Default: {default}.' in help_of(command)


def test_render_shows_no_defaults_because_they_are_those_of_the_run():
    assert re.findall(r'Default: (\w+)', help_of('render')) == ['all', 'all']  # of --images and --levels


def test_every_option_of_mmdets_own_tools_exists():
    for command in ('test', 'train'):
        theirs = run_process(MMDET_TOOLS / f'{command}.py', '--help', cwd=MMDET_TOOLS).stdout
        options = set(re.findall(r'--[\w-]+', theirs))
        assert '--cfg-options' in options
        assert options <= set(re.findall(r'--[\w-]+', featviz(command, '--help').stdout))
