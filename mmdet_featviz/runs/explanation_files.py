"""Explanation files: pictures and saved maps of explanations in a run folder, with entries in its manifest."""

from __future__ import annotations

import logging
import math
import os.path as osp
import re
from dataclasses import asdict
from typing import Any, Iterator

from mmengine.logging import print_log

from mmdet_featviz.explanation.explanation import LOOK, Explanation
from mmdet_featviz.explanation.targets import PARTS, Target
from mmdet_featviz.runs.manifest import image_facts
from mmdet_featviz.runs.maps_file import dump_snapshot, errors_of, parse_maps, require
from mmdet_featviz.runs.reader import Run, add_image
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.regular_files import read_file
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Picture

FOLDER = 'explain'  # in that of the image
PREFIXES = {'detection': '', 'ground truth': 'gt_', 'drawn box': 'box_'}


def explanation_name(explanation: Explanation) -> str:
    """Return the name of an explanation's files: number, class, score, what is explained, method, pass.

    Numbers are those of the target: positions in order of score, or with ``gt_`` and ``box_`` before them positions of
    ground-truth and drawn boxes.
    """
    target = explanation.target
    class_name, method = (_in_file_name(name) for name in (explanation.class_name, explanation.method))
    of = '' if target.of == 'score' else f'{target.of}.'
    number = f'{PREFIXES[target.kind]}{target.number:03d}'
    return f'{number}_{class_name}_{explanation.score:.2f}.{of}{method}{explanation.snapshot.suffix}'


def _in_file_name(name: str) -> str:
    return re.sub(r'[^\w+-]+', '_', name)[:60]


def explanation_pictures(explanation: Explanation, each_level: bool = False) -> Iterator[Picture]:
    """Draw an explanation, and with `each_level` also each level alone, if several have heat.

    Raises:
        ImageError: If the image cannot be read.
    """
    base, ending = f'{FOLDER}/{explanation_name(explanation)}', explanation.style.image_format
    levels = [name for name, share in explanation.levels.items() if share]
    yield Picture(f'{base}.{ending}', explanation.draw(), levels)
    if each_level and len(levels) > 1:
        for name in levels:
            yield Picture(f'{base}.{name}.{ending}', explanation.draw(name), [name])


def explanation_entry(explanation: Explanation) -> dict[str, Any]:
    """Return the manifest entry of an explanation; its list `files` is still empty."""
    target, snapshot = explanation.target, explanation.snapshot
    return {
        **image_facts(snapshot),
        'pass': snapshot.augmentation,
        'method': explanation.method,
        'of': target.of,
        'target': target.kind,
        'number': target.number,
        'bbox': list(target.bbox),
        'label': target.label,
        'class_name': explanation.class_name,
        'score': target.score,
        'wanted': None if target.wanted is None else list(target.wanted),
        'overlap': target.overlap,
        'found': target.found,
        'shares': explanation.levels,
        'files': [],
    }


def dump_explanation(explanation: Explanation) -> bytes:
    """Return the content of an ``.npz`` file, as that of a snapshot; ``meta`` has the target and the method, too.

    The maps are float32: gradients may be too small for float16.
    """
    facts = dict(asdict(explanation.target), method=explanation.method)
    return dump_snapshot(explanation.snapshot, explanation=facts)


def load_explanation(path: str, info: dict, style: Style) -> Explanation:
    """Load an explanation that can also read its image.

    Args:
        path: Path or URL of a file of :func:`dump_explanation`, in the folder of a run.
        info: Content of the run's ``run.json``.
        style: How it is drawn.

    Raises:
        MapsError: If the file cannot be read, or holds no explanation in this package's format.
    """
    with errors_of(path):
        snapshot, meta = parse_maps(read_file(path), path)
        target, method = _target(meta['explanation'])
    return Explanation(target, method, add_image(snapshot, info, osp.dirname(osp.dirname(path))), style)


def saved_explanations(run: Run, snapshot: Snapshot, align: str) -> list[Explanation]:
    """Load the explanations of one pass of a run; those that cannot be read are left out, with a warning each.

    Args:
        run: The run.
        snapshot: The pass.
        align: Where the value of a cell is, as in :class:`mmdet_featviz.Style`.
    """
    explanations, style = [], Style(**{**LOOK, 'align': align})
    for path in run.explanations.get(snapshot.key, ()):
        try:
            explanations.append(load_explanation(path, run.info, style))
        except ValueError as error:
            print_log(f'{error}. It is left out.', 'current', logging.WARNING)
    return [one for one in explanations if one.snapshot.augmentation == snapshot.augmentation]


def _target(facts: dict) -> tuple[Target, str]:
    """Return the target and the method in a file, which may be anybody's."""
    facts = dict(facts)
    method, wanted, bbox = facts.pop('method'), facts.pop('wanted'), facts.pop('bbox')
    target = Target(**facts, bbox=tuple(bbox), wanted=None if wanted is None else tuple(wanted))
    for box in (target.bbox, target.wanted or target.bbox):
        require(len(box) == 4 and all(map(_is_number, box)), f'a box of its target is {box!r}')
    numbers = target.image, target.index, target.number, target.label
    are_whole = all(type(number) is int and number >= 0 for number in numbers)
    require(are_whole and _is_number(target.score), f'its target has the numbers {numbers!r}, score {target.score!r}')
    is_known = target.kind in PREFIXES and target.of in PARTS and isinstance(method, str)
    require(is_known, f'its target is the {target.of!r} of a {target.kind!r}, by {method!r}')
    return target, method


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
