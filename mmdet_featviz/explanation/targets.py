"""Targets: choose the detections to explain, and what of them: the score, sides of the box, or both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Iterable, NamedTuple, Sequence

import torch

from mmdet_featviz.explanation.detections import Detections, overlaps
from mmdet_featviz.structures.boxes import corners_of, find_label, has_all, label_name
from mmdet_featviz.utils.messages import first_names

SIDES = ('left', 'top', 'right', 'bottom')
PARTS = {'score': ('score',), **{side: (side,) for side in SIDES}, 'box': SIDES, 'both': ('score', *SIDES)}
FOUND_OVERLAP = 0.5  # of a detection with a ground-truth box of its class, as in COCO's AP50
FORMS = (
    "'top 5', 'all', 'score 0.3', 'class dog', several of these with commas between, 'gt', "
    "'box LEFT TOP RIGHT BOTTOM CLASS', or the number of a box"
)


class NoTargetError(ValueError):
    """There is nothing to explain in an image: no detection, or none that was asked for."""


@dataclass(frozen=True)
class Target:
    """What is explained: one detection, or the candidate that fits a box best.

    Attributes:
        image: Index of the image in its batch.
        index: Index among the predictions of its pass, which :class:`DetectorBatch` returns.
        number: Position of the detection in order of score, of the ground-truth box in the annotations, or of the drawn
            box among those given, from 0.
        kind: ``detection``, ``ground truth`` or ``drawn box``.
        bbox: (left, top, right, bottom) of the explained box, in pixels of the image.
        label: Its class index.
        score: Its score.
        of: What is explained: a key of `PARTS`.
        wanted: The ground-truth or drawn box; the score is then multiplied by the overlap with it. None for detections.
        overlap: Intersection over union of `bbox` and `wanted`.
        found: For ground truth, whether the detector predicts a box of its class that overlaps it by at least half.
    """

    image: int
    index: int
    number: int
    kind: str
    bbox: tuple[float, float, float, float]
    label: int
    score: float
    of: str = 'score'
    wanted: tuple[float, float, float, float] | None = None
    overlap: float | None = None
    found: bool | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The predicted numbers that are explained: ``score`` and sides."""
        return PARTS[self.of]

    def __str__(self) -> str:
        state = '' if self.found is None else f', {"found" if self.found else "missed"}'
        return f'{self.of} of {self.kind} {self.number}{state}'


class Selection(NamedTuple):
    """A way to choose targets in one image.

    Attributes:
        suppressed: Whether it chooses among the detections; otherwise among all candidates before suppression.
        choose: Function from index of the image, its predictions and its data sample to (targets, why there are none).
    """

    suppressed: bool
    choose: Callable[[int, Detections, Any], tuple[list[Target], str]]


def parse_targets(targets: Any, of: str, names: Sequence[str] | None) -> list[Selection]:
    """Parse what the user wants to be explained.

    Args:
        targets: One or a list of: ``top N`` (the highest scores), ``all``, ``score S`` (at least S), ``class NAME``
            (name or index), several of these with commas between (each chooses from what the ones before have left);
            ``gt`` (for each ground-truth box the candidate that fits best, found or missed); ``box LEFT TOP RIGHT
            BOTTOM CLASS`` (a drawn box in pixels of the image, of any class without a name); a whole number (position
            in order of score, from 0).
        of: What is explained of each: a key of `PARTS`.
        names: Names of the classes, if known. None accepts any class: it only checks the grammar.

    Raises:
        TypeError, ValueError: If a target cannot be understood, or a class does not exist.
    """
    targets = [targets] if isinstance(targets, (str, bytes)) or not isinstance(targets, Iterable) else list(targets)
    if not targets:
        raise ValueError(f'targets is empty: give {FORMS}')
    selections, drawn = [], 0
    for target in targets:
        if isinstance(target, bool) or not isinstance(target, (str, int)):
            raise TypeError(f'targets must be {FORMS}, but one is {target!r}')
        words = target.split() if isinstance(target, str) else [str(target)]
        if words == ['gt']:
            selections.append(Selection(False, _truth_chooser(of, names)))
        elif words[:1] == ['box']:
            selections.append(Selection(False, _drawn_chooser(words[1:], drawn, of, names)))
            drawn += 1
        else:
            steps = ' '.join(words).split(',')
            selections.append(Selection(True, _detection_chooser([_step(step.strip(), names) for step in steps], of)))
    return selections


def is_found(target: Target, detections: Detections) -> bool:
    """Whether a detection of the target's class overlaps its ground-truth box by at least half."""
    same = detections.labels == target.label
    overlap = overlaps(detections.bboxes, detections.bboxes.new_tensor(target.wanted))
    return bool((same & (overlap >= FOUND_OVERLAP)).any())


Rows = Sequence[int]  # indices of detections, by descending score
Step = Callable[[Sequence[int], Detections, Rows], 'tuple[Rows, str]']


def _step(text: str, names: Sequence[str]) -> Step:
    """Return a function that chooses some of the rows, and says why there are none."""
    verb, _, argument = text.partition(' ')
    try:
        if text == 'all':
            return lambda ranked, found, rows: (rows, '')
        if verb == 'top' and int(argument) > 0:
            return lambda ranked, found, rows: (rows[: int(argument)], '')
        if verb == 'score' and math.isfinite(float(argument)):
            return lambda ranked, found, rows: _scoring(float(argument), found, rows)
        if text.isdecimal():  # not isdigit(): int() refuses a superscript
            return lambda ranked, found, rows: _numbered(int(text), ranked, rows)
    except ValueError:
        pass  # the number is none
    if verb == 'class' and argument:
        label = find_label(argument, names)
        return lambda ranked, found, rows: _of_class(label, argument, found, rows, names)
    raise ValueError(f'target {text!r} is not understood: give {FORMS}')


