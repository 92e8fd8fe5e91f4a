"""Try the plugin on every family of the installed mmdet's model zoo and write a table of what happened.

Each config runs in a process of its own, with random weights, on one photo: predictions without and with the plugin are
compared, every level is drawn, and a bright patch is moved over an even picture to see whether the heat follows it.
"""

import argparse
import copy
import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

PATCH = 48
# Centres (x, y) of the patch as parts of the picture: none is the mirror image of another, or of itself.
PATCH_CENTRES = [(0.3, 0.35), (0.62, 0.3), (0.38, 0.68)]
PICTURE_SIZE = (480, 640)
TRIES = 4  # configs of a folder, until one runs
# Folders of trackers, which have test loops of their own, and of parts of configs.
NO_DETECTORS = {'bytetrack', 'common', 'deepsort', 'mask2former_vis', 'masktrack_rcnn', 'ocsort', 'qdtrack', 'reid'}
NO_DETECTORS |= {'sort', 'strongsort'}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('families', nargs='*', help='folders of the model zoo (default: all of detectors)')
    parser.add_argument('--all', action='store_true', help='every config of each folder, not only one')
    parser.add_argument('--photo', type=Path, help='the photo to predict on (default: a scene of the demo)')
    parser.add_argument('--out', type=Path, default=Path('docs/zoo_coverage.md'), help='the table to write')
    parser.add_argument('--timeout', type=float, default=300, help='seconds for each config (default: 300)')
    parser.add_argument('--jobs', type=int, default=1, help='processes at once (default: 1)')
    parser.add_argument('--only-config', type=Path, help=argparse.SUPPRESS)  # the child's task
    return parser.parse_args()


# The child: one config.


def without_downloads(cfg):
    """Remove, in place and at any depth, what would load weights from elsewhere."""
    if isinstance(cfg, dict):
        if isinstance(cfg.get('init_cfg'), dict) and cfg['init_cfg'].get('type') == 'Pretrained':
            cfg['init_cfg'] = None
        for key in ('pretrained', 'teacher_ckpt'):
            if key in cfg:
                cfg[key] = None
    for value in cfg.values() if isinstance(cfg, dict) else cfg:
        if isinstance(value, (dict, list, tuple)):
            without_downloads(value)
    return cfg


def small(pipeline, scale=(320, 240)):
    """The test pipeline for a small input: the same transforms, without annotations."""
    pipeline = [copy.deepcopy(t) for t in pipeline if 'Annotations' not in t['type']]
    for transform in pipeline:
        own = transform.get('scale')
        if isinstance(own, (list, tuple)) and min(own) > max(scale) and transform.get('keep_ratio', False):
            transform['scale'] = (max(scale), max(scale)) if own[0] == own[1] else scale
        if transform['type'] == 'Pad' and 'size' in transform:
            transform['size'] = (max(scale), max(scale))
    return pipeline


def packed(pipeline, photo):
    """Model input of a photo, given as a path or an array."""
    from mmcv.transforms import Compose

    if isinstance(photo, np.ndarray):
        load = dict(type='mmdet.LoadImageFromNDArray', to_float32=pipeline[0].get('to_float32', False))
        pipeline = [load, *pipeline[1:]]
        data = Compose(pipeline)(dict(img=photo, img_id=0, img_path=None))
    else:
        data = Compose(pipeline)(dict(img_path=str(photo), img_id=0))
    return {key: [value] for key, value in data.items()}


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


