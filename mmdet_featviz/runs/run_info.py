"""Run info: the content of run.json, which has the settings of a run and the metrics of its evaluation."""

from __future__ import annotations

import json
import math
import os.path as osp
import reprlib
import sys
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmdet_featviz.runs.storage import Storage
from mmdet_featviz.visualization.style import Style

RUN_INFO_FILE = 'run.json'
TYPES = {
    **dict.fromkeys(('id', 'version', 'reduction', 'working_dir', 'config', 'checkpoint', 'weights', 'load_from'), str),
    **dict.fromkeys(('style', 'dataset_meta', 'backend_args', 'metrics', 'focus', 'levels', 'statistics'), dict),
    **dict.fromkeys(('receptive_fields', 'explanations'), dict),
    'layers': list,
}
# Arguments of mmengine's own file backends that only say where to read. Others load a library from any folder
# (memcached's sys_path) or open a data base for writing.
BACKEND_ARGS = {
    'local': (),
    'http': (),
    'petrel': ('path_mapping', 'enable_mc', 'conf_path'),
    'memcached': ('server_list_cfg', 'client_cfg'),
    'lmdb': ('db_path', 'readahead'),
}
TEST = 'test'  # key of a test's metrics; those of a validation have its folder as key, such as epoch_3


def read_run_info(store: Storage) -> dict:
    """Return the content of a run's ``run.json``; empty without the file.

    Raises:
        ValueError: If it is damaged: it may come from anybody.
    """
    if RUN_INFO_FILE not in store.names():
        return {}
    text = store.read(RUN_INFO_FILE).decode('utf-8', 'surrogateescape')
    try:
        info = json.loads(text, parse_constant=lambda _: None)  # what is not finite, JSON does not know
        problem = _problem(info)
    except (ValueError, RecursionError) as error:
        problem = f'it is no JSON ({error})'
    if problem:
        raise ValueError(f'{store.path(RUN_INFO_FILE)} was not written by this package, or is damaged: {problem}')
    return info


def _problem(info: Any) -> str:
    """What is wrong with the content of ``run.json``; empty if nothing is."""
    if not isinstance(info, dict):
        return 'it holds no settings'
    for name in TYPES.keys() & info.keys():
        if not isinstance(info[name], (TYPES[name], type(None))):
            return f'{name} is {reprlib.repr(info[name])}'
    metrics = [values for name in ('metrics', 'focus') for values in (info.get(name) or {}).values()]
    if not all(isinstance(values, dict) for values in metrics):
        return 'its metrics are no numbers by name'
    wrong = [value for values in (info.get('metrics') or {}).values() for value in values.values() if not _fits(value)]
    wrong += [layer for layer in info.get('layers') or () if not isinstance(layer, str)]
    if wrong:
        return f'a metric or layer is {reprlib.repr(wrong[0])}'
    return ''


def check_backend_args(arguments: dict | None, file: str) -> None:
    """Raise ValueError if a ``run.json``, which may be anybody's, asks for a file backend that does more than read.

    Args:
        arguments: The arguments of the backend.
        file: Path of the ``run.json``.
    """
    arguments = arguments or {}
    safe = BACKEND_ARGS.get(str(arguments.get('backend')), arguments)
    unsafe = [name for name in arguments if name != 'backend' and name not in safe]
    if unsafe:
        raise ValueError(
            f'{file} asks for the file backend {arguments["backend"]!r} with {reprlib.repr(unsafe[0])}, which only a '
            'config may set: remove backend_args from it'
        )


def _fits(metric: Any) -> bool:
    """Whether a metric is as :func:`numeric_metrics` returns it."""
    return metric is None or (isinstance(metric, (int, float)) and abs(metric) <= sys.float_info.max)


def check_same_settings(folder: str, before: dict, now: dict) -> None:
    """Raise ValueError if the run to be resumed in a folder was made with other settings, weights or another config."""
    default = json.loads(to_json(asdict(Style())))
    # A version of the package may lack an option of another; what the other drew then has its default.
    old_style, new_style = ({**default, **(info.get('style') or {})} for info in (before, now))
    pairs = {name: (before.get(name), now.get(name)) for name in ('layers', 'reduction')}
    pairs.update({f'style.{name}': (old_style[name], new_style[name]) for name in default})
    old_request, new_request = (info.get('explanations') or {} for info in (before, now))
    for name in {**old_request, **new_request}:
        pairs[f'explanations.{name}'] = (old_request.get(name), new_request.get(name))
    for name in ('config', 'checkpoint'):
        if before.get(name) is not None and now.get(name) is not None:  # not every way to run names them
            old, new = (_whole_path(info[name], info.get('working_dir')) for info in (before, now))
            pairs[name] = (before[name], now[name]) if old != new else (None, None)
    if before.get('weights_crc32') and now.get('weights_crc32'):  # a file of the same name may have been written anew
        pairs['weights_crc32'] = before['weights_crc32'], now['weights_crc32']
    for name, (old, new) in pairs.items():
        if old != new:
            raise ValueError(
                f'{folder!r} was drawn with other settings ({name} was {old!r} and is {new!r} now), so resume=True '
                'cannot continue it: set overwrite=True to replace it, or choose another out_dir'
            )


def _whole_path(path: str, working_dir: str | None) -> str:
    """Return a path that does not depend on the working directory; a URL is returned unchanged."""
    return path if '://' in path else osp.realpath(osp.join(working_dir or '', path))


def weights_checksum(model: nn.Module) -> str:
    """Return the CRC-32 of all weights and buffers of a detector, as eight hexadecimal digits."""
    checksum = 0
    for tensor in model.state_dict().values():
        if isinstance(tensor, Tensor):
            checksum = zlib.crc32(tensor.detach().cpu().flatten().view(torch.uint8).numpy(), checksum)
    return f'{checksum:08x}'


def jsonable_dataset_meta(dataset_meta: dict | None) -> dict | None:
    """Return ``classes`` and ``palette`` of a data set if they are lists or arrays, as JSON can hold them, or None."""
    meta = dataset_meta or {}
    values = {name: meta.get(name) for name in ('classes', 'palette')}
    values = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
    kept = {name: value for name, value in values.items() if isinstance(value, (list, tuple))}
    return kept or None


def numeric_metrics(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Return the metrics that are numbers, as floats; NaN and infinity, which JSON cannot hold, become None."""
    numbers: dict[str, float | None] = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor with several elements
            continue
        numbers[name] = number if math.isfinite(number) else None
    return numbers


def to_json(info: dict) -> str:
    """Return the text of ``run.json``."""
    return json.dumps(info, ensure_ascii=False, indent=1, default=str)
