"""Coverage table: the results of the model zoo's configs as a Markdown table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from mmdet_featviz.benchmarks.patch_placement import BLUR
from mmdet_featviz.version import __version__

VERDICTS = ('right', 'blurred', 'wrong')  # the worst last
EXPLAINED = ('right', 'not local', 'not measured', 'blurred', 'wrong')

Row = Mapping[str, Any]  # what zoo_coverage.try_config() returns, or the error


def write_table(path: Path, results: Mapping[str, Sequence[tuple[Path, Row]]]) -> bool:
    """Write the table, and print a summary.

    Args:
        path: Markdown file; its folder is made if needed.
        results: ``{family: [(config, row)]}``.

    Returns:
        Whether no level and no explanation is placed wrong and all predictions are identical.
    """
    import mmdet
    import mmengine
    import torch

    runs = [row for rows in results.values() for _, row in rows if 'error' not in row]
    placed = Counter(map(worst_verdict, runs))
    explained = Counter(row['explained'].get('verdict', 'not explained') for row in runs)
    masked = sum('error' not in row['masked'] for row in runs)
    lines = [
        '# Model zoo coverage',
        '',
        f'Written by `tools/zoo_coverage.py` with mmdet {mmdet.__version__}, mmengine {mmengine.__version__}, '
        f'torch {torch.__version__.split("+")[0]}, mmdet_featviz {__version__}: '
        f'{len(runs)} of {sum(len(rows) for rows in results.values())} configs in {len(results)} folders run, '
        f'{sum(row["same"] for row in runs)} of them with identical predictions, {placed["right"]} placed right, '
        f'{placed["blurred"]} blurred, {placed["wrong"]} placed wrong; '
        f'{sum(explained[verdict] for verdict in EXPLAINED)} explained with ODAM, {explained["wrong"]} of them placed '
        f'wrong; {masked} explained with D-RISE.',
        '',
        '*Strides* are those of the levels of each layer that is drawn by default. *Offsets* are the centers of the '
        'receptive fields of their first cells, in pixels, as they were found (-: not found). *Placed right*: does the '
        'change that a patch makes in an even picture move with the patch, and lie at it? *Figures*, in cells, of the '
        'worst level of each layer: the largest difference between the ways of the change and of the patch / the mean '
        'distance of the change from the patch. *Yes*: both are at most 1, or at most half a cell of the level plus '
        'half a cell of the coarsest level that is resampled into it (necks, HRNet). *Blurred*: some levels '
        f'(named) fail that but stay within {BLUR} times these bounds, behind attention, deformable, dynamic or widely '
        'dilated convolutions, wide pools, or norms over the image. *No*: anything else. '
        '*Explained*: the detection with the highest score has a finite ODAM heatmap with heat, at the neck; '
        '`explain()` has checked that it is that of the very box that the detector predicts. Then the candidate '
        'that fits the patch best is explained: does its heat move with the patch, and is it in the box of the '
        'candidate? The figures are those differences and the mean distance from the box, in cells of the level '
        'with the most heat, with the bounds above. *Not local*: it does not, behind attention. *Not measured*: '
        'no candidate overlaps the patch. *Candidate*: the detector predicts no box, as random weights give low '
        'scores. *No*: the reason why there is no explanation; or it is placed wrong. The latter is so for YOLACT: '
        'with random weights, its softmax gives most boxes a score near 1, so that candidates of different classes and '
        'levels are compared, as another one fits best at each place of the patch. *D-RISE*: with four masks, the '
        'detection with the highest score, or else the candidate that fits the image best, has a finite heatmap with '
        'heat. '
        '*Predictions*: are those after all this, while the maps are drawn, the ones before, bit for bit? '
        'The weights are random; the batch norms have seen one image.',
        '',
        '| family | config | detector | strides | offsets | placed right | figures | explained | D-RISE '
        '| predictions | time, or why not |',
        f'{"| --- " * 11}|',
    ]
    lines += [table_row(family, config, row) for family, rows in results.items() for config, row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    failures = sum(is_failure(row) for row in runs)
    print(f'{len(runs)} configs run, {failures} with heat placed wrong or other predictions; the table is {path}')
    return failures == 0


def is_failure(row: Row) -> bool:
    """Whether a level or an explanation is placed wrong, or predictions differ."""
    return 'wrong' in (worst_verdict(row), row['explained'].get('verdict')) or not row['same']


def table_row(family: str, config: Path, row: Row) -> str:
    """The line of the table for one config."""
    name = f'`{config.stem}`'
    if 'error' in row:
        return f'| {family} | {name} | | | | | | | | | {row["error"].replace("|", "/")} |'
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
        f'| {family} | {name} | {row["detector"]} | {strides} | {offsets} | {placed} | {figures} '
        f'| {format_explanation(row["explained"])} | {format_masked(row["masked"])} | {predictions} '
        f'| {row["seconds"]:g} s |'
    )


def worst_verdict(row: Row) -> str:
    """The worst verdict of all levels of a config."""
    return max((level['verdict'] for level in row['placed']), key=VERDICTS.index)


def format_masked(masked: Mapping[str, str]) -> str:
    """What D-RISE explains, or the reason why it explains nothing."""
    return f'yes ({masked["target"]})' if 'target' in masked else f'no: {masked["error"].replace("|", "/")}'


def format_explanation(explained: Mapping[str, Any]) -> str:
    """The placement of explanations and its figures, or the reason why there are none."""
    if 'error' in explained:
        return f'no: {explained["error"].replace("|", "/")}'
    verdict = dict(right='yes', wrong='**no**').get(explained['verdict'], explained['verdict'])
    moves, offset = explained['moves'], explained['offset']
    figures = '' if np.isnan(moves) else f' {moves:.2f} / {offset:.2f}'
    return f'{verdict}{figures} ({explained["target"]}, {explained["level"]})'


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
