"""Whole-test benchmark: the time of a detector's test over a data set, with the hook and without."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Sequence

from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.runner import Runner

from mmdet_featviz.benchmarks.demo_data import make_split
from mmdet_featviz.benchmarks.timing import time_in_turns
from mmdet_featviz.engine.hooks.featviz_hook import FeatVizHook

DETECTORS = {'ATSS-R50': 'atss/atss_r50_fpn_1x_coco.py', 'YOLOX-nano': 'yolox/yolox_nano_8xb8-300e_coco.py'}


def measure_test(args: argparse.Namespace) -> dict[str, dict]:
    """Time the tests of detectors.

    Args:
        args: Options of the command line: `detectors`, `batches`, `checkpoint`, `workers` and `rounds` are used.

    Returns:
        ``seconds``: median elapsed and processor seconds by detector; ``ratios`` with the hook / without.
    """
    result: dict[str, dict] = dict(seconds={}, ratios={})
    for detector in args.detectors:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / 'data'
            # Several batches: the pictures of the last one can only be drawn after it, not beside inference.
            images = args.batches * load_config(detector).test_dataloader.batch_size
            write_scenes(data, images)
            runner = build_runner(detector, data, Path(folder) / 'work', images, args.checkpoint)
            numbers = iter(range(1000))

            def test_with_hook(runner=runner, folder=folder, numbers=numbers):
                hook = FeatVizHook(out_dir=f'{folder}/{next(numbers)}', workers=args.workers)
                runner.register_hook(hook)
                runner.test()
                runner.hooks.remove(hook)
                assert 'skipped' not in hook.visualizer.summary(), hook.visualizer.summary()

            medians = time_in_turns({'without': runner.test, 'with': test_with_hook}, args.rounds)
        result['seconds'].update({f'{detector} {name}': median for name, median in medians.items()})
        result['ratios'][f'{detector} with / without'] = medians['with'][0] / medians['without'][0]
        result['ratios'][f'{detector} with / without, processor'] = medians['with'][1] / medians['without'][1]
    return result


def load_config(detector: str) -> Config:
    """mmdet's own config of a detector."""
    return get_config(f'mmdet::{DETECTORS[detector]}')


def write_scenes(folder: Path, count: int, distinct: int = 100) -> None:
    """Write a data set of demo scenes, labeled with classes of COCO, which the detectors know.

    Args:
        folder: Folder for the data set.
        count: Number of images.
        distinct: Number of different images; further ones are links to them under other names.
    """
    make_split(folder, 'val', min(count, distinct))
    content = json.loads((folder / 'val.json').read_text())
    content['categories'] = [dict(id=n, name=name) for n, name in enumerate(CocoDataset.METAINFO['classes'], 1)]
    originals = list(content['images'])
    for number in range(len(originals), count):
        original = originals[number % len(originals)]
        name = f'again_{number:05d}.jpg'
        os.link(folder / 'val' / original['file_name'], folder / 'val' / name)
        content['images'].append({**original, 'id': number + 1, 'file_name': name})
    (folder / 'val.json').write_text(json.dumps(content))


def build_runner(
    detector: str,
    data: Path,
    work_dir: Path,
    images: int,
    checkpoint: str | None = None,
    hooks: Sequence[Hook] = (),
) -> Runner:
    """A runner that tests a detector on demo scenes.

    Args:
        detector: One of `DETECTORS`.
        data: Folder of the data set.
        work_dir: Work folder of the runner.
        images: Number of images to test on.
        checkpoint: Weights of YOLOX-nano; None means random weights.
        hooks: Custom hooks.
    """
    cfg = load_config(detector)
    cfg.model.backbone.init_cfg = None
    dataset = dict(
        type='CocoDataset',
        data_root=str(data),
        ann_file='val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        indices=images,
        pipeline=cfg.test_dataloader.dataset.pipeline,
    )
    return Runner(
        cfg.model,
        str(work_dir),
        test_dataloader={**cfg.test_dataloader, 'dataset': dataset},
        test_evaluator=dict(type='CocoMetric', ann_file=str(data / 'val.json'), proposal_nums=(1, 10, 100)),
        test_cfg=dict(type='TestLoop'),
        custom_hooks=list(hooks),
        env_cfg=cfg.env_cfg,
        default_scope='mmdet',
        log_level='ERROR',
        load_from=checkpoint if detector == 'YOLOX-nano' else None,
        randomness=dict(seed=0),
        experiment_name=f'{Path(work_dir).name}_{time.time()}',
    )
