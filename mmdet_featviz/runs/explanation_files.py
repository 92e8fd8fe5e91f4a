"""Explanation files: writes the pictures of explanations into a run folder, with entries in its manifest."""

from __future__ import annotations

import re
from typing import Any, Sequence

from mmdet_featviz.explanation.explanation import Explanation
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.visualization.encoding import encode_picture

PREFIXES = {'detection': '', 'ground truth': 'gt_', 'drawn box': 'box_'}


def write_explanations(
    run_folder: RunFolder, key: str, explanations: Sequence[Explanation], each_level: bool = False
) -> int:
    """Write the overlays of the explanations of one image, as ``{key}/explain/000_dog_0.87.odam.jpg``.

    Args:
        run_folder: Folder of the run.
        key: Image key.
        explanations: The explanations.
        each_level: Whether to also write a picture of each level, if several have heat.

    Returns:
        The number of pictures.

    Raises:
        ImageError: If the image cannot be read.
        OSError: If a picture cannot be written.
    """
    written = 0
    for one in explanations:
        base, ending = f'{key}/explain/{explanation_name(one)}', one.style.image_format
        pictures: dict[str, str | None] = {f'{base}.{ending}': None}
        levels = [name for name, share in one.levels.items() if share]
        if each_level and len(levels) > 1:
            pictures.update({f'{base}.{name}.{ending}': name for name in levels})
        for file, level in pictures.items():
            run_folder.write(file, encode_picture(one.draw(level), file))
        run_folder.record([explanation_entry(one, key, list(pictures))])
        written += len(pictures)
    return written


def explanation_name(explanation: Explanation) -> str:
    """Return the name of an explanation's files: number, class, score, what is explained, method.

    Numbers are those of the target: positions in order of score, or with ``gt_`` and ``box_`` before them positions of
    ground-truth and drawn boxes.
    """
    target = explanation.target
    class_name = re.sub(r'[^\w-]+', '_', explanation.class_name)[:60]
    of = '' if target.of == 'score' else f'{target.of}.'
    number = f'{PREFIXES[target.kind]}{target.number:03d}'
    return f'{number}_{class_name}_{explanation.score:.2f}.{of}{explanation.method}'


def explanation_entry(explanation: Explanation, key: str, files: Sequence[str]) -> dict[str, Any]:
    """Return the manifest entry of an explanation."""
    target = explanation.target
    return dict(
        image=explanation.snapshot.path,
        key=key,
        method=explanation.method,
        of=target.of,
        target=target.kind,
        number=target.number,
        bbox=list(target.bbox),
        label=target.label,
        class_name=explanation.class_name,
        score=target.score,
        wanted=None if target.wanted is None else list(target.wanted),
        overlap=target.overlap,
        found=target.found,
        shares=explanation.levels,
        files=list(files),
    )
