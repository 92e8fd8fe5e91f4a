"""Explanation benchmark: the time of explanations, compared with plain predictions of the same detector."""

from __future__ import annotations

import argparse
import copy
from functools import partial
from typing import Any, Callable

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from torch import nn

from mmdet_featviz.benchmarks.drawing_case import smooth_image
from mmdet_featviz.benchmarks.timing import set_threads, time_in_turns
from mmdet_featviz.benchmarks.whole_test import load_config
from mmdet_featviz.capture.reductions import get_reduction
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.explanation.detections import detections_of
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.request import ExplanationRequest

SIZE = 800, 1333  # height and width of the network's input before padding
BOXES = 10
MASKS, MASKED_SIZE, BATCH = 16, (320, 480), 4  # of D-RISE: images per call, and per batch


def measure_explaining(args: argparse.Namespace) -> dict[str, dict]:
    """Time explanations of ATSS-R50 with random weights by `odam`, and those of D-RISE.

    `plain` is a test step without the hook. `in a test` explains ten of the boxes that a test step has predicted, two
    of each level of the neck as far as they have so many, with the features that its taps have kept. `alone` predicts
    them, too.

    Args:
        args: Options of the command line: `threads` and `rounds` are used.

    Returns:
        ``seconds``: median elapsed and processor seconds by way; ``ratios`` between them.
    """
    set_threads(args.threads)
    model = _detector()
    ways = {**_gradient_ways(model), **_masking_ways(model)}
    seconds = time_in_turns(ways, args.rounds)
    ratios = {}
    for index, suffix in enumerate(('', ', processor')):
        plain = seconds['plain test step'][index]
        for name in ('in a test', 'alone'):
            ratios[f'odam {name} / plain test step{suffix}'] = seconds[f'odam {name}'][index] / plain
        loop = seconds['plain loop'][index]
        ratios[f'forward passes per second, D-RISE / plain loop{suffix}'] = loop / seconds['D-RISE'][index]
    return dict(seconds=seconds, ratios=ratios)


def _detector() -> nn.Module:
    torch.manual_seed(0)
    cfg = load_config('ATSS-R50').model
    cfg.backbone.init_cfg = None
    return MODELS.build(cfg).eval()


def _batch(size: tuple[int, int]) -> dict[str, Any]:
    """A batch with one image of this height and width, as a data loader returns it."""
    meta = dict(ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0), img_id=0, img_path=None)
    pixels = torch.from_numpy(smooth_image(size)).permute(2, 0, 1).contiguous()
    return dict(inputs=[pixels], data_samples=[DetDataSample(metainfo=meta)])


def _plain_step(model: nn.Module, data: dict[str, Any]) -> list[DetDataSample]:
    with torch.no_grad():
        return model.test_step(dict(data, data_samples=copy.deepcopy(data['data_samples'])))


def _gradient_ways(model: nn.Module) -> dict[str, Callable[[], Any]]:
    data = _batch(SIZE)
    with Taps(model, (), get_reduction('max'), keep_features=True) as taps:
        found = [detections_of(sample) for sample in _plain_step(model, data)]
    (pass_,) = taps.take()
    batch = partial(DetectorBatch, model, data, detections=found, features=pass_.features)
    request = ExplanationRequest(targets=_two_of_each_level(batch()))
    return {
        'plain test step': partial(_plain_step, model, data),
        'odam in a test': lambda: request.explain(batch(), ()),
        'odam alone': lambda: request.explain(DetectorBatch(model, data), ()),
    }


def _two_of_each_level(batch: DetectorBatch) -> list[int]:
    """Numbers of ten boxes, in order of score: two that were found at each level, as far as they have so many."""
    maps = ExplanationRequest(targets='top 30').explain(batch, ())
    taken: dict[str, list[int]] = {}
    for target, levels in maps.items():
        hottest = max(levels, key=lambda level: float(level.values.sum()))
        taken.setdefault(hottest.name, []).append(target.number)
    chosen = [number for numbers in taken.values() for number in numbers[:2]]
    others = [number for numbers in taken.values() for number in numbers[2:]]
    return sorted([*chosen, *others][:BOXES])


def _masking_ways(model: nn.Module) -> dict[str, Callable[[], Any]]:
    data = _batch(MASKED_SIZE)
    found = [detections_of(sample) for sample in _plain_step(model, data)]
    request = ExplanationRequest('drise', targets=f'top {BOXES}', options=dict(masks=MASKS, batch_size=BATCH))
    several = {name: values * BATCH for name, values in data.items()}

    def plain_loop() -> None:
        for _ in range(MASKS // BATCH):
            _plain_step(model, several)

    return {
        'plain loop': plain_loop,
        'D-RISE': lambda: request.explain(DetectorBatch(model, data, detections=found), ()),
    }
