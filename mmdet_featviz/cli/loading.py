"""Loading: reads the config and the checkpoint named on the command line, and builds the detector."""

from __future__ import annotations

import argparse
import os
import os.path as osp
import re
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.cli.options import drawing_options
from mmdet_featviz.cli.ranks import exit_on_sigterm, join_cpu_ranks
from mmdet_featviz.utils.messages import one_line
from mmdet_featviz.visualization.style import Style

IN_MEMORY = 'in memory: '
_read_before: dict[str, dict] = {}


def load_runner_config(args: argparse.Namespace) -> Config:
    """Read the config of a runner; options of the command line override it.

    Args:
        args: Parsed arguments, with those of ``add_runner_options``.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not osp.isfile(args.config):
        raise SystemExit(f'config {args.config} does not exist')
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


def build_data(runner: Runner, stage: str) -> None:
    """Build the loop of a stage with its data set, and exit with a message if files are missing or it is empty.

    Args:
        runner: The runner.
        stage: ``train``, ``val`` or ``test``.
    """
    try:
        getattr(runner, f'{stage}_loop')
    except ValueError as error:
        if 'need at least one array to concatenate' not in str(error):
            raise
        raise SystemExit(f'the {stage} data set is empty: check its ann_file, data_prefix and filter_cfg') from error
    except FileNotFoundError as error:
        is_demo = 'data/demo/' in (error.filename or '').replace(os.sep, '/')
        hint = 'generate it with featviz demo-data' if is_demo else 'check data_root and ann_file of the config'
        raise SystemExit(f'the {stage} data set needs {error.filename}, which does not exist: {hint}') from error


def add_heatmaps(cfg: Config, options: dict[str, Any], **defaults: Any) -> None:
    """Pass drawing options to the part of a config that draws: its detector, its hook, or a hook added here.

    Args:
        cfg: The config, changed in place.
        options: Arguments of FeatureVisualizer and Style. If empty, the config is left unchanged.
        **defaults: Arguments of a hook added here that `options` may override.
    """
    if not options:
        return
    hooks = _featviz_hooks_in(cfg)
    if 'featviz' in cfg.model or _type_name(cfg.model.get('type')).endswith('Hp'):
        cfg.model.featviz = {**(cfg.model.get('featviz') or {}), **options}
    elif hooks:
        hooks[0].update(options)
    else:
        cfg.setdefault('default_hooks', {})['featviz'] = dict(type='FeatVizHook', **{**defaults, **options})


def load_detector(args: argparse.Namespace, **defaults: Any) -> tuple[FeatureVisualizer, nn.Module]:
    """Build visualizer and detector from a config or a name of the model zoo, a checkpoint and drawing options.

    Drawing options in the config, of its hook or detector, are used too, except output folder and stages.

    Args:
        args: Parsed arguments, with those of ``add_detector_options``.
        **defaults: Arguments of the visualizer, which override the config and which the command line overrides.

    Sets ``args.weights`` to a note for ``run.json``: the detector has random weights; empty if it has others.

    Raises:
        SystemExit: If config or checkpoint do not exist or cannot be fetched, an option is wrong, or there is no
            checkpoint and the command needs one.
    """
    from mmdet.apis import DetInferencer, init_detector

    cfg, from_config = None, {}
    if osp.isfile(args.config):
        cfg = Config.fromfile(args.config)
        if args.cfg_options is not None:
            cfg.merge_from_dict(args.cfg_options)
        args.checkpoint = args.checkpoint or cfg.get('load_from')
        from_config = _drawing_options_in(cfg)
    elif args.config.endswith('.py'):
        raise SystemExit(f'config {args.config} does not exist')
    if args.checkpoint is not None:
        check_checkpoint(args.checkpoint)
    args.weights = 'random weights' if cfg is not None and args.checkpoint is None else ''
    if args.weights and not args.random_weights:
        raise SystemExit(
            f'{args.config} has no load_from: name a checkpoint after the config, or set --random-weights to draw a '
            'detector that has learned nothing'
        )
    from_command_line = drawing_options(args, FeatureVisualizer, Style)
    if from_command_line.get('boxes') == 'gt':
        raise SystemExit('--boxes gt: images without a data set have no ground truth; choose pred, or use featviz test')
    try:
        visualizer = FeatureVisualizer(**{**from_config, **defaults, **from_command_line})
    except (ImportError, TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    source, content = _read_checkpoint(args.checkpoint)
    if cfg is not None:
        model = init_detector(cfg, source, device=args.device)
    else:
        try:
            model = DetInferencer(args.config, source, args.device, show_progress=False).model
        except ValueError as error:  # mmdet says which names there are
            raise SystemExit(f"{args.config} is neither a config file nor a model of mmdet's zoo: {error}") from error
        except OSError as error:  # of urllib, too
            raise SystemExit(
                f'the weights of {args.config} cannot be fetched ({error}): check the connection, or name a checkpoint '
                'after the model'
            ) from error
    if content is not None and not _any_weight_fits(content, model):
        args.weights = f'random weights: no weight of {args.checkpoint} fits the detector'
    return visualizer, model


def run_info_of(args: argparse.Namespace) -> dict[str, str | None]:
    """Return the entries of ``run.json`` about a detector from :func:`load_detector`."""
    return dict(config=args.config, checkpoint=args.checkpoint, **({'weights': args.weights} if args.weights else {}))


def check_checkpoint(checkpoint: str) -> None:
    """Raise SystemExit if a checkpoint is a file that does not exist."""
    if '://' not in checkpoint and not osp.isfile(checkpoint):
        raise SystemExit(f'checkpoint {checkpoint} does not exist')


def _read_checkpoint(checkpoint: str | None) -> tuple[str | None, dict | None]:
    """Read a checkpoint, and return a name under which mmengine loads what was read, and the content.

    Raises:
        SystemExit: If it cannot be read, or has no weights by name.
    """
    if checkpoint is None:
        return None, None
    source = f'{IN_MEMORY}{checkpoint}'
    try:
        content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    except Exception as error:  # what is no pickle can raise anything
        reason = one_line(f'{type(error).__name__}: {error}')
        raise SystemExit(f'{checkpoint} cannot be read as a checkpoint ({reason})') from error
    if not isinstance(content, dict):
        raise SystemExit(f'{checkpoint} is no checkpoint: it has a {type(content).__name__}, not weights by name')
    _read_before[source] = content
    return source, content


@CheckpointLoader.register_scheme(prefixes=IN_MEMORY, force=True)
def load_from_memory(filename: str, map_location: Any) -> dict:
    """Return a checkpoint that :func:`_read_checkpoint` has read. mmengine logs the end of this function's name."""
    return _read_before.pop(filename)


def _any_weight_fits(content: dict, model: nn.Module) -> bool:
    """Whether a checkpoint has any weight of the detector; mmengine loads one that has none without an error."""
    weights = content.get('state_dict', content)
    own = model.state_dict()
    names = ((re.sub(r'^module\.', '', name), weight) for name, weight in weights.items())
    return any(name in own and own[name].shape == getattr(weight, 'shape', None) for name, weight in names)


def _drawing_options_in(cfg: Config) -> dict[str, Any]:
    """Return the drawing options in a config, of its detector or its hook, except output folder and stages."""
    options = cfg.model.get('featviz') or next(iter(_featviz_hooks_in(cfg)), {})
    return {name: value for name, value in options.items() if name not in ('type', 'out_dir', 'stages')}


def _featviz_hooks_in(cfg: Config) -> list[dict]:
    """Return the configs of all FeatVizHooks in a config."""
    candidates = [*(cfg.get('custom_hooks') or []), *(cfg.get('default_hooks') or {}).values()]
    return [hook for hook in candidates if hook is not None and _type_name(hook.get('type')) == 'FeatVizHook']


def _type_name(kind: str | type | None) -> str:
    """Return the name of a type in a config: a string, maybe with a scope, or a class (in pure Python configs)."""
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')
