"""Comparison table: the scores of a comparison as Markdown."""

from __future__ import annotations

from typing import Any

from mmdet_featviz.utils.messages import count_noun

ENERGIES = 'inside_a', 'inside_b', 'chance'
EXPLANATION = (
    'Means over images; how many images entered stands in brackets. Correlation: Pearson, of both heatmaps over the '
    'image. Inside boxes: share of the energy of a heatmap (its values above its smallest) inside the boxes; chance: '
    'the share of the image that the boxes cover. A constant heatmap has neither, and an image without boxes only a '
    'correlation.'
)


def comparison_table(data: dict[str, Any]) -> str:
    """The Markdown page of a comparison, from the data that :meth:`RunComparison.data` returns."""
    lines = ['# A and B compared', '']
    for letter in 'AB':
        lines.append(f'- {letter}: ' + ', '.join(f'{name} `{value}`' for name, value in data[letter.lower()].items()))
    lines.append(f'- {count_noun(data["images"], "image")} in both')
    lines += [f'- boxes of {count_noun(count, "image")}: {source}' for source, count in data['boxes'].items()]
    lines += [
        '',
        '| level of A | level of B | stride | correlation | A inside boxes | B inside boxes | chance |',
        '| --- | --- | ---: | ---: | ---: | ---: | ---: |',
    ]
    for row in data['levels']:
        cells = [_cell(row['correlation'], '.3f'), *(_cell(row[name], '.1%') for name in ENERGIES)]
        lines.append(f'| {row["level_a"]} | {row["level_b"]} | {row["stride"]} | {" | ".join(cells)} |')
    return '\n'.join([*lines, '', EXPLANATION, ''])


def _cell(score: dict[str, Any], number_format: str) -> str:
    """The mean of a score, with the number of images in brackets."""
    return f'{score["mean"]:{number_format}} ({score["images"]})' if score['images'] else '- (0)'
