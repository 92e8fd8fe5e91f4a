"""Checkpoints: lets ``torch.load`` read the checkpoints that mmengine's training writes."""

from __future__ import annotations

import math
import pickle
from typing import Any, Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.utils import digit_version

NUMBER_TYPES = ('bool', 'int32', 'int64', 'float16', 'float32', 'float64')
STATISTICS = ('min', 'max', 'current', 'mean')
HISTORY_STATE = {'max_length', '_log_history', '_count_history', 'statistics_methods'}


def allow_training_checkpoints() -> None:
    """Let ``torch.load`` read the checkpoints that mmengine's training writes.

    Since torch 2.6, ``torch.load`` defaults to ``weights_only=True``. mmengine up to 0.10.7 neither changes this nor
    allows the classes that its message hub stores beside the weights: loss histories, with NumPy arrays and numbers in
    them. Exactly these are allowed here; everything else is still refused.

    torch finds an allowed class by its name, and of two with one name it takes either. So nothing is added where
    another allows them: an mmengine that does so whenever it loads (OneDL's, from 0.10.12 on), or a script with an
    ``add_safe_globals`` of its own.

    A checkpoint calls what it names, with arguments and a state that may be crafted: ``np.ndarray`` itself would make
    arrays of any type over any bytes, pointers included. Each allowed name therefore stands for a function or class of
    this module, which checks arguments and state and raises ``pickle.UnpicklingError`` if they do not fit.
    """
    if digit_version(torch.__version__.split('+')[0]) < digit_version('2.6.0'):
        return  # older versions refuse nothing by default
    if hasattr(mmengine_checkpoint, 'get_torch_safe_globals'):
        return
    stand_ins = {
        f'{HistoryBuffer.__module__}.{HistoryBuffer.__qualname__}': _History,
        'numpy.ndarray': _Array,
        'numpy.dtype': _NumberType,
    }
    for core in ('core', '_core'):  # NumPy 2 renamed numpy.core; checkpoints may come from either version
        stand_ins[f'numpy.{core}.multiarray._reconstruct'] = _start_array
        stand_ins[f'numpy.{core}.multiarray.scalar'] = _number
    for builtins in ('builtins', '__builtin__'):
        stand_ins[f'{builtins}.getattr'] = _statistic
    if not stand_ins.keys() & _allowed_by_others():
        torch.serialization.add_safe_globals([(value, name) for name, value in stand_ins.items()])  # noqa: TID251


def _allowed_by_others() -> set[str]:
    """The names that torch may load, without those added here."""
    allowed = torch.serialization.get_safe_globals()  # noqa: TID251
    named = (
        entry if isinstance(entry, tuple) else (entry, f'{entry.__module__}.{entry.__qualname__}') for entry in allowed
    )
    return {name for value, name in named if value.__module__ != __name__}


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise pickle.UnpicklingError(f'{what}: mmengine does not write this, so the checkpoint is refused')


class _NumberType:
    """Stands for ``np.dtype``: a type of plain numbers.

    Args:
        code: Such as ``f8``.
        flags: How NumPy aligns and copies the type, which does not matter here.
    """

    def __init__(self, code: str, *flags: Any) -> None:
        codes = {np.dtype(name).str[1:] for name in NUMBER_TYPES}
        _require(isinstance(code, str) and code in codes, f'the NumPy type {code!r}')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """Take over the byte order, which is all that the state of a plain type tells."""
        fits = isinstance(state, tuple) and len(state) == 8 and state[1] in ('<', '>', '|', '=')
        _require(fits and (state[0], *state[2:]) == (3, None, None, None, -1, -1, 0), 'this state of a NumPy type')
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Stands for ``np.ndarray``: made by `_start_array` only, and filled by its state. It is saved as a plain array."""

    def __new__(cls, *args: Any) -> _Array:
        raise pickle.UnpicklingError('a checkpoint may not make a NumPy array from arguments of its choice')

    def __setstate__(self, state: Any) -> None:
        _require(isinstance(state, tuple) and len(state) == 5, 'this state of a NumPy array')
        version, shape, number_type, is_fortran, data = state
        _require(version == 1 and isinstance(is_fortran, bool), 'this state of a NumPy array')
        _require(isinstance(number_type, _NumberType) and isinstance(data, bytes), 'a NumPy array without numbers')
        sizes_fit = isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)
        _require(sizes_fit and math.prod(shape) * number_type.dtype.itemsize == len(data), f'an array of shape {shape}')
        super().__setstate__((version, shape, number_type.dtype, is_fortran, data))

    def __reduce__(self) -> tuple:
        return self.view(np.ndarray).__reduce__()

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.view(np.ndarray).__reduce_ex__(protocol)


class _History(HistoryBuffer):
    """Stands for mmengine's HistoryBuffer, which it becomes as soon as its state has been checked."""

    def __init__(self, *args: Any) -> None:
        raise pickle.UnpicklingError('a checkpoint may not make a HistoryBuffer from arguments of its choice')

    def __setstate__(self, state: Any) -> None:
        _require(isinstance(state, dict) and state.keys() <= HISTORY_STATE, 'this state of a HistoryBuffer')
        length, values, counts = (state.get(name) for name in ('max_length', '_log_history', '_count_history'))
        are_arrays = isinstance(values, np.ndarray) and isinstance(counts, np.ndarray)
        _require(are_arrays and values.ndim == 1 and values.shape == counts.shape, 'a HistoryBuffer of these arrays')
        _require(type(length) is int and length > 0, f'a HistoryBuffer with max_length={length!r}')
        # The statistics are those of the class, for all buffers of the process.
        statistics = state.get('statistics_methods', {})
        are_own = isinstance(statistics, dict) and all(
            name in STATISTICS and method is vars(HistoryBuffer)[name] for name, method in statistics.items()
        )
        _require(are_own, 'a HistoryBuffer with statistics of its own')
        self.__class__ = HistoryBuffer
        self.__setstate__({**state, '_log_history': np.array(values), '_count_history': np.array(counts)})


def _start_array(owner: Any, shape: Any, code: Any) -> _Array:
    """Stands for NumPy's ``_reconstruct``: an empty array, to be filled by its state."""
    _require(owner is _Array and shape == (0,) and code in (b'b', 'b'), 'an array that is not empty before its state')
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _number(number_type: Any, data: Any) -> np.generic:
    """Stands for NumPy's ``scalar``: a number from its bytes."""
    fits = isinstance(number_type, _NumberType) and isinstance(data, bytes)
    _require(fits and len(data) == number_type.dtype.itemsize, 'this NumPy number')
    return np.frombuffer(data, number_type.dtype)[0]


def _statistic(owner: Any, name: Any) -> Callable:
    """Stands for ``getattr``, by which a history names its own statistics: returns these and nothing else."""
    if owner is not _History or name not in STATISTICS:
        raise pickle.UnpicklingError(f'a checkpoint may not ask for the attribute {name!r} of {owner!r}')
    return vars(HistoryBuffer)[name]
