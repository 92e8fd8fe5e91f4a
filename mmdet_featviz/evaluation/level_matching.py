"""Level matching: which levels of two runs are compared with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from mmdet_featviz.structures.snapshot import Level

# What makes two levels partners, the strictest first.
MATCHES = (
    lambda level: (level.layer, level.level, level.stride_text),
    lambda level: (level.layer, level.stride_text),
    lambda level: level.stride_text,
)


@dataclass(frozen=True, eq=False)
class LevelPair:
    """A level of run A and its partner of run B."""

    a: Level
    b: Level

    @property
    def names(self) -> tuple[str, str]:
        return self.a.name, self.b.name


def match_levels(a: Sequence[Level], b: Sequence[Level]) -> tuple[list[LevelPair], list[Level], list[Level]]:
    """Find the partner of each level.

    Partners are of one stride: of one layer and number where there are such, else of one layer, else of any.

    Returns:
        The pairs in the order of A, and what has no partner in A and in B.
    """
    pairs, alone_a, alone_b = [], list(a), list(b)
    for key in MATCHES:
        for level in list(alone_a):
            partner = next((other for other in alone_b if key(other) == key(level)), None)
            if partner is not None:
                pairs.append(LevelPair(level, partner))
                alone_a.remove(level)
                alone_b.remove(partner)
    order = {level.name: number for number, level in enumerate(a)}
    return sorted(pairs, key=lambda pair: order[pair.a.name]), alone_a, alone_b
