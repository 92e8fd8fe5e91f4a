"""Options that several commands share; those for drawing are made from FeatureVisualizer and Style."""

from __future__ import annotations

import argparse
import inspect
import re
from typing import Any, Mapping, Sequence

import torch
from mmengine.config import DictAction

from mmdet_featviz.structures.grid import ALIGNMENTS
from mmdet_featviz.structures.interpolation import INTERPOLATIONS
from mmdet_featviz.visualization.box_drawing import BOX_KINDS, LABELS
from mmdet_featviz.visualization.encoding import ENCODINGS
from mmdet_featviz.visualization.style import BLENDS, CHANNEL_TILES, COLOR_OPTIONS, FOREGROUNDS, MAPS_DTYPES

GROUPS = {  # title in the help: arguments of FeatureVisualizer and Style
    'which layers': ('layers', 'layer_type', 'reduction'),
    'which images': ('interval', 'max_images', 'image_names', 'stages', 'average_passes'),
    'which pictures': (
        'save',
        'boxes',
        'score_thr',
        'classes',
        'labels',
        'colorbar',
        'channels',
        'channel_tiles',
        'channel_files',
        'attention_channels',
        'report',
        'explain',
        'log_to_visualizer',
    ),
    'how pictures look': (
        *COLOR_OPTIONS,
        'foreground',
        'align',
        'line_width',
        'font_size',
        'tile_size',
    ),
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
CHOICES = {
    'align': ALIGNMENTS,
    'blend': BLENDS,
    'boxes': BOX_KINDS,
    'channel_tiles': CHANNEL_TILES,
    'foreground': FOREGROUNDS,
    'image_format': tuple(ENCODINGS),
    'interpolation': INTERPOLATIONS,
    'labels': LABELS,
    'maps_dtype': MAPS_DTYPES,
}
METAVARS = {
    'alpha': 'WEIGHT',
    'attention_channels': 'N',
    'channels': 'CHANNELS',
    'classes': 'CLASS',
    'colormap': 'NAME',
    'image_names': 'NAME',
    'image_root': 'DIR',
    'explain': 'KEY=VALUE',
    'font_size': 'PIXELS',
    'interval': 'N',
    'layer_type': 'CLASS',
    'layers': 'LAYER',
    'line_width': 'PIXELS',
    'max_images': 'N',
    'border': 'N',
    'normalize': 'RANGE',
    'percentiles': 'PERCENT',
    'out_dir': 'DIR',
    'reduction': 'NAME',
    'save': 'KIND',
    'score_thr': 'SCORE',
    'stages': 'STAGE',
    'tile_size': 'PIXELS',
    'workers': 'N',
    **{name: f'{{{",".join(choices)}}}' for name, choices in CHOICES.items()},
}


def add_runner_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that start a runner."""
    parser.add_argument(
        '--work-dir', metavar='DIR', help='Folder for logs and results. Default: work_dirs/NAME_OF_THE_CONFIG.'
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='How several processes were started. Default: none.',
    )
    # torch.distributed.launch passes --local-rank since torch 2.0, --local_rank before.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, metavar='N', help='Set by the launcher.')


class KeyValueAction(DictAction):
    """Values as KEY=VALUE, which mmengine reads; others are an error of the command line."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        for value in values:
            if '=' not in value:
                parser.error(f'argument {option_string}: give KEY=VALUE, not {value!r}')
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValueAction,
        metavar='KEY=VALUE',
        help='Settings that override the config. Lists as key="[a,b]" or key=a,b, without spaces.',
    )


def add_detector_options(parser: argparse.ArgumentParser, random_weights: bool = False) -> None:
    """Add the arguments that name a detector: config, checkpoint, device.

    Args:
        parser: The parser.
        random_weights: Whether the command needs no checkpoint; otherwise there is an option that allows none.
    """
    parser.add_argument(
        'config',
        metavar='CONFIG',
        help='Config file, or name of a model of the zoo, such as rtmdet_tiny_8xb32-300e_coco.',
    )
    parser.add_argument(
        'checkpoint',
        nargs='?',
        metavar='CHECKPOINT',
        help="Default: load_from of the config, or the zoo's weights.",
    )
    if random_weights:
        parser.set_defaults(random_weights=True)
    else:
        add_random_weights(parser)
    default_device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', default=default_device, help='Default: cuda:0 if there is a GPU, else cpu.')
    add_cfg_options(parser)


def add_random_weights(parser: argparse.ArgumentParser) -> None:
    """Add ``--random-weights``."""
    parser.add_argument(
        '--random-weights', action='store_true', help='Use random weights if there is no checkpoint, not an error.'
    )


