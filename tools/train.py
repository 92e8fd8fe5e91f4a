"""Train a detector as mmdet's own tools/train.py does."""

import argparse

from cli import add_common_options, common_config, leave_cpu_ranks
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import mmdet_featviz  # noqa: F401  registers the hook, and `mmdet_featviz::` as a place of configs
from mmdet_featviz.hooks import ResultsHook, close_run, open_for_run
from mmdet_featviz.taps import unwrap


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the detector')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or from the last one in the work folder',
    )
    add_common_options(parser)
    return parser.parse_args()


def load_config(args):
    """The config with the command line's settings, which come first, then the config's, then defaults."""
    cfg = common_config(args)
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
    return cfg


def main():
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(args)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    featviz = getattr(unwrap(runner.model), 'featviz', None)
    stages = [stage for stage in ('train', 'val') if featviz is not None and stage in featviz.stages]
    for stage in stages:
        open_for_run(featviz, runner, stage)
    if stages:
        runner.register_hook(ResultsHook(featviz))
    runner.train()
    if stages:  # a hook does this on its own
        close_run(featviz, runner)


if __name__ == '__main__':
    main()
    leave_cpu_ranks()
