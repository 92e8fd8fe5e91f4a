"""Trained detectors: the bundled demos, and YOLOX-nano if its COCO weights are next to the checkout."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
import torch
from conftest import ROOT, SHARED, manifest, pictures, read
from mmengine.config import Config
from mmengine.runner import Runner

DEMOS = ['atss_shapes_hp', 'faster_rcnn_shapes_hook']
SCENES = 16
NANO = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'yolox' / 'yolox_nano_8xb8-300e_coco.py'
WEIGHTS, IMAGES = SHARED / 'weights' / 'yolox_nano_coco.pth', SHARED / 'data' / 'coco_samples'
needs_nano = pytest.mark.skipif(
    not (WEIGHTS.exists() and IMAGES.exists()), reason='no YOLOX-nano weights and COCO images next to the checkout'
)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    from mmdet_featviz.benchmarks.demo_data import make_split

    folder = tmp_path_factory.mktemp('scenes')
    make_split(folder, 'val', SCENES)
    return folder


def demo_config(name, scenes, out_dir, **options):
    cfg = Config.fromfile(ROOT / 'configs' / 'demo' / f'{name}.py')
    cfg.work_dir = str(out_dir / 'work')
    cfg.log_level = 'ERROR'
    cfg.test_dataloader.dataset.data_root = str(scenes)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_evaluator.ann_file = str(scenes / 'val.json')
    drawing_options = cfg.model.featviz if 'featviz' in cfg.model else cfg.default_hooks.featviz
    drawing_options.update(out_dir=str(out_dir / 'out'), image_root=str(scenes / 'val'), **options)
    return cfg


def heat_ratios(scenes, out_dir):
    """For each box its size, and for each level of the neck the mean heat in the box divided by that of the scene."""
    content = json.loads((scenes / 'val.json').read_text())
    for annotation in content['annotations']:
        folder = out_dir / 'out' / f'scene_{annotation["image_id"] - 1:04d}'
        x, y, w, h = (int(round(value)) for value in annotation['bbox'])
        ratios = []
        for level in range(5):
            heat = read(folder / f'neck_{level}.heatmap.png')[..., 0].astype(float)
            ratios.append(heat[y : y + h, x : x + w].mean() / heat.mean())
        yield max(w, h), ratios


@pytest.mark.parametrize('name', DEMOS)
def test_the_demos_find_the_objects_and_the_heat_is_on_them(tmp_path, scenes, name):
    cfg = demo_config(name, scenes, tmp_path, save=('heatmap', 'overlay', 'panel'), colormap='gray', boxes=None)
    metrics = Runner.from_cfg(cfg).test()
    assert metrics['coco/bbox_mAP'] >= 0.6
    layers = {(entry['layer'], entry['level']): entry['stride'] for entry in manifest(tmp_path / 'out')}
    assert [layers['backbone', level] for level in range(4)] == [4, 8, 16, 32]
    first = 8 if 'atss' in name else 4
    assert [layers['neck', level] for level in range(5)] == [first * 2**level for level in range(5)]
    assert len(pictures(tmp_path / 'out')) == SCENES * (9 + 9 + 1)

    ratios = list(heat_ratios(scenes, tmp_path))
    small = np.mean([levels for size, levels in ratios if size < 40], axis=0)
    large = np.mean([levels for size, levels in ratios if size > 140], axis=0)
    assert small[:2].max() > 1.5  # fine levels respond to small objects,
    assert small[:2].max() > 1.2 * small[3:].max()  # and more than coarse ones;
    assert large[2:].max() > 1.25  # coarse ones respond to large objects, which fill much of the scene


@pytest.mark.parametrize('name', DEMOS)
def test_bundled_weights_are_small_and_loaded_without_unpickling_code(name):
    path = ROOT / 'configs' / 'demo' / f'{name.rpartition("_")[0]}.pth'
    assert path.stat().st_size < 4e6
    assert set(torch.load(path, weights_only=True)) == {'meta', 'state_dict'}


def run_nano(tool, config, *arguments, cwd):
    command = [sys.executable, str(tool), str(config), str(WEIGHTS), *arguments]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'coco/bbox_mAP: 0.7440' in result.stdout
    return result


def predictions(path):
    return [
        {field: sample['pred_instances'][field] for field in ('bboxes', 'scores', 'labels')}
        for sample in pickle.loads(path.read_bytes())
    ]


@needs_nano
def test_yolox_nano_draws_the_same_in_every_way(tmp_path):
    """A plain run, featviz test, mmdet's tool with the hook, and with a drawing detector, all agree."""
    own_tool = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'test.py'
    root = IMAGES / 'images'
    # Not with --cfg-options, which removes spaces from a path.
    dataset = dict(data_root=f'{IMAGES}/', ann_file='instances.json', data_prefix=dict(img='images/'))
    loader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
    (tmp_path / 'plain.py').write_text(
        f'_base_ = {str(NANO)!r}\n'
        f'test_dataloader = {loader!r}\n'
        f'test_evaluator = dict(ann_file={str(IMAGES / "instances.json")!r})\n'
    )
    lines = "_base_ = './plain.py'\ncustom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)\n"
    (tmp_path / 'hook.py').write_text(f"{lines}custom_hooks = [dict(type='FeatVizHook', out_dir='hook')]\n")
    featviz = dict(out_dir='hp', image_root=str(root))
    (tmp_path / 'hp.py').write_text(f"{lines}model = dict(type='SingleStageDetectorHp', featviz={featviz!r})\n")

    run_nano(own_tool, 'plain.py', '--out', 'plain.pkl', cwd=tmp_path)
    run_nano(ROOT / 'tools' / 'test.py', 'plain.py', '--featviz-dir', 'option', '--out', 'option.pkl', cwd=tmp_path)
    run_nano(own_tool, 'hook.py', '--out', 'hook.pkl', cwd=tmp_path)
    run_nano(own_tool, 'hp.py', '--out', 'hp.pkl', cwd=tmp_path)

    plain = predictions(tmp_path / 'plain.pkl')
    for name in ('option', 'hook', 'hp'):
        for one, other in zip(plain, predictions(tmp_path / f'{name}.pkl')):
            assert all(torch.equal(one[field], other[field]) for field in one)

    names = [f'{layer}_{level}.jpg' for layer in ('backbone', 'neck') for level in range(3)]
    images = sorted(root.glob('*.jpg'))
    assert pictures(tmp_path / 'option') == sorted(f'{image.stem}/{name}' for image in images for name in names)
    for name in pictures(tmp_path / 'option'):
        assert (tmp_path / 'option' / name).read_bytes() == (tmp_path / 'hook' / name).read_bytes()
        assert (tmp_path / 'option' / name).read_bytes() == (tmp_path / 'hp' / name).read_bytes()
        assert read(tmp_path / 'option' / name).shape == cv2.imread(str(root / f'{name.split("/")[0]}.jpg')).shape


