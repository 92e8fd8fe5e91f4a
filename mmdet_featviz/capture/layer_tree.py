"""Layer tree: lists the layers of a detector that output feature maps, with their shapes and strides."""

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
    """Format a tree of the modules that output feature maps, with the shapes and strides of their maps.

    Equal neighbors share a line (``0-2  Bottleneck``). A star marks the default layers.

    Args:
        model: The detector.
        run: Runs the detector on one image.
        depth: Number of levels of nested modules that are listed.
    """
    model = unwrap_detector(model)
    # Strides are those of shapes here: in all parts of a detector, finding centers would take long.
    taps = Taps(model, ['**'], lambda features: features[:, 0], quiet=True, find_centers=False)
    with taps, torch.no_grad():
        run()
    maps = defaultdict(list)
    for activation in taps.take()[0].maps:
        maps[activation.layer].append(activation)
    defaults = set(find_default_layers(model).values())
    lines = [f'{type(model).__name__}: channels x rows x columns (stride); * is drawn by default']
    lines += _lines(model, '', maps, defaults, depth)
    return '\n'.join(lines)


def _lines(
    module: nn.Module, path: str, maps: dict, defaults: set[nn.Module], depth: int, indent: str = ''
) -> Iterator[str]:
    for names in _groups_of_equal_children(module, path, maps):
        first = f'{path}{names[0]}'
        child = module.get_submodule(names[0])
        name = names[0] if len(names) == 1 else f'{names[0]}-{names[-1]}'
        star = '*' if child in defaults else ' '
        outputs = _describe_maps(maps[first]) if maps.get(first) else 'its parts only'
        yield f'{star} {indent}{name}  {type(child).__name__}  {outputs}'
        if depth > 1:
            yield from _lines(child, f'{first}.', maps, defaults, depth - 1, f'{indent}  ')


def _groups_of_equal_children(module: nn.Module, path: str, maps: dict) -> Iterator[list[str]]:
    """Names of the children that have maps themselves or in their parts; equal neighbors are in one group."""
    group, group_content = [], None
    for name, child in module.named_children():
        inside = {
            layer[len(path) + len(name) :]: _describe_maps(layer_maps)
            for layer, layer_maps in maps.items()
            if f'{layer}.'.startswith(f'{path}{name}.')
        }
        if not inside:
            continue
        if group and name.isdigit() and group_content == (type(child), inside):
            group.append(name)
            continue
        if group:
            yield group
        group, group_content = [name], (type(child), inside)
    if group:
        yield group


def _describe_maps(maps: list[ActivationMap]) -> str:
    return ', '.join(_describe_map(activation) for activation in maps)


def _describe_map(activation: ActivationMap) -> str:
    rows, columns = activation.values.shape[1:]
    return f'{activation.channels} x {rows} x {columns} ({format_stride(activation.stride)})'
