"""Loading of checkpoints written by mmengine's training."""

from __future__ import annotations

import pickle
from typing import Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

NUMBERS = ('bool', 'int32', 'int64', 'float16', 'float32', 'float64')


def allow_training_checkpoints() -> None:
    """Let ``torch.load`` read a checkpoint written by mmengine's training.

    Since torch 2.6 checkpoints are loaded with ``weights_only=True``, and mmengine up to 0.10.7 neither says otherwise
    nor names the classes that its message hub stores beside the weights: the loss histories, and NumPy's arrays and
    numbers in them. Exactly those are allowed here; everything else stays refused.
    """
    if digit_version(torch.__version__.split('+')[0]) < digit_version('2.6.0'):
        return  # nothing is refused there
    array = np.zeros(1)
    rebuild_array, rebuild_number = array.__reduce__()[0], array[0].__reduce__()[0]
    torch.serialization.add_safe_globals(  # noqa: TID251
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *{type(np.dtype(name)) for name in NUMBERS},
            # NumPy 2 moved its core: a checkpoint may have been written with either.
            *((rebuild_array, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
            *((rebuild_number, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
            # A history holds its own methods, which pickle writes as getattr(HistoryBuffer, name).
            *((_method_of_history, f'{builtins}.getattr') for builtins in ('builtins', '__builtin__')),
        ]
    )


def _method_of_history(owner: type, name: str) -> Callable:
    """What stands for ``getattr`` in a checkpoint: it gives the public methods of HistoryBuffer and nothing else."""
    if owner is not HistoryBuffer or name.startswith('_') or not callable(vars(HistoryBuffer).get(name)):
        raise pickle.UnpicklingError(f'a checkpoint may not ask for the attribute {name!r} of {owner!r}')
    return vars(HistoryBuffer)[name]
