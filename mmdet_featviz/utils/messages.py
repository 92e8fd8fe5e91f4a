"""Parts of messages: counts with a noun, short lists of names, texts of several lines on one."""

from __future__ import annotations

from typing import Any, Sequence


def count_noun(number: int, noun: str) -> str:
    """Format a number with its noun: ``1 image``, ``2 images``, ``2 boxes``."""
    plural = f'{noun}es' if noun.endswith('x') else f'{noun}s'
    return f'{number} {noun if number == 1 else plural}'


def first_names(names: Sequence[str]) -> str:
    """Join at most three names: ``a, b, c, ...``."""
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def one_line(text: Any) -> str:
    """The text of anything, such as an error, on one line."""
    return ' '.join(str(text).split())
