"""Test a detector as mmdet's own tools/test.py does, and draw what its layers respond to."""

import argparse
import warnings
from copy import deepcopy

from cli import (
    add_common_options,
    add_drawing_options,
    common_config,
    drawing_options,
    hooks_of,
    leave_cpu_ranks,
    name_of,
)
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import ConfigDict
from mmengine.runner import Runner

from mmdet_featviz import FeatureVisualizer, Style  # registers the hook, and `mmdet_featviz::` as a place of configs
from mmdet_featviz.hooks import ResultsHook, close_run, open_for_run
from mmdet_featviz.taps import unwrap


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the detector')
    parser.add_argument('checkpoint', nargs='?', help='its checkpoint; may be left out where the config has load_from')

    heatmaps = parser.add_argument_group('heatmaps', 'Any of these adds them to a config that knows nothing of them.')
    add_drawing_options(heatmaps, FeatureVisualizer, Style, out_dir=['--featviz-dir', '--out-dir'])
    parser.add_argument('--out', help='pickle file for the predictions')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder of pictures of the predictions, below work_dir/timestamp')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows each image')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_common_options(parser)
    args = parser.parse_args()
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end with .pkl or .pickle, but is {args.out}')
    return args


def add_heatmaps(cfg, args):
    """Pass the options to whatever draws in this config: its detector, its hook, or a hook added here."""
    options = drawing_options(args, FeatureVisualizer, Style)
    if not options:
        return
    hooks = hooks_of(cfg)
    if 'featviz' in cfg.model or name_of(cfg.model.get('type')).endswith('Hp'):
        cfg.model.featviz = {**(cfg.model.get('featviz') or {}), **options}
    elif hooks:
        hooks[0].update(options)
    else:
        cfg.setdefault('default_hooks', {})['featviz'] = dict(type='FeatVizHook', **options)


def add_tta(cfg):
    """Wrap detector and pipeline for test-time augmentation; a config without any gets flips, as in mmdet."""
    if 'tta_model' not in cfg:
        warnings.warn('the config has no tta_model: DetTTAModel with NMS at IoU 0.5 is used', stacklevel=2)
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'tta_pipeline' not in cfg:
        warnings.warn('the config has no tta_pipeline: each image is tested as it is and flipped', stacklevel=2)
        meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        pack = [dict(type='PackDetInputs', meta_keys=meta_keys)]
        cfg.tta_pipeline = [*deepcopy(dataset.pipeline)[:-1], dict(type='TestTimeAug', transforms=[flips, pack])]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def load_config(args):
    """The config with the command line's settings, which come first, then the config's, then defaults."""
    cfg = common_config(args)
    cfg.load_from = args.checkpoint or cfg.get('load_from')
    if cfg.load_from is None:
        raise SystemExit(f'{args.config} has no load_from: name a checkpoint after the config')
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    add_heatmaps(cfg, args)
    if args.tta:
        add_tta(cfg)
    return cfg


def build_test_data(runner):
    """Build the test data set early; an empty one gets an error that says so, where mmengine's does not."""
    try:
        return runner.test_loop
    except ValueError as error:
        if 'need at least one array to concatenate' not in str(error):
            raise
        raise SystemExit('the test data set is empty: check its ann_file, data_prefix and filter_cfg') from error


def main():
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(args)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    build_test_data(runner)
    if args.out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    detector = unwrap(runner.model)
    if not hasattr(detector, 'featviz'):  # then a hook draws, if anything does
        runner.test()
        return
    open_for_run(detector.featviz, runner, 'test')
    runner.register_hook(ResultsHook(detector.featviz))
    runner.test()
    close_run(detector.featviz, runner)


if __name__ == '__main__':
    main()
    leave_cpu_ranks()