def _scoring(least: float, found: Detections, rows: Rows) -> tuple[Rows, str]:
    kept = [row for row in rows if float(found.scores[row]) >= least]
    best = max((float(found.scores[row]) for row in rows), default=0.0)
    return kept, f'no detection scores {least:g} or more: the best of {len(rows)} has {best:.3g}'


def _numbered(number: int, ranked: Rows, rows: Rows) -> tuple[Rows, str]:
    kept = [row for row in ranked[number : number + 1] if row in rows]
    return kept, f'there is no detection {number}: {len(ranked)} are predicted, numbered from 0'


def _of_class(label: int, name: str, found: Detections, rows: Rows, names: Sequence[str]) -> tuple[Rows, str]:
    kept = [row for row in rows if int(found.labels[row]) == label]
    others = list(dict.fromkeys(label_name(int(found.labels[row]), names) for row in rows))
    return kept, f'none of the {len(rows)} detections is of the class {name}: they are {first_names(others)}'


def _detection_chooser(steps: Sequence[Step], of: str) -> Callable:
    def choose(image: int, found: Detections, sample: Any) -> tuple[list[Target], str]:
        ranked = rows = _finite_rows(found)
        if not rows:
            return [], 'the detector predicts no box here'
        for step in steps:
            rows, reason = step(ranked, found, rows)
            if not rows:
                return [], reason
        return [_target(image, row, ranked.index(row), 'detection', found, of) for row in rows], ''

    return choose


def _drawn_chooser(words: Sequence[str], number: int, of: str, names: Sequence[str]) -> Callable:
    try:
        box = tuple(float(word) for word in words[:4])
        left, top, right, bottom = box
    except ValueError:
        raise ValueError(f'a drawn box must be {FORMS.split(", ")[-2]}, but is {"box " + " ".join(words)!r}') from None
    if not (-math.inf < left < right < math.inf and -math.inf < top < bottom < math.inf):
        raise ValueError(f'box {" ".join(words[:4])} has no area: give left, top, right, bottom in pixels')
    label = find_label(' '.join(words[4:]), names) if words[4:] else None

    def choose(image: int, found: Detections, sample: Any) -> tuple[list[Target], str]:
        target = best_candidate(image, number, 'drawn box', found, box, label, of)
        of_class = '' if label is None else f' of the class {label_name(label, names)}'
        return [target] if target else [], _why_none(
            found, f'no candidate{of_class} overlaps the box {" ".join(words[:4])}'
        )

    return choose


def _truth_chooser(of: str, names: Sequence[str]) -> Callable:
    def choose(image: int, found: Detections, sample: Any) -> tuple[list[Target], str]:
        truth = getattr(sample, 'gt_instances', None)
        if not has_all(truth, 'bboxes', 'labels') or not len(truth):
            return [], 'there is no ground truth: give a sample of a data set that has its annotations'
        targets = [
            best_candidate(image, number, 'ground truth', found, tuple(box), label, of)
            for number, (box, label) in enumerate(zip(corners_of(truth.bboxes).tolist(), truth.labels.tolist()))
        ]
        reason = 'no candidate overlaps a ground-truth box of its class'
        return [target for target in targets if target], _why_none(found, reason)

    return choose


def _why_none(found: Detections, otherwise: str) -> str:
    """Why no candidate overlaps a box: of detectors that predict masks alone, such as SOLO, no box has an area."""
    has_area = (found.bboxes[:, 2:] > found.bboxes[:, :2]).all(1).any()
    return 'the boxes that the detector predicts have no area' if len(found) and not has_area else otherwise


def best_candidate(
    image: int, number: int, kind: str, found: Detections, box: tuple, label: int | None, of: str
) -> Target | None:
    """Return the candidate with the largest product of overlap and score, if it overlaps the box at all.

    Args:
        image: Index of the image in its batch.
        number: Number of the target.
        kind: Kind of the target.
        found: The candidates.
        box: Left, top, right, bottom, in pixels of the image.
        label: Class index of the candidate; None is any.
        of: What is explained: a key of `PARTS`.
    """
    overlap = overlaps(found.bboxes, found.bboxes.new_tensor(box))
    fit = (overlap * found.scores).nan_to_num(0)
    if label is not None:
        fit = fit * (found.labels == label)
    if not len(fit) or not float(fit.max()) > 0:
        return None
    row = int(fit.argmax())
    return _target(image, row, number, kind, found, of, wanted=box, overlap=float(overlap[row]))


def _target(image: int, row: int, number: int, kind: str, found: Detections, of: str, **extra: Any) -> Target:
    bbox = tuple(found.bboxes[row].tolist())
    return Target(image, row, number, kind, bbox, int(found.labels[row]), float(found.scores[row]), of, **extra)


def _finite_rows(found: Detections) -> list[int]:
    """Indices of the detections that are numbers, by descending score."""
    finite = torch.isfinite(found.bboxes).all(1) & torch.isfinite(found.scores)
    order = found.scores.sort(descending=True, stable=True).indices
    return order[finite[order]].tolist()
