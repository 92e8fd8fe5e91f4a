"""Zoo coverage: tries the package on configs of mmdet's model zoo, each in a process of its own.

With random weights, on one image: predictions with and without the package are compared, every level is drawn, a patch
is moved over a plain image to see whether the heat follows it, and the top detection is explained, with gradients and
without.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import torch
from mmengine.structures import BaseDataElement

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.benchmarks.coverage_table import write_table
from mmdet_featviz.benchmarks.explanation_placement import explanation_placement
from mmdet_featviz.benchmarks.masked_explanation import masked_explanation
from mmdet_featviz.benchmarks.patch_placement import PICTURE, level_placements, settle_weights
from mmdet_featviz.benchmarks.zoo_models import LARGER, build, packed, pipeline_of, small
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.utils.messages import one_line

# A fork server imports mmdet once for all configs.
PROCESSES = multiprocessing.get_context('forkserver' if os.name == 'posix' else 'spawn')
OWN_CONFIGS = Path(__file__).parent / 'zoo_configs'  # of what mmdet's model zoo lacks
MAX_ATTEMPTS = 4  # configs of a family that are tried until one runs
# Folders of trackers, which have test loops of their own, and of parts of configs.
NO_DETECTORS = {'bytetrack', 'common', 'deepsort', 'mask2former_vis', 'masktrack_rcnn', 'ocsort', 'qdtrack', 'reid'}
NO_DETECTORS |= {'sort', 'strongsort'}


def run_coverage(args: argparse.Namespace) -> int:
    """Try configs of the model zoo and write the table of the results.

    Args:
        args: Options of the command ``featviz coverage``.

    Returns:
        The exit code: 1 if a level or an explanation is placed wrong or predictions differ, else 0.
    """
    PROCESSES.set_forkserver_preload(['mmdet.datasets', 'mmdet.models', 'mmdet.utils', 'mmdet_featviz'])
    with tempfile.TemporaryDirectory() as folder:
        if args.image is None:
            import cv2

            from mmdet_featviz.benchmarks.demo_data import make_scene

            args.image = Path(folder) / 'scene.png'
            cv2.imwrite(str(args.image), make_scene('val', 0)[0])
        families = [family for family in find_families(args.families) if configs_of(family)]
        with ThreadPoolExecutor(args.jobs) as pool:
            rows = pool.map(lambda family: rows_of(family, args), families)
            results = dict(zip((family.name for family in families), rows))
        return 0 if write_table(args.out, results) else 1


def find_families(names: Sequence[str]) -> list[Path]:
    """The folders of these names, or all folders that have detectors: of mmdet's model zoo, and those added here."""
    folders = [*zoo().iterdir(), *OWN_CONFIGS.iterdir()]
    known = {path.name: path for path in folders if path.name not in NO_DETECTORS and path.name[0] != '_'}
    return [known.get(name, zoo() / name) for name in names or sorted(known)]


def zoo() -> Path:
    """The folder of configs inside the installed mmdet."""
    import mmdet

    return Path(mmdet.__file__).parent / '.mim' / 'configs'


def configs_of(family: Path) -> list[Path]:
    """The configs in a folder, the plainest and smallest first."""
    configs = [path for path in family.glob('*.py') if not path.name.startswith('_') and 'tta' not in path.name]

    def plainness(path: Path) -> tuple:
        large = re.search('[_-][lx]_', path.name) is not None  # such as YOLOX-l and Swin-L
        return 'r50' not in path.name, large, 'caffe' in path.name, len(path.name), path.name

    return sorted(configs, key=plainness)


def rows_of(family: Path, args: argparse.Namespace) -> list[tuple[Path, dict]]:
    """The rows of a family, from the folder of results if it has them; else the family is tried and its rows saved."""
    if args.results is None:
        return try_family(family, args)
    storage, name = get_storage(os.fspath(args.results)), f'{family.name}.json'
    storage.prepare()
    if name not in storage.all_names():
        rows = [(path.name, row) for path, row in try_family(family, args)]
        storage.write(name, json.dumps(rows).encode())
    return [(family / config, row) for config, row in json.loads(storage.read(name))]


def try_family(family: Path, args: argparse.Namespace) -> list[tuple[Path, dict]]:
    """Try configs of a folder, each in a process of its own.

    Args:
        family: The folder.
        args: Options of the command line: `all`, `image` and `timeout` are used.

    Returns:
        (config, row) of the first config that runs, or of the first one if none of four runs; of all with `all`.
    """
    rows = []
    for path in configs_of(family)[: None if args.all else MAX_ATTEMPTS]:
        rows.append((path, run_child(path, args.image, args.timeout)))
        print(f'{family.name}/{path.name}: {json.dumps(rows[-1][1])}', flush=True)
        if not args.all and 'error' not in rows[-1][1]:
            return rows[-1:]
    return rows if args.all else rows[:1]


