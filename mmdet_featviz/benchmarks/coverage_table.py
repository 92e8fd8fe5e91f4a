"""Coverage table: the results of the model zoo's configs as a Markdown table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from mmdet_featviz.benchmarks.patch_placement import BLUR
from mmdet_featviz.version import __version__

VERDICTS = ('right', 'blurred', 'wrong')  # the worst last

Row = Mapping[str, Any]  # what zoo_coverage.try_config() returns, or the error


def write_table(path: Path, results: Mapping[str, Sequence[tuple[Path, Row]]]) -> bool:
    """Write the table, and print a summary.

    Args:
        path: Markdown file; its folder is made if needed.
        results: ``{family: [(config, row)]}``.

    Returns:
        Whether no level is placed wrong and all predictions are identical.
    """
    import mmdet
    import mmengine
    import torch

    runs = [row for rows in results.values() for _, row in rows if 'error' not in row]
    placed = Counter(map(worst_verdict, runs))
    lines = [
        '# Model zoo coverage',
        '',
        f'Written by `tools/zoo_coverage.py` with mmdet {mmdet.__version__}, mmengine {mmengine.__version__}, '
        f'torch {torch.__version__.split("+")[0]}, mmdet_featviz {__version__}: '
        f'{len(runs)} of {sum(len(rows) for rows in results.values())} configs in {len(results)} folders run, '
        f'{sum(row["same"] for row in runs)} of them with identical predictions, {placed["right"]} placed right, '
        f'{placed["blurred"]} blurred, {placed["wrong"]} placed wrong.',
        '',
        '*Strides* are those of the levels of each layer that is drawn by default. *Offsets* are the centers of the '
        'receptive fields of their first cells, in pixels, as they were found (-: not found). *Placed right*: does the '
        'change that a patch makes in an even picture move with the patch, and lie at it? *Figures*, in cells, of the '
        'worst level of each layer: the largest difference between the ways of the change and of the patch / the mean '
        'distance of the change from the patch. *Yes*: both are at most 1, or at most half a cell of the level plus '
        'half a cell of the coarsest level that is resampled into it (necks, HRNet). *Blurred*: some levels '
        f'(named) fail that but stay within {BLUR} times these bounds, behind attention, deformable, dynamic or widely '
        'dilated convolutions, wide pools, or norms over the image. *No*: anything else. The weights are random; the '
        'batch norms have seen one image.',
        '',
        '| family | config | detector | strides | offsets | placed right | figures | predictions | time, or why not |',
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    lines += [table_row(family, config, row) for family, rows in results.items() for config, row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    failures = placed['wrong'] + sum(not row['same'] for row in runs)
    print(f'{len(runs)} configs run, {failures} with levels placed wrong or other predictions; the table is {path}')
    return failures == 0


def table_row(family: str, config: Path, row: Row) -> str:
    """The line of the table for one config."""
    name = f'`{config.stem}`'
    if 'error' in row:
        return f'| {family} | {name} | | | | | | | {row["error"].replace("|", "/")} |'
    layers: dict[str, list[str]] = {}
    for layer, _, vertical, horizontal in row['levels']:
        layers.setdefault(layer, []).append(
            f'{vertical:g}' if vertical == horizontal else f'{vertical:.3g}x{horizontal:.3g}'
        )
    strides = '; '.join(f'{layer} {" ".join(values)}' for layer, values in layers.items())
    offsets = '; '.join(f'{layer} {format_offsets(levels)}' for layer, levels in group_by_layer(row['placed']).items())
    figures = '; '.join(f'{layer} {format_figures(levels)}' for layer, levels in group_by_layer(row['placed']).items())
    placed = dict(right='yes', blurred='blurred', wrong='**no**')[worst_verdict(row)]
    predictions = 'identical' if row['same'] else '**differ**'
    return (
        f'| {family} | {name} | {row["detector"]} | {strides} | {offsets} | {placed} | {figures} | {predictions} '
        f'| {row["seconds"]:g} s |'
    )


def worst_verdict(row: Row) -> str:
    """The worst verdict of all levels of a config."""
    return max((level['verdict'] for level in row['placed']), key=VERDICTS.index)


def format_offsets(levels: Sequence[Mapping[str, Any]]) -> str:
    """The offsets of the levels of one layer, as one number each where both axes round to the same."""
    texts = []
    for level in levels:
        rounded = dict.fromkeys(f'{pixels:.1f}' for pixels in level['found'] or ())
        texts.append('x'.join(rounded) or '-')
    return ' '.join(texts)


def format_figures(levels: Sequence[Mapping[str, Any]]) -> str:
    """The largest deviations of the levels of one layer, and the levels that are not right."""
    worst = ' / '.join(
        'not finite' if np.isnan(figure) else f'{figure:.2f}'
        for figure in (np.max([level[name] for level in levels]) for name in ('moves', 'offset'))
    )
    not_right = ' '.join(str(level['level']) for level in levels if level['verdict'] != 'right')
    return f'{worst} (level {not_right})' if not_right else worst


def group_by_layer(levels: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """``{layer: its levels}``, in order."""
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for level in levels:
        layers.setdefault(level['layer'], []).append(level)
    return layers
