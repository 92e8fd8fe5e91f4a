"""Try the plugin on every family of the installed mmdet's model zoo and write a table of what happened.

Each config runs in a process of its own, with random weights, on one image: predictions without and with the plugin are
compared, every level is drawn, and a patch is moved over an even picture to see whether the heat follows it.
Ends with 1 if any level is placed wrong or any prediction differs.
"""

import copy
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mmdet_featviz.benchmarks.patch_placement import BLUR, PICTURE, level_placements, settle_weights
from mmdet_featviz.benchmarks.zoo_models import LARGER, build, packed, pipeline_of, small

# Where there is a server of forks, it imports once for all configs.
PROCESSES = multiprocessing.get_context('forkserver' if os.name == 'posix' else 'spawn')
VERDICTS = ('right', 'blurred', 'wrong')
TRIES = 4  # configs of a folder, until one runs
# Folders of trackers, which have test loops of their own, and of parts of configs.
NO_DETECTORS = {'bytetrack', 'common', 'deepsort', 'mask2former_vis', 'masktrack_rcnn', 'ocsort', 'qdtrack', 'reid'}
NO_DETECTORS |= {'sort', 'strongsort'}


# The child: one config.


def tensors_of(sample):
    """All tensors of a prediction, by their path."""
    found = {}
    for field, value in sample.items():
        items = value.items() if hasattr(value, 'items') else []
        found.update({f'{field}.{name}': part for name, part in items if hasattr(part, 'shape')})
    return found


def same(one, other):
    import torch

    left, right = tensors_of(one), tensors_of(other)
    return left.keys() == right.keys() and all(
        torch.equal(torch.as_tensor(left[name]), torch.as_tensor(right[name])) for name in left
    )


def cover(path, image):
    """Everything that the table says of one config."""
    import torch
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    from mmdet_featviz import FeatureVisualizer

    register_all_modules()
    start = time.perf_counter()
    cfg = Config.fromfile(path)
    model = build(cfg.model)
    row = dict(detector=type(model).__name__)
    pipeline = small(pipeline_of(cfg), LARGER.get(row['detector'], (320, 240)))
    settle_weights(model, packed(pipeline, image))
    with torch.no_grad():
        torch.manual_seed(0)
        (plain,) = copy.deepcopy(model.test_step(packed(pipeline, image)))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        visualizer = FeatureVisualizer(out_dir=folder, save=('overlay',))
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
    pipeline = small(pipeline_of(cfg), PICTURE[::-1])
    row['placed'] = [asdict(level) for level in level_placements(model, lambda picture: packed(pipeline, picture))]
    row['seconds'] = round(time.perf_counter() - start, 1)
    return row


# The parent: all configs, one process each.


def zoo():
    import mmdet

    return Path(mmdet.__file__).parent / '.mim' / 'configs'


def configs_of(family):
    """Configs of a folder, the plainest and smallest first."""
    configs = [path for path in family.glob('*.py') if not path.name.startswith('_') and 'tta' not in path.name]

    def plainness(path):
        large = re.search('[_-][lx]_', path.name) is not None  # YOLOX-l, Swin-L and so on
        return 'r50' not in path.name, large, 'caffe' in path.name, len(path.name), path.name

    return sorted(configs, key=plainness)


def report(sender, path, image):
    """The task of a process: send the row of a config, or why there is none."""
    with open(os.devnull, 'w') as nothing:  # where the logs go
        os.dup2(nothing.fileno(), sys.stdout.fileno())
        os.dup2(nothing.fileno(), sys.stderr.fileno())
    os.chdir(zoo().parent)  # some configs name others relative to it
    try:
        row = cover(path, image)
    except Exception as error:
        # Without the paths of this machine.
        reason = re.sub(r'"?/\S+', '...', ' '.join(f'{type(error).__name__}: {error}'.split()))
        row = dict(error=reason[:120])
    sender.send(row)


