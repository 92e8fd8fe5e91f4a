"""Box export: writes the features of a run's boxes as CSV and for TensorBoard's projector, and a table of purity."""

from __future__ import annotations

import json
from typing import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from mmdet_featviz.apis.box_sprite import draw_box_sprite
from mmdet_featviz.evaluation.error_records import SIDES
from mmdet_featviz.evaluation.neighbor_purity import NEIGHBORS, Purity, neighbor_purity
from mmdet_featviz.report.box_table import BoxTable, read_boxes
from mmdet_featviz.report.error_tables import ErrorTables
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder, check_apart
from mmdet_featviz.structures.boxes import class_names, label_name
from mmdet_featviz.utils.csv_table import csv_text
from mmdet_featviz.utils.file_names import safe_name
from mmdet_featviz.utils.messages import count_noun, one_line
from mmdet_featviz.visualization.encoding import encode_picture

FACTS = ('image', 'kind', 'number', 'class', 'score', *SIDES, 'type')
PROJECTOR = 'projector'  # folder of the files for it
SPRITE = 'sprite.png'


def export_boxes(folder: str, out_dir: str, overwrite: bool = False) -> str:
    """Write the features of a run's boxes: tables, files for TensorBoard's projector, and the purity of neighbors.

    A table per level has a row for each box, with the columns of `FACTS` and the numbers of its vector. ``purity.csv``
    and ``purity.md`` have what :func:`neighbor_purity` returns. ``projector`` is a log folder for TensorBoard; its
    files can also be loaded at projector.tensorflow.org. It has the crops of the boxes if the run saved maps.

    Args:
        folder: Folder of a run that saved ``box_features``.
        out_dir: Folder for the files.
        overwrite: Whether to replace an earlier export.

    Returns:
        The table of purity, and one line: where the files are, and what was left out.

    Raises:
        OSError: If a folder cannot be read or written to, or holds something else.
        ValueError: If the run has no box features that can be read.
    """
    run = Run(folder)
    check_apart(out_dir, run.root)
    table = read_boxes(run, ErrorTables(run))
    if table is None or not len(table.boxes):
        raise ValueError(f"{run.folder} holds no features of boxes: run with save=('box_features',)")
    names = class_names(run.info.get('dataset_meta'))
    target = RunFolder(out_dir, overwrite)
    facts = list(_facts(table, names))
    rows = neighbor_purity(table.vectors, table.boxes, table.images)
    files: dict[str, str | bytes] = {'purity.csv': _purity_csv(rows, names), 'purity.md': purity_markdown(rows)}
    # The projector splits at tabs and line breaks, and knows no quotes.
    files[f'{PROJECTOR}/metadata.tsv'] = '\n'.join('\t'.join(map(one_line, row)) for row in [FACTS, *facts]) + '\n'
    sprite = draw_box_sprite(run, table)
    if sprite is not None:
        files[f'{PROJECTOR}/{SPRITE}'] = encode_picture(sprite[0], SPRITE).tobytes()
    files[f'{PROJECTOR}/projector_config.pbtxt'] = _projector_config(list(table.vectors), sprite and sprite[1])
    for name, content in files.items():
        _write(target, name, content)
    for level, vectors in tqdm(table.vectors.items(), unit='level', leave=False, disable=None):
        rows_csv, tensors = _level_texts(facts, vectors)
        _write(target, f'{safe_name(level)}.csv', rows_csv)
        _write(target, f'{PROJECTOR}/{_tensors(level)}', tensors)
    target.flush()
    boxes = f'{count_noun(len(table.boxes), "box")} at {count_noun(len(table.vectors), "level")}: {target.out_dir}'
    return '\n'.join([files['purity.md'], '; '.join([boxes, *table.remarks])])


def purity_markdown(rows: Sequence[Purity]) -> str:
    """The purity of all classes by level, as a table in Markdown."""
    lines = [f'Share of the {NEIGHBORS} most similar boxes, of the same kind and in other images, that have the same']
    lines += ['class. Similar by the cosine of the features.', '']
    lines += ['| level | boxes | number | purity | by chance |']
    lines += ['| --- | --- | ---: | ---: | ---: |']
    lines += [
        f'| {row.level} | {row.kind} | {row.boxes} | {row.purity:.3f} | {row.chance:.3f} |'
        for row in rows
        if row.label is None
    ]
    return '\n'.join([*lines, ''])


def _purity_csv(rows: Sequence[Purity], names: Sequence[str]) -> str:
    head = ['level', 'kind', 'class', 'boxes', 'purity', 'chance']
    cells = (
        [row.level, row.kind, '' if row.label is None else label_name(row.label, names), row.boxes]
        + [f'{value:.6g}' for value in (row.purity, row.chance)]
        for row in rows
    )
    return csv_text(head, cells)


def _facts(table: BoxTable, names: Sequence[str]) -> Iterator[list[str]]:
    """What is known of each box, as text."""
    boxes = table.boxes
    for row, image in enumerate(table.images.tolist()):
        score = boxes.scores[row]
        yield [
            table.files[image].image or table.files[image].key,
            'ground truth' if np.isnan(score) else 'prediction',
            str(table.numbers[row]),
            label_name(int(boxes.labels[row]), names),
            '' if np.isnan(score) else f'{score:.7g}',
            *(f'{corner:.7g}' for corner in boxes.corners[row]),
            table.types[row],
        ]


def _level_texts(facts: Sequence[Sequence[str]], vectors: np.ndarray) -> tuple[str, str]:
    """The table of a level, and its vectors for the projector."""
    numbers = [[f'{value:.6g}' for value in vector] for vector in vectors.tolist()]
    table = csv_text([*FACTS, *range(vectors.shape[1])], ([*row, *own] for row, own in zip(facts, numbers)))
    return table, ''.join('\t'.join(own) + '\n' for own in numbers)


def _tensors(level: str) -> str:
    return f'{safe_name(level)}.tensors.tsv'


def _projector_config(levels: Sequence[str], crop: int | None) -> str:
    """The content of the file that TensorBoard looks for; `crop` is the side of a crop of the sprite in pixels."""
    sprite = '' if crop is None else f'  sprite {{ image_path: "{SPRITE}"{2 * f" single_image_dim: {crop}"} }}\n'
    return ''.join(
        f'embeddings {{\n  tensor_name: {json.dumps(level)}\n  tensor_path: {json.dumps(_tensors(level))}\n'
        f'  metadata_path: "metadata.tsv"\n{sprite}}}\n'
        for level in levels
    )


def _write(target: RunFolder, name: str, content: str | bytes) -> None:
    target.record([dict(files=[name])])
    target.write(name, content if isinstance(content, bytes) else content.encode('utf-8', 'surrogateescape'))
