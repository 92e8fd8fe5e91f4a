"""Test a detector as mmdet's tools/test.py does, and draw its feature maps.

Predictions and metrics are the same as without drawing. Drawing options override those in the config; a config without
a hook gets one if any drawing option is given.
"""

from __future__ import annotations

import argparse
import warnings
from copy import deepcopy

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.cli.loading import add_heatmaps, build_data, check_checkpoint, load_runner_config
from mmdet_featviz.cli.options import add_drawing_options, add_runner_options, drawing_options
from mmdet_featviz.cli.ranks import leave_cpu_ranks
from mmdet_featviz.engine.hooks.featviz_hook import MetricsHook
from mmdet_featviz.engine.run_setup import close_run, open_for_run
from mmdet_featviz.visualization.style import Style

USAGE = 'CONFIG [CHECKPOINT] [options]'
EXAMPLES = """
examples:
  featviz test my_config.py my_checkpoint.pth --featviz-dir heatmaps
  featviz test my_config.py my_checkpoint.pth --featviz-dir necks --layers neck --save overlay panel --max-images 20
  featviz test my_config.py my_checkpoint.pth --featviz-dir run --report
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', metavar='CONFIG', help='Config file of the detector.')
    parser.add_argument('checkpoint', nargs='?', metavar='CHECKPOINT', help='Default: load_from of the config.')
    parser.add_argument('--out', metavar='FILE', help='Pickle file for the predictions.')
    parser.add_argument('--show', action='store_true', help='Show predictions in a window.')
    parser.add_argument('--show-dir', metavar='DIR', help='Folder for pictures of predictions, in work_dir/timestamp.')
    parser.add_argument(
        '--wait-time', type=float, default=2, metavar='SECONDS', help='How long --show shows each image. Default: 2.'
    )
    parser.add_argument('--tta', action='store_true', help='Use test-time augmentation.')
    add_runner_options(parser)
    add_drawing_options(parser, FeatureVisualizer, Style, out_dir=['--featviz-dir', '--out-dir'])


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end with .pkl or .pickle, but is {args.out}')
    _test(args)
    leave_cpu_ranks()


def _test(args: argparse.Namespace) -> None:
    setup_cache_size_limit_of_dynamo()
    cfg = _load_config(args)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    build_data(runner, 'test')
    if args.out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    detector = unwrap_detector(runner.model)
    if not hasattr(detector, 'featviz'):  # a hook draws, if the config has one
        runner.test()
        return
    open_for_run(detector.featviz, runner, 'test')
    runner.register_hook(MetricsHook(detector.featviz))
    runner.test()
    close_run(detector.featviz, runner)


def _load_config(args: argparse.Namespace) -> Config:
    """Read the config; options of the command line override it."""
    cfg = load_runner_config(args)
    cfg.load_from = args.checkpoint or cfg.get('load_from')
    if cfg.load_from is None:
        raise SystemExit(f'{args.config} has no load_from: name a checkpoint after the config')
    check_checkpoint(cfg.load_from)
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    add_heatmaps(cfg, drawing_options(args, FeatureVisualizer, Style))
    if args.tta:
        add_tta(cfg)
    return cfg


def add_tta(cfg: Config) -> None:
    """Wrap detector and pipeline for test-time augmentation; as in mmdet, a config without any gets flips."""
    if 'tta_model' not in cfg:
        warnings.warn('the config has no tta_model: DetTTAModel with NMS at IoU 0.5 is used', stacklevel=2)
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'tta_pipeline' not in cfg:
        warnings.warn('the config has no tta_pipeline: each image is tested unchanged and flipped', stacklevel=2)
        meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        pack = [dict(type='PackDetInputs', meta_keys=meta_keys)]
        cfg.tta_pipeline = [*deepcopy(dataset.pipeline)[:-1], dict(type='TestTimeAug', transforms=[flips, pack])]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline
