"""Taps: forward hooks that capture the outputs of chosen layers of a detector."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet_featviz.capture.activation_map import ActivationMap, Pass, to_host
from mmdet_featviz.capture.channel_attention import ChannelAttentionFinder
from mmdet_featviz.capture.channel_selection import DetailRecorder
from mmdet_featviz.capture.detector import predicting_branch, unwrap_detector
from mmdet_featviz.capture.layer_selection import find_default_layers, find_layers, find_modules_of_type
from mmdet_featviz.capture.module_outputs import describe_tensor, feature_maps_in, tensors_in
from mmdet_featviz.capture.reductions import Reduction, reduce_feature_map
from mmdet_featviz.capture.strides import stride_of
from mmdet_featviz.capture.tokens import window_shift


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
        keeper: DetailRecorder | None = None,
        attention: bool = False,
        quiet: bool = False,
    ) -> None:
        self.model = unwrap_detector(model)
        self.quiet = quiet
        self.reduction = reduction
        self.strict = strict
        self.keeper = keeper
        self.modules = find_layers(self.model, layers)
        self._attention = (
            ChannelAttentionFinder(self.model, list(self.modules), self._on_attention) if attention else None
        )
        if layer_type is not None:
            self.modules = find_modules_of_type(self.modules, layer_type)
        self._shifts = {name: window_shift(self.model, name) for name in self.modules}
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
        return [replace(one, maps=to_host(one.maps), attention=to_host(one.attention)) for one in passes]

    def _on_preprocessed(self, module: nn.Module, args: Any, output: Any) -> None:
        self.begin_with(output)

    def _on_fired(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        self._fired.add(layer)

    def _on_output(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        self._fired.add(layer)
        if not self._passes:  # called outside a pass, for instance by another hook
            return
        current = self._passes[-1]
        with torch.no_grad():
            for tensor, feature_maps in feature_maps_in(output, layer, current, self._shifts.get(layer, 0)):
                if not feature_maps:
                    self._note_not_map(layer, tensor, current)
                for features in feature_maps or [None]:  # what is no map is counted too: levels keep their number
                    number = current.outputs_seen.get(layer, 0)
                    current.outputs_seen[layer] = number + 1
                    if features is not None:
                        stride = stride_of(features, current.inputs)
                        current.maps.append(self._activation_map(layer, number, features, stride))

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
        values = reduce_feature_map(features, self.reduction)
        details = self.keeper.keep(features, weights) if self.keeper is not None else None
        return ActivationMap(layer, number, features.shape[1], stride, values, details)

    def _on_levels(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        """Note the grids of backbone and neck, which tokens of other layers may lie on."""
        if self._passes:
            current = self._passes[-1]
            maps = [tensor for tensor in tensors_in(output) if stride_of(tensor, current.inputs)]
            current.grids[layer] = [tuple(level.shape[2:]) for level in maps]

    def _note_not_map(self, layer: str, tensor: Tensor, current: Pass) -> None:
        if layer in self.not_maps:
            return
        self.not_maps[layer] = f'{describe_tensor(tensor, current.inputs)}, {tuple(tensor.shape)}'
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
