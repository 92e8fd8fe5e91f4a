"""Layer tree: a listing of the layers of a detector that can be tapped."""

from __future__ import annotations

from collections import defaultdict
from typing import Callable, Iterator

import torch
from torch import nn

from mmdet_featviz.capture.activation_map import ActivationMap
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.capture.layer_selection import find_default_layers
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.structures.snapshot import format_stride

DEPTH = 3


def layer_tree(model: nn.Module, run: Callable[[], object], depth: int = DEPTH) -> str:
    """A tree of the modules that put out maps of the image, with the shapes and strides of these.

    Siblings that are alike are one line (``0-2  Bottleneck``); a star marks what is drawn unless layers are named.

    Args:
        model: The detector.
        run: Lets it predict on a image.
        depth: How deep the tree goes.
    """
    model = unwrap_detector(model)
    taps = Taps(model, ['**'], lambda features: features[:, 0], quiet=True)
    with taps, torch.no_grad():
        run()
    maps = defaultdict(list)
    for activation in taps.take()[0].maps:
        maps[activation.layer].append(activation)
    defaults = set(find_default_layers(model))
    lines = [f'{type(model).__name__}: channels x rows x columns (stride); * is drawn by default']
    lines += _lines(model, '', maps, defaults, depth)
    return '\n'.join(lines)


def _lines(module: nn.Module, path: str, maps: dict, defaults: set[str], depth: int, indent: str = '') -> Iterator[str]:
    for names in _alike(module, path, maps):
        first = f'{path}{names[0]}'
        child = module.get_submodule(names[0])
        name = names[0] if len(names) == 1 else f'{names[0]}-{names[-1]}'
        star = '*' if first in defaults else ' '
        outputs = _outputs(maps[first]) if maps.get(first) else 'its parts only'
        yield f'{star} {indent}{name}  {type(child).__name__}  {outputs}'
        if depth > 1:
            yield from _lines(child, f'{first}.', maps, defaults, depth - 1, f'{indent}  ')


def _alike(module: nn.Module, path: str, maps: dict) -> Iterator[list[str]]:
    """Names of the children that put out maps, or whose parts do; neighbours that look the same together."""
    group, look = [], None
    for name, child in module.named_children():
        inside = {
            layer[len(path) + len(name) :]: _outputs(found)
            for layer, found in maps.items()
            if f'{layer}.'.startswith(f'{path}{name}.')
        }
        if not inside:
            continue
        if group and name.isdigit() and look == (type(child), inside):
            group.append(name)
            continue
        if group:
            yield group
        group, look = [name], (type(child), inside)
    if group:
        yield group


def _outputs(found: list[ActivationMap]) -> str:
    return ', '.join(_shape(activation) for activation in found)


def _shape(activation: ActivationMap) -> str:
    rows, columns = activation.values.shape[1:]
    return f'{activation.channels} x {rows} x {columns} ({format_stride(activation.stride)})'