def patch_offsets(model, pipeline):
    """How far the change that a patch makes lies from the patch, in strides: {level name: mean over positions}."""
    import torch

    from mmdet_featviz.geometry import Grid, placement_of
    from mmdet_featviz.taps import Taps

    def look(picture):
        features = []

        def keep(feature_map):
            features.append(feature_map[0].float().clone())
            return feature_map[:, 0]

        taps = Taps(model, None, keep)
        torch.manual_seed(0)
        with taps, torch.no_grad():
            model.test_step(packed(pipeline, picture))
        (pass_,) = taps.take()
        return pass_, features

    height, width = PICTURE_SIZE
    even = np.full((height, width, 3), 110, np.uint8)
    _, before = look(even)
    offsets = {}
    for across, down in PATCH_CENTRES:
        x, y = round(across * width), round(down * height)
        picture = even.copy()
        picture[y - PATCH // 2 : y + PATCH // 2, x - PATCH // 2 : x + PATCH // 2] = 250
        pass_, after = look(picture)
        placement = placement_of(pass_.samples[0].metainfo, pass_.inputs[0])
        for activation, old, new in zip(pass_.maps, before, after):
            change = (new - old).abs().mean(0).numpy()
            heat = Grid(change.shape, activation.stride, placement).heatmap(change).astype(np.float64)
            heat = np.clip(heat - heat.max() / 2, 0, None)  # above half its maximum, where it is sharp
            if not (np.isfinite(change).all() and heat.any()):  # random weights may explode, or see nothing
                offsets.setdefault(activation.name, []).append(np.nan)
                continue
            rows, columns = np.mgrid[:height, :width] + 0.5
            centre = np.array([(heat * columns).sum(), (heat * rows).sum()]) / heat.sum()
            scale = np.abs(np.diag(placement.matrix)[:2])
            cells = np.abs(centre - (x, y)) * scale / activation.stride[::-1]
            offsets.setdefault(activation.name, []).append(float(cells.max()))
    return {name: round(float(np.mean(values)), 2) for name, values in offsets.items()}


def cover(path, photo):
    """Everything that the table says of one config."""
    import torch
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm

    from mmdet_featviz import FeatureVisualizer

    register_all_modules()
    start = time.perf_counter()
    cfg = Config.fromfile(path)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(without_downloads(cfg.model)))
    model.init_weights()
    model.eval()
    pipeline = small(cfg.test_dataloader.dataset.get('pipeline') or cfg.test_pipeline)
    row = dict(detector=type(model).__name__)
    with torch.no_grad():
        torch.manual_seed(0)
        (plain,) = copy.deepcopy(model.test_step(packed(pipeline, photo)))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        visualizer = FeatureVisualizer(out_dir=folder, save=('overlay',))
        visualizer.open(model)
        torch.manual_seed(0)
        with visualizer.taps:
            (drawn,) = model.test_step(packed(pipeline, photo))
        passes = visualizer.taps.take()
        visualizer.draw(passes, [drawn])
        maps = [activation for pass_ in passes for activation in pass_.maps]
        row.update(
            same=same(plain, drawn),
            pictures=len(list(Path(folder).rglob('*.jpg'))),
            levels=[[activation.layer, activation.level, *activation.stride] for activation in maps],
            silent=sorted(set(visualizer.taps.modules) - {activation.layer for activation in maps}),
        )
    row['offsets'] = patch_offsets(model, pipeline)
    row['seconds'] = round(time.perf_counter() - start, 1)
    return row


# The parent: all configs, one process each.


def zoo():
    import mmdet

    return Path(mmdet.__file__).parent / '.mim' / 'configs'


def configs_of(family):
    """Configs of a folder, the plainest first."""
    configs = [path for path in family.glob('*.py') if not path.name.startswith('_') and 'tta' not in path.name]
    return sorted(configs, key=lambda path: ('r50' not in path.name, 'caffe' in path.name, len(path.name), path.name))


def run_child(path, args):
    """A row of the table: what the child wrote, or why it did not."""
    command = [sys.executable, __file__, '--only-config', str(path), '--photo', str(args.photo.resolve())]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=args.timeout, cwd=zoo().parent, encoding='utf-8'
        )
    except subprocess.TimeoutExpired:
        return dict(error=f'took more than {args.timeout:g} s')
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    reasons = [line for line in done.stderr.strip().splitlines() if line and not line.startswith(' ')]
    # Without the paths of this machine.
    return dict(error=re.sub(r'"?/\S+', '...', reasons[-1])[:120] if reasons else f'ended with {done.returncode}')


