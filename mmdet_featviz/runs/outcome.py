"""Outcome: counts of what was drawn, saved and skipped."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field

from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.views import Picture


@dataclass
class Outcome:
    """What came of snapshots: of one, or of all of a run.

    Attributes:
        pictures: How many pictures were written.
        map_files: How many files of maps were written.
        drawn: Keys of the images of which there is anything.
        there: Keys of the images that an earlier run had finished.
        pending: Maps whose pictures wait for the range of the run.
        skipped: Names of the images of which something is missing, by reason.
        messages: What to tell of each reason when it is met first.
        logged: Pictures on their way to a log, with their snapshots.
    """

    pictures: int = 0
    map_files: int = 0
    drawn: set[str] = field(default_factory=set)
    drawn_before: set[str] = field(default_factory=set)
    pending: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    logged: list[tuple[Snapshot, Picture]] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Take in what came of others."""
        self.pictures += other.pictures
        self.map_files += other.map_files
        self.drawn |= other.drawn
        self.drawn_before |= other.drawn_before
        self.pending += other.pending
        for reason, names in other.skipped.items():
            self.skipped.setdefault(reason, []).extend(names)
        self.messages = {**other.messages, **self.messages}

    def add_error(self, error: Exception, name: str) -> None:
        """Count an image of which something is missing."""
        if isinstance(error, ImageError):
            reason, message = 'image not readable', str(error)
        elif isinstance(error, OSError):
            reason, message = f'picture not written, {error.strerror or error}', str(error)
        else:
            reason, message = f'{type(error).__name__} while drawing', traceback.format_exc()
        self.skipped.setdefault(reason, []).append(name)
        self.messages.setdefault(reason, message)
