"""Head scores: what a detector's head says at each cell, as the probability of each class, before suppression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Iterator, Sequence

import torch
from mmdet.models.dense_heads import CornerHead, DETRHead, PAAHead, RPNHead, SABLRetinaHead, YOLOXHead
from torch import Tensor, nn

from mmdet_featviz.capture.strides import nominal_stride

PROPOSALS = 'rpn_head'
HEADS = ('bbox_head', 'panoptic_head', 'mask_head')  # of these, the first that a detector has
PRIORS = ('prior_generator', 'square_anchor_generator')

# Index of an image and class indices → (1 + classes, rows, columns): the best class of each cell, then the given ones.
Scores = Callable[[int, Sequence[int]], Tensor]


class ScoreError(ValueError):
    """A head has no scores by cell, or their form is not known."""


@dataclass(frozen=True)
class ScoreLevel:
    """The scores at the cells of one level of a head, for a batch.

    Attributes:
        cells: (rows, columns).
        stride: (vertical, horizontal) distance of neighboring cells, in pixels of the network's input.
        offset: (vertical, horizontal) position of the first cell: the center of its anchors, or its point.
        scores: Computes the probabilities of one image.
    """

    cells: tuple[int, int]
    stride: tuple[float, float]
    offset: tuple[float, float]
    scores: Scores


def find_heads(model: nn.Module, branch: str = '') -> dict[str, nn.Module]:
    """Return {path: module} of the heads that score cells: the one that predicts, and the one that proposes regions.

    Args:
        model: The detector.
        branch: Prefix of the branch that predicts, such as ``teacher.``.

    Raises:
        ValueError: If there is none. The heads of DETRs score queries, and those of two-stage detectors regions.
    """
    modules = dict(model.named_modules())
    named = {
        name: modules[name]
        for name in (f'{branch}{part}{head}' for part in ('', 'detector.') for head in (PROPOSALS, *HEADS))
        if hasattr(modules.get(name), 'predict_by_feat')
    }
    queries = [name for name, head in named.items() if isinstance(head, DETRHead)]
    if queries:
        raise ValueError(
            f'{queries[0]} ({type(named[queries[0]]).__name__}) scores queries, not cells, so there are no class-score '
            'maps: explain() shows why single detections are there'
        )
    predicting = [name for name, head in named.items() if not proposes(name, head)][:1]
    found = {name: head for name, head in named.items() if proposes(name, head) or name in predicting}
    if not found:
        raise ValueError(
            f'{type(model).__name__} has no head that scores cells, so there are no class-score maps: none of '
            f'{", ".join((PROPOSALS, *HEADS))}'
        )
    return found


def proposes(name: str, head: nn.Module) -> bool:
    """Whether a head proposes regions that may hold an object of any class; `name` is its path."""
    return name.rpartition('.')[2] == PROPOSALS or isinstance(head, RPNHead)


def read_scores(head: nn.Module, outputs: Any, pixels: tuple[int, int]) -> list[ScoreLevel]:
    """Find the scores in what a head returned; nothing is computed yet.

    Args:
        head: The head.
        outputs: What its forward returned.
        pixels: (height, width) of the network's input.

    Raises:
        ScoreError: If the form of the outputs is not known.
    """
    read = next((read for has_form, read in FORMS if has_form(head)), _read_nothing)
    try:
        found = list(read(head, outputs))
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ScoreError(f'the outputs of {type(head).__name__} have no scores of a known form ({error})') from error
    return [
        ScoreLevel(cells, *_place(head, number, cells, pixels), scores) for number, (cells, scores) in enumerate(found)
    ]


def is_exact(head: nn.Module) -> bool:
    """Whether the score of a detection is that of its cell; masks and pairs of corners have scores of their own."""
    return not (_has_corners(head) or _has_masks(head) or _has_grids(head))


def merge_levels(levels: Sequence[ScoreLevel], maps: Sequence[Tensor]) -> tuple[ScoreLevel, Tensor]:
    """Merge the maps of all levels by their maximum.

    The merged map has half the stride of the finest level: the cells of all levels are then among its cells, so that
    no peak is lost.

    Args:
        levels: The levels.
        maps: The values (K, rows, columns) of each level, float32.

    Returns:
        The merged level, and its values (K, rows, columns).
    """
    finest = min(levels, key=lambda level: level.stride)
    cells, stride = tuple(2 * count for count in finest.cells), tuple(step / 2 for step in finest.stride)
    merged = ScoreLevel(cells, stride, finest.offset, finest.scores)
    on_image = [
        _interpolate(_interpolate(values.nan_to_num(0), level, merged, 0), level, merged, 1)
        for level, values in zip(levels, maps)
    ]
    return merged, torch.stack(on_image).amax(0)


def _interpolate(values: Tensor, level: ScoreLevel, merged: ScoreLevel, axis: int) -> Tensor:
    """Interpolate a level linearly at the cells of the merged one, along rows (0) or columns (1).

    Not as a product of matrices, which autocast would compute in half precision.
    """
    positions = merged.offset[axis] + merged.stride[axis] * torch.arange(merged.cells[axis], dtype=torch.float64)
    in_cells = ((positions - level.offset[axis]) / level.stride[axis]).clamp(0, level.cells[axis] - 1)
    before = in_cells.floor().long()
    part = (in_cells - before).to(values)
    part = part[:, None] if axis == 0 else part
    first, second = (
        values.index_select(axis + 1, index.to(values.device))
        for index in (before, (before + 1).clamp(max=level.cells[axis] - 1))
    )
    return first * (1 - part) + second * part


def _place(
    head: nn.Module, number: int, cells: tuple[int, int], pixels: tuple[int, int]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return stride and offset of a level: those of the head's anchors or points, or of cells that divide the input."""
    generator = priors_of(head)
    if generator is None:
        nominal = None if _has_grids(head) else nominal_stride(cells, pixels)
        stride = nominal or tuple(size / count for size, count in zip(pixels, cells))
        return stride, tuple(step / 2 for step in stride)
    priors = generator.single_level_grid_priors((1, 1), level_idx=number, device='cpu')
    priors = getattr(priors, 'tensor', priors)
    centers = (priors[:, :2] + priors[:, 2:]) / 2 if priors.shape[1] == 4 else priors[:, :2]
    x, y = centers.mean(0).tolist()
    across, down = (float(step) for step in generator.strides[number])
    if isinstance(head, YOLOXHead):  # its points are the corners of its cells; its training assigns objects to centers
        x, y = x + across / 2, y + down / 2
    return (down, across), (y, x)


