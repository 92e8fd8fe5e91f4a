"""Layer selection: finds the modules of a detector by path, glob or class, and the default layers."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from typing import Sequence

import torch
from torch import nn

from mmdet_featviz.capture.detector import predicting_branch

# Drawn if the user names no layers. Only mask transformers have a pixel decoder, and only DETRs an encoder.
DEFAULT_LAYERS = ('backbone', 'neck', 'panoptic_head.pixel_decoder', 'encoder')


def find_default_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of `DEFAULT_LAYERS` that the detector has, in that order."""
    branch = predicting_branch(model)
    named = modules_by_name(model)
    return {branch + name: named[branch + name] for name in DEFAULT_LAYERS if branch + name in named}


def modules_by_name(model: nn.Module) -> dict[str, nn.Module]:
    """{path: module} of the model and all its parts; a module that has several names is listed under each."""
    return dict(model.named_modules(remove_duplicate=False))


def find_layers(model: nn.Module, layers: Sequence[str] | None) -> dict[str, nn.Module]:
    """Find the modules that match layer paths or globs, in the order of the model.

    Args:
        model: The detector.
        layers: Module paths as ``named_modules()`` prints them, or globs: ``*`` stands for any part of a path between
            two dots, ``**`` for any number of parts. A module that has several names is found under each; a glob that
            matches several of them takes the first. In a semi-supervised wrapper, paths inside the predicting branch
            work too. None selects the default layers.

    Returns:
        {module path: module}.

    Raises:
        ValueError: If a path or glob matches nothing, or matches a container that is never called or a scripted module.
    """
    if layers is None:
        defaults = find_default_layers(model)
        if not defaults:
            raise ValueError(
                f'{type(model).__name__} has neither backbone nor neck: choose layers from its parts, '
                f'{", ".join(name for name, _ in model.named_children())}'
            )
        return defaults
    named = {name: module for name, module in modules_by_name(model).items() if name}
    branch = predicting_branch(model)
    chosen = set()
    for layer in layers:
        matches = _names_matching(layer, named) or _names_matching(branch + layer, named)
        if not matches:
            raise ValueError(f'unknown layer {layer!r}: {_suggest_layers(layer, named)}')
        chosen |= matches
    for name in sorted(chosen):
        if isinstance(named[name], torch.jit.ScriptModule):
            raise ValueError(
                f'layer {name!r} is scripted: forward hooks do not fire there. Use the detector without scripting'
            )
        if not _has_forward(named[name]):
            children = [f'{name}.{child}' for child, _ in named[name].named_children()]
            raise ValueError(
                f'layer {name!r} never fires: a {type(named[name]).__name__} is a container that is not called itself. '
                f'Choose its parts instead: {", ".join(children) or "it has none"}'
            )
    return {name: module for name, module in named.items() if name in chosen}


def find_modules_of_type(modules: dict[str, nn.Module], layer_type: str) -> dict[str, nn.Module]:
    """Find the modules of a class among the given modules and inside them.

    Args:
        modules: {module path: module}.
        layer_type: Name of the class or of one of its base classes, such as ``Conv2d``.

    Raises:
        ValueError: If no module is of that class.
    """
    inside = {name: part for outer, module in modules.items() for name, part in module.named_modules(prefix=outer)}
    matches = {
        name: part
        for name, part in inside.items()
        if any(kind.__name__ == layer_type for kind in type(part).__mro__) and _has_forward(part)
    }
    if not matches:
        types = sorted({type(part).__name__ for part in inside.values() if not list(part.children())})
        raise ValueError(f'there is no {layer_type} in {", ".join(modules)}; they contain {", ".join(types)}')
    return matches


def _names_matching(layer: str, named: dict[str, nn.Module]) -> set[str]:
    if not any(character in layer for character in '*?['):
        return {layer} & named.keys()
    patterns = layer.split('.')
    matches = {}  # module: its first name that matches
    for name, module in named.items():
        if _parts_match(name.split('.'), patterns) and _has_forward(module):
            matches.setdefault(module, name)
    return set(matches.values())


def _parts_match(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == '**':
        return any(_parts_match(parts[skip:], patterns[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _parts_match(parts[1:], patterns[1:])


def _has_forward(module: nn.Module) -> bool:
    """Whether the module can be called: containers such as ModuleList inherit a forward that only raises."""
    return getattr(module.forward, '__func__', None) is not nn.Module.forward


def _suggest_layers(layer: str, named: dict[str, nn.Module]) -> str:
    close = difflib.get_close_matches(layer, named, n=5, cutoff=0.4)
    if close:
        return f'the closest are {", ".join(close)}'
    return f'the detector has {", ".join(name for name in named if "." not in name)} and their parts'