def add_drawing_options(
    parser: argparse.ArgumentParser,
    *kinds: type,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    show_defaults: bool = True,
    **flags: Sequence[str],
) -> None:
    """Add an option for each argument of FeatureVisualizer or Style, in groups.

    Names, defaults and help come from the signatures and docstrings of the classes. Options that are not given on the
    command line are absent from the parsed arguments.

    Args:
        parser: The parser.
        *kinds: FeatureVisualizer, Style, or both.
        only: Names of the arguments that get an option; None is all.
        without: Names of the arguments that get none.
        defaults: {argument: default to show in the help}, where a command has another default than the class.
        show_defaults: Whether the help shows defaults at all.
        **flags: Other flags of an argument, such as ``out_dir=['--featviz-dir']``.
    """
    parameters = {}
    for kind in kinds:
        descriptions = _descriptions(kind)
        for name, parameter in inspect.signature(kind).parameters.items():
            if defaults and name in defaults:
                parameter = parameter.replace(default=defaults[name])
            parameters[name] = parameter, descriptions.get(name)
    for title, names in GROUPS.items():
        names = [name for name in names if name in parameters and name not in without]
        names = [name for name in names if only is None or name in only]
        group = parser.add_argument_group(title) if names else None
        for name in names:
            option_flags = flags.get(name, [f'--{name.replace("_", "-")}'])
            settings = _argparse_settings(*parameters[name], show_defaults)
            group.add_argument(*option_flags, dest=name, default=argparse.SUPPRESS, **settings)


def drawing_options(args: argparse.Namespace, *kinds: type) -> dict[str, Any]:
    """Return {argument: value} of the drawing options that were given."""
    names = [name for kind in kinds for name in inspect.signature(kind).parameters]
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


class _SequenceAction(argparse.Action):
    """Stores words or numbers: `--layers backbone neck`, `--normalize image`, `--normalize 0 5`, `--channels 3 7`."""

    def __call__(self, parser, namespace, values, option_string=None):
        if self.dest == 'normalize':
            values = values[0] if len(values) == 1 else [_number(value) for value in values]
        elif self.dest == 'percentiles':
            values = [_number(value) for value in values]
        elif self.dest == 'channels':
            are_numbers = all(value.isdigit() for value in values)
            values = [int(value) for value in values] if are_numbers else ' '.join(values)
        setattr(namespace, self.dest, values)


class _ExplainAction(argparse.Action):
    """Stores settings of explanations: `--explain method=odam targets='class dog, top 3' targets=gt masks=50`."""

    def __call__(self, parser, namespace, values, option_string=None):
        settings: dict[str, Any] = {}
        for text in values:
            name, equals, value = text.partition('=')
            if not equals:
                parser.error(f"--explain takes KEY=VALUE, such as method=odam or targets='top 3', not {text!r}")
            if name in ('targets', 'layers'):  # these may be repeated
                settings.setdefault(name, []).append(value)
            else:
                settings[name] = DictAction._parse_int_float_bool(value)
        setattr(namespace, self.dest, settings)


def _argparse_settings(parameter: inspect.Parameter, description: str, show_default: bool) -> dict[str, Any]:
    """Return the arguments of ``add_argument`` for a parameter of FeatureVisualizer or Style."""
    description = description.replace('%', '%%')
    default, annotation = parameter.default, str(parameter.annotation)
    if isinstance(default, bool):
        words = re.sub('^Whether to ', '', description)
        return dict(action='store_true', help=f'{words[0].upper()}{words[1:]}')
    if show_default and default not in (None, inspect.Parameter.empty):
        description += f' Default: {" ".join(map(str, default)) if isinstance(default, tuple) else default}.'
    settings = dict(metavar=METAVARS.get(parameter.name), help=description)
    if parameter.name == 'explain':
        return dict(settings, nargs='*', action=_ExplainAction)
    if 'Sequence' in annotation:
        return dict(settings, nargs='+', action=_SequenceAction)
    kind = float if 'float' in annotation else int if 'int' in annotation else str
    return dict(settings, type=whole_number_or_word if kind is int and 'str' in annotation else kind)


def whole_number_or_word(text: str) -> int | str:
    """Convert text to a whole number if it is one; other text is checked by the argument itself."""
    return int(text) if text.isdigit() else text


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # rejected by the check of the argument, which names the valid values


def _descriptions(kind: type) -> dict[str, str]:
    """Return {argument: its description in the docstring of a class}, without markup."""
    section = inspect.cleandoc(kind.__doc__).split('Args:\n', 1)[1].split('\n\n', 1)[0]
    found = re.findall(r'^    (\w+): (.*(?:\n     .*)*)', section, re.MULTILINE)
    return {name: _without_markup(text) for name, text in found}


def _without_markup(text: str) -> str:
    """Return the text of a docstring without backquotes and without roles such as :meth:`close`."""
    text = re.sub(r':(?:meth|func):`~?(?:[\w.]*\.)?(\w+)`', r'\1()', text)
    text = re.sub(r':\w+:`~?(?:[\w.]*\.)?(\w+)`', r'\1', text)
    return re.sub(r'\s+', ' ', text).replace('`', '')
