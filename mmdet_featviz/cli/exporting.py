"""Exporting: what the commands have in common that write a run in another format."""

from __future__ import annotations

import argparse
from typing import Callable


def add_export_arguments(parser: argparse.ArgumentParser, run: str, out_dir: str) -> None:
    """Add the run and the folder of the export.

    Args:
        parser: Parser of the command.
        run: Help of the run.
        out_dir: Help of the folder.
    """
    parser.add_argument('run', metavar='RUN', help=run)
    parser.add_argument('--out-dir', required=True, metavar='DIR', help=out_dir)
    parser.add_argument('--overwrite', action='store_true', help='Replace an earlier export in DIR.')


def print_export(export: Callable[[str, str, bool], str], args: argparse.Namespace) -> None:
    """Export the run, and print what was written.

    Args:
        export: Takes the run, the folder, and whether to replace an earlier export.
        args: Arguments of :func:`add_export_arguments`.

    Raises:
        SystemExit: If it fails.
    """
    try:
        print(export(args.run, args.out_dir, args.overwrite))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
