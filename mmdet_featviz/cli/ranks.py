"""Ranks: joining and leaving a process group on CPUs, and a clean exit on SIGTERM."""

from __future__ import annotations

import gc
import signal
import sys

import torch
from mmengine.config import Config


def exit_on_sigterm(launcher: str) -> None:
    """Turn SIGTERM into a normal exit, so that a stopped job logs its summary.

    Args:
        launcher: Value of ``--launcher``. Nothing is changed with a launcher, which ends its ranks itself.
    """
    if launcher == 'none':
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def join_cpu_ranks(cfg: Config) -> None:
    """Make this process one of several ranks on CPUs, as mmengine does on GPUs.

    Args:
        cfg: The config of the runner, changed in place.
    """
    torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)


def leave_cpu_ranks() -> None:
    """Undo :func:`join_cpu_ranks`, once nothing refers to the model any more.

    The threads of gloo may release the last tensors later than the main thread. If the interpreter ends first, the
    process aborts ("terminate called without an active exception") although its work is done. This joins the threads.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == 'gloo':
        gc.collect()  # the runner and its loops refer to each other, and the model refers to the group
        torch.distributed.destroy_process_group()
