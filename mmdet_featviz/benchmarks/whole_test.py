"""Whole-test benchmark: the time of a detector's test over a data set, with the hook and without, and the floor."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import cv2
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.runner import Runner

from mmdet_featviz.benchmarks.demo_data import make_split
from mmdet_featviz.benchmarks.timing import time_in_turns
from mmdet_featviz.engine.hooks.featviz_hook import FeatVizHook
from mmdet_featviz.runs.schedule import AUTO

WORKERS = (0, 1, 2, AUTO)
DRAWN_AT_END = {  # from principal components of all images
    "save='embeddings'": dict(save=('overlay', 'embeddings')),
    "reduction='pca'": dict(reduction='pca'),
}
DETECTORS = {'ATSS-R50': 'atss/atss_r50_fpn_1x_coco.py', 'YOLOX-nano': 'yolox/yolox_nano_8xb8-300e_coco.py'}


def measure_test(args: argparse.Namespace) -> dict[str, dict]:
    """Time the tests of detectors: with each setting of `workers`, with components, without the hook, and the floor.

    The floor is what drawing cannot avoid: decode each image, encode the same pictures, write them.

    Args:
        args: Options of the command line: `detectors`, `batches`, `checkpoint`, `images` and `rounds` are used.

    Returns:
        ``seconds``: median elapsed and processor seconds by detector and way; ``ratios`` of a test with the hook to one
        without, of a test with components to one that only draws, and of the processor time that the hook adds to that
        of the floor.
    """
    result: dict[str, dict] = dict(seconds={}, ratios={})
    for detector in args.detectors:
        with tempfile.TemporaryDirectory() as folder:
            seconds = time_in_turns(_ways(detector, Path(folder), args), args.rounds)
        result['seconds'].update({f'{detector} {way}': median for way, median in seconds.items()})
        result['ratios'].update({f'{detector} {name}': ratio for name, ratio in ratios_of(seconds).items()})
    return result


def ratios_of(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Compare a test with the hook to one without.

    Args:
        seconds: Elapsed and processor seconds of ``without``, ``floor``, each setting of `workers`, and those of
            `DRAWN_AT_END`.
    """
    ratios = {}
    for way in seconds.keys() & DRAWN_AT_END.keys():
        for index, suffix in enumerate(('', ', processor')):
            ratios[f'{way} / workers={AUTO}{suffix}'] = seconds[way][index] / seconds[f'workers={AUTO}'][index]
    for way in seconds.keys() - {'without', 'floor'}:
        ratios[f'{way} / without'] = seconds[way][0] / seconds['without'][0]
        ratios[f'{way} / without, processor'] = seconds[way][1] / seconds['without'][1]
        ratios[f'{way} - without / floor, processor'] = (seconds[way][1] - seconds['without'][1]) / seconds['floor'][1]
    return dict(sorted(ratios.items()))


def _ways(detector: str, folder: Path, args: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """The tests of a detector, and the floor of their pictures."""
    # Several batches: the pictures of the last one can only be drawn after it, not beside inference.
    images = args.batches * load_config(detector).test_dataloader.batch_size
    write_scenes(folder / 'data', images, originals=args.images)
    runner = build_runner(detector, folder / 'data', folder / 'work', images, args.checkpoint)
    numbers = itertools.count()

    def test(workers: int | str, **options: Any) -> Path:
        hook = FeatVizHook(out_dir=str(folder / f'out_{next(numbers)}'), workers=workers, **options)
        runner.register_hook(hook)
        runner.test()
        runner.hooks.remove(hook)
        assert 'skipped' not in hook.visualizer.summary(), hook.visualizer.summary()
        return Path(hook.visualizer.out_dir)

    drawn = test(workers=0)
    pictures = {file.relative_to(drawn): cv2.imread(str(file)) for file in drawn.rglob('*.jpg')}

    def floor() -> None:
        for image in (folder / 'data' / 'val').iterdir():
            cv2.imread(str(image))
        out = folder / f'out_{next(numbers)}'
        for name, picture in pictures.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(cv2.imencode('.jpg', picture)[1])

    tests = {f'workers={workers}': partial(test, workers) for workers in WORKERS}
    tests.update({name: partial(test, AUTO, **options) for name, options in DRAWN_AT_END.items()})
    return {'without': runner.test, **tests, 'floor': floor}


def load_config(detector: str) -> Config:
    """mmdet's own config of a detector."""
    return get_config(f'mmdet::{DETECTORS[detector]}')


def write_scenes(folder: Path, count: int, distinct: int = 100, originals: Path | None = None) -> None:
    """Write a data set of images, labeled with classes of COCO, which the detectors know.

    Args:
        folder: Folder for the data set.
        count: Number of images.
        distinct: Number of different demo scenes; further ones are links to them under other names.
        originals: Folder with the images to use, without boxes; None means demo scenes.
    """
    if originals is None:
        make_split(folder, 'val', min(count, distinct))
        content = json.loads((folder / 'val.json').read_text())
    else:
        content = _copy_images(folder, sorted(originals.iterdir())[:count])
    content['categories'] = [dict(id=n, name=name) for n, name in enumerate(CocoDataset.METAINFO['classes'], 1)]
    entries = list(content['images'])
    for number in range(len(entries), count):
        original = entries[number % len(entries)]
        name = f'again_{number:05d}{Path(original["file_name"]).suffix}'
        os.link(folder / 'val' / original['file_name'], folder / 'val' / name)
        content['images'].append({**original, 'id': number + 1, 'file_name': name})
    (folder / 'val.json').write_text(json.dumps(content))


def _copy_images(folder: Path, files: Sequence[Path]) -> dict[str, list]:
    """Copy images into a data set, and return its annotations: one box per image, as COCO's metric needs some."""
    (folder / 'val').mkdir(parents=True)
    images, boxes = [], []
    for file in files:
        image = cv2.imread(str(file))
        if image is not None:
            height, width = image.shape[:2]
            shutil.copy(file, folder / 'val' / file.name)
            images.append(dict(id=len(images) + 1, file_name=file.name, height=height, width=width))
            box = dict(bbox=[0, 0, width, height], area=width * height, category_id=1, iscrowd=0)
            boxes.append(dict(box, id=len(images), image_id=len(images)))
    return dict(images=images, annotations=boxes)


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
