"""Attention methods: explain detections by where the decoder's query that made them looks in the image."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Sequence

import numpy as np

from mmdet_featviz.capture.activation_map import ActivationMap
from mmdet_featviz.explanation.decoder_record import DecoderRecord
from mmdet_featviz.explanation.detections import Detections
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.differentiable import gradients_of
from mmdet_featviz.explanation.targets import Target
from mmdet_featviz.registry import EXPLAINERS
from mmdet_featviz.structures.snapshot import Level


class Query(NamedTuple):
    """A query of the decoder.

    Attributes:
        image: Index of its image in the batch.
        index: Its index among the queries of the image.
        call: Which call of the decoder it belongs to: Grounding DINO decodes once for each part of a long caption.
    """

    image: int
    index: int
    call: int


@EXPLAINERS.register_module(name='attention')
def attention(batch: DetectorBatch, targets: Sequence[Target]) -> list[list[Level]]:
    """Attention: where the query that made the box looks in the image, in DETRs and mask transformers.

    The map is that of the cross-attention of the last decoder layer, or of the layers that are named, as the mean over
    heads. In deformable attention, each sampling point adds its weight to the cells that it is interpolated from.
    """
    if any(target.of != 'score' for target in targets):
        raise ValueError("attention is that of a query, which predicts score and box together: use of='score'")
    with batch.attended_pass() as (observed, record):
        queries = [_query_of(target, observed.detections[target.image], record, batch) for target in targets]
        if not any(queries):
            raise ValueError('the score of the detections does not depend on any query, as that of an empty mask')
        return [_levels(query, record, observed.pass_.maps) for query in queries]


def _levels(query: Query | None, record: DecoderRecord, maps: Sequence[ActivationMap]) -> list[Level]:
    """Return what a query looks at in each recorded layer; no heat if there is no query."""
    image, index, call = query or Query(0, 0, 0)
    levels = [
        level for layer, calls in record.attention.items() for level in calls[call].levels(layer, image, index, maps)
    ]
    return levels if query else [replace(one, values=np.zeros_like(one.values), points=None) for one in levels]


def _query_of(target: Target, detections: Detections, record: DecoderRecord, batch: DetectorBatch) -> Query | None:
    """Find the query that made a detection; None if its score depends on none, such as that of an empty mask.

    After the decoder, queries do not meet any more: a head takes each one alone, and then only selects. So a detection
    has a gradient to the output of one query, whatever the head selects by.
    """
    # The box, too: a score of exactly 0 or 1 has no gradient.
    numbers = [part[target.index] for part in (detections.scores, detections.bboxes) if part.requires_grad]
    if not numbers:
        raise ValueError(
            f"the score that {type(batch.model).__name__} predicts carries no gradient to its queries: method='drise' "
            'needs none'
        )
    found = [
        Query(target.image, index, call)
        for call, gradient in enumerate(gradients_of(numbers, record.outputs))
        if gradient is not None
        for index in gradient[target.image].nan_to_num(0).abs().amax(1).nonzero()[:, 0].tolist()
    ]
    if len(found) > 1:
        raise ValueError(
            f'{len(found)} queries of {type(batch.model).__name__} make one detection together, so that there is no '
            "attention of its own: method='odam' explains it"
        )
    return found[0] if found else None
