"""Options that several commands share."""

from __future__ import annotations

import argparse
import inspect
import re
from fnmatch import fnmatchcase
from typing import Any, Callable, Sequence

import torch
from mmengine.config import DictAction

GROUPS = {  # the arguments of FeatureVisualizer and Style, by what they decide
    'which layers': ('layers', 'layer_type', 'reduction'),
    'which images': ('interval', 'max_images', 'image_names', 'stages', 'average_passes'),
    'which pictures': (
        'save',
        'boxes',
        'score_thr',
        'colorbar',
        'channels',
        'channel_tiles',
        'channel_files',
        'attention_channels',
        'report',
        'log_to_visualizer',
    ),
    'how pictures look': ('normalize', 'colormap', 'alpha', 'blend', 'align'),
    'where and how they are written': (
        'out_dir',
        'image_root',
        'image_format',
        'maps_dtype',
        'overwrite',
        'resume',
        'workers',
        'strict',
    ),
}


def add_runner_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that start a runner."""
    parser.add_argument('--work-dir', help='folder of logs and results (default: work_dirs/NAME_OF_THE_CONFIG)')
    add_cfg_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes --local-rank since torch 2.0, --local_rank before.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that override the config; lists as key="[a,b]" or key=a,b, without blanks',
    )


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`mmdet_featviz.cli.loading.load_detector` reads: config, checkpoint, device."""
    parser.add_argument('config', help='config of the detector, or a name of the model zoo such as rtmdet_tiny')
    parser.add_argument('checkpoint', nargs='?', help="its checkpoint (default: the config's load_from, or the zoo's)")
    parser.add_argument('--device', default='cuda:0' if torch.cuda.is_available() else 'cpu', help='default: a GPU')
    add_cfg_options(parser)


def add_drawing_options(
    parser: argparse.ArgumentParser,
    *kinds: type,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    **flags: Sequence[str],
) -> None:
    """Add an option for each argument of FeatureVisualizer or Style, in groups; options not given are absent.

    The classes are the only source of names, defaults and help.

    Args:
        parser: The parser.
        *kinds: FeatureVisualizer, Style, or both.
        only: Names of the arguments that get an option; None is all.
        without: Names of arguments that get none.
        **flags: Other flags of an argument, such as ``out_dir=['--featviz-dir']``.
    """
    parameters = {}
    for kind in kinds:
        descriptions = _describe(kind)
        for name, parameter in inspect.signature(kind).parameters.items():
            parameters[name] = parameter, descriptions.get(name)
    for title, names in GROUPS.items():
        wanted = [name for name in names if name in parameters and name not in without]
        wanted = [name for name in wanted if only is None or name in only]
        group = parser.add_argument_group(title) if wanted else None
        for name in wanted:
            parameter, words = parameters[name]
            names_of_option = flags.get(name, [f'--{name.replace("_", "-")}'])
            group.add_argument(*names_of_option, dest=name, default=argparse.SUPPRESS, **_form(parameter, words))


def drawing_options(args: argparse.Namespace, *kinds: type) -> dict[str, Any]:
    """{argument: value} of the drawing options that were given."""
    names = [name for kind in kinds for name in inspect.signature(kind).parameters]
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def name_filter(patterns: Sequence[str] | None) -> Callable[[str], bool]:
    """A function that says whether a name fits one of some patterns with ``*``; without patterns every name does."""
    return lambda name: patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


class _Several(argparse.Action):
    """Words, or numbers: `--layers backbone neck`, `--normalize image`, `--normalize 0 5`, `--channels top 16`."""

    def __call__(self, parser, namespace, values, option_string=None):
        if self.dest == 'normalize':
            values = values[0] if len(values) == 1 else [_number(value) for value in values]
        elif self.dest == 'channels':
            numbers = all(value.isdigit() for value in values)
            values = [int(value) for value in values] if numbers else ' '.join(values)
        setattr(namespace, self.dest, values)


def _form(parameter: inspect.Parameter, words: str) -> dict[str, Any]:
    """How argparse reads an argument."""
    shown = words.replace('%', '%%')
    if parameter.default is True or parameter.default is False:
        return dict(action='store_true', help=shown)
    if parameter.default not in (None, inspect.Parameter.empty):
        default = parameter.default if not isinstance(parameter.default, tuple) else ' '.join(parameter.default)
        shown = f'{shown} (default: {default})'
    kind = str(parameter.annotation)
    if 'Sequence' in kind:
        return dict(nargs='+', action=_Several, help=shown)
    return dict(type=float if 'float' in kind else int if 'int' in kind else str, help=shown)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the argument's own check says what is wrong


def _describe(kind: type) -> dict[str, str]:
    """{argument: its description in the docstring}, without markup."""
    section = inspect.cleandoc(kind.__doc__).split('Args:\n', 1)[1].split('\n\n', 1)[0]
    found = re.findall(r'^    (\w+): (.*(?:\n     .*)*)', section, re.MULTILINE)
    return {name: _plain(text) for name, text in found}


def _plain(text: str) -> str:
    """Text of a docstring without roles such as :meth:`close` and without backticks."""
    text = re.sub(r':(?:meth|func):`~?(?:[\w.]*\.)?(\w+)`', r'\1()', text)
    text = re.sub(r':\w+:`~?(?:[\w.]*\.)?(\w+)`', r'\1', text)
    return re.sub(r'\s+', ' ', text).replace('`', '')