def cover_family(family, args):
    """[(config, row)]: of the first config that runs, or of all."""
    rows = []
    for path in configs_of(family)[: None if args.all else TRIES]:
        rows.append((path, run_child(path, args)))
        print(f'{family.name}/{path.name}: {json.dumps(rows[-1][1])}', flush=True)
        if not args.all and 'error' not in rows[-1][1]:
            return rows[-1:]
    return rows if args.all else rows[:1]


def offset_text(offsets):
    """The worst of some offsets, bold beyond one stride."""
    if not np.isfinite(offsets).all():
        return 'not finite'
    return f'{max(offsets):.2f}' if max(offsets) <= 1 else f'**{max(offsets):.2f}**'


def row_text(family, path, row):
    name = f'`{path.stem}`'
    if 'error' in row:
        return f'| {family} | {name} | | | | | {row["error"].replace("|", "/")} |'
    layers = {}
    for layer, _, vertical, horizontal in row['levels']:
        layers.setdefault(layer, []).append(
            f'{vertical:g}' if vertical == horizontal else f'{vertical:.3g}x{horizontal:.3g}'
        )
    strides = '; '.join(f'{layer} {" ".join(values)}' for layer, values in layers.items())
    offsets = {}
    for level, offset in row['offsets'].items():
        offsets.setdefault(level.rpartition('_')[0], []).append(offset)
    placed = '; '.join(f'{layer} {offset_text(values)}' for layer, values in offsets.items())
    same_result = 'identical' if row['same'] else '**differ**'
    return f'| {family} | {name} | {row["detector"]} | {strides} | {placed} | {same_result} | {row["seconds"]:g} s |'


def write_table(args, results):
    import mmdet
    import mmengine
    import torch

    import mmdet_featviz

    runs = [row for rows in results.values() for _, row in rows if 'error' not in row]
    lines = [
        '# Model zoo coverage',
        '',
        f'Written by `tools/zoo_coverage.py` with mmdet {mmdet.__version__}, mmengine {mmengine.__version__}, '
        f'torch {torch.__version__.split("+")[0]}, mmdet_featviz {mmdet_featviz.__version__}: '
        f'{len(runs)} of {sum(len(rows) for rows in results.values())} configs in {len(results)} folders run, '
        f'{sum(row["same"] for row in runs)} of them with identical predictions.',
        '',
        '*Strides* are those of the levels of each layer that is drawn by default. *Patch*: how far, in strides, the '
        'centre of the change lies from the bright patch that made it (worst level of a layer, mean of three places). '
        'Half a stride is what `align` decides. Beyond one stride it is bold: with random weights, attention, '
        'deformable or dynamic convolutions and repeated resampling spread the change over the image.',
        '',
        '| family | config | detector | strides | patch | predictions | time, or why not |',
        '| --- | --- | --- | --- | --- | --- | --- |',
    ]
    lines += [row_text(family, path, row) for family, rows in results.items() for path, row in rows]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    print(f'{len(runs)} configs run; the table is {args.out}')


def main():
    args = parse_args()
    if args.only_config is not None:
        print(json.dumps(cover(args.only_config, args.photo)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.photo is None:
            import cv2
            from make_demo_data import make_scene

            args.photo = Path(folder) / 'scene.png'
            cv2.imwrite(str(args.photo), make_scene('val', 0)[0])
        names = args.families or sorted(
            path.name for path in zoo().iterdir() if path.name not in NO_DETECTORS and path.name[0] != '_'
        )
        families = [zoo() / name for name in names if configs_of(zoo() / name)]
        with ThreadPoolExecutor(args.jobs) as pool:
            results = dict(zip((f.name for f in families), pool.map(lambda f: cover_family(f, args), families)))
        write_table(args, results)


if __name__ == '__main__':
    main()