@needs_nano
def test_a_trained_head_scores_objects_at_their_centers():
    from mmdet.apis import init_detector

    from mmdet_featviz import look

    model = init_detector(str(NANO), str(WEIGHTS), device='cpu')
    distances = []
    for image in sorted((IMAGES / 'images').glob('*.jpg')):
        seen = look(model, str(image), save='scores')
        levels = [seen.level(name) for name in seen.names if '.scores.' in name]
        boxes = seen.boxes[seen.boxes.scores >= 0.3]
        for corners, label, score in zip(boxes.corners, boxes.labels, boxes.scores):
            ((level, row, column),) = (
                (level, row, column)
                for level in levels
                if level.label == label
                for row, column in np.argwhere(np.abs(level.values - score) < 1e-6)
            )
            middle = np.array([*(corners[:2] + corners[2:]) / 2, 1])
            x, y = (seen.snapshot.placement.matrix @ middle)[:2]
            cell = level.offset[1] + column * level.stride[1], level.offset[0] + row * level.stride[0]
            distances.append(np.subtract(cell, (x, y)) / level.stride[0])
    assert len(distances) > 20
    across, down = np.median(distances, axis=0)
    assert abs(across) < 0.25  # strides; it would be half a stride if points were at the corners of cells
    assert -0.5 < down < 0.25  # people are scored above the middles of their boxes
