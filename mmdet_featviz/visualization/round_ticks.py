"""Round ticks: the round numbers that label a color bar."""

from __future__ import annotations

import math
from typing import Iterator

STEPS = 1, 2, 2.5, 5  # times a power of ten


def round_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Choose evenly spaced round numbers from `low` to `high`, as many as possible.

    Args:
        low: First value of the bar.
        high: Last value of the bar.
        most: Largest number of ticks. There are more only where fewer than two would be left.

    Returns:
        Each value and its label; a single one, `low`, if the range is empty.
    """
    if not high > low:
        return [(low, f'{low:.4g}')]
    ticks: list[tuple[float, str]] = []
    for step, digits in _steps((high - low) / max(most, 1)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if ticks and last - first < 1:  # a bar with one number has no scale
            break
        ticks = [(number * step, _label(number * step, digits)) for number in range(first, last + 1)]
        if len(ticks) <= most:
            break
    return ticks


def _steps(least: float) -> Iterator[tuple[float, int]]:
    """Iterate over round steps, the first at most `least`, with the power of ten of their last digit."""
    power = math.floor(math.log10(max(least, 1e-300))) - 1
    while True:
        for step in STEPS:
            yield step * 10.0**power, power - (step == 2.5)
        power += 1


def _label(value: float, last_digit: int) -> str:
    if abs(value) < 10.0**last_digit / 2:
        return '0'  # never -0
    digits = math.floor(math.log10(abs(value))) - last_digit + 1
    return f'{value:.{max(digits, 6)}g}'
