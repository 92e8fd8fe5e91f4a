"""Comparison tables: the scores of a comparison as Markdown, CSV and LaTeX."""

from __future__ import annotations

import re
from typing import Any, Iterator, Sequence

from mmdet_featviz.evaluation.comparison_scores import score_names
from mmdet_featviz.runs.run_names import LETTERS, in_words
from mmdet_featviz.utils.csv_table import csv_text
from mmdet_featviz.utils.messages import count_noun, one_line

EXPLANATION = (
    'Means over images; how many images entered stands in brackets. Correlation: Pearson, of both heatmaps over the '
    'image. Inside boxes: share of the energy of a heatmap (its values above its 5th percentile) inside the boxes; '
    'chance: the share of the image that the boxes cover. A constant heatmap has neither, and an image without boxes '
    'only a correlation.'
)
LATEX_SIGNS = {
    '\\': r'\textbackslash{}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '<': r'\textless{}',  # these three are other letters in LaTeX's default font encoding
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    **{sign: f'\\{sign}' for sign in '&%$#_{}'},
}


def markdown_table(data: dict[str, Any], names: Sequence[str]) -> str:
    """The Markdown page of a comparison.

    Args:
        data: What :meth:`RunComparison.data` returns.
        names: Names of the runs.
    """
    correlations, inside = score_names(len(names))
    lines = [f'# {in_words(names)} compared', '']
    for letter, name in zip(LETTERS.lower(), names):
        lines.append(f'- {name}: ' + ', '.join(f'{fact} `{value}`' for fact, value in data[letter].items()))
    lines.append(f'- {count_noun(data["images"], "image")} in {"both" if len(names) == 2 else "all"}')
    lines += [f'- boxes of {count_noun(count, "image")}: {source}' for source, count in data['boxes'].items()]
    levels = [f'level of {name}' for name in names]
    heads = [*levels, 'stride', *_correlation_heads(names), *(f'{name} inside boxes' for name in names), 'chance']
    lines += ['', _row(heads), _row(['---'] * len(levels) + ['---:'] * (len(heads) - len(levels)))]
    for row in data['levels']:
        cells = [row[f'level_{letter}'] or '-' for letter in LETTERS[: len(names)].lower()] + [row['stride']]
        cells += [_cell(row[name], '.3f') for name in correlations]
        cells += [_cell(row[name], '.1%') for name in (*inside, 'chance')]
        lines.append(_row(cells))
    return '\n'.join([*lines, '', EXPLANATION, ''])


def csv_table(data: dict[str, Any], names: Sequence[str]) -> str:
    """The scores as CSV: a row for each level and run. Arguments as in :func:`markdown_table`."""
    return csv_text(CSV_COLUMNS, ([row[name] for name in CSV_COLUMNS] for row in _csv_rows(data, names)))


CSV_COLUMNS = (
    *('level', 'stride', 'run', 'level_of_run', 'images', 'correlation', 'correlation_images'),
    *('inside', 'inside_images', 'chance', 'chance_images'),
)


def _csv_rows(data: dict[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    correlations, inside = score_names(len(names))
    for row in data['levels']:
        for letter, name, correlation, share in zip(LETTERS.lower(), names, (None, *correlations), inside):
            scores = dict(correlation=row.get(correlation), inside=row[share], chance=row['chance'])
            yield {
                'level': row['level_a'],
                'stride': row['stride'],
                'run': name,
                'level_of_run': row[f'level_{letter}'],
                'images': row['images'],
                **{key: None if score is None else score['mean'] for key, score in scores.items()},
                **{f'{key}_images': None if score is None else score['images'] for key, score in scores.items()},
            }


def latex_table(data: dict[str, Any], names: Sequence[str]) -> str:
    """The scores as a LaTeX table that needs the package booktabs. Arguments as in :func:`markdown_table`."""
    correlations, inside = score_names(len(names))
    shares = [f'{name} inside (%)' for name in names]
    heads = ['Level', 'Stride', *(f'C{head[1:]}' for head in _correlation_heads(names)), *shares, 'Chance (%)']
    lines = [
        r'% needs \usepackage{booktabs}',
        f'\\begin{{tabular}}{{l{"r" * (len(heads) - 1)}}}',
        r'\toprule',
        _latex_row(heads),
        r'\midrule',
    ]
    for row in data['levels']:
        scores = [_latex_number(row[name], 1, 3) for name in correlations]
        scores += [_latex_number(row[name], 100, 1) for name in (*inside, 'chance')]
        lines.append(_latex_row([row['level_a'], row['stride'], *scores]))
    return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}', ''])


def escape_latex(text: str) -> str:
    """The text such that LaTeX prints it as it is."""
    signs = f'[{re.escape("".join(LATEX_SIGNS))}]'
    return re.sub(signs, lambda sign: LATEX_SIGNS[sign[0]], one_line(text))


def _correlation_heads(names: Sequence[str]) -> list[str]:
    first, *others = names
    return [f'correlation of {name} with {first}' for name in others] if len(others) > 1 else ['correlation']


def _row(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |'


def _cell(score: dict[str, Any], number_format: str) -> str:
    """The mean of a score, with the number of images in brackets."""
    return f'{score["mean"]:{number_format}} ({score["images"]})' if score['images'] else '- (0)'


def _latex_row(cells: Sequence[str]) -> str:
    return ' & '.join(map(escape_latex, cells)) + r' \\'


def _latex_number(score: dict[str, Any], factor: float, digits: int) -> str:
    return '--' if score['mean'] is None else f'{factor * score["mean"]:.{digits}f}'
