"""Selection of layers by name, glob or class."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from typing import Sequence

import torch
from torch import nn

from mmdet_featviz.capture.detector import predicting_branch

# What a detector is drawn by unless layers are named; those at the end only some families have.
DEFAULT_LAYERS = ('backbone', 'neck', 'panoptic_head.pixel_decoder', 'encoder')


def find_default_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Backbone and neck, the pixel decoder of mask transformers and the encoder of DETRs, as far as there are any."""
    branch = predicting_branch(model)
    named = dict(model.named_modules())
    return {branch + name: named[branch + name] for name in DEFAULT_LAYERS if branch + name in named}


def find_layers(model: nn.Module, layers: Sequence[str] | None) -> dict[str, nn.Module]:
    """The modules that layer names or globs stand for, in the order of the model.

    In a semi-supervised wrapper the names may be those inside the branch that predicts.

    Raises:
        ValueError: If a name or glob matches nothing, or only containers that are never called.
    """
    if layers is None:
        found = find_default_layers(model)
        if not found:
            raise ValueError(
                f'{type(model).__name__} has neither backbone nor neck: choose layers from its parts, '
                f'{", ".join(name for name, _ in model.named_children())}'
            )
        return found
    named = {name: module for name, module in model.named_modules() if name}
    branch = predicting_branch(model)
    chosen = set()
    for layer in layers:
        matches = _matching(layer, named) or _matching(branch + layer, named)
        if not matches:
            raise ValueError(f'unknown layer {layer!r}: {_closest(layer, named)}')
        chosen |= matches
    for name in sorted(chosen):
        if isinstance(named[name], torch.jit.ScriptModule):
            raise ValueError(
                f'layer {name!r} is scripted: forward hooks do not fire there. Draw with the plain detector'
            )
        if not _has_forward(named[name]):
            children = [f'{name}.{child}' for child, _ in named[name].named_children()]
            raise ValueError(
                f'layer {name!r} never fires: a {type(named[name]).__name__} is a container that is not called itself. '
                f'Tap its parts: {", ".join(children) or "it has none"}'
            )
    return {name: module for name, module in named.items() if name in chosen}


def find_modules_of_type(modules: dict[str, nn.Module], layer_type: str) -> dict[str, nn.Module]:
    """The modules of a class, by its name or that of a base, among these and inside them.

    Raises:
        ValueError: If there are none.
    """
    inside = {name: part for outer, module in modules.items() for name, part in module.named_modules(prefix=outer)}
    found = {
        name: part
        for name, part in inside.items()
        if any(kind.__name__ == layer_type for kind in type(part).__mro__) and _has_forward(part)
    }
    if not found:
        types = sorted({type(part).__name__ for part in inside.values() if not list(part.children())})
        raise ValueError(f'there is no {layer_type} in {", ".join(modules)}; they consist of {", ".join(types)}')
    return found


def _matching(layer: str, named: dict[str, nn.Module]) -> set[str]:
    if not _is_glob(layer):
        return {layer} & named.keys()
    return {name for name, module in named.items() if _matches(name, layer) and _has_forward(module)}


def _is_glob(layer: str) -> bool:
    return any(character in layer for character in '*?[')


def _matches(name: str, pattern: str) -> bool:
    return _parts_match(name.split('.'), pattern.split('.'))


def _parts_match(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == '**':
        return any(_parts_match(parts[skip:], patterns[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _parts_match(parts[1:], patterns[1:])


def _has_forward(module: nn.Module) -> bool:
    """Whether the module can be called at all: a ModuleList inherits the forward that only raises."""
    return getattr(module.forward, '__func__', None) is not nn.Module.forward


def _closest(layer: str, names: dict[str, nn.Module]) -> str:
    close = difflib.get_close_matches(layer, names, n=5, cutoff=0.4)
    if close:
        return f'the closest are {", ".join(close)}'
    return f'the detector has {", ".join(name for name in names if "." not in name)} and their parts'
