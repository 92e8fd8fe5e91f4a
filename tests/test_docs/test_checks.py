"""Files beside the code repeat what is said elsewhere: the hooks of pre-commit, and the version to cite."""

import re

import yaml
from conftest import ROOT

from mmdet_featviz import __version__


def hooks():
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text(encoding='utf-8'))
    return [hook for repo in config['repos'] for hook in repo['hooks']]


def lint_commands():
    """The commands of `make lint`, without the folder of the environment."""
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    recipe = re.search(r'^lint:.*\n((?:\t.*\n)+)', makefile, re.MULTILINE).group(1)
    return [line.strip().replace('$(BIN)/', '') for line in recipe.splitlines()]


def lint_requirements():
    lines = (ROOT / 'requirements' / 'lint.txt').read_text(encoding='utf-8').splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith('#')}


def test_pre_commit_runs_the_commands_of_make_lint():
    commands = lint_commands()
    assert len(commands) >= 4
    assert [hook['entry'] for hook in hooks()][: len(commands)] == commands
    # On the whole tree, as `make lint` does, not on the changed files only.
    assert not any(hook['pass_filenames'] for hook in hooks()[: len(commands)])


def test_pre_commit_has_the_versions_of_the_lint_requirements():
    needed = [hook['additional_dependencies'] for hook in hooks()[: len(lint_commands())]]
    assert {requirement for requirements in needed for requirement in requirements} == lint_requirements()


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert citation['cff-version'] == '1.2.0'
    assert citation['title'] == 'mmdet_featviz'
    assert str(citation['version']) == __version__
    assert citation['license'] == 'Apache-2.0'
    assert 'Apache License' in (ROOT / 'LICENSE').read_text(encoding='utf-8')
