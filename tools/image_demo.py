"""Draw what a detector responds to in photos: a file, a folder, a glob or a URL."""

import argparse
import glob
import os.path as osp
from pathlib import Path

from cli import add_drawing_options, add_model_options, visualizer_and_model
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmdet.utils import get_test_pipeline_cfg
from tqdm import tqdm

from mmdet_featviz import FeatureVisualizer, Style
from mmdet_featviz.layers import DEPTH, layer_tree
from mmdet_featviz.looks import silent

IMAGES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm'}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('input', help='photo, folder (with all below it), glob in quotes, or URL')
    add_model_options(parser)
    parser.add_argument(
        '--show-layers',
        nargs='?',
        type=int,
        const=DEPTH,
        metavar='DEPTH',
        help=f'only print a tree of what can be tapped, with the shapes for the first photo (default depth: {DEPTH})',
    )
    drawing = parser.add_argument_group('heatmaps')
    add_drawing_options(drawing, FeatureVisualizer, Style, without=('stages', 'average_passes'))
    return parser.parse_args()


def find_images(source):
    """Paths of all images that the user means, and the folder that their keys are relative to.

    Raises:
        SystemExit: If there are none.
    """
    if '://' in source:
        return [source], osp.dirname(source)
    if osp.isdir(source):
        found = sorted(str(path) for path in Path(source).rglob('*') if path.suffix.lower() in IMAGES)
        root = source
    else:
        found = [source] if osp.isfile(source) else sorted(filter(osp.isfile, glob.glob(source, recursive=True)))
        root = osp.commonpath([osp.dirname(osp.abspath(path)) for path in found]) if found else ''
    if not found:
        raise SystemExit(f'no image found: {source} is no photo, no folder with any ({", ".join(sorted(IMAGES))})')
    return found, root


def draw_all(images, model, visualizer):
    """Predict on each image and draw it; an image that cannot be read is counted, and the others go on."""
    pipeline = Compose(get_test_pipeline_cfg(model.cfg.copy()))
    unreadable = []
    for image in tqdm(images, unit='image'):
        visualizer.taps.attach()
        try:
            with silent(model):
                result = inference_detector(model, image, pipeline)
        except Exception:  # mmcv's loading and the file backends raise of all kinds
            if visualizer.strict or not is_unreadable(image, visualizer.backend_args):
                raise
            unreadable.append(image)
            continue
        finally:
            visualizer.taps.detach()
        visualizer.draw(visualizer.taps.take(), [result])
        if visualizer.is_done():
            break
    visualizer.close()
    return unreadable


def is_unreadable(image, backend_args):
    """Whether it is the photo's fault."""
    from mmcv import imfrombytes
    from mmengine import fileio

    try:
        return imfrombytes(fileio.get(image, backend_args=backend_args)) is None
    except Exception:  # each file backend raises errors of its own
        return True


def main():
    args = parse_args()
    images, root = find_images(args.input)
    extra = {} if hasattr(args, 'image_root') else dict(image_root=root)
    visualizer, model = visualizer_and_model(args, **extra)
    if args.show_layers is not None:
        with silent(model):
            print(layer_tree(model, lambda: inference_detector(model, images[0]), args.show_layers))
        return
    facts = dict(config=args.config, checkpoint=args.checkpoint)
    try:
        visualizer.open(model, dataset_meta=getattr(model, 'dataset_meta', None), facts=facts)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    unreadable = draw_all(images, model, visualizer)
    print(visualizer.summary())
    if unreadable:
        shown = ', '.join(unreadable[:3]) + (', ...' if len(unreadable) > 3 else '')
        told = f'could not be read and were left out: {len(unreadable)} ({shown})'
        if len(unreadable) == len(images):
            raise SystemExit(told)
        print(told)


if __name__ == '__main__':
    main()
