"""Ranks: several processes that work on one data set, on CPUs too."""

from __future__ import annotations

import gc
import signal
import sys

import torch
from mmengine.config import Config


def exit_on_sigterm(launcher: str) -> None:
    """Turn SIGTERM into a normal exit, so that a stopped job prints its summary.

    A launcher of several ranks ends them in its own way.
    """
    if launcher == 'none':
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def join_cpu_ranks(cfg: Config) -> None:
    """Make this process one of several on CPUs, as mmengine does for GPUs."""
    torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)


def leave_cpu_ranks() -> None:
    """Undo :func:`join_cpu_ranks`, once nothing refers to the model any more.

    The threads of gloo release the last tensors at a time of their own. If the interpreter ends before that, the
    process aborts ("terminate called without an active exception") although all its work is done. They are joined here.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == 'gloo':
        gc.collect()  # the runner and its loops refer to each other, and the model refers to the group
        torch.distributed.destroy_process_group()
