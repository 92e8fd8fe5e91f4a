"""Run names: letters and short, distinct names for the runs of a comparison."""

from __future__ import annotations

import os.path as osp
import string
from typing import Sequence

from mmdet_featviz.runs.reader import Run

LETTERS = string.ascii_uppercase  # of the runs of a comparison, in their order


def short_names(runs: Sequence[Run]) -> list[str]:
    """Short, distinct names of runs: their configs, checkpoints or folders, whichever differ first."""
    for fact in ('config', 'checkpoint'):
        names = [osp.splitext(osp.basename(run.info.get(fact) or ''))[0] for run in runs]
        if all(names) and _are_distinct(names):
            return names
    folders = [run.folder for run in runs]
    names = [osp.basename(folder) for folder in folders]
    return names if _are_distinct(names) else folders


def check_run_names(runs: Sequence[Run], names: Sequence[str] | None) -> None:
    """Check the number of runs to compare, and the names that the user gives them.

    Raises:
        ValueError: If there are fewer than two runs or more than letters, or the names are not one for each run and
            distinct.
    """
    if not 2 <= len(runs) <= len(LETTERS):
        raise ValueError(f'{len(runs)} runs cannot be compared: name 2 to {len(LETTERS)}')
    if names is not None and (len(names) != len(runs) or not _are_distinct(names) or not all(names)):
        raise ValueError(f'names are {list(names)} for {len(runs)} runs: give each run a name of its own')


def are_comparable(runs: Sequence[Run]) -> bool:
    """Whether values of the runs' maps can be compared: they have the same config and reduction."""
    return all(run.info.get(fact) == runs[0].info.get(fact) for run in runs for fact in ('config', 'reduction'))


def in_words(names: Sequence[str], word: str = 'and') -> str:
    """Join names: ``A``, ``A and B``, ``A, B and C``."""
    return f' {word} '.join(filter(None, [', '.join(names[:-1]), names[-1]]))


def _are_distinct(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)
