"""Train a detector as mmdet's own tools/train.py does, and draw during training or validation.

A config without a hook that draws gets one with any of the drawing options; --stages val draws each validation.
"""

from __future__ import annotations

import argparse

from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.cli.loading import add_heatmaps, load_runner_config
from mmdet_featviz.cli.options import add_drawing_options, add_runner_options, drawing_options
from mmdet_featviz.cli.ranks import leave_cpu_ranks
from mmdet_featviz.engine.hooks.featviz_hook import MetricsHook
from mmdet_featviz.engine.run_setup import close_run, open_for_run
from mmdet_featviz.visualization.style import Style

EXAMPLES = """
examples:
  featviz train my_config.py
  featviz train my_config.py --featviz-dir heatmaps --stages val --max-images 8 --report
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config of the detector')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint, or from the last one in the work folder',
    )
    add_runner_options(parser)
    own = dict(without=('resume',), out_dir=['--featviz-dir', '--out-dir'])  # --resume is that of the training
    add_drawing_options(parser, FeatureVisualizer, Style, **own)


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    _train(args)
    leave_cpu_ranks()


def _train(args: argparse.Namespace) -> None:
    setup_cache_size_limit_of_dynamo()
    cfg = _load_config(args)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    featviz = getattr(unwrap_detector(runner.model), 'featviz', None)
    stages = [stage for stage in ('train', 'val') if featviz is not None and stage in featviz.stages]
    for stage in stages:
        open_for_run(featviz, runner, stage)
    if stages:
        runner.register_hook(MetricsHook(featviz))
    runner.train()
    if stages:  # a hook does this on its own
        close_run(featviz, runner)


def _load_config(args: argparse.Namespace) -> Config:
    """The config with the command line's settings, which come first, then the config's, then defaults."""
    cfg = load_runner_config(args)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise SystemExit(f'--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    options = drawing_options(args, FeatureVisualizer, Style)
    options.pop('resume')  # that of the training
    add_heatmaps(cfg, options, stages=('val',))  # the default, `test`, would draw nothing here
    return cfg
