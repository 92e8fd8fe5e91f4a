"""Argument checks: return valid values, raise TypeError or ValueError with the valid choices otherwise."""

from __future__ import annotations

import math
import os
from typing import Iterable, Sequence


def check_names(argument: str, value: Sequence[str] | str, may_be_empty: bool = False) -> tuple[str, ...]:
    """Check one name or several; returns a tuple of names."""
    names = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f'{argument} must be a name or a list of names, but is {value!r}')
    if not names and not may_be_empty:
        raise ValueError(f'{argument} is empty: name at least one')
    return names


def check_path(argument: str, value: str | os.PathLike) -> str:
    """Check that the value is a path or a URL; returns it as a string."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise TypeError(f'{argument} must be a path, but is {value!r}')
    return os.fspath(value)


def check_choice(argument: str, value: str, choices: Sequence[str]) -> str:
    """Check that the value is one of `choices`."""
    if value not in choices:
        raise ValueError(f'{argument}={value!r} is not known: choose from {", ".join(choices)}')
    return value


def check_bool(argument: str, value: bool) -> bool:
    """Check that the value is True or False; a text such as ``'no'`` would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f'{argument} must be True or False, but is {value!r}')
    return value


def check_name(argument: str, value: str) -> str:
    """Check that the value is one name."""
    if not isinstance(value, str):
        raise TypeError(f'{argument} must be a name, but is {value!r}')
    return value


def check_whole_number(argument: str, value: int, least: int = 1) -> int:
    """Check that the value is an int and not smaller than `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f'{argument} must be a whole number of at least {least}, but is {value!r}')
    return value


def check_number(argument: str, value: float, low: float = -math.inf, high: float = math.inf) -> float:
    """Check that the value is a finite number from `low` to `high`, both included."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(f'{argument} must be a number, but is {value!r}')
    if not low <= value <= high:
        raise ValueError(f'{argument} must lie between {low:g} and {high:g}, but is {value:g}')
    return value


def check_choice_or_range(
    argument: str, value: str | Sequence[float], choices: Sequence[str]
) -> str | tuple[float, float]:
    """Check that the value is one of `choices` or a pair of finite numbers, the smaller one first."""
    if isinstance(value, str):
        return check_choice(argument, value, choices)
    try:
        return check_range(argument, value)
    except TypeError:
        raise TypeError(f'{argument} must be one of {", ".join(choices)} or a pair, but is {value!r}') from None


def check_range(
    argument: str, value: Sequence[float], least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """Check that the value is a pair of finite numbers from `least` to `most`, the smaller one first."""
    try:
        low, high = value
        if isinstance(low, (str, bool)) or isinstance(high, (str, bool)):
            raise TypeError
        low, high = float(low), float(high)
    except (TypeError, ValueError):
        raise TypeError(f'{argument} must be a pair of numbers, but is {value!r}') from None
    if not -math.inf < low < high < math.inf:
        raise ValueError(f'{argument}=({low:g}, {high:g}): two numbers, the smaller one first')
    if not least <= low < high <= most:
        raise ValueError(f'{argument}=({low:g}, {high:g}): two numbers from {least:g} to {most:g}')
    return low, high