def run_child(path, args):
    """A row of the table: what the process of this config sent, or why it did not."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=report, args=(sender, path, args.image.resolve()))
    process.start()
    sender.close()
    try:
        if not receiver.poll(args.timeout):
            return dict(error=f'took more than {args.timeout:g} s')
        return receiver.recv()
    except EOFError:
        process.join()
        return dict(error=f'ended with {process.exitcode}')
    finally:
        process.kill()
        process.join()


def cover_family(family, args):
    """[(config, row)]: of the first config that runs, or of all."""
    rows = []
    for path in configs_of(family)[: None if args.all else TRIES]:
        rows.append((path, run_child(path, args)))
        print(f'{family.name}/{path.name}: {json.dumps(rows[-1][1])}', flush=True)
        if not args.all and 'error' not in rows[-1][1]:
            return rows[-1:]
    return rows if args.all else rows[:1]


def verdict_of(row):
    """The worst verdict of all levels."""
    return max((level['verdict'] for level in row['placed']), key=VERDICTS.index)


def figure_text(levels):
    """Of some levels: the worst figures, and which levels are not right."""
    worst = ' / '.join(
        'not finite' if np.isnan(f) else f'{f:.2f}'
        for f in (np.max([level[name] for level in levels]) for name in ('moves', 'offset'))
    )
    bad = ' '.join(str(level['level']) for level in levels if level['verdict'] != 'right')
    return f'{worst} (level {bad})' if bad else worst


def by_layer(levels):
    """{layer: those of its levels}, in order."""
    layers = {}
    for level in levels:
        layers.setdefault(level['layer'], []).append(level)
    return layers


def row_text(family, path, row):
    name = f'`{path.stem}`'
    if 'error' in row:
        return f'| {family} | {name} | | | | | | {row["error"].replace("|", "/")} |'
    layers = {}
    for layer, _, vertical, horizontal in row['levels']:
        layers.setdefault(layer, []).append(
            f'{vertical:g}' if vertical == horizontal else f'{vertical:.3g}x{horizontal:.3g}'
        )
    strides = '; '.join(f'{layer} {" ".join(values)}' for layer, values in layers.items())
    figures = '; '.join(f'{layer} {figure_text(levels)}' for layer, levels in by_layer(row['placed']).items())
    placed = dict(right='yes', blurred='blurred', wrong='**no**')[verdict_of(row)]
    same_result = 'identical' if row['same'] else '**differ**'
    return (
        f'| {family} | {name} | {row["detector"]} | {strides} | {placed} | {figures} | {same_result} '
        f'| {row["seconds"]:g} s |'
    )


def write_table(args, results):
    import mmdet
    import mmengine
    import torch

    import mmdet_featviz

    runs = [row for rows in results.values() for _, row in rows if 'error' not in row]
    placed = Counter(map(verdict_of, runs))
    lines = [
        '# Model zoo coverage',
        '',
        f'Written by `tools/zoo_coverage.py` with mmdet {mmdet.__version__}, mmengine {mmengine.__version__}, '
        f'torch {torch.__version__.split("+")[0]}, mmdet_featviz {mmdet_featviz.__version__}: '
        f'{len(runs)} of {sum(len(rows) for rows in results.values())} configs in {len(results)} folders run, '
        f'{sum(row["same"] for row in runs)} of them with identical predictions, {placed["right"]} placed right, '
        f'{placed["blurred"]} blurred, {placed["wrong"]} placed wrong.',
        '',
        '*Strides* are those of the levels of each layer that is drawn by default. *Placed right*: does the change '
        'that a patch makes in an even picture move with the patch, and lie at it? *Figures*, in cells, of the '
        'worst level of each layer: the largest difference between the ways of the change and of the patch / the mean '
        'distance of the change from the patch. *Yes*: both are at most 1, or at most half a cell of the level plus '
        'half a cell of the coarsest level that is resampled into it (necks, HRNet). *Blurred*: some levels '
        f'(named) fail that but stay within {BLUR} pixels, behind attention, deformable, dynamic or widely dilated '
        'convolutions, wide pools, or norms over the image. *No*: anything else. The weights are random; the batch '
        'norms have seen one image.',
        '',
        '| family | config | detector | strides | placed right | figures | predictions | time, or why not |',
        '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    lines += [row_text(family, path, row) for family, rows in results.items() for path, row in rows]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    bad = placed['wrong'] + sum(not row['same'] for row in runs)
    print(f'{len(runs)} configs run, {bad} with levels placed wrong or other predictions; the table is {args.out}')
    return bad == 0


def run_coverage(args):
    """Try the configs that the command line names and write the table; returns 0, or 1 where something is wrong."""
    PROCESSES.set_forkserver_preload(['mmdet.datasets', 'mmdet.models', 'mmdet.utils', 'mmdet_featviz'])
    with tempfile.TemporaryDirectory() as folder:
        if args.image is None:
            import cv2

            from mmdet_featviz.benchmarks.demo_data import make_scene

            args.image = Path(folder) / 'scene.png'
            cv2.imwrite(str(args.image), make_scene('val', 0)[0])
        names = args.families or sorted(
            path.name for path in zoo().iterdir() if path.name not in NO_DETECTORS and path.name[0] != '_'
        )
        families = [zoo() / name for name in names if configs_of(zoo() / name)]
        with ThreadPoolExecutor(args.jobs) as pool:
            results = dict(zip((f.name for f in families), pool.map(lambda f: cover_family(f, args), families)))
        return 0 if write_table(args, results) else 1