def priors_of(head: nn.Module) -> Any:
    """The generator of a head's anchors or points; None if it has none."""
    return next((getattr(head, name) for name in PRIORS if hasattr(head, name)), None)


# How heads return their scores. Each function yields (rows, columns) and the scores of each level.


def _read_dense(head: nn.Module, outputs: Any) -> Iterator[tuple[tuple[int, int], Scores]]:
    """Logits (N, anchors * classes, rows, columns) come first; objectness or centerness, if there is one, third."""
    counts = priors_of(head).num_base_priors
    # One number for each anchor: coefficients of masks, shapes of anchors and boxes have more.
    third = outputs[2] if len(outputs) > 2 else [None] * len(outputs[0])
    for logits, factor, anchors in zip(outputs[0], third, counts):
        expected = anchors * head.cls_out_channels
        if logits.dim() != 4 or logits.shape[1] != expected:
            raise ValueError(f'{tuple(logits.shape)} instead of {expected} channels')
        has_factor = isinstance(factor, Tensor) and factor.shape[1:] == (anchors, *logits.shape[2:])
        yield tuple(logits.shape[2:]), partial(_dense_scores, head, logits, factor if has_factor else None, anchors)


def _dense_scores(
    head: nn.Module, logits: Tensor, factor: Tensor | None, anchors: int, image: int, labels: Sequence[int]
) -> Tensor:
    classes = logits[image].unflatten(0, (anchors, head.cls_out_channels)).movedim(1, -1)
    scores = _activate(head, classes)
    if factor is not None:
        scores = scores * factor[image].sigmoid()[..., None]
    if isinstance(head, PAAHead):  # the geometric mean of class and predicted overlap
        scores = scores.sqrt()
    return _best_and(scores.amax(0).movedim(-1, 0), labels)


def _activate(head: nn.Module, logits: Tensor) -> Tensor:
    """Probabilities (..., classes), without the background, as the head itself computes them from logits."""
    loss = getattr(head, 'loss_cls', None)
    if getattr(loss, 'activated', False):  # task-aligned heads return probabilities
        return logits
    if getattr(loss, 'custom_cls_channels', False):
        return loss.get_activation(logits.flatten(0, -2))[:, : head.num_classes].unflatten(0, logits.shape[:-1])
    return logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[..., :-1]


def _read_sides(head: nn.Module, outputs: Any) -> Iterator[tuple[tuple[int, int], Scores]]:
    """SABL multiplies the classes by how sure it is of the sides of the box."""
    for (cells, scores), sides in zip(_read_dense(head, outputs), outputs[1]):
        yield cells, partial(_scores_with_sides, head, scores, sides)


