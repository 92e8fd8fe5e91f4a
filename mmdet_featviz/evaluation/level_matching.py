"""Level matching: pairs the levels of two runs by stride and layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from mmdet_featviz.structures.snapshot import Level

# Two levels match if their keys are equal; the strictest key is tried first.
MATCH_KEYS = (
    lambda level: (level.layer, level.level, level.stride_text),
    lambda level: (level.layer, level.stride_text),
    lambda level: level.stride_text,
)


@dataclass(frozen=True, eq=False)
class LevelPair:
    """A level of run A and the matching level of run B."""

    a: Level
    b: Level

    @property
    def names(self) -> tuple[str, str]:
        """Names of both levels."""
        return self.a.name, self.b.name


def match_levels(a: Sequence[Level], b: Sequence[Level]) -> tuple[list[LevelPair], list[Level], list[Level]]:
    """Pair levels of equal stride.

    Levels with the same layer and index are paired first, then levels of the same layer, then levels of any layer. A
    level is used once.

    Args:
        a: Levels of run A.
        b: Levels of run B.

    Returns:
        The pairs in the order of A, the levels of A without a match, and the levels of B without a match.
    """
    pairs, unmatched_a, unmatched_b = [], list(a), list(b)
    for key in MATCH_KEYS:
        for level in list(unmatched_a):
            match = next((other for other in unmatched_b if key(other) == key(level)), None)
            if match is not None:
                pairs.append(LevelPair(level, match))
                unmatched_a.remove(level)
                unmatched_b.remove(match)
    order = {level.name: index for index, level in enumerate(a)}
    return sorted(pairs, key=lambda pair: order[pair.a.name]), unmatched_a, unmatched_b
