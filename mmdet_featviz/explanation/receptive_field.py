"""Receptive fields: which pixels a cell of a level depends on, in theory and in effect.

The theoretical field is the rectangle of all pixels from which a path leads to the cell. It is found from the network
itself: all paths are counted by the gradient of its linear skeleton (see ``capture/linear_skeleton.py``).

The effective field is the mean absolute gradient of the cell, over images, at each pixel (Luo et al., "Understanding
the Effective Receptive Field in Deep Convolutional Neural Networks", NeurIPS 2016). It is smaller: few paths lead to
the pixels at the border of the theoretical field.
"""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmdet_featviz.capture.activation_map import ActivationMap, Pass
from mmdet_featviz.capture.alignment import undisturbed
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.capture.linear_skeleton import counting_paths, is_share, plain, share, skeleton_of
from mmdet_featviz.capture.module_outputs import feature_maps_in
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.explanation.differentiable import differentiable, evaluation_mode
from mmdet_featviz.explanation.gradient_taps import GradientTaps, first_channel

SHORT = 128  # the other side of the inputs that show how wide and how high a theoretical field is, in pixels
LONG = 512, 1024, 2048, 4096  # the side along the field; a field that is not inside the last one is the whole image
MASS = 0.9545  # share of the gradient inside the effective field: that within two standard deviations of a Gaussian


@dataclass(frozen=True, eq=False)
class CellField:
    """The receptive field of one cell of a level, in one image.

    Attributes:
        activation: The level.
        cell: (row, column).
        gradient: (H, W) float32: absolute gradient of the cell, summed over its channels, at each pixel of the
            network's input, summed over the colors.
    """

    activation: ActivationMap
    cell: tuple[int, int]
    gradient: np.ndarray

    @property
    def center(self) -> tuple[float, float]:
        """(y, x) of the cell, in pixels of the input: the center of its receptive field, or of its block."""
        stride = self.activation.stride
        offset = self.activation.offset or (stride[0] / 2, stride[1] / 2)
        y, x = (start + index * step for start, index, step in zip(offset, self.cell, stride))
        return y, x


def effective_size(gradient: np.ndarray) -> float:
    """Side of a square that is as large as the smallest area with 95.45 % of an absolute gradient (H, W), in pixels.

    0 without any gradient.
    """
    falling = np.sort(gradient, axis=None)[::-1].astype(np.float64).cumsum()
    return math.sqrt(1 + np.searchsorted(falling, MASS * falling[-1])) if falling[-1] else 0.0


# Effective fields


class _InputTaps(GradientTaps):
    """Taps whose feature maps carry gradients back to the network's input."""

    def begin(self, inputs: Tensor, samples: Sequence[Any]) -> Pass:
        pass_ = super().begin(inputs.detach().requires_grad_(), samples)
        torch.set_grad_enabled(True)  # the context of the pass restores the mode
        return pass_

    def _on_preprocessed(self, module: nn.Module, args: Any, output: Any) -> Any:
        super()._on_preprocessed(module, args, output)
        return None if self._current is None else {**output, 'inputs': self._current.inputs}

    def cells(self, layer: str, tensor: Tensor, pass_: Pass) -> list[Callable[[int, int], Tensor]]:
        """For each feature map in a tensor of a layer: a function from row and column to the values of the cell."""
        return _cells(tensor, layer, pass_, self._shifts[layer])


def _cells(tensor: Tensor, layer: str, pass_: Pass, shift: int | None) -> list[Callable[[int, int], Tensor]]:
    if tensor.dim() == 4:
        return [lambda row, column: tensor[0, :, row, column]]
    # Tokens: which one is a cell shows where their numbers are after folding.
    numbers = torch.arange(tensor.shape[:2].numel(), device=tensor.device).view(*tensor.shape[:2], 1)
    numbered = torch.cat([tensor.detach().float(), numbers.expand_as(tensor).float()], -1)
    folded = [feature_map for _, maps in feature_maps_in(numbered, layer, pass_, shift) for feature_map in maps]
    tokens = tensor.flatten(0, 1)
    return [partial(_token, tokens, feature_map[0, -1].long()) for feature_map in folded]