def _scores_with_sides(
    head: nn.Module, scores: Scores, sides: Sequence[Tensor], image: int, labels: Sequence[int]
) -> Tensor:
    rows, columns = sides[0].shape[2:]
    by_cell = [part[image].flatten(1).T.contiguous() for part in sides]  # (cells, 4 sides * buckets)
    anywhere = by_cell[0].new_zeros(rows * columns, 4)
    return scores(image, labels) * head.bbox_coder.decode(anywhere, by_cell)[1].view(rows, columns)


def _read_yolo(head: nn.Module, outputs: Any) -> Iterator[tuple[tuple[int, int], Scores]]:
    """Of each anchor: four numbers of the box, the objectness, and the classes."""
    for level in outputs[0]:
        yield tuple(level.shape[2:]), partial(_yolo_scores, level, head.num_attrib)


def _yolo_scores(level: Tensor, attributes: int, image: int, labels: Sequence[int]) -> Tensor:
    anchors = level[image].unflatten(0, (-1, attributes))
    return _best_and((anchors[:, 5:].sigmoid() * anchors[:, 4:5].sigmoid()).amax(0), labels)


def _read_heatmaps(head: nn.Module, outputs: Any) -> Iterator[tuple[tuple[int, int], Scores]]:
    """CenterNet's heatmaps are probabilities."""
    for heatmap in outputs[0]:
        yield tuple(heatmap.shape[2:]), partial(_map_scores, heatmap, False)


def _read_corners(head: nn.Module, outputs: Any) -> Iterator[tuple[tuple[int, int], Scores]]:
    """Two levels: top left and bottom right corners, of the last of the stacked networks."""
    for heatmaps in outputs[:2]:
        yield tuple(heatmaps[-1].shape[2:]), partial(_map_scores, heatmaps[-1], True)


def _read_grids(head: nn.Module, outputs: Any) -> Iterator[tuple[tuple[int, int], Scores]]:
    """SOLO's classes of the cells of a square grid over the input. In a test, SOLO keeps only local maxima."""
    is_dynamic = hasattr(head, 'mask_feature_head')  # SOLOv2
    for level in outputs[1 if is_dynamic else -1]:
        yield tuple(level.shape[2:]), partial(_map_scores, level, is_dynamic or head.training)


def _map_scores(level: Tensor, are_logits: bool, image: int, labels: Sequence[int]) -> Tensor:
    return _best_and(level[image].sigmoid() if are_logits else level[image], labels)


def _read_queries(head: nn.Module, outputs: Any) -> Iterator[tuple[tuple[int, int], Scores]]:
    """Of the last decoder layer: classes of the queries, with the background last, and their masks."""
    classes, masks = outputs[0][-1], outputs[1][-1]
    yield tuple(masks.shape[2:]), partial(_query_scores, classes, masks)


def _query_scores(classes: Tensor, masks: Tensor, image: int, labels: Sequence[int]) -> Tensor:
    """The largest product of class and mask of a query, at each cell."""
    by_query, masks = classes[image].softmax(-1)[:, :-1], masks[image].sigmoid()
    weights = _best_and(by_query.T[..., None], labels)[..., 0]  # (1 + labels, queries)
    return torch.stack([(masks * weight[:, None, None]).amax(0) for weight in weights])


def _read_nothing(head: nn.Module, outputs: Any) -> Iterator[tuple[tuple[int, int], Scores]]:
    raise ValueError('it has neither anchors nor points')


def _best_and(classes: Tensor, labels: Sequence[int]) -> Tensor:
    """The best class of each cell, and the given ones (1 + labels, rows, columns), of all (classes, rows, columns)."""
    return torch.cat([classes.amax(0, keepdim=True), classes[list(labels)]])


def _has_corners(head: nn.Module) -> bool:
    return isinstance(head, CornerHead)


def _has_masks(head: nn.Module) -> bool:
    return hasattr(head, 'mask_embed')


def _has_grids(head: nn.Module) -> bool:
    return hasattr(head, 'num_grids')


FORMS = (
    (_has_corners, _read_corners),
    (_has_masks, _read_queries),
    (_has_grids, _read_grids),
    (lambda head: hasattr(head, 'heatmap_head'), _read_heatmaps),
    (lambda head: hasattr(head, 'num_attrib'), _read_yolo),
    (lambda head: isinstance(head, SABLRetinaHead), _read_sides),
    (lambda head: priors_of(head) is not None and hasattr(head, 'cls_out_channels'), _read_dense),
)
