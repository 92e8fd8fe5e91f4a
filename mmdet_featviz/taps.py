"""Taps: forward hooks that catch what chosen layers of a detector put out."""

from __future__ import annotations

import difflib
import logging
import math
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import Any, Iterator, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .channels import AttentionFinder, Keeper
from .reduction import Reduction, reduce
from .tokens import maps_in_tokens

# What a detector is drawn by unless layers are named; those at the end only some families have.
DEFAULT_LAYERS = ('backbone', 'neck', 'panoptic_head.pixel_decoder', 'encoder')
QUERY_DECODERS = {'decoder', 'transformer_decoder'}


@dataclass(frozen=True)
class ActivationMap:
    """The reduced output of one layer for all images of one pass.

    Attributes:
        layer: Path of the module inside the detector.
        level: Index among the outputs of the layer.
        channels: How many channels the feature map had.
        stride: Nominal stride (vertical, horizontal): pixels of the network's input per cell.
        values: (N, H, W), float32, on the device of the features.
        details: What else was kept of each image: N times whatever the taps' `details` gave.
    """

    layer: str
    level: int
    channels: int
    stride: tuple[float, float]
    values: Tensor
    details: Sequence[Any] | None = None

    @property
    def name(self) -> str:
        return f'{self.layer}_{self.level}'


def on_host(maps: Sequence[ActivationMap]) -> list[ActivationMap]:
    """The maps with their values in the host's memory: one copy for all, so that a GPU is waited for only once."""
    if not maps:
        return []
    values = torch.cat([activation.values.flatten() for activation in maps]).cpu()
    parts = values.split([activation.values.numel() for activation in maps])
    return [replace(one, values=part.view(one.values.shape)) for one, part in zip(maps, parts)]


@dataclass
class Pass:
    """One call of the detector on one batch, and what the taps caught in it.

    Attributes:
        inputs: The network's input (N, C, H, W), after normalisation and padding.
        samples: The N data samples of the batch, with their metas.
        maps: The activation maps, in the order in which the layers fired.
        attention: Those of channel-attention modules; their details have the weights.
        grids: (rows, columns) of each level of backbone and neck, whether tapped or not.
        outputs_seen: How many outputs of each layer have been met.
    """

    inputs: Tensor
    samples: Sequence[Any]
    maps: list[ActivationMap] = field(default_factory=list)
    attention: list[ActivationMap] = field(default_factory=list)
    grids: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    outputs_seen: dict[str, int] = field(default_factory=dict)


