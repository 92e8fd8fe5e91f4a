"""Compare the heatmaps of two detectors: before and after, with and without, small and large."""

import argparse
import os.path as osp

from cli import add_drawing_options, visualizer_and_model
from image_demo import draw_all, find_images

from mmdet_featviz import FeatureVisualizer, Style
from mmdet_featviz.comparison import Comparison
from mmdet_featviz.geometry import ALIGNMENTS
from mmdet_featviz.runs import Run
from mmdet_featviz.sinks import FileSink

TAPPING = ('layers', 'layer_type', 'reduction', 'interval', 'max_images')
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
    models.add_argument('--config-a', metavar='CONFIG', help='config of A, or a name of the model zoo')
    models.add_argument('--config-b', metavar='CONFIG', help='config of B (default: that of A)')
    models.add_argument('--checkpoint-a', metavar='FILE', help="default: load_from of A's config, else random weights")
    models.add_argument('--checkpoint-b', metavar='FILE', help="default: load_from of B's config, else random weights")
    models.add_argument('--images', nargs='+', metavar='PHOTO', help='photos, folders, globs in quotes')
    add_drawing_options(models, FeatureVisualizer, only=TAPPING)
    models.add_argument('--align', choices=ALIGNMENTS, default='center', help='where the value of a cell sits')
    models.add_argument('--device', default='cpu', help='such as cuda:0 (default: cpu)')
    args = parser.parse_args()
    if bool(args.runs) == bool(args.config_a) or len(args.runs) not in (0, 2):
        parser.error('name the folders of two runs, or --config-a and --images')
    if args.config_a and not args.images:
        parser.error('--images: name photos or folders to compare the detectors on')
    return args


def find_photos(sources):
    """All photos that the user means, and the folder that their keys are relative to."""
    photos = list(dict.fromkeys(osp.abspath(path) for source in sources for path in find_images(source)[0]))
    return photos, osp.commonpath([osp.dirname(photo) for photo in photos])


def run_detector(config, checkpoint, out_dir, args):
    """Run a detector over the photos with maps saved, and read that run."""
    photos, root = find_photos(args.images)
    given = dict(config=config, checkpoint=checkpoint, cfg_options=None, out_dir=out_dir, save='maps')
    one = argparse.Namespace(**{**vars(args), **given})
    visualizer, model = visualizer_and_model(one, image_root=root)
    facts = dict(config=config, checkpoint=one.checkpoint or 'random weights')
    visualizer.open(model, dataset_meta=model.dataset_meta, facts=facts)
    for photo in draw_all(photos, model, visualizer):
        print(f'skipped: {photo} is no readable photo')
    print(visualizer.summary())
    return Run(out_dir)


def run_both(args):
    """Run both detectors."""
    FileSink(args.out_dir, args.overwrite)  # refuses another run's folder now, not after the detectors have run
    return [
        run_detector(args.config_a, args.checkpoint_a, osp.join(args.out_dir, 'a'), args),
        run_detector(args.config_b or args.config_a, args.checkpoint_b, osp.join(args.out_dir, 'b'), args),
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
