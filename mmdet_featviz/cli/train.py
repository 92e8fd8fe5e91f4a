"""Train a detector as mmdet's tools/train.py does, and draw its feature maps during training or validation.

Drawing options override those in the config; a config without a hook gets one if any drawing option is given. The added
hook draws at each validation unless --stages says otherwise.
"""

from __future__ import annotations

import argparse

from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.cli.loading import add_heatmaps, build_data, load_runner_config
from mmdet_featviz.cli.options import add_drawing_options, add_runner_options, drawing_options
from mmdet_featviz.cli.ranks import leave_cpu_ranks
from mmdet_featviz.engine.hooks.featviz_hook import MetricsHook
from mmdet_featviz.engine.run_setup import close_run, open_for_run
from mmdet_featviz.visualization.style import Style

USAGE = 'CONFIG [options]'
EXAMPLES = """
examples:
  featviz train my_config.py
  featviz train my_config.py --featviz-dir heatmaps --stages val --max-images 8 --report
"""
HOOK_DEFAULTS = dict(stages=('val',))  # the default of the hook, `test`, would draw nothing in a training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', metavar='CONFIG', help='Config file of the detector.')
    parser.add_argument('--amp', action='store_true', help='Train in mixed precision.')
    parser.add_argument('--auto-scale-lr', action='store_true', help='Scale the learning rate with the batch size.')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='Resume from this checkpoint, or without a value from the latest one in the work folder.',
    )
    add_runner_options(parser)
    add_drawing_options(
        parser,
        FeatureVisualizer,
        Style,
        without=('resume',),  # --resume is that of the training
        defaults=HOOK_DEFAULTS,
        out_dir=['--featviz-dir', '--out-dir'],
    )


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    _train(args)
    leave_cpu_ranks()


def _train(args: argparse.Namespace) -> None:
    setup_cache_size_limit_of_dynamo()
    cfg = _load_config(args)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    for stage in ('train', 'val'):
        build_data(runner, stage)
    featviz = getattr(unwrap_detector(runner.model), 'featviz', None)
    stages = [stage for stage in ('train', 'val') if featviz is not None and stage in featviz.stages]
    for stage in stages:
        open_for_run(featviz, runner, stage)
    if stages:
        runner.register_hook(MetricsHook(featviz))
    runner.train()
    if stages:  # a hook closes its visualizer itself
        close_run(featviz, runner)


def _load_config(args: argparse.Namespace) -> Config:
    """Read the config; options of the command line override it."""
    cfg = load_runner_config(args)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise SystemExit(f'--auto-scale-lr needs auto_scale_lr.base_batch_size, which {args.config} does not set')
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    options = drawing_options(args, FeatureVisualizer, Style)
    options.pop('resume')  # that of the training
    add_heatmaps(cfg, options, **HOOK_DEFAULTS)
    return cfg
