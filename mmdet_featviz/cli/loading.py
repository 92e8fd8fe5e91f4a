"""Loading of configs and detectors as the command line names them."""

from __future__ import annotations

import argparse
import os
import os.path as osp
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.cli.options import drawing_options
from mmdet_featviz.cli.ranks import exit_on_sigterm, join_cpu_ranks
from mmdet_featviz.visualization.style import Style


def load_runner_config(args: argparse.Namespace) -> Config:
    """The config of a runner: the command line comes first, then the config, then defaults."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    exit_on_sigterm(args.launcher)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('./work_dirs', osp.splitext(osp.basename(args.config))[0])
    if args.launcher == 'pytorch' and get_device() == 'cpu':
        join_cpu_ranks(cfg)
    return cfg


def add_heatmaps(cfg: Config, options: dict[str, Any], **defaults: Any) -> None:
    """Pass drawing options to what draws in a config: its detector, its hook, or a hook added here.

    Args:
        cfg: The config, changed in place.
        options: Arguments of FeatureVisualizer and Style; without any, the config stays as it is.
        **defaults: Arguments of a hook that is added here, where `options` has none.
    """
    if not options:
        return
    hooks = _hooks_of(cfg)
    if 'featviz' in cfg.model or _type_name(cfg.model.get('type')).endswith('Hp'):
        cfg.model.featviz = {**(cfg.model.get('featviz') or {}), **options}
    elif hooks:
        hooks[0].update(options)
    else:
        cfg.setdefault('default_hooks', {})['featviz'] = dict(type='FeatVizHook', **{**defaults, **options})


def load_detector(args: argparse.Namespace, **defaults: Any) -> tuple[FeatureVisualizer, nn.Module]:
    """Visualizer and detector from a config or model-zoo name, a checkpoint and the drawing options.

    Args:
        args: The command line.
        **defaults: Arguments of the visualizer that options override.

    Raises:
        SystemExit: If config, checkpoint or an option is wrong.
    """
    from mmdet.apis import DetInferencer, init_detector

    cfg, own = None, {}
    if osp.isfile(args.config):
        cfg = Config.fromfile(args.config)
        if args.cfg_options is not None:
            cfg.merge_from_dict(args.cfg_options)
        args.checkpoint = args.checkpoint or cfg.get('load_from')
        own = _own_options(cfg)
    elif args.config.endswith('.py'):
        raise SystemExit(f'there is no config {args.config}')
    if args.checkpoint is not None and '://' not in args.checkpoint and not osp.isfile(args.checkpoint):
        raise SystemExit(f'there is no checkpoint {args.checkpoint}')
    given = drawing_options(args, FeatureVisualizer, Style)
    try:
        visualizer = FeatureVisualizer(**{**own, **defaults, **given})
    except (TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    if cfg is not None:
        return visualizer, init_detector(cfg, args.checkpoint, device=args.device)
    try:
        return visualizer, DetInferencer(args.config, args.checkpoint, args.device, show_progress=False).model
    except ValueError as error:  # no such name, and what to look at
        raise SystemExit(f'{args.config} is no config, and no model of the zoo: {error}') from error


def _own_options(cfg: Config) -> dict[str, Any]:
    """The drawing options in a config, of its detector or its hook, except for the folder and the stages."""
    options = cfg.model.get('featviz') or next(iter(_hooks_of(cfg)), {})
    return {name: value for name, value in options.items() if name not in ('type', 'out_dir', 'stages')}


def _hooks_of(cfg: Config) -> list[dict]:
    """The configs of all FeatVizHooks in a config."""
    candidates = [*(cfg.get('custom_hooks') or []), *(cfg.get('default_hooks') or {}).values()]
    return [hook for hook in candidates if hook is not None and _type_name(hook.get('type')) == 'FeatVizHook']


def _type_name(kind: str | type | None) -> str:
    """Name of a type in a config: a string, perhaps with a scope, or in pure Python configs a class."""
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')
