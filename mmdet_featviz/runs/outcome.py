"""Outcome: counts what was drawn, saved and skipped, and sums it up in one line."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field

from mmdet_featviz.explanation.targets import NoTargetError
from mmdet_featviz.runs.compact_table import CompactTable
from mmdet_featviz.runs.maps_file import MapsError
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.views import Picture

TASKS = {  # by what is missing after an error: what was being done, and what the message says is lost
    'maps': ('drawing', 'The image is skipped'),
    'explanations': ('explaining', 'Its detections are not explained'),
    'box features': ('measuring boxes', 'The features of its boxes are not saved'),
}


@dataclass
class Outcome:
    """Results of writing some snapshots: those of one task, or all of a run.

    Attributes:
        pictures: Number of pictures written.
        map_files: Number of files with maps written.
        drawn: Keys of the images with at least one file.
        drawn_before: Keys of the images that an earlier run had finished.
        pending: Maps files whose pictures wait for the value range of the whole run.
        postponed: Number of images that wait in the backlog to be drawn after the loop.
        skipped: {reason: names of the images with something missing}.
        messages: {reason: message to log when the reason first occurs}.
        logged: Pictures to send to a visualizer, each with its snapshot.
    """

    pictures: int = 0
    map_files: int = 0
    drawn: CompactTable = field(default_factory=CompactTable)
    drawn_before: CompactTable = field(default_factory=CompactTable)
    pending: list[str] = field(default_factory=list)
    postponed: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    logged: list[tuple[Snapshot, Picture]] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Add the counts of another outcome."""
        self.pictures += other.pictures
        self.map_files += other.map_files
        self.drawn.update(other.drawn)
        self.drawn_before.update(other.drawn_before)
        self.pending += other.pending
        self.postponed += other.postponed
        for reason, names in other.skipped.items():
            self.skipped.setdefault(reason, []).extend(names)
        self.messages = {**other.messages, **self.messages}

    def add_error(self, error: Exception, name: str, missing: str = 'maps') -> None:
        """Count an image with something missing because of an error.

        Args:
            error: The error.
            name: Name of the image.
            missing: What is missing of it: one of `TASKS`.
        """
        doing, lost = TASKS[missing]
        if isinstance(error, NoTargetError):
            reason, message = 'nothing to explain', str(error)
        elif isinstance(error, ImageError):
            reason, message = 'image not readable', str(error)
        elif isinstance(error, MapsError):
            reason, message = 'maps not readable', str(error)
        elif isinstance(error, OSError):
            reason, message = f'picture not written, {error.strerror or error}', str(error)
        elif missing != 'maps' and isinstance(error, ValueError):  # the message says what to do
            reason, message = f'{type(error).__name__} while {doing}', str(error)
        else:
            reason, message = f'{type(error).__name__} while {doing}', traceback.format_exc()
        if missing != 'maps' and not isinstance(error, NoTargetError):
            reason = f'{missing}: {reason}'
        self.skipped.setdefault(reason, []).append(name)
        self.messages.setdefault(reason, f'{message}. {lost}; further ones are only counted.')

    def add_lost_fields(self, error: Exception, name: str) -> None:
        """Count the image at which an error ended the measurement of receptive fields."""
        text = str(error) if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'
        reason = f'receptive fields: {type(error).__name__}'
        self.skipped.setdefault(reason, []).append(name)
        self.messages.setdefault(reason, f'{text.splitlines()[0]}. Receptive fields are not measured further')

    def summary(self, folder: str) -> str:
        """Return one line: pictures, images, output folder, and skipped images with the reason."""
        files = count_noun(self.pictures, 'picture')
        if self.map_files:
            files += f' and {count_noun(self.map_files, "file")} of maps'
        line = f'{files} of {count_noun(len(self.drawn), "image")} in {folder}'
        if self.pending:
            line += f'; {count_noun(len(self.pending), "image")} to be drawn at the end, on one scale'
        if self.postponed:
            line += f'; {count_noun(self.postponed, "image")} saved but not drawn yet, which resume=True does'
        if len(self.drawn_before):
            line += f'; {count_noun(len(self.drawn_before), "image")} drawn before'
        skipped = [
            f'{count_noun(len(names), "image")}, {reason} ({first_names(names)})'
            for reason, names in self.skipped.items()
        ]
        return f'{line}; skipped: {"; ".join(skipped)}' if skipped else line