class Taps:
    """Forward hooks on chosen layers of a detector, attached inside a ``with`` block.

    A feature map is reduced at once, on its device, and never kept. A pass begins when the detector's data preprocessor
    fires (its output alone has the metas of every pass, also under test-time augmentation), or with :meth:`begin`.

    Args:
        model: A detector; wrappers such as DDP or a TTA model are looked through.
        layers: Module paths as ``named_modules()`` prints them. ``*`` stands for a part of a path between two dots,
            ``**`` for any parts. None is all of `DEFAULT_LAYERS` that the detector has.
        reduction: From (N, C, H, W) to (N, H, W).
        strict: Whether a layer that gives no map of the image is an error.
        layer_type: Only modules of this class (or one that inherits from it) inside the layers, such as ``Conv2d``.
        keeper: Keeps more of each feature map than its activation map.
        attention: Whether the weights of channel-attention modules inside the layers are kept, too.
        quiet: Whether nothing is said of outputs that are no map.

    Raises:
        ValueError: If a layer does not exist, or can never fire.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | None,
        reduction: Reduction,
        strict: bool = False,
        layer_type: str | None = None,
        keeper: Keeper | None = None,
        attention: bool = False,
        quiet: bool = False,
    ) -> None:
        self.model = unwrap(model)
        self.quiet = quiet
        self.reduction = reduction
        self.strict = strict
        self.keeper = keeper
        self.modules = find_layers(self.model, layers)
        self._attention = AttentionFinder(self.model, list(self.modules), self._on_attention) if attention else None
        if layer_type is not None:
            self.modules = modules_of_type(self.modules, layer_type)
        self._shifts = {name: _window_shift(self.model, name) for name in self.modules}
        self.not_maps: dict[str, str] = {}  # layer: what it puts out instead of a map of the image
        branch = predicting_branch(self.model)
        asked = {name for layer in layers or () for name in (layer, branch + layer)}
        self._must_fire = asked & self.modules.keys()  # those that came by a glob may stay silent
        self._level_sources = find_default_layers(self.model)
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
        for name, module in self._level_sources.items():
            self._handles.append(module.register_forward_hook(partial(self._on_levels, name)))
        for name, module in self.modules.items():
            self._handles.append(module.register_forward_hook(partial(self._on_output, name)))
        if self._attention is not None:
            self._handles += [module.register_forward_hook(hook) for module, hook in self._attention.hooks()]
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

    def begin_with(self, preprocessed: Any) -> None:
        """Begin a pass over what the detector's data preprocessor put out, if that is images with their samples."""
        if not isinstance(preprocessed, dict) or not preprocessed.get('data_samples'):
            return
        inputs, samples = preprocessed.get('inputs'), preprocessed['data_samples']
        if isinstance(inputs, dict) and isinstance(inputs.get('img'), Tensor) and inputs['img'].dim() == 5:
            # Videos: (N, T, C, H, W), with a sample for each frame inside that of the video.
            inputs = inputs['img'].flatten(0, 1)
            samples = [frame for video in samples for frame in video.video_data_samples]
        if isinstance(inputs, Tensor):
            self.begin(inputs, samples)

    def take(self) -> list[Pass]:
        """The passes since the taps were attached, their maps in the host's memory; the taps forget them.

        Raises:
            ValueError: If a layer that was asked for by name did not fire in the first pass.
        """
        passes, self._passes = self._passes, []
        if passes and not self._checked:
            self._check_fired()
            self._checked = True
        return [replace(one, maps=on_host(one.maps), attention=on_host(one.attention)) for one in passes]

    def _on_preprocessed(self, module: nn.Module, args: Any, output: Any) -> None:
        self.begin_with(output)

    def _on_fired(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        self._fired.add(layer)

    def _on_output(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        self._fired.add(layer)
        if not self._passes:  # called outside a pass, for instance by another hook
            return
        current = self._passes[-1]
        tokens = None  # how many there are on several levels: tokens beside them are a text, as in Grounding DINO
        for tensor in tensors_in(output):
            features = []
            if tokens is None or tensor.dim() != 3 or tensor.shape[1] == tokens:
                with torch.no_grad():
                    features = self._feature_maps(layer, tensor.detach(), current)
            if tensor.dim() == 3 and len(features) > 1:
                tokens = tensor.shape[1]
            if not features:
                self._note_not_map(layer, tensor, current)
            for level in features or [None]:  # what is no map is counted too: levels keep their number
                number = current.outputs_seen.get(layer, 0)
                current.outputs_seen[layer] = number + 1
                if level is not None:
                    stride = stride_of(level, current.inputs)
                    current.maps.append(self._activation_map(layer, number, level, stride))

    def _on_attention(self, layer: str, features: Tensor, weights: Tensor) -> None:
        if self._passes:
            current = self._passes[-1]
            stride = stride_of(features, current.inputs)
            if stride is not None:
                number = sum(activation.layer == layer for activation in current.attention)
                current.attention.append(self._activation_map(layer, number, features, stride, weights))

    def _activation_map(
        self, layer: str, number: int, features: Tensor, stride: tuple[float, float], weights: Tensor | None = None
    ) -> ActivationMap:
        values = reduce(features, self.reduction)
        details = self.keeper.keep(features, weights) if self.keeper is not None else None
        return ActivationMap(layer, number, features.shape[1], stride, values, details)

    def _feature_maps(self, layer: str, tensor: Tensor, current: Pass) -> list[Tensor]:
        """The feature maps (N, C, H, W) in a tensor: itself, folded tokens, or none."""
        if stride_of(tensor, current.inputs) is not None:
            return [] if tensor.data_ptr() == current.inputs.data_ptr() else [tensor]
        if not QUERY_DECODERS.isdisjoint(layer.split('.')):  # as many queries as some grid has cells are none
            return []
        maps = maps_in_tokens(tensor, current.inputs, current.grids.values(), self._shifts.get(layer, 0))
        return maps if all(stride_of(level, current.inputs) for level in maps) else []

    def _on_levels(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        """Note the grids of backbone and neck, which tokens of other layers may lie on."""
        if self._passes:
            current = self._passes[-1]
            maps = [tensor for tensor in tensors_in(output) if stride_of(tensor, current.inputs)]
            current.grids[layer] = [tuple(level.shape[2:]) for level in maps]

    def _note_not_map(self, layer: str, tensor: Tensor, current: Pass) -> None:
        if layer in self.not_maps:
            return
        self.not_maps[layer] = f'{what_it_is(tensor, current.inputs)}, {tuple(tensor.shape)}'
        message = (
            f'layer {layer!r} puts out no map of the input {tuple(current.inputs.shape)} but '
            f'{self.not_maps[layer]}; it is skipped'
        )
        if self.strict:
            raise ValueError(message)
        if not self.quiet:
            print_log(message, logger='current', level=logging.WARNING)

    def _check_fired(self) -> None:
        if not self._fired:
            raise ValueError(
                f'none of the layers {", ".join(self.modules)} fired in the first pass: forward hooks do not fire '
                'inside a compiled or exported detector. Draw with the plain one (compile=False)'
            )
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


def predicting_branch(model: nn.Module) -> str:
    """Path of the detector that predicts inside a semi-supervised wrapper, with a dot; empty for plain detectors."""
    semi_test_cfg = getattr(model, 'semi_test_cfg', None)
    if not (hasattr(model, 'teacher') and hasattr(model, 'student') and semi_test_cfg is not None):
        return ''
    return f'{semi_test_cfg.get("predict_on", "teacher")}.'


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


def modules_of_type(modules: dict[str, nn.Module], layer_type: str) -> dict[str, nn.Module]:
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


def _window_shift(model: nn.Module, layer: str) -> int:
    """How far a shifted-window attention around this layer rolls its grid."""
    parents = layer.split('.')
    for depth in range(len(parents), 0, -1):
        shift = getattr(model.get_submodule('.'.join(parents[:depth])), 'shift_size', None)
        if isinstance(shift, int):
            return shift
    return 0


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


def what_it_is(tensor: Tensor, inputs: Tensor) -> str:
    """A name for an output that is no map of the input."""
    if tensor.numel() == 0:
        return 'an empty set'
    if not tensor.is_floating_point():
        return 'indices or masks'
    if tensor.data_ptr() == inputs.data_ptr():
        return 'the input image itself'
    if tensor.dim() == 4 and len(tensor) != len(inputs):
        return 'crops of regions, or several maps for each image, as of queries or branches'
    if tensor.dim() == 4 and tensor.shape[2] == tensor.shape[3]:
        return 'a grid that is square whatever the input'
    return 'scores, queries or the like'


@lru_cache(maxsize=1024)
def nominal_stride(cells: tuple[int, int], pixels: tuple[int, int]) -> tuple[float, float] | None:
    """Stride of a map of (rows, columns) cells over an input of (height, width) pixels.

    Strided layers round up, so a chain of them makes ceil(pixels / stride) cells: 13 rows over 800 pixels have the
    stride 64 and cover 832, where the plain quotient would say 61.5. Pooling without padding rounds down. The power of
    two for which either holds on both axes is taken; without one (a resampled map) the quotient of each axis.

    Returns:
        (vertical, horizontal), or None where no stride, rounded either way, makes that shape: the map's proportions
        are not the input's.
    """
    for rounded in (math.ceil, math.floor):
        for exponent in range(max(pixels).bit_length() + 1):
            stride = 2**exponent
            if all(rounded(p / stride) == c for p, c in zip(pixels, cells)):
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
    return getattr(module.forward, '__func__', None) is not nn.Module.forward


def _closest(layer: str, names: dict[str, nn.Module]) -> str:
    close = difflib.get_close_matches(layer, names, n=5, cutoff=0.4)
    if close:
        return f'the closest are {", ".join(close)}'
    return f'the detector has {", ".join(name for name in names if "." not in name)} and their parts'
