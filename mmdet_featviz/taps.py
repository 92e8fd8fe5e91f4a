"""Taps: forward hooks that catch what chosen layers of a detector put out."""

from __future__ import annotations

import difflib
import logging
import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Iterator, Sequence

from mmengine.logging import print_log
from torch import Tensor, nn

from .reduction import Reduction, reduce

DEFAULT_LAYERS = ('backbone', 'neck')


@dataclass(frozen=True)
class ActivationMap:
    """The reduced output of one layer for all images of one pass.

    Attributes:
        layer: Path of the module inside the detector.
        level: Index among the outputs of the layer.
        channels: How many channels the feature map had.
        stride: Nominal stride (vertical, horizontal): pixels of the network's input per cell.
        values: (N, H, W), float32, on the device of the features.
    """

    layer: str
    level: int
    channels: int
    stride: tuple[float, float]
    values: Tensor

    @property
    def name(self) -> str:
        return f'{self.layer}_{self.level}'


@dataclass
class Pass:
    """One call of the detector on one batch, and what the taps caught in it.

    Attributes:
        inputs: The network's input (N, C, H, W), after normalisation and padding.
        samples: The N data samples of the batch, with their metas.
        maps: The activation maps, in the order in which the layers fired.
    """

    inputs: Tensor
    samples: Sequence[Any]
    maps: list[ActivationMap] = field(default_factory=list)
    outputs_seen: dict[str, int] = field(default_factory=dict)


class Taps:
    """Forward hooks on chosen layers of a detector, attached inside a ``with`` block.

    A feature map is reduced at once, on its device, and never kept. A pass begins when the detector's data preprocessor
    fires (its output alone has the metas of every pass, also under test-time augmentation), or with :meth:`begin`.

    Args:
        model: A detector; wrappers such as DDP or a TTA model are looked through.
        layers: Module paths as ``named_modules()`` prints them. ``*`` stands for a part of a path between two dots,
            ``**`` for any parts. None is backbone and neck, where the detector has them.
        reduction: From (N, C, H, W) to (N, H, W).
        strict: Whether a layer that gives no map of the image is an error.

    Raises:
        ValueError: If a layer does not exist, or can never fire.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str] | None, reduction: Reduction, strict: bool = False
    ) -> None:
        self.model = unwrap(model)
        self.reduction = reduction
        self.strict = strict
        self.modules = find_layers(self.model, layers)
        self.not_maps: dict[str, str] = {}  # layer: what it puts out instead of a map of the image
        self._must_fire = {name for name in layers or () if not _is_glob(name)}
        self._checked = False
        self._fired: set[str] = set()
        self._passes: list[Pass] = []
        self._handles: list[Any] = []

    def __enter__(self) -> Taps:
        self.attach()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.detach()

    def attach(self) -> None:
        """Put the hooks on the detector, and forget passes that nobody took."""
        self.detach()
        self._passes = []
        preprocessor = getattr(self.model, 'data_preprocessor', None)
        if preprocessor is not None:
            self._handles.append(preprocessor.register_forward_hook(self._on_preprocessed))
        for name, module in self.modules.items():
            self._handles.append(module.register_forward_hook(partial(self._on_output, name)))
        if not self._checked:  # which children to propose, should a layer never fire
            for parent in self._must_fire:
                for name, module in self.modules[parent].named_modules(prefix=parent):
                    self._handles.append(module.register_forward_hook(partial(self._on_fired, name)))

    def detach(self) -> None:
        """Remove all hooks from the detector; may be called at any time."""
        while self._handles:
            self._handles.pop().remove()

    def begin(self, inputs: Tensor, samples: Sequence[Any]) -> None:
        """Begin a pass over these inputs (N, C, H, W) and their data samples."""
        self._passes.append(Pass(inputs, samples))

    def take(self) -> list[Pass]:
        """The passes since the taps were attached; the taps forget them.

        Raises:
            ValueError: If a layer that was asked for by name did not fire in the first pass.
        """
        passes, self._passes = self._passes, []
        if passes and not self._checked:
            self._check_fired()
            self._checked = True
        return passes

    def _on_preprocessed(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, dict) and isinstance(output.get('inputs'), Tensor) and output.get('data_samples'):
            self.begin(output['inputs'], output['data_samples'])

    def _on_fired(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        self._fired.add(layer)

    def _on_output(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        if not self._passes:  # called outside a pass, for instance by another hook
            return
        current = self._passes[-1]
        for tensor in tensors_in(output):
            level = current.outputs_seen.get(layer, 0)
            current.outputs_seen[layer] = level + 1
            stride = stride_of(tensor, current.inputs)
            if stride is None:
                self._note_not_map(layer, f'output {level} has the shape {tuple(tensor.shape)}', current.inputs)
                continue
            values = reduce(tensor, self.reduction)
            current.maps.append(ActivationMap(layer, level, tensor.shape[1], stride, values))

    def _note_not_map(self, layer: str, what: str, inputs: Tensor) -> None:
        if layer in self.not_maps:
            return
        self.not_maps[layer] = what
        message = (
            f'layer {layer!r}: {what}, which is no map of the input {tuple(inputs.shape)}; it is skipped. '
            'A map has the shape (N, C, H, W), with the batch size of the input and its proportions.'
        )
        if self.strict:
            raise ValueError(message)
        print_log(message, logger='current', level=logging.WARNING)

    def _check_fired(self) -> None:
        for layer in sorted(self._must_fire - self._fired):
            children = sorted(name for name in self._fired if name.startswith(f'{layer}.'))
            children = [name for name in children if not any(name.startswith(f'{c}.') for c in children)]
            hint = f'Of its parts these do: {", ".join(children)}.' if children else 'None of its parts is, either.'
            raise ValueError(
                f'layer {layer!r} never fires: the detector does not call it (its parts may be called one by one, '
                f'past it). {hint}'
            )


def unwrap(model: nn.Module) -> nn.Module:
    """The detector inside a distributed wrapper or a test-time augmentation model."""
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    return model


def find_layers(model: nn.Module, layers: Sequence[str] | None) -> dict[str, nn.Module]:
    """The modules that layer names or globs stand for, in the order of the model.

    Raises:
        ValueError: If a name or glob matches nothing, or only containers that are never called.
    """
    named = {name: module for name, module in model.named_modules() if name}
    if layers is None:
        found = {name: named[name] for name in DEFAULT_LAYERS if name in named}
        if not found:
            raise ValueError(
                f'{type(model).__name__} has neither backbone nor neck: choose layers from its parts, '
                f'{", ".join(name for name, _ in model.named_children())}'
            )
        return found
    chosen = set()
    for layer in layers:
        if _is_glob(layer):
            matches = {name for name, module in named.items() if _matches(name, layer) and _has_forward(module)}
        else:
            matches = {layer} & named.keys()
        if not matches:
            raise ValueError(f'unknown layer {layer!r}: {_closest(layer, named)}')
        chosen |= matches
    for name in sorted(chosen):
        if not _has_forward(named[name]):
            children = [f'{name}.{child}' for child, _ in named[name].named_children()]
            raise ValueError(
                f'layer {name!r} never fires: a {type(named[name]).__name__} is a container that is not called itself. '
                f'Tap its parts: {", ".join(children) or "it has none"}'
            )
    return {name: module for name, module in named.items() if name in chosen}


def tensors_in(output: Any) -> Iterator[Tensor]:
    """All tensors of a module's output, however nested, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from tensors_in(value)


