"""Level matching: groups the levels of runs by stride and layer."""

from __future__ import annotations

from typing import Sequence, Tuple, Union

from mmdet_featviz.structures.snapshot import Level

# Two levels match if their keys are equal; the strictest key is tried first.
MATCH_KEYS = (
    lambda level: (level.layer, level.level, level.stride_text),
    lambda level: (level.layer, level.stride_text),
    lambda level: level.stride_text,
)
LevelGroup = Tuple[Union[Level, None], ...]  # one of each run: first that of run A; None where a run has no match


def match_levels(runs: Sequence[Sequence[Level]]) -> tuple[list[LevelGroup], list[list[Level]]]:
    """Group levels of equal stride.

    Each further run is matched with the first one: levels with the same layer and index first, then levels of the same
    layer, then levels of any layer. A level is used once.

    Args:
        runs: Levels of each run, the first of which the others are compared with.

    Returns:
        The groups in the order of the first run, each with a match in at least one other run; and for each run its
        levels without a match.
    """
    first, *others = runs
    matched = [_match(first, levels) for levels in others]
    groups = [(level, *(matches.get(id(level)) for matches in matched)) for level in first]
    groups = [group for group in groups if any(level is not None for level in group[1:])]
    used = {id(level) for group in groups for level in group}
    return groups, [[level for level in levels if id(level) not in used] for levels in runs]


def level_names(group: LevelGroup) -> tuple[str | None, ...]:
    """The names of the levels of a group."""
    return tuple(None if level is None else level.name for level in group)


def _match(first: Sequence[Level], levels: Sequence[Level]) -> dict[int, Level]:
    """{id of a level of the first run: matching level}."""
    matches: dict[int, Level] = {}
    free = list(levels)
    for key in MATCH_KEYS:
        for level in first:
            match = next((other for other in free if key(other) == key(level)), None)
            if id(level) not in matches and match is not None:
                matches[id(level)] = match
                free.remove(match)
    return matches
