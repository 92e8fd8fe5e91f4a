"""Compare the heatmaps of two detectors: before and after, with and without, small and large."""

import argparse
import os.path as osp

import cv2
import numpy as np
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmengine.fileio import list_dir_or_file

from mmdet_featviz import FeatureVisualizer, Style
from mmdet_featviz.comparison import Comparison
from mmdet_featviz.runs import Run
from mmdet_featviz.sinks import FileSink

PHOTOS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
USAGE = """
  %(prog)s RUN_A RUN_B --out-dir DIR
  %(prog)s --config-a CONFIG --checkpoint-a FILE [--config-b CONFIG] --checkpoint-b FILE
           --images PHOTO ... --out-dir DIR
"""


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, usage=USAGE)
    parser.add_argument('runs', nargs='*', metavar='RUN', help="out_dir of two runs with save=('maps',): A and B")
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='folder of pictures and tables')
    parser.add_argument('--overwrite', action='store_true', help="replace another run's pictures in the folder")
    parser.add_argument('--colormap', default='jet', help='of A and B: any of OpenCV or matplotlib (default: jet)')
    parser.add_argument('--alpha', type=float, default=0.4, help='weight of the heat of A and B (default: 0.4)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='of predicted boxes, without ground truth (0.3)')

    models = parser.add_argument_group('two detectors', 'run first, with maps saved in DIR/a and DIR/b')
    models.add_argument('--config-a', metavar='CONFIG', help='config of A')
    models.add_argument('--config-b', metavar='CONFIG', help='config of B (default: that of A)')
    models.add_argument('--checkpoint-a', metavar='FILE', help="default: load_from of A's config, else random weights")
    models.add_argument('--checkpoint-b', metavar='FILE', help="default: load_from of B's config, else random weights")
    models.add_argument('--images', nargs='+', metavar='PHOTO', help='photos, or folders of them')
    models.add_argument('--layers', nargs='+', metavar='LAYER', help='modules to look at (default: backbone, neck)')
    models.add_argument('--reduction', metavar='NAME', help='max (the default), mean, sum, l2 or select_max')
    models.add_argument('--align', choices=['center', 'corner'], default='center', help='where a cell sits')
    models.add_argument('--device', default='cpu', help='such as cuda:0 (default: cpu)')
    args = parser.parse_args()
    if bool(args.runs) == bool(args.config_a) or len(args.runs) not in (0, 2):
        parser.error('name the folders of two runs, or --config-a and --images')
    if args.config_a and not args.images:
        parser.error('--images: name photos or folders to compare the detectors on')
    return args


def find_photos(paths):
    """The readable photos among files and inside folders; what cannot be read is named."""
    found = []
    for path in paths:
        if osp.isdir(path):
            names = sorted(list_dir_or_file(path, list_dir=False, recursive=True))
            found += [osp.join(path, name) for name in names if name.lower().endswith(PHOTOS)]
        else:
            found.append(path)
    photos = [path for path in dict.fromkeys(map(osp.abspath, found)) if is_readable(path)]
    if not photos:
        raise SystemExit(f'no readable photo in {", ".join(paths)}: name files that end with {", ".join(PHOTOS)}')
    return photos


def is_readable(path):
    # Through NumPy: OpenCV itself does not open every name on every system.
    data = np.fromfile(path, np.uint8) if osp.isfile(path) else np.zeros(0, np.uint8)
    readable = data.size > 0 and cv2.imdecode(data, cv2.IMREAD_COLOR) is not None
    if not readable:
        print(f'skipped: {path} is no readable photo')
    return readable


def run_detector(config, checkpoint, photos, out_dir, args):
    """Run a detector over photos with maps saved, and read that run."""
    checkpoint = checkpoint or Config.fromfile(config).get('load_from')
    model = init_detector(config, checkpoint, device=args.device)
    if hasattr(model, 'featviz'):  # a detector that draws by itself; here it need not
        model.featviz = FeatureVisualizer(stages=())
    visualizer = FeatureVisualizer(
        layers=args.layers,
        reduction=args.reduction,
        align=args.align,
        save='maps',
        out_dir=out_dir,
        image_root=osp.commonpath([osp.dirname(photo) for photo in photos]),
        overwrite=args.overwrite,
    )
    facts = dict(config=config, checkpoint=checkpoint or 'random weights')
    visualizer.open(model, dataset_meta=model.dataset_meta, facts=facts)
    for photo in photos:
        with visualizer.taps as taps:
            result = inference_detector(model, photo)
        visualizer.draw(taps.take(), [result])
    visualizer.close()
    print(visualizer.summary())
    return Run(out_dir)


def run_both(args):
    """Run both detectors."""
    FileSink(args.out_dir, args.overwrite)  # refuses another run's folder now, not after the detectors have run
    photos, config_b = find_photos(args.images), args.config_b or args.config_a
    return [
        run_detector(args.config_a, args.checkpoint_a, photos, osp.join(args.out_dir, 'a'), args),
        run_detector(config_b, args.checkpoint_b, photos, osp.join(args.out_dir, 'b'), args),
    ]


def main():
    args = parse_args()
    style = Style(colormap=args.colormap, alpha=args.alpha, score_thr=args.score_thr)
    runs = run_both(args) if args.config_a else None
    try:
        runs = runs or [Run(folder) for folder in args.runs]
        comparison = Comparison(*runs, args.out_dir, style, args.overwrite)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    comparison.run()
    print(f'Feature maps: {comparison.summary()}')


if __name__ == '__main__':
    main()
