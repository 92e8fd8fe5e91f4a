"""Explanation data: the explanations of an image in the form that the page's scripts read."""

from __future__ import annotations

from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.report.page_data import box_rows, level_data
from mmdet_featviz.runs.explanation_files import explanation_name
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level

MOST_CELLS = 256  # of an explanation, along each axis


def explanation_data(explanation: Explanation, boxes: Boxes | None) -> dict:
    """An explanation as the page draws it: the data of a level, with a few entries more.

    Args:
        explanation: The explanation.
        boxes: The boxes on the page.

    Returns:
        ``id``, which names it in the address of the page; ``name`` and ``facts``, for captions; ``boxes``, its own
        boxes, as :func:`box_rows` returns them; ``clicks``, the indices of those among `boxes`; and what
        :func:`level_data` returns.
    """
    on_page, own = box_rows(boxes), box_rows(explanation.snapshot.boxes)
    used = [level for level in explanation.snapshot.levels if explanation.levels[level.name]]
    placement, align = explanation.snapshot.placement, explanation.style.align
    heatmap = explanation.heatmap
    if len(used) == 1:
        level = used[0]
    else:  # merged, with a cell for each pixel of the image
        level = Level('explanation', 0, 1, (1.0, 1.0), heatmap)
        placement = identity_placement(placement.image_size, placement.image_size)
    facts = str(explanation).partition(', ')[2]
    return dict(
        level_data(level, placement, align, MOST_CELLS),
        id=explanation_name(explanation),
        name=f'{explanation.class_name} {explanation.score:.2f}',
        facts=facts,
        range=[float(heatmap.min()), float(heatmap.max())],  # as that of its picture
        explains=True,
        boxes=own,
        clicks=[on_page.index(row) for row in own if row in on_page],
    )
