"""Name filter: chooses names, such as those of levels, by patterns."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Callable, Sequence


def name_filter(patterns: Sequence[str] | None) -> Callable[[str], bool]:
    """Return a function that checks whether a name matches one of some patterns with ``*``; None matches every name."""
    return lambda name: patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)