def _token(tokens: Tensor, numbers: Tensor, row: int, column: int) -> Tensor:
    return tokens[numbers[row, column]]


def cell_fields(
    model: nn.Module,
    data: Mapping[str, Any],
    layers: Sequence[str] | None,
    at: Callable[[Pass], tuple[float, float]],
    quiet: bool = False,
) -> tuple[list[CellField], Pass]:
    """Return the field of one cell of each level, in one image, and the pass over the image.

    The detector runs once more, in evaluation mode and without test-time augmentation; nothing of it is changed.

    Args:
        model: The detector, or a wrapper around it.
        data: A batch of one image as a data loader returns it.
        layers: Module paths or globs; None is the layers that are drawn by default.
        at: Function from a pass to (x, y) in pixels of its input: the cell nearest to it is taken.
        quiet: Whether to skip outputs that are no feature maps without a warning.

    Raises:
        ValueError: If a layer does not exist, none returns a feature map, or a level has no gradient to the image.
    """
    model = unwrap_detector(model)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(_cuda_devices(model)))
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(differentiable(model))
        taps = stack.enter_context(_InputTaps(model, layers))
        taps.quiet = quiet
        # mmdet writes predictions and further meta information into the samples.
        model.test_step(dict(data, data_samples=copy.deepcopy(data['data_samples'])))
        (pass_,) = taps.take()
        if not taps.tapped:
            raise ValueError(f'none of the layers {", ".join(taps.modules)} returns a feature map: choose others')
        return list(_fields(taps, pass_, at(pass_))), pass_


def _cuda_devices(model: nn.Module) -> list[int]:
    return sorted({parameter.device.index for parameter in model.parameters() if parameter.is_cuda})


def _fields(taps: _InputTaps, pass_: Pass, at: tuple[float, float]) -> Iterator[CellField]:
    for one in taps.tapped:
        for activation, cells in zip(one.maps, taps.cells(one.layer, one.tensor, pass_)):
            field = CellField(activation, (0, 0), np.zeros(0))
            steps = ((place - start) / step for place, start, step in zip(at[::-1], field.center, activation.stride))
            row, column = (min(max(round(step), 0), n - 1) for step, n in zip(steps, activation.values.shape[1:]))
            gradient = _gradient(cells(row, column), pass_.inputs)
            if gradient is None:
                raise ValueError(
                    f'no gradient reaches the image from {activation.name}: its layer works without gradients, so that '
                    'its effective receptive field cannot be found. Choose other layers'
                )
            gradient = gradient[0].float().abs().sum(0).nan_to_num(0, 0, 0).cpu().numpy()
            yield replace(field, cell=(row, column), gradient=gradient)


def _gradient(values: Tensor, inputs: Tensor) -> Tensor | None:
    """Gradient of the sum of values; None if they do not depend on the inputs."""
    if not values.requires_grad:
        return None
    return torch.autograd.grad(values.sum(), inputs, retain_graph=True, allow_unused=True)[0]


# Theoretical fields


class Extent(NamedTuple):
    """A theoretical field along one axis: its length in pixels, its middle, and the index of its cell."""

    length: float
    middle: float
    cell: int


