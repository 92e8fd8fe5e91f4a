"""The folder that the pages of the documentation assume: a config, its checkpoint, images, a video, a data set."""

import json
import os
import shutil

import cv2
import torch
from conftest import ROOT
from mmengine.config import Config

from mmdet_featviz.benchmarks.demo_data import make_split

SCENES = {'street/0001': 0, 'street/0017': 1, 'park/0003': 2}  # image of the data set: scene of the demo


def make_workplace(folder):
    """Write everything below a folder, which is then copied for each page."""
    for name in ('configs', 'tools'):
        os.symlink(ROOT / name, folder / name, target_is_directory=True)
    _write_data(folder / 'data' / 'mine')
    for name in SCENES:
        _copy(folder / 'data' / 'mine' / 'val' / f'{name}.jpg', folder / 'images' / f'{name}.jpg')
    _copy(folder / 'images' / 'street' / '0001.jpg', folder / 'image.jpg')
    _write_video(folder / 'street.mp4', [folder / 'images' / f'{name}.jpg' for name in SCENES])
    shutil.copy(folder / 'data' / 'mine' / 'val.json', folder / 'val.json')
    _write_config(folder / 'my_config.py')
    weights = ROOT / 'configs' / 'demo' / 'atss_shapes.pth'
    for name in ('my_checkpoint.pth', 'after.pth'):
        shutil.copy(weights, folder / name)
    _write_other_weights(weights, folder / 'before.pth')
    return folder


def _copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _write_data(folder):
    """Three scenes of the demo, a quarter as large, in folders; for training the same."""
    make_split(folder / 'scenes', 'val', len(SCENES))
    content = json.loads((folder / 'scenes' / 'val.json').read_text(encoding='utf-8'))
    for name, image in zip(SCENES, content['images']):
        path = folder / 'val' / f'{name}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        scene = cv2.imread(str(folder / 'scenes' / 'val' / image['file_name']))
        cv2.imwrite(str(path), cv2.resize(scene, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA))
        image.update(file_name=f'{name}.jpg', width=image['width'] // 4, height=image['height'] // 4)
    for annotation in content['annotations']:
        annotation['bbox'] = [side / 4 for side in annotation['bbox']]
        annotation['area'] /= 16
        annotation.pop('segmentation', None)
    for split in ('train', 'val'):
        (folder / f'{split}.json').write_text(json.dumps(content), encoding='utf-8')
    shutil.rmtree(folder / 'scenes')


def _write_video(path, images):
    frames = [cv2.imread(str(image)) for image in images]
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def _write_config(path):
    """That of the demo's ATSS with this data, all in one file and without a word of this package."""
    cfg = Config.fromfile(ROOT / 'configs' / 'demo' / 'atss_shapes.py')
    cfg.pop('custom_imports')
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = 'data/mine/val.json'
    for split, name in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root='data/mine/', ann_file=f'{name}.json', data_prefix=dict(img='val/'))
        for transform in loader.dataset.pipeline:
            if transform.type in ('Resize', 'RandomResize'):
                transform.scale = (160, 120)
            elif transform.type == 'RandomCrop':
                transform.crop_size = (96, 96)
    cfg.dump(str(path))


def _write_other_weights(source, target):
    """The same detector before it was trained: the same weights with noise."""
    checkpoint = torch.load(str(source), map_location='cpu', weights_only=False)
    generator = torch.Generator().manual_seed(0)
    for name, weights in checkpoint['state_dict'].items():
        if name.endswith('conv.weight') and name.startswith('neck'):
            checkpoint['state_dict'][name] = weights + 0.02 * torch.randn(weights.shape, generator=generator)
    torch.save(checkpoint, str(target))