def run_child(path: Path, image: Path, timeout: float) -> dict:
    """Try a config in a new process.

    Args:
        path: The config.
        image: The image to predict on.
        timeout: Most seconds that it may take.

    Returns:
        The row of the table, see :func:`try_config`, or ``error``: why there is none.
    """
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=send_row, args=(sender, path, image.resolve()))
    process.start()
    sender.close()
    try:
        if not receiver.poll(timeout):
            return dict(error=f'took more than {timeout:g} s')
        return receiver.recv()
    except EOFError:
        process.join()
        return dict(error=f'process ended with exit code {process.exitcode}')
    finally:
        process.kill()
        process.join()


# In the child process


def send_row(sender: Connection, path: Path, image: Path) -> None:
    """Try a config and send its row, or the error as a row."""
    with open(os.devnull, 'w') as nothing:  # silences logs
        os.dup2(nothing.fileno(), sys.stdout.fileno())
        os.dup2(nothing.fileno(), sys.stderr.fileno())
    os.chdir(zoo().parent)  # some configs name other files relative to it
    try:
        row = try_config(path, image)
    except Exception as error:
        row = dict(error=reason_of(error))
    sender.send(row)


def reason_of(error: Exception) -> str:
    """The start of an error's message, in one line, without paths of this machine."""
    return re.sub(r'"?/\S+', '...', one_line(f'{type(error).__name__}: {error}'))[:120]


def try_config(path: Path, image: Path) -> dict:
    """Predict with and without the package, draw every level, explain the top detection, and check where the heat is.

    Predictions with the package are made last: what explanations leave behind would show in them.

    Returns:
        ``detector``: its class; ``same``: whether predictions are identical; ``pictures``: number of pictures;
        ``levels``: layer, level and stride of each map; ``silent``: layers without a map; ``placed``: placement of each
        level; ``explained``: placement of explanations, or ``error``: why there are none; ``masked``: ``target``, the
        kind of box that D-RISE explains, or ``error``; ``seconds``.
    """
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules()
    start = time.perf_counter()
    cfg = Config.fromfile(path)
    layers = cfg.get('coverage_layers')  # beside those that are drawn by default
    model = build(cfg.model)
    row: dict[str, Any] = dict(detector=type(model).__name__)
    pipeline = small(pipeline_of(cfg), LARGER.get(row['detector'], (320, 240)))
    settle_weights(model, packed(pipeline, image))
    with torch.no_grad():
        torch.manual_seed(0)
        (plain,) = copy.deepcopy(model.test_step(packed(pipeline, image)))
    enlarged = small(pipeline_of(cfg), PICTURE[::-1])

    def pack(picture: np.ndarray) -> dict:
        return packed(enlarged, picture)

    placed = level_placements(model, pack, layers)
    row['placed'] = [asdict(level) for level in placed]
    try:
        row['explained'] = asdict(explanation_placement(model, pack, placed))
    except Exception as error:  # of any kind: each detector has its own
        row['explained'] = dict(error=reason_of(error))
    try:
        row['masked'] = dict(target=masked_explanation(model, packed(pipeline, image)))
    except Exception as error:
        row['masked'] = dict(error=reason_of(error))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        visualizer = FeatureVisualizer(out_dir=folder, layers=layers, save=('overlay',))
        visualizer.open(model)
        torch.manual_seed(0)
        with visualizer.taps:
            (drawn,) = model.test_step(packed(pipeline, image))
        passes = visualizer.taps.take()
        visualizer.draw(passes, [drawn])
        maps = [activation for pass_ in passes for activation in pass_.maps]
        row.update(
            same=same(plain, drawn),
            pictures=len(list(Path(folder).rglob('*.jpg'))),
            levels=[[activation.layer, activation.level, *activation.stride] for activation in maps],
            silent=sorted(set(visualizer.taps.modules) - {activation.layer for activation in maps}),
        )
    row['seconds'] = round(time.perf_counter() - start, 1)
    return row


def same(sample: BaseDataElement, other: BaseDataElement) -> bool:
    """Whether two predictions have the same tensors, bit for bit."""
    left, right = tensors_of(sample), tensors_of(other)
    return left.keys() == right.keys() and all(
        torch.equal(torch.as_tensor(left[name]), torch.as_tensor(right[name])) for name in left
    )


def tensors_of(sample: BaseDataElement) -> dict[str, Any]:
    """All tensors of a prediction, as ``{field.name: tensor}``."""
    tensors = {}
    for field, value in sample.items():
        items = value.items() if hasattr(value, 'items') else []
        tensors.update({f'{field}.{name}': part for name, part in items if hasattr(part, 'shape')})
    return tensors
