"""Perturbation methods: explain detections by what happens to them when the image or a channel is hidden.

They need no gradients. What remains of a detection is the largest product of overlap and score among the detections of
its class, as in D-RISE.
"""

from __future__ import annotations

from typing import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from tqdm import tqdm

from mmdet_featviz.capture.activation_map import ActivationMap
from mmdet_featviz.capture.nested_passes import nested_passes
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.explanation.detections import Detections, overlaps
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.gradient_methods import features_of, finite_heat, level_of
from mmdet_featviz.explanation.replacement import one_thread
from mmdet_featviz.explanation.targets import Target
from mmdet_featviz.registry import EXPLAINERS
from mmdet_featviz.structures.snapshot import Level


@EXPLAINERS.register_module(name='drise')
def drise(
    batch: DetectorBatch,
    targets: Sequence[Target],
    masks: int = 1000,
    cells: int = 16,
    visible: float = 0.5,
    batch_size: int = 8,
    seed: int = 0,
) -> list[list[Level]]:
    """D-RISE: what remains of a detection while random parts of the image are hidden (Petsiuk et al., CVPR 2021).

    It looks at nothing but predictions, so it works on every detector that predicts boxes. The map of a target is, for
    each pixel of the network's input, the mean of what remains over all masks that show the pixel, less the smallest of
    these means.

    Args:
        masks: Number of random masks, each one prediction.
        cells: Each mask is a grid of this many cells along each side, enlarged and shifted at random.
        visible: Probability that a cell is visible. What is hidden gets the mean color of the image.
        batch_size: Images per prediction.
        seed: Seed of the masks.
    """
    _check_targets('drise', targets)
    levels: dict[Target, list[Level]] = {}
    for image in sorted({target.image for target in targets}):
        own = [target for target in targets if target.image == image]
        pixels, sample = batch.data['inputs'][image], batch.data['data_samples'][image]
        color, rng = mean_color(pixels), np.random.default_rng(seed)
        mean = MaskMean(len(own), tuple(pixels.shape[1:]))
        for number in _in_batches(masks, batch_size, 'mask'):
            shown = random_masks(number, tuple(pixels.shape[1:]), cells, visible, rng)
            hidden = [hide(pixels, mask, color) for mask in shown]
            found = batch.predict(hidden, [sample] * number)
            mean.add(shown, np.array([[remains(target, one) for target in own] for one in found]))
        for target, heat in zip(own, mean.heat()):
            levels[target] = [Level('input', 0, len(pixels), (1.0, 1.0), heat)]
    return [levels[target] for target in targets]


class MaskMean:
    """The mean of numbers over the masks that show each pixel; the masks themselves are not kept.

    Args:
        targets: Numbers per mask.
        size: (height, width) of the masks.
    """

    def __init__(self, targets: int, size: tuple[int, int]) -> None:
        self._sums = np.zeros((targets, *size))
        self._shown = np.zeros(size)

    def add(self, masks: np.ndarray, numbers: np.ndarray) -> None:
        """Add masks (N, height, width), 0 to 1, with their numbers (N, targets)."""
        self._sums += np.tensordot(numbers.T, masks, 1)
        self._shown += masks.sum(0)

    def heat(self) -> np.ndarray:
        """(targets, height, width) float32: the means, less the smallest of each target."""
        means = self._sums / np.maximum(self._shown, 1e-12)
        return (means - means.min((1, 2), keepdims=True)).astype(np.float32)


