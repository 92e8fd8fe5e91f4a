"""Taps: forward hooks that capture and reduce the outputs of chosen layers of a detector."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet_featviz.capture.activation_map import ActivationMap, Pass, to_host
from mmdet_featviz.capture.alignment import CenterFinder
from mmdet_featviz.capture.channel_attention import ChannelAttentionFinder
from mmdet_featviz.capture.channel_selection import ChannelError, DetailRecorder
from mmdet_featviz.capture.detector import has_test_time_augmentation, predicting_branch, unwrap_detector
from mmdet_featviz.capture.kept_features import KeptCalls, KeptFeatures, is_plain_convolution
from mmdet_featviz.capture.layer_selection import find_default_layers, find_layers, find_modules_of_type
from mmdet_featviz.capture.module_outputs import describe_tensor, feature_maps_in, tensors_in
from mmdet_featviz.capture.nested_passes import are_nested
from mmdet_featviz.capture.reductions import Reduction, reduce_feature_map
from mmdet_featviz.capture.strides import stride_of
from mmdet_featviz.capture.tokens import window_shift

if TYPE_CHECKING:  # it imports the heads of mmdet, which is not needed without score maps
    from mmdet_featviz.capture.score_maps import ScoreMaps

KEPT_BYTES = 2**29  # of convolutions, for each pass


class Taps:
    """Forward hooks on chosen layers of a detector, attached inside a ``with`` block.

    A feature map is reduced inside the forward hook, on its device, and is not kept. A pass begins when the detector's
    data preprocessor fires, or with :meth:`begin`. (Only the preprocessor's output has the meta information of every
    pass, also under test-time augmentation.) It ends with the detector's forward: layers that are computed again for
    the gradients of activation checkpointing add nothing. Passes are kept until they are taken or a pass over the next
    batch begins, so nothing piles up in taps that stay attached, for example after an error elsewhere. Only with
    test-time augmentation does a batch have several passes.

    Args:
        model: A detector; wrappers such as DDP or a TTA model are handled transparently.
        layers: Module paths or globs, as in ``find_layers()``. None selects all of `DEFAULT_LAYERS` that the detector
            has.
        reduction: Function from (N, C, H, W) to (N, H, W).
        strict: Whether a layer whose output is not a feature map, or cannot be reduced, raises an error instead of a
            warning.
        layer_type: Tap only the modules of this class (or of a subclass) inside the layers, such as ``Conv2d``.
        detail_recorder: Records more of each feature map than its activation map.
        attention: Whether to capture channel-attention modules inside the layers too, with their channel weights.
        quiet: Whether to skip layers without a warning.
        find_centers: Whether to find the centers of the cells' receptive fields.
        score_maps: Makes class-score maps of what the heads return.
        keep_features: Whether a pass also keeps what the default layers and the convolutions of the heads return, for
            explanations of the batch; of convolutions up to `KEPT_BYTES`.
        keep_levels: Whether it keeps what the default layers return, for features of boxes.

    Raises:
        ValueError: If a layer does not exist or can never fire.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | None,
        reduction: Reduction,
        strict: bool = False,
        layer_type: str | None = None,
        detail_recorder: DetailRecorder | None = None,
        attention: bool = False,
        quiet: bool = False,
        find_centers: bool = True,
        score_maps: ScoreMaps | None = None,
        keep_features: bool = False,
        keep_levels: bool = False,
    ) -> None:
        self.model = unwrap_detector(model)
        self._augmented = has_test_time_augmentation(model)
        self.quiet = quiet
        self.reduction = reduction
        self.strict = strict
        self.detail_recorder = detail_recorder
        self.modules = find_layers(self.model, layers)
        self._score_maps = score_maps
        self._keeps_features = keep_features
        self._keeps_levels = keep_features or keep_levels
        self._attention = (
            ChannelAttentionFinder(self.model, list(self.modules), self._on_attention) if attention else None
        )
        if layer_type is not None:
            self.modules = find_modules_of_type(self.modules, layer_type)
        self._centers = (
            CenterFinder(self.model, self._taps_of, self._warn, self._report_not_map)
            if find_centers and self.modules
            else None
        )
        self._shifts = {name: window_shift(self.model, name) for name in self.modules}
        self.not_maps: dict[str, str] = {}  # layer: description of its output, which is not a feature map
        self._errors: dict[str, str] = {}  # layer: the first error of capturing its output
        self._failed_passes: Counter = Counter()  # layer: in how many passes there was one
        self._begun = 0  # passes
        self._nested = False  # whether it sees nested passes, or the others
        branch = predicting_branch(self.model)
        named = {name for layer in layers or () for name in (layer, branch + layer)}
        self._must_fire = named & self.modules.keys()  # layers selected by a glob or by default need not fire
        self._level_sources = find_default_layers(self.model)
        self._checked = False
        self._fired: set[str] = set()
        self._local = threading.local()  # passes belong to the thread that calls the detector
        self._lock = threading.Lock()
        self._attached: set[int] = set()  # threads between attach() and detach()
        self._handles: list[Any] = []

    @property
    def _passes(self) -> list[Pass]:
        return self._local.__dict__.setdefault('passes', [])

    @_passes.setter
    def _passes(self, passes: list[Pass]) -> None:
        self._local.passes = passes

    @property
    def _current(self) -> Pass | None:
        """The pass that has begun and not ended."""
        return self._local.__dict__.get('current')

    @_current.setter
    def _current(self, current: Pass | None) -> None:
        self._local.current = current

    def __enter__(self) -> Taps:
        self.attach()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.detach()

    def attach(self) -> None:
        """Register the hooks on the detector; drops passes that were not taken."""
        self.detach()
        self._nested = are_nested()
        self._passes = []
        with self._lock:
            if not self._attached:
                self._register_hooks()
            self._attached.add(threading.get_ident())

    def _register_hooks(self) -> None:
        self._handles.append(self.model.register_forward_hook(self._on_forward_end))
        preprocessor = getattr(self.model, 'data_preprocessor', None)
        if preprocessor is not None:
            self._handles.append(preprocessor.register_forward_hook(self._on_preprocessed))
        for name, module in self._level_sources.items():
            self._handles.append(module.register_forward_hook(partial(self._on_level_source, name)))
        if self._keeps_features:
            for name, module in _convolutions_beside(self._level_sources, self.model):
                self._handles.append(module.register_forward_hook(partial(self._on_convolution, name)))
        for name, module in self.modules.items():
            self._handles.append(module.register_forward_hook(partial(self._on_output, name)))
        if self._attention is not None:
            self._handles += [module.register_forward_hook(hook) for module, hook in self._attention.hooks()]
        if self._score_maps is not None:
            for name, head in self._score_maps.heads.items():
                self._handles.append(head.register_forward_hook(partial(self._on_head, name)))
        if not self._checked:  # note which children fire, to suggest them if a layer never does
            for parent in self._must_fire:
                for name, module in self.modules[parent].named_modules(prefix=parent):
                    self._handles.append(module.register_forward_hook(partial(self._on_fired, name)))

    def detach(self) -> None:
        """Remove all hooks from the detector. Safe to call at any time, also repeatedly."""
        self._current = None
        with self._lock:
            self._attached.discard(threading.get_ident())
            while self._handles and not self._attached:
                self._handles.pop().remove()

    @property
    def are_empty(self) -> bool:
        """Whether there is nothing to capture."""
        return not self.modules and self._score_maps is None

    def keep_branch(self, branch: str) -> None:
        """Drop the layers outside a branch, given as the start of their paths, such as ``student.``."""
        self.modules = {layer: module for layer, module in self.modules.items() if layer.startswith(branch)}
        self._must_fire &= self.modules.keys()

    def _taps_of(self, copy: nn.Module, reduction: Reduction) -> Taps:
        """Return taps of the same layers of a copy of the detector."""
        return Taps(
            copy, list(self.modules), reduction, attention=self._attention is not None, quiet=True, find_centers=False
        )

    def begin(self, inputs: Tensor, samples: Sequence[Any]) -> Pass:
        """Begin a pass over inputs (N, C, H, W) and their N data samples; drops passes over earlier batches."""
        self._begun += 1
        self._current = Pass(inputs, samples, is_augmented=self._augmented)
        if not self._augmented or _images_of(self._passes[:1]) != _images_of([self._current]):
            self._passes.clear()
        self._passes.append(self._current)
        return self._current

    def begin_preprocessed(self, preprocessed: Any) -> None:
        """Begin a pass over the output of the detector's data preprocessor, if it holds images and data samples."""
        if not isinstance(preprocessed, dict) or not preprocessed.get('data_samples'):
            return
        inputs, samples = preprocessed.get('inputs'), preprocessed['data_samples']
        if isinstance(inputs, dict) and isinstance(inputs.get('img'), Tensor) and inputs['img'].dim() == 5:
            # Videos: (N, T, C, H, W); the sample of a video holds one sample per frame.
            inputs = inputs['img'].flatten(0, 1)
            samples = [frame for video in samples for frame in video.video_data_samples]
        if isinstance(inputs, Tensor):
            self.begin(inputs, samples)

    def take(self, results: Sequence[Any] = ()) -> list[Pass]:
        """Return the passes over the latest batch, with their maps in CPU memory, and forget them.

        There are none if none began since the last call or :meth:`attach`, and several under test-time augmentation.

        Args:
            results: Data samples with the predictions of the latest pass, if the detector's forward has not ended.

        Raises:
            ValueError: If a layer that was selected by its path, not by a glob, did not fire in the first pass.
        """
        passes, self._passes = self._passes, []
        if passes and not self._checked:
            self._check_fired(hooks_fire=bool(passes[0].grids))
            self._checked = True
        if passes:
            self._make_score_maps(passes[-1], results)
        passes = [
            replace(
                taken,
                maps=to_host(taken.maps),
                attention=to_host(taken.attention),
                scores=[to_host(maps) for maps in taken.scores],
            )
            for taken in passes
        ]
        if self._centers is not None:
            for taken in passes:
                self._centers.add_to(taken)
        return passes

    @property
    def fired(self) -> frozenset[str]:
        """The layers that have fired so far, with a feature map or without."""
        return frozenset(self._fired)

    def skipped_layers(self) -> list[str]:
        """One description per layer that was skipped, in every pass or in some, with the reason; for summaries."""
        not_maps = [f'layer {layer}, no spatial map ({what})' for layer, what in self.not_maps.items()]
        errors = [
            f'layer {layer}, {error} ({self._failed_passes[layer]} of {self._begun} passes)'
            for layer, error in self._errors.items()
        ]
        return not_maps + errors

    def _on_preprocessed(self, module: nn.Module, args: Any, output: Any) -> None:
        if are_nested() != self._nested:
            return
        self.begin_preprocessed(output)

    def _on_forward_end(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._current is not None:
            self._make_score_maps(self._current, output)
        self._current = None

    def _on_head(self, head: str, module: nn.Module, args: Any, output: Any) -> None:
        current = self._current
        if current is not None and f'{head}.scores' not in current.failed:
            with self._losing_only(f'{head}.scores', current):
                pixels = tuple(current.inputs.shape[2:])
                current.head_scores[head] = self._score_maps.read(head, output, pixels)

    @torch.no_grad()
    def _make_score_maps(self, current: Pass, output: Any) -> None:
        """Make the class-score maps of a pass, unless they are made, given what the detector returned."""
        if self._score_maps is None or current.scores:
            return
        results = list(output) if isinstance(output, (list, tuple)) else []
        results = [frame for result in results for frame in getattr(result, 'video_data_samples', [result])]
        current.scores = [[] for _ in current.samples]
        for head, module in self._score_maps.heads.items():
            name = f'{head}.scores'
            if name in current.failed:
                continue
            with self._losing_only(name, current):
                if head not in current.head_scores:
                    raise RuntimeError(f'the detector does not call {type(module).__name__}')
                made = self._score_maps.maps(head, current.head_scores[head], current.samples, results)
                for maps, new in zip(current.scores, made):
                    maps += new
        current.head_scores.clear()

    def _on_fired(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        self._fired.add(layer)

    def _on_output(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        self._fired.add(layer)
        current = self._current
        # Outside a pass a layer is called by another hook, for example, or again for its gradients.
        if current is None or layer in current.failed:
            return
        with torch.no_grad(), self._losing_only(layer, current):
            found = None
            for found, feature_maps in feature_maps_in(output, layer, current, self._shifts[layer]):
                if not feature_maps:
                    self._report_not_map(layer, describe_tensor(found, current.inputs), current)
                # Other outputs are counted too, so that the number of a level does not depend on them.
                for features in feature_maps or [None]:
                    number = current.outputs_seen.get(layer, 0)
                    current.outputs_seen[layer] = number + 1
                    if features is not None:
                        stride = stride_of(features, current.inputs)
                        activation = self._activation_map(layer, number, features, stride)
                        current.maps.append(replace(activation, is_folded=found.dim() == 3))
                if feature_maps:
                    self._keep(layer, found, current.maps[-len(feature_maps) :])
            if found is None:
                self._report_not_map(layer, f'an output of type {type(output).__name__} without tensors', current)

    def _keep(self, layer: str, tensor: Tensor, maps: Sequence[ActivationMap]) -> None:
        """Do nothing; subclasses may keep the tensor that activation maps were made from."""

    def _on_attention(self, layer: str, features: Tensor, weights: Tensor) -> None:
        current = self._current
        if current is None or layer in current.failed:
            return
        with self._losing_only(layer, current):
            stride = stride_of(features, current.inputs)
            if stride is not None:
                number = sum(activation.layer == layer for activation in current.attention)
                current.attention.append(self._activation_map(layer, number, features, stride, weights))

    def _activation_map(
        self, layer: str, number: int, features: Tensor, stride: tuple[float, float], weights: Tensor | None = None
    ) -> ActivationMap:
        values = reduce_feature_map(features, self.reduction)
        recorder = self.detail_recorder
        details = None if recorder is None else recorder.record(features, weights, f'{layer}_{number}')
        return ActivationMap(layer, number, features.shape[1], stride, values, details)

    def _on_level_source(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        """Note the grids of the default layers: tokens of other layers are folded onto these grids."""
        current = self._current
        if current is not None:
            if self._keeps_levels and not self.model.training:
                self._keep_features(layer, output, current)
            maps = [tensor for tensor in tensors_in(output) if stride_of(tensor, current.inputs)]
            current.grids[layer] = [tuple(level.shape[2:]) for level in maps]

    def _keep_features(self, layer: str, output: Any, current: Pass) -> None:
        """Keep what a default layer returns, unless it is called again: nobody knows which output is wanted then."""
        if layer in current.grids:
            current.features.pop(layer, None)
            return
        with suppress(TypeError):
            current.features[layer] = KeptFeatures(output)

    def _on_convolution(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        current = self._current
        if current is None or current.is_augmented or self.model.training or current.kept_bytes > KEPT_BYTES:
            return
        if len(args) == 1:
            with suppress(TypeError):
                current.kept_bytes += current.features.setdefault(name, KeptCalls()).add(*args, output)

    def _report_not_map(self, layer: str, what: str, current: Pass) -> None:
        if layer in self.not_maps:
            return
        self.not_maps[layer] = what
        message = (
            f'the output of layer {layer!r} is not a feature map of the input {tuple(current.inputs.shape)} but '
            f'{what}; it is skipped'
        )
        if self.strict:
            raise ValueError(message)
        self._warn(message)

    @contextmanager
    def _losing_only(self, layer: str, current: Pass) -> Iterator[None]:
        """Let an error cost the pass all maps of the layer, and nothing else; it is raised if `strict`.

        Channels that do not exist always raise: they are a wrong argument, and are found in the first pass.
        Maps of the layer from before the error are dropped too: those after it would get wrong numbers.
        """
        try:
            yield
        except ChannelError:
            raise
        except Exception as error:  # a reduction may be the user's, and unusual tensors raise errors of all kinds
            if self.strict:
                raise
            current.failed.add(layer)
            current.maps = [activation for activation in current.maps if activation.layer != layer]
            current.attention = [activation for activation in current.attention if activation.layer != layer]
            self._failed_passes[layer] += 1
            if layer not in self._errors:
                self._errors[layer] = f'{type(error).__name__}: {error}'.split('\n')[0]
                self._warn(f'layer {layer!r} is skipped, {self._errors[layer]} (strict=True stops there instead)')

    def _warn(self, message: str) -> None:
        if not self.quiet:
            print_log(message, logger='current', level=logging.WARNING)

    def _check_fired(self, hooks_fire: bool) -> None:
        """Raise ValueError if a layer that was named did not fire, or none did; `hooks_fire`: whether others did."""
        if self.modules and not self._fired and not hooks_fire:
            raise ValueError(
                f'none of the layers {", ".join(self.modules)} fired in the first pass: forward hooks do not fire '
                'inside a compiled or exported detector. Use the plain detector (compile=False)'
            )
        for layer in sorted(self._must_fire - self._fired):
            children = sorted(name for name in self._fired if name.startswith(f'{layer}.'))
            children = [name for name in children if not any(name.startswith(f'{c}.') for c in children)]
            hint = f'Of its parts, these do: {", ".join(children)}.' if children else 'None of its parts fires either.'
            raise ValueError(
                f'layer {layer!r} never fires: the detector does not call it (it may call its parts directly). {hint}'
            )
        if self.modules and not self._fired:
            raise ValueError(f'none of the layers {", ".join(self.modules)} fires: the detector does not call them')


def _convolutions_beside(layers: Mapping[str, nn.Module], model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The convolutions of the predicting branch outside the default layers, which are those of its heads."""
    inside = {part for layer in layers.values() for part in layer.modules()}
    branch = predicting_branch(model)
    for name, module in model.named_modules():
        if name.startswith(branch) and module not in inside and is_plain_convolution(module):
            yield name, module


def _images_of(passes: Sequence[Pass]) -> list[Any]:
    """What identifies the images of passes; equal for the passes of test-time augmentation."""
    return [
        (getattr(sample, 'img_path', None), getattr(sample, 'img_id', None))
        for pass_ in passes
        for sample in pass_.samples
    ]
