"""What the options of the tools have in common."""

import argparse
import gc
import inspect
import os
import os.path as osp
import re
import signal
import sys
from fnmatch import fnmatchcase

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device

from mmdet_featviz import FeatureVisualizer, Style


def add_common_options(parser):
    parser.add_argument('--work-dir', help='folder of logs and results (default: work_dirs/NAME_OF_THE_CONFIG)')
    add_cfg_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes --local-rank since torch 2.0, --local_rank before.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_cfg_options(parser):
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings that override the config, as key=value; lists as key="[a,b]" or key=a,b, without blanks',
    )


def add_model_options(parser):
    """What the demos take to build a detector: :func:`visualizer_and_model` reads it."""
    parser.add_argument('config', help='config of the detector, or a name of the model zoo such as rtmdet_tiny')
    parser.add_argument('checkpoint', nargs='?', help="its checkpoint (default: the config's load_from, or the zoo's)")
    parser.add_argument('--device', default='cuda:0' if torch.cuda.is_available() else 'cpu')
    add_cfg_options(parser)


def fits(patterns):
    """Whether a name is one of some, in which * stands for any part; without patterns every name is."""
    return lambda name: patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


def common_config(args):
    """The config with the common options: the command line comes first, then the config, then defaults."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    hear_sigterm(args.launcher)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('./work_dirs', osp.splitext(osp.basename(args.config))[0])
    if args.launcher == 'pytorch' and get_device() == 'cpu':
        join_cpu_ranks(cfg)
    return cfg


def hear_sigterm(launcher):
    """Let a job that is told to end tell what it has drawn; a launcher of several ranks ends them in its own way."""
    if launcher == 'none':
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def join_cpu_ranks(cfg):
    """What mmengine does for GPUs alone: make this process one of several."""
    torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)


def leave_cpu_ranks():
    """End what `join_cpu_ranks` began, once nothing holds the model any more.

    The threads of gloo let go of the last tensors when they find the time. If the interpreter ends before that, the
    process aborts ("terminate called without an active exception") although all its work is done. They are joined here.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == 'gloo':
        gc.collect()  # the runner and its loops hold each other, and the model holds the group
        torch.distributed.destroy_process_group()


# Options of the same names as the arguments of FeatureVisualizer and Style, which are their only source.


def add_drawing_options(parser, *kinds, only=None, without=(), **flags):
    """Add an option for each argument of FeatureVisualizer or Style; those that are not given are absent.

    Args:
        parser: Parser, or group of one.
        kinds: The classes.
        only: Names of the arguments that get one; None is all.
        without: Names of arguments that get none.
        flags: Other flags for an argument, such as ``out_dir=['--featviz-dir']``.
    """
    for kind in kinds:
        words = described(kind)
        for name, parameter in inspect.signature(kind).parameters.items():
            wanted = name not in without if only is None else name in only
            if wanted and parameter.kind is not parameter.VAR_KEYWORD and name != 'backend_args':
                names = flags.get(name, [f'--{name.replace("_", "-")}'])
                parser.add_argument(*names, dest=name, default=argparse.SUPPRESS, **form(parameter, words[name]))


def form(parameter, words):
    """How argparse reads an argument."""
    shown = words.replace('%', '%%')
    if parameter.default is True or parameter.default is False:
        return dict(action='store_true', help=shown)
    if parameter.default not in (None, inspect.Parameter.empty):
        default = parameter.default if not isinstance(parameter.default, tuple) else ' '.join(parameter.default)
        shown = f'{shown} (default: {default})'
    kind = str(parameter.annotation)
    if 'Sequence' in kind:
        return dict(nargs='+', action=Several, help=shown)
    return dict(type=float if 'float' in kind else int if 'int' in kind else str, help=shown)


class Several(argparse.Action):
    """Words, or numbers: `--layers backbone neck`, `--normalize image`, `--normalize 0 5`, `--channels top 16`."""

    def __call__(self, parser, namespace, values, option_string=None):
        if self.dest == 'normalize':
            values = values[0] if len(values) == 1 else [number(value) for value in values]
        elif self.dest == 'channels':
            numbers = all(value.isdigit() for value in values)
            values = [int(value) for value in values] if numbers else ' '.join(values)
        setattr(namespace, self.dest, values)


def number(text):
    try:
        return float(text)
    except ValueError:
        return text  # the argument's own check says what is wrong


def described(kind):
    """{argument: what its docstring says}."""
    section = inspect.cleandoc(kind.__doc__).split('Args:\n', 1)[1].split('\n\n', 1)[0]
    found = re.findall(r'^    (\w+): (.*(?:\n     .*)*)', section, re.MULTILINE)
    return {name: re.sub(r'\s+', ' ', text).replace('``', '').replace('`', '') for name, text in found}


def drawing_options(args, *kinds):
    """{argument: value} of the options that were given."""
    names = [name for kind in kinds for name in inspect.signature(kind).parameters]
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def visualizer_and_model(args, **extra):
    """Detector and visualizer of a demo tool, from a config or model-zoo name, a checkpoint and the options."""
    from mmdet.apis import DetInferencer, init_detector

    cfg, own = None, {}
    if osp.isfile(args.config):
        cfg = Config.fromfile(args.config)
        if args.cfg_options is not None:
            cfg.merge_from_dict(args.cfg_options)
        args.checkpoint = args.checkpoint or cfg.get('load_from')
        own = own_options(cfg)
    elif args.config.endswith('.py'):
        raise SystemExit(f'there is no config {args.config}')
    if args.checkpoint is not None and '://' not in args.checkpoint and not osp.isfile(args.checkpoint):
        raise SystemExit(f'there is no checkpoint {args.checkpoint}')
    given = drawing_options(args, FeatureVisualizer, Style)
    try:
        visualizer = FeatureVisualizer(**{**own, **extra, **given})
    except (TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    if cfg is not None:
        return visualizer, init_detector(cfg, args.checkpoint, device=args.device)
    try:
        return visualizer, DetInferencer(args.config, args.checkpoint, args.device, show_progress=False).model
    except ValueError as error:  # no such name, and what to look at
        raise SystemExit(f'{args.config} is no config, and no model of the zoo: {error}') from error


def own_options(cfg):
    """What a config itself says of drawing, in its detector or its hook, but for where."""
    options = cfg.model.get('featviz') or next(iter(hooks_of(cfg)), {})
    return {name: value for name, value in options.items() if name not in ('type', 'out_dir', 'stages')}


def hooks_of(cfg):
    """The configs of all FeatVizHooks in a config."""
    candidates = [*(cfg.get('custom_hooks') or []), *(cfg.get('default_hooks') or {}).values()]
    return [hook for hook in candidates if hook is not None and name_of(hook.get('type')) == 'FeatVizHook']


def name_of(kind):
    """Name of a type in a config: a string, perhaps with a scope, or in pure Python configs a class."""
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')