def random_masks(
    number: int, size: tuple[int, int], cells: int, visible: float, rng: np.random.Generator
) -> np.ndarray:
    """Return smooth random masks (number, height, width) float32, 1 where the image is visible (RISE, BMVC 2018)."""
    height, width = size
    down, across = -(-height // cells), -(-width // cells)  # pixels per cell, rounded up
    grids = torch.from_numpy((rng.random((number, 1, cells + 1, cells + 1)) < visible).astype(np.float32))
    large = F.interpolate(grids, size=((cells + 1) * down, (cells + 1) * across), mode='bilinear', align_corners=False)
    masks = np.empty((number, height, width), np.float32)
    for mask, whole in zip(masks, large[:, 0].numpy()):
        top, left = rng.integers(0, down), rng.integers(0, across)
        mask[:] = whole[top : top + height, left : left + width]
    return masks


def mean_color(pixels: Tensor) -> Tensor:
    """The mean color (C, 1, 1) of an image (C, H, W)."""
    return pixels.float().mean((1, 2), keepdim=True)


def hide(pixels: Tensor, mask: np.ndarray, color: Tensor) -> Tensor:
    """Return an image (C, H, W) that has a color (C, 1, 1) where the mask (H, W) is 0, of the same type."""
    shown = torch.from_numpy(mask).to(pixels.device)
    mixed = color + (pixels - color) * shown
    return mixed if pixels.is_floating_point() else mixed.round().to(pixels.dtype)


def remains(target: Target, found: Detections) -> float:
    """The largest product of overlap and score among detections of the target's class; 0 without any."""
    same_class = found.labels == target.label
    fit = overlaps(found.bboxes, found.bboxes.new_tensor(_compared(target))) * found.scores * same_class
    return float(fit.nan_to_num(0).max()) if len(fit) else 0.0


@EXPLAINERS.register_module(name='ablationcam')
def ablationcam(batch: DetectorBatch, targets: Sequence[Target], batch_size: int = 8) -> list[list[Level]]:
    """Ablation-CAM: channels weighted by the part of the score that is lost without them (Desai & Ramaswamy, 2020).

    Makes one prediction per channel of each level.

    Args:
        batch_size: Images per prediction.
    """
    _check_targets('ablationcam', targets)
    images = sorted({target.image for target in targets})
    with batch.tapped_pass(gradients=False) as observed:
        features = {image: features_of(observed, image) for image in images}
        tensors = [one.maps for one in observed.taps.tapped]  # the levels that each tensor holds
    levels: dict[Target, list[Level]] = {target: [] for target in targets}
    for number, maps in enumerate(tensors):
        for image in images:
            own = [target for target in targets if target.image == image]
            weights = _lost(batch, image, number, maps[0], own, batch_size)
            for level, values in features[image]:
                if any(level is one for one in maps):
                    for target, weight in zip(own, weights):
                        heat = torch.tensordot(torch.from_numpy(weight).to(values), values, 1)
                        levels[target].append(level_of(level, finite_heat(heat).cpu().numpy()))
    return [levels[target] for target in targets]


def _lost(
    batch: DetectorBatch, image: int, number: int, level: ActivationMap, targets: Sequence[Target], batch_size: int
) -> np.ndarray:
    """Return the part of each target's score that is lost without each channel: (targets, channels)."""
    whole = np.array([remains(target, batch.detections[image]) for target in targets])
    pixels, sample = batch.data['inputs'][image], batch.data['data_samples'][image]
    left, first = [], 0
    for size in _in_batches(level.channels, batch_size, f'channel of {level.name}'):
        channels = range(first, first + size)
        with one_thread, nested_passes(), _ChannelRemover(batch.model, batch.layers, number, channels):
            found = batch.predict([pixels] * size, [sample] * size)
        left += [[remains(target, one) for target in targets] for one in found]
        first += size
    return 1 - np.array(left, np.float32).T / np.maximum(whole, 1e-12)[:, None]


class _ChannelRemover(Taps):
    """Taps that set one channel of a layer's output to 0, another one in each image of the batch.

    Args:
        model: The detector.
        layers: Module paths or globs.
        number: Which of the tensors that are feature maps, in the order in which the layers fire.
        channels: The channel of each image.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], number: int, channels: Sequence[int]) -> None:
        super().__init__(model, layers, lambda features: features[:, 0], strict=True, find_centers=False)
        self._number = number
        self._channels = channels
        self._seen = 0

    def _keep(self, layer: str, tensor: Tensor, maps: Sequence[ActivationMap]) -> None:
        if self._seen == self._number:
            if len(tensor) != len(self._channels):
                raise ValueError(f'layer {layer!r} returns windows of tokens, whose channels ablationcam cannot remove')
            for image, channel in zip(tensor, self._channels):
                (image[channel] if tensor.dim() == 4 else image[:, channel]).zero_()
        self._seen += 1


def _in_batches(total: int, size: int, unit: str) -> Iterator[int]:
    """Iterate over the sizes of batches, with a progress bar if the output is a terminal."""
    with tqdm(total=total, unit=unit, leave=False, disable=None) as progress:
        for first in range(0, total, size):
            yield min(size, total - first)
            progress.update(min(size, total - first))


def _compared(target: Target) -> tuple[float, float, float, float]:
    """The box that detections have to overlap."""
    return target.bbox if target.wanted is None else target.wanted


def _check_targets(method: str, targets: Sequence[Target]) -> None:
    """Raise ValueError if the method cannot explain any of the targets."""
    if any(target.of != 'score' for target in targets):
        raise ValueError(f"{method} explains scores only: use of='score', or a method with gradients such as 'odam'")
    corners = np.array([_compared(target) for target in targets])
    if not (corners[:, 2:] > corners[:, :2]).all(1).any():
        raise ValueError(
            f'{method} looks for detections that overlap a box, but the boxes that the detector predicts have no area: '
            "use a method with gradients such as 'odam'"
        )
