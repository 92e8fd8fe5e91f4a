"""Detector batch: a detector and one batch of images, on which it predicts as often as an explanation needs."""

from __future__ import annotations

import copy
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.detector import predicting_branch, unwrap_detector
from mmdet_featviz.capture.kept_features import KeptFeatures
from mmdet_featviz.capture.layer_selection import find_default_layers
from mmdet_featviz.capture.nested_passes import nested_passes
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.explanation.decoder_record import DecoderRecord, recorded_decoder
from mmdet_featviz.explanation.detections import Detections, detections_of
from mmdet_featviz.explanation.differentiable import differentiable, evaluation_mode
from mmdet_featviz.explanation.gradient_taps import GradientTaps
from mmdet_featviz.explanation.replacement import one_thread
from mmdet_featviz.explanation.reused_features import reusing
from mmdet_featviz.explanation.suppression import boxes_only, without_suppression

DEFAULT_LAYERS = ('neck', 'panoptic_head.pixel_decoder', 'backbone')  # the first of them that the detector has


@dataclass(frozen=True, eq=False)
class TappedPass:
    """A pass that was observed at some layers.

    Attributes:
        detections: The predictions for each image.
        taps: The taps, which hold the tapped tensors.
        pass_: The pass, for its inputs and grids.
    """

    detections: Sequence[Detections]
    taps: GradientTaps
    pass_: Pass


class DetectorBatch:
    """A detector and one batch of images.

    The detector predicts in evaluation mode, from the same random state each time, and without test-time augmentation.

    Args:
        model: The detector; wrappers such as DDP or a TTA model are removed.
        data: The batch as a data loader returns it: lists ``inputs`` and ``data_samples``. It is not changed.
        layers: Layers to explain at: module paths or globs. None is the neck, or the pixel decoder or backbone of
            detectors without a neck; for attention, the last layer of the decoder.
        suppressed: Whether to predict as in a test. Otherwise every candidate is predicted, also those that NMS or the
            score threshold removes.
        detections: What the detector has predicted for each image of this batch, if it has. The explained boxes are
            then those, bit for bit; None predicts once more.
        features: What backbone and neck returned while they were predicted, by path, as taps keep it. Passes over this
            batch do not compute it again, up to the layers to explain at.
        limited: Without suppression, whether to leave out the candidates of the lowest scores where there are very
            many.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Mapping[str, Any],
        layers: Sequence[str] | None = None,
        suppressed: bool = True,
        detections: Sequence[Detections] | None = None,
        features: Mapping[str, KeptFeatures] | None = None,
        limited: bool = True,
    ) -> None:
        self.model = unwrap_detector(model)
        self.data = data
        self.named_layers = layers
        self.layers = _default_layers(self.model) if layers is None else layers
        self.suppressed = suppressed
        self.limited = limited
        self._given = detections
        self._features = {} if features is None else dict(features)

    def __len__(self) -> int:
        return len(self.data['data_samples'])

    @cached_property
    def _plain_pass(self) -> tuple[list[Detections], Pass]:
        taps = Taps(self.model, (), _no_map, find_centers=False, keep_features=True)
        with one_thread, nested_passes(), torch.no_grad(), taps, reusing(self.model, self._features, taps):
            detections = self._predict(self.data)
        (pass_,) = taps.take()
        self._features.update(pass_.features)
        return detections, pass_

    @property
    def detections(self) -> Sequence[Detections]:
        """What the detector predicts for each image, without gradients."""
        return self._plain_pass[0] if self._given is None else self._given

    @cached_property
    def candidates(self) -> DetectorBatch:
        """The same batch, with every candidate predicted."""
        if not self.suppressed:
            return self
        candidates = DetectorBatch(self.model, self.data, self.named_layers, suppressed=False)
        candidates._features = self._features  # shared, whichever predicts first
        return candidates

    @property
    def plain_pass(self) -> Pass:
        """A pass without gradients, for the network's inputs and the meta information."""
        has_passed = '_plain_pass' in vars(self)
        return (self if has_passed else self.candidates)._plain_pass[1]

    def predict(self, inputs: Sequence[Tensor], samples: Sequence[Any]) -> list[Detections]:
        """Predict on other images, without gradients.

        Args:
            inputs: The images as the test pipeline packs them, (C, H, W) each.
            samples: Their data samples.
        """
        with nested_passes(), torch.no_grad():
            return self._predict(dict(self.data, inputs=list(inputs), data_samples=list(samples)))

    @contextmanager
    def tapped_pass(self, gradients: bool = True) -> Iterator[TappedPass]:
        """Predict once more, and keep what the layers return.

        Args:
            gradients: Whether the predictions carry gradients back to the layers, inside the context.

        Raises:
            ValueError: If a layer does not exist, or none returns a feature map.
            RuntimeError: If the predictions are not those of :attr:`detections`, bit for bit.
        """
        context = differentiable(self.model) if gradients else torch.no_grad()
        with context, self._observed(self.layers, gradients) as observed:
            yield observed

    @contextmanager
    def attended_pass(self) -> Iterator[tuple[TappedPass, DecoderRecord]]:
        """Predict once more, and keep the attention of decoder layers to the image, and the maps that it looks at.

        The predictions carry gradients back to the output of the decoder, inside the context.

        Raises:
            ValueError: If the detector has no decoder with cross-attention, or a layer is none of the decoder's.
            RuntimeError: If the predictions are not those of :attr:`detections`, bit for bit.
        """
        record = recorded_decoder(self.model, self.named_layers)
        seen = self._observed(_default_layers(self.model), gradients=False)
        with differentiable(self.model), record as recorded, seen as observed:
            yield observed, recorded

    @contextmanager
    def _observed(self, layers: Sequence[str], gradients: bool) -> Iterator[TappedPass]:
        expected = self.detections  # before the taps are there, which would see this pass too
        taps = GradientTaps(self.model, layers, gradients)
        with one_thread, nested_passes(), taps:
            with reusing(self.model, self._features, taps):
                detections = self._predict(self.data)
            (pass_,) = taps.take()
            if not taps.tapped:
                raise ValueError(f'none of the layers {", ".join(taps.modules)} returns a feature map: choose others')
            if not all(own.equal(again) for own, again in zip(expected, detections)):
                raise RuntimeError(
                    f'{type(self.model).__name__} predicts other boxes when it is observed, so that an explanation '
                    "would not be that of its own boxes. method='drise' only looks at its predictions"
                )
            yield TappedPass(detections, taps, pass_)

    def _predict(self, data: Mapping[str, Any]) -> list[Detections]:
        devices = sorted({parameter.device.index for parameter in self.model.parameters() if parameter.is_cuda})
        with one_thread, ExitStack() as stack:
            stack.enter_context(evaluation_mode(self.model))
            stack.enter_context(boxes_only(self.model))  # masks take time, and no explanation looks at them
            stack.enter_context(torch.random.fork_rng(devices))  # some detectors draw random numbers
            if not self.suppressed:
                stack.enter_context(without_suppression(self.model, self.limited))
            # mmdet writes predictions and further meta information into the samples.
            samples = self.model.test_step(dict(data, data_samples=copy.deepcopy(data['data_samples'])))
        return [detections_of(sample) for sample in samples]


def _default_layers(model: nn.Module) -> list[str]:
    branch = predicting_branch(model)
    defaults = find_default_layers(model)
    found = [branch + name for name in DEFAULT_LAYERS if branch + name in defaults]
    return found[:1] or list(defaults)


def _no_map(features: Tensor) -> Tensor:
    raise NotImplementedError