def stride_of(tensor: Tensor, inputs: Tensor) -> tuple[float, float] | None:
    """Nominal stride (vertical, horizontal) of a tensor, or None if it is no feature map of these inputs."""
    if tensor.dim() != 4 or len(tensor) != len(inputs) or tensor.numel() == 0 or not tensor.is_floating_point():
        return None
    return nominal_stride(tuple(tensor.shape[2:]), tuple(inputs.shape[2:]))


def nominal_stride(cells: tuple[int, int], pixels: tuple[int, int]) -> tuple[float, float] | None:
    """Stride of a map of (rows, columns) cells over an input of (height, width) pixels.

    Strided layers round up, so a chain of them makes ceil(pixels / stride) cells: 13 rows over 800 pixels have the
    stride 64 and cover 832, where the plain quotient would say 61.5. The power of two for which that holds on both
    axes is taken; without one (a dilated, valid-padded or resampled map) the quotient of each axis.

    Returns:
        (vertical, horizontal), or None where no stride, rounded either way, makes that shape: the map's proportions
        are not the input's.
    """
    for exponent in range(max(pixels).bit_length() + 1):
        stride = 2**exponent
        if all(math.ceil(p / stride) == c for p, c in zip(pixels, cells)):
            return float(stride), float(stride)
    # Some stride s with c - 1 < p / s < c + 1 on both axes, that is p / (c + 1) < s < p / (c - 1).
    lowest = max(p / (c + 1) for p, c in zip(pixels, cells))
    highest = min(p / (c - 1) if c > 1 else math.inf for p, c in zip(pixels, cells))
    if lowest >= highest:
        return None
    return pixels[0] / cells[0], pixels[1] / cells[1]


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
    return type(module).forward is not nn.Module.forward


def _closest(layer: str, names: dict[str, nn.Module]) -> str:
    close = difflib.get_close_matches(layer, names, n=5, cutoff=0.4)
    if close:
        return f'the closest are {", ".join(close)}'
    return f'the detector has {", ".join(name for name in names if "." not in name)} and their parts'