@dataclass(frozen=True)
class TheoreticalField:
    """The rectangle of all pixels that a cell of a level depends on.

    The length of an axis is infinite if the field is the whole image there.
    """

    vertical: Extent
    horizontal: Extent

    @property
    def width(self) -> float:
        return self.horizontal.length

    @property
    def height(self) -> float:
        return self.vertical.length

    def box(self, cell: tuple[int, int], stride: tuple[float, float]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge for a cell (row, column) of this stride, in pixels of the input."""
        axes = zip((self.vertical, self.horizontal), cell, stride)
        y, x = (extent.middle + (index - extent.cell) * step for extent, index, step in axes)
        return x - self.width / 2, y - self.height / 2, x + self.width / 2, y + self.height / 2


def theoretical_fields(model: nn.Module, layers: Sequence[str], pass_: Pass) -> dict[str, TheoreticalField]:
    """Return the theoretical receptive field of each level by its name, in pixels of the network's input.

    A field is the whole image with attention, and beyond 4096 pixels. Gates and norms over the whole image are left
    out, as they only scale, and deformable convolutions look where they would without offsets. Levels behind operators
    without a rule are missing.

    Args:
        model: The detector; it is not changed, and its hooks are not called.
        layers: Module paths.
        pass_: A pass of the detector, for the data sample that some detectors need.
    """
    vertical, horizontal = (_extents(model, layers, pass_, axis) for axis in (0, 1))
    return {name: TheoreticalField(vertical[name], horizontal[name]) for name in vertical if name in horizontal}


def _extents(model: nn.Module, layers: Sequence[str], pass_: Pass, axis: int) -> dict[str, Extent]:
    """The extents along an axis (0 is y) of the input: the axes do not depend on each other."""
    extents: dict[str, Extent] = {}
    for long in LONG:
        size = (SHORT, long) if axis == 1 else (long, SHORT)
        for name, (cell, support) in _supports(model, layers, pass_, size).items():
            inside = np.flatnonzero(support.any(1 - axis))
            is_whole = not len(inside) or inside[0] == 0 or inside[-1] == long - 1
            first, end = (-math.inf, math.inf) if is_whole else (inside[0], inside[-1] + 1)
            extents[name] = Extent(float(end - first), float(first + end) / 2, cell[axis])
        if not any(math.isinf(extent.length) for extent in extents.values()):
            break
    return extents


def _supports(
    model: nn.Module, layers: Sequence[str], pass_: Pass, size: tuple[int, int]
) -> dict[str, tuple[tuple[int, int], np.ndarray]]:
    """For the middle cell of each level by its name: (row, column), and the pixels that it depends on, bool (H, W)."""
    skeleton = skeleton_of(unwrap_detector(model))
    taps = _SkeletonTaps(skeleton, layers, first_channel, quiet=True, find_centers=False)
    shape = 1, pass_.inputs.shape[1], *size
    inputs = torch.ones(shape, dtype=torch.float64, device=pass_.inputs.device)
    with ExitStack() as stack:
        stack.enter_context(taps)
        stack.enter_context(undisturbed(inputs.device))
        stack.enter_context(counting_paths())
        stack.enter_context(torch.enable_grad())
        inputs.requires_grad_()
        taps.begin(inputs.detach(), pass_.samples[:1])
        with suppress(Exception):  # what is not needed may fail in many ways
            skeleton.forward(share(inputs), data_samples=list(pass_.samples[:1]), mode='tensor')
        gradients = {name: (cell, _gradient(values, inputs)) for name, (cell, values) in taps.middles.items()}
    return {
        name: (cell, gradient[0].ne(0).any(0).cpu().numpy())
        for name, (cell, gradient) in gradients.items()
        if gradient is not None
    }


class _SkeletonTaps(Taps):
    """Taps that keep the middle cell of each level, as {level name: ((row, column), values)}."""

    def begin(self, inputs: Tensor, samples: Sequence[Any]) -> Pass:
        self.middles: dict[str, tuple[tuple[int, int], Tensor]] = {}
        return super().begin(inputs, samples)

    def _keep(self, layer: str, tensor: Tensor, maps: Sequence[ActivationMap]) -> None:
        if not is_share(tensor):  # from an operator without a rule
            return
        with torch.enable_grad():
            for activation, cells in zip(maps, _cells(plain(tensor), layer, self._current, self._shifts[layer])):
                row, column = (cells_of_axis // 2 for cells_of_axis in activation.values.shape[1:])
                self.middles[activation.name] = (row, column), cells(row, column)
