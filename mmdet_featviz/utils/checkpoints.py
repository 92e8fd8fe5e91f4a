"""Checkpoints: lets ``torch.load`` read the checkpoints that mmengine's training writes."""

from __future__ import annotations

import pickle
from typing import Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

NUMBER_TYPES = ('bool', 'int32', 'int64', 'float16', 'float32', 'float64')


def allow_training_checkpoints() -> None:
    """Let ``torch.load`` read the checkpoints that mmengine's training writes.

    Since torch 2.6, ``torch.load`` defaults to ``weights_only=True``. mmengine up to 0.10.7 neither changes this nor
    allows the classes that its message hub stores beside the weights: loss histories, with NumPy arrays and numbers in
    them. Exactly these are allowed here; everything else is still refused.
    """
    if digit_version(torch.__version__.split('+')[0]) < digit_version('2.6.0'):
        return  # older versions refuse nothing by default
    array = np.zeros(1)
    rebuild_array, rebuild_number = array.__reduce__()[0], array[0].__reduce__()[0]
    torch.serialization.add_safe_globals(  # noqa: TID251
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *{type(np.dtype(name)) for name in NUMBER_TYPES},
            # NumPy 2 renamed numpy.core; checkpoints may come from either version.
            *((rebuild_array, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
            *((rebuild_number, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
            # A history stores its own methods, which pickle writes as getattr(HistoryBuffer, name).
            *((_method_of_history, f'{builtins}.getattr') for builtins in ('builtins', '__builtin__')),
        ]
    )


def _method_of_history(owner: type, name: str) -> Callable:
    """Replaces ``getattr`` while a checkpoint is read: returns public methods of HistoryBuffer and nothing else."""
    if owner is not HistoryBuffer or name.startswith('_') or not callable(vars(HistoryBuffer).get(name)):
        raise pickle.UnpicklingError(f'a checkpoint may not ask for the attribute {name!r} of {owner!r}')
    return vars(HistoryBuffer)[name]
