"""Make the README's pictures again: `python docs/make_images.py YOLOX_NANO_CHECKPOINT` (needs scikit-image)."""

import argparse
import shutil
import tempfile
from pathlib import Path

import cv2
from mmdet.apis import inference_detector, init_detector
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.hub import get_config
from skimage import data

import mmdet_featviz  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
SCENE = 4


def draw(cfg, checkpoint, photo, out_dir, **meta):
    """Let a self-drawing detector look at one photo; returns the folder of its pictures."""
    cfg.model.featviz = dict(
        save=('panel', 'overlay'), boxes='pred', align='corner', out_dir=str(out_dir), image_root=str(photo.parent)
    )
    cfg.model.type = 'SingleStageDetectorHp'
    model = init_detector(cfg, str(checkpoint), device='cpu')
    model.dataset_meta.update(meta)
    inference_detector(model, str(photo))
    return out_dir / photo.stem


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', type=Path, help="YOLOX-nano for mmdet's yolox_nano_8xb8-300e_coco.py")
    args = parser.parse_args()
    images = ROOT / 'docs' / 'images'
    images.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        astronaut = folder / 'astronaut.png'
        cv2.imwrite(str(astronaut), data.astronaut()[..., ::-1])
        cfg = get_config('mmdet::yolox/yolox_nano_8xb8-300e_coco.py')
        drawn = draw(cfg, args.checkpoint, astronaut, folder / 'nano', classes=CocoDataset.METAINFO['classes'])
        shutil.copy(drawn / 'panel.jpg', images / 'astronaut.jpg')

        scene = ROOT / 'data' / 'demo' / 'val' / f'scene_{SCENE:04d}.jpg'  # from `make demo`
        cfg = Config.fromfile(ROOT / 'configs' / 'demo' / 'atss_shapes_hp.py')
        drawn = draw(cfg, cfg.load_from, scene, folder / 'demo')
        shutil.copy(drawn / 'panel.jpg', images / 'demo.jpg')


if __name__ == '__main__':
    main()
