"""Command line: ``featviz COMMAND`` or ``python -m mmdet_featviz COMMAND``, with one module per command."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Sequence

from mmdet_featviz.version import __version__

COMMANDS = {  # with their descriptions, so that `featviz --help` imports none of the modules
    'test': 'test a detector on its data set and draw its feature maps',
    'train': 'train a detector and draw during training or validation',
    'image': 'draw the feature maps of images, without a data set',
    'explain': 'explain single detections: why a box is there',
    'evaluate-explanations': 'measure how well methods explain the detections in a data set',
    'video': 'draw the feature maps of a video',
    'layers': 'list the layers of a detector that can be drawn',
    'render': 'draw a run again from its saved maps, without the detector',
    'compare': 'compare the heatmaps of two runs or two detectors',
    'figure': 'draw a figure for a paper from the saved maps of runs',
    'report': 'write the report page of a run',
    'export-boxes': "write the features of a run's boxes as tables and for TensorBoard's projector",
    'export-fiftyone': 'write a run as a data set for FiftyOne',
    'benchmark': 'measure the time and memory that drawing takes',
    'coverage': "try the package on the configs of mmdet's model zoo",
    'demo-data': 'generate the data set of the demo detectors',
}


def main(command: str | None = None, argv: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        command: One of `COMMANDS`. None takes it from the first argument.
        argv: Arguments. None takes those of the process.

    Raises:
        SystemExit: If the arguments are wrong or the command fails.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    prog = None  # the name of the script, for those in tools/
    if command is None:
        command = _overview_parser().parse_args(argv[:1] or ['--help']).command
        argv, prog = argv[1:], f'featviz {command}'
    try:
        module = import_module(f'mmdet_featviz.cli.{command.replace("-", "_")}')
    except ModuleNotFoundError as error:
        message = f'featviz {command} needs {error.name}, which is not installed: run pip install {error.name}'
        raise SystemExit(message) from error
    parser = argparse.ArgumentParser(
        prog,
        usage=f'%(prog)s {module.USAGE}',
        description=module.__doc__,
        epilog=module.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    _add_help(parser)
    module.add_arguments(parser)
    module.run(parser.parse_args(argv), parser)


def _overview_parser() -> argparse.ArgumentParser:
    """Return the parser of ``featviz`` itself, whose help lists all commands."""
    width = max(map(len, COMMANDS)) + 2
    lines = '\n'.join(f'  {name:{width}}{description}' for name, description in COMMANDS.items())
    parser = argparse.ArgumentParser(
        'featviz',
        usage='%(prog)s COMMAND [options]',
        description=f'Draw what the layers of an mmdetection detector respond to.\n\ncommands:\n{lines}',
        epilog='featviz COMMAND --help describes a command and shows examples.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    _add_help(parser)
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help=argparse.SUPPRESS)
    parser.add_argument(
        '--version', action='version', version=f'mmdet_featviz {__version__}', help='Show the version and exit.'
    )
    return parser


def _add_help(parser: argparse.ArgumentParser) -> None:
    """Add ``--help`` with a text in the style of the other options."""
    parser.add_argument('-h', '--help', action='help', help='Show this help and exit.')
