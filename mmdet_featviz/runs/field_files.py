"""Field files: the pictures, entries and tables of receptive fields in a run folder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from mmdet_featviz.structures.snapshot import format_stride
from mmdet_featviz.utils.csv_table import csv_text
from mmdet_featviz.utils.messages import count_noun
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Picture

if TYPE_CHECKING:  # it imports mmdet's models
    from mmdet_featviz.explanation.field_measurement import ReceptiveField

TABLE = 'receptive_fields'  # name of the tables, and of the entry of run.json
COLUMNS = 'level', 'stride', 'theoretical', 'effective'
CSV_COLUMNS = (
    'level',
    'vertical_stride',
    'horizontal_stride',
    'theoretical_width',
    'theoretical_height',
    'effective_size',
    'images',
)


def field_picture(field: ReceptiveField, style: Style) -> Picture:
    """Draw a field on its image, as ``neck_0.receptive_field.jpg``."""
    return Picture(f'{field.name}.receptive_field.{style.image_format}', field.draw(style), [field.name])


def field_entry(field: ReceptiveField, files: Sequence[str]) -> dict[str, Any]:
    """Return the manifest entry of a field; edges and lengths that are infinite are None.

    Args:
        field: The field.
        files: Its files, relative to the run folder.
    """
    image = field.snapshot
    box = None if field.box is None else [edge if math.isfinite(edge) else None for edge in field.box]
    entry = dict(image=image.path, key=image.key, level=field.name, stride=field.stride, cell=field.cell)
    return dict(entry, theoretical_box=box, effective_size=field.effective_size, files=list(files))


def field_facts(fields: Sequence[ReceptiveField], images: int) -> dict[str, Any]:
    """Return what ``run.json`` says of receptive fields: their sizes, and the number of images they are means over.

    A theoretical size is None if it was not found; a width or height is None if it is that of the whole image.
    """
    levels = []
    for field in fields:
        size = field.theoretical_size
        finite = None if size is None else [length if math.isfinite(length) else None for length in size]
        levels.append(dict(name=field.name, stride=field.stride, theoretical=finite, effective=field.effective_size))
    return dict(images=images, levels=levels)


def field_rows(facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The levels of :func:`field_facts` as texts, for the columns `COLUMNS`."""
    return [
        (one['name'], format_stride(one['stride']), _size_text(one['theoretical']), f'{one["effective"]:.0f}')
        for one in facts['levels']
    ]


def field_table(facts: Mapping[str, Any]) -> str:
    """Format :func:`field_facts` as a table: level, stride, theoretical and effective size."""
    rows = [COLUMNS, *field_rows(facts)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join('  '.join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def field_files(facts: Mapping[str, Any]) -> dict[str, bytes]:
    """Return {name: content} of the tables of :func:`field_facts`, as CSV and as Markdown."""
    return {f'{TABLE}.csv': _csv(facts).encode(), f'{TABLE}.md': _markdown(facts).encode()}


def _csv(facts: Mapping[str, Any]) -> str:
    rows = []
    for one in facts['levels']:
        size = one['theoretical']
        lengths = ['', ''] if size is None else ['inf' if length is None else f'{length:g}' for length in size]
        rows.append([one['name'], *one['stride'], *lengths, f'{one["effective"]:.1f}', facts['images']])
    return csv_text(CSV_COLUMNS, rows)


def _markdown(facts: Mapping[str, Any]) -> str:
    rows = [COLUMNS, ['---'] * len(COLUMNS), *field_rows(facts)]
    lines = [f'| {" | ".join(row)} |' for row in rows]
    note = f"Mean over {count_noun(facts['images'], 'image')}; in pixels of the network's input."
    return '\n'.join(['# Receptive fields', '', *lines, '', note, ''])


def _size_text(size: Sequence[float | None] | None) -> str:
    if size is None:
        return 'not found'
    if not any(size):
        return 'whole image'
    return ' x '.join('all' if length is None else f'{length:g}' for length in size)
