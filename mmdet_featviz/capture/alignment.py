"""Alignment: where the receptive fields of a level's cells have their centers, found from the network itself.

The coordinates of the pixels are sent through the network's linear skeleton (see ``linear_skeleton.py``), weighted by
the absolute values of its own weights. For each cell this gives the mean position of the pixels that it depends on. As
in Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks" (Distill, 2019), the cells of a
level are at ``offset + index * stride`` pixels of the input.
"""

from __future__ import annotations

import inspect
import math
import operator
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from typing import Any, Callable, Container, Iterator, Mapping, NamedTuple, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmdet_featviz.capture.activation_map import ActivationMap, Pass
from mmdet_featviz.capture.linear_skeleton import is_share, plain, share, skeleton_of

SMALL_INPUT = 192, 256  # height, width: two cells of stride 128
SHORTEST = 64  # pixels of a side
LARGEST_INPUT = 512 * 512  # pixels: more would take long
PIXEL = 2.0**-100  # weight of a pixel: products of weights may grow by 68 powers of ten before they exceed float32
STRAIGHT = 1 / 16  # largest mean distance of cells from the line through them, as a share of its length
DECIMALS = 2  # of offsets and strides, in pixels
DENOMINATOR = 12  # the largest of a stride: a level that is resampled by 3/4 has a stride such as 16/3 pixels
STRIP = 128  # the other side of the inputs that show one axis of a level whose stride depends on the size of the input


class Axis(NamedTuple):
    """The centers of cells along one axis: ``offset + index * stride``, in pixels of the network's input."""

    stride: float
    offset: float

    def fits(self, cells: int, pixels: int) -> bool:
        """Whether this many cells cover an input of this many pixels, with a margin of half a cell and a 16th.

        The last cell may be as far from the end as the first one from the start, and a cell.
        """
        last, tolerance = self.offset + (cells - 1) * self.stride, self.stride / 2 + pixels / 16
        is_inside = self.offset >= -tolerance and last <= pixels + tolerance
        return self.stride > 0 and is_inside and pixels - last <= abs(self.offset) + self.stride + tolerance

    @property
    def is_whole(self) -> bool:
        """Whether the stride is a whole number of pixels, as strided layers have it for any input."""
        return self.stride == int(self.stride)


class Axes(NamedTuple):
    """The centers of all cells of a level."""

    vertical: Axis
    horizontal: Axis


@dataclass(frozen=True)
class _Centers:
    """The centers of the levels of a detector, and what identifies its weights.

    Attributes:
        axes: By the name of the level; None for cells that have no place.
        unreached: Levels that the skeleton did not reach, so that nothing is known about them.
        resampled: Levels that are resampled to a size, or with aligned corners, by name and size of the input.
    """

    weights: int
    axes: dict[str, Axes | None]
    unreached: set[str]
    resampled: dict[tuple[str, tuple[int, int]], Axes] = field(default_factory=dict)


_known: WeakKeyDictionary = WeakKeyDictionary()  # detector: _Centers, which all who draw or measure it share
_lock = threading.RLock()


class CenterFinder:
    """Finds the centers of receptive fields for the activation maps of a detector.

    They are found with the first pass, and again when the weights have changed since. While the detector trains they
    are not found again: the weights change with every iteration, the centers hardly do.

    Args:
        model: The detector. It is not changed, and its hooks are not called.
        make_taps: Given a copy of the detector and a reduction, creates taps of the same layers.
        warn: Called with a message about levels without centers.
        report_not_map: Called with a layer, a description of its output and the pass, for tokens that are no map.
    """

    def __init__(
        self,
        model: nn.Module,
        make_taps: Callable[[nn.Module, Any], Any],
        warn: Callable[[str], None],
        report_not_map: Callable[[str, str, Pass], None],
    ) -> None:
        self._model = model
        self._modules = list(model.modules())  # walking through a detector takes as long as a map
        self._make_taps = make_taps
        self._warn = warn
        self._report_not_map = report_not_map
        self._reported: set[str] = set()  # levels without centers

    def add_to(self, pass_: Pass) -> None:
        """Set stride and offset of the activation maps of a pass; without centers, the offset stays None."""
        with _lock:
            self._find(pass_)
        pixels = pass_.inputs.shape[2:]
        pass_.maps = self._without_queries([self._placed(activation, pixels) for activation in pass_.maps], pass_)
        pass_.attention = [self._placed(activation, pixels) for activation in pass_.attention]
        without = [activation.name for activation in pass_.maps if activation.offset is None]
        if not self._reported.issuperset(without):
            self._reported.update(without)
            self._warn(
                f"no receptive-field centers were found for {', '.join(without)}: align='auto' draws the value of a "
                'cell at the center of the block of pixels that the cell covers'
            )

    def _without_queries(self, maps: list[ActivationMap], pass_: Pass) -> list[ActivationMap]:
        """Drop maps that were folded from as many tokens as a grid has cells, if these are in no place of the image."""
        axes = _known[self._model].axes
        if not any(activation.offset for activation in maps):  # nothing is known about this detector
            return maps
        queries = [activation for activation in maps if activation.is_folded and axes.get(activation.name, ...) is None]
        for activation in queries:
            shape = (activation.values.shape[0], activation.values[0].numel(), activation.channels)
            self._report_not_map(activation.layer, f'tokens without a position, {shape}', pass_)
        return [activation for activation in maps if all(activation is not query for query in queries)]

    def _placed(self, activation: ActivationMap, pixels: Sequence[int]) -> ActivationMap:
        known, pixels = _known[self._model], tuple(pixels)
        axes = known.resampled.get((activation.name, pixels), known.axes.get(activation.name))
        if axes is None:
            return activation
        cells = activation.values.shape[1:]
        # The stride of a single cell is only in its shape.
        axes = [Axis(s, axis.offset) if n == 1 else axis for axis, n, s in zip(axes, cells, activation.stride)]
        if not all(axis.fits(n, size) for axis, n, size in zip(axes, cells, pixels)):
            return activation
        strides, offsets = zip(*axes)
        return replace(activation, stride=strides, offset=offsets)

    def _find(self, pass_: Pass) -> None:
        """Find the centers of the levels of a pass, with a small input or else with one as large as the pass has."""
        weights, known = _fingerprint(self._modules), _known.get(self._model)
        if known is None or (weights != known.weights and not self._model.training):
            known = _known[self._model] = _Centers(weights, {}, set())
        levels = {activation.name: activation for activation in [*pass_.maps, *pass_.attention]}
        for mode, input_size in product(('tensor', 'predict'), _input_sizes(tuple(pass_.inputs.shape[2:]))):
            seen = known.axes.keys() | known.unreached
            wanted = {name: activation for name, activation in levels.items() if name not in seen}
            if wanted:
                known.axes.update(self._probe(pass_, input_size, mode, wanted))
        known.unreached.update(levels.keys() - known.axes.keys())
        self._find_resampled(pass_, known, levels)

    def _find_resampled(self, pass_: Pass, known: _Centers, levels: Mapping[str, ActivationMap]) -> None:
        """Find the centers of levels whose stride depends on the size of the input, one axis after the other."""
        height, width = size = tuple(pass_.inputs.shape[2:])
        wanted = {
            name: level
            for name, level in levels.items()
            if (name, size) not in known.resampled and _is_resampled(known.axes.get(name), level, size)
        }
        known.resampled.update({(name, size): known.axes[name] for name in wanted})  # where nothing else is found
        for mode in ('tensor', 'predict') if wanted else ():
            down, across = (self._probe(pass_, strip, mode, wanted) for strip in ((height, STRIP), (STRIP, width)))
            for name in {name for name in wanted if down.get(name) and across.get(name)}:
                known.resampled[name, size] = Axes(down[name].vertical, across[name].horizontal)
                del wanted[name]

    def _probe(
        self, pass_: Pass, size: tuple[int, int], mode: str, wanted: dict[str, ActivationMap]
    ) -> dict[str, Axes | None]:
        """Send the coordinates of an input of some size (height, width) through the skeleton of the detector.

        Args:
            pass_: A pass of the detector; some detectors need what is in its data samples.
            size: (height, width) of the input.
            mode: Mode of the detector's forward. ``tensor`` computes no boxes, but not every detector supports it.
            wanted: {name: activation map in the pass} of levels; the forward ends when all have fired.

        Returns:
            {name: centers} of the wanted levels that fired. None are cells that are not on lines, and tokens that
            fill a grid in the pass, but not in an input of this size.
        """
        maps, layers = self._run_skeleton(pass_, size, mode, wanted, torch.float32)
        # Products of many weights may leave the range of float32. Apple's GPUs have no float64.
        if any(positions.isnan().any() for positions in maps.values()) and pass_.inputs.device.type != 'mps':
            for tried in dict.fromkeys((_two_cells(size, wanted), size)):  # float64 is slow
                maps, layers = self._run_skeleton(pass_, tried, mode, wanted, torch.float64)
                size = tried
                if len(_with_strides(maps, wanted)) == len(wanted):
                    break
        found = {name: _axes(positions, max(size)) for name, positions in _with_strides(maps, wanted).items()}
        tokens = {name for name, activation in wanted.items() if activation.is_folded and activation.layer in layers}
        return {**dict.fromkeys(tokens - maps.keys()), **found}

    def _run_skeleton(
        self, pass_: Pass, size: tuple[int, int], mode: str, wanted: Container[str], dtype: torch.dtype
    ) -> tuple[dict[str, Tensor], Container[str]]:
        """Return {name: mean positions (3, rows, columns)} of the wanted levels that fired, and all layers that did."""
        skeleton = skeleton_of(self._model)
        taps = self._make_taps(skeleton, _mean_positions)
        inputs = _coordinates(size, pass_.inputs.shape[1], dtype, pass_.inputs.device)
        has_modes = 'mode' in inspect.signature(skeleton.forward).parameters  # as detectors of mmdet have

        def fired() -> dict[str, Tensor]:
            maps = {activation.name: activation.values for activation in [*probe.maps, *probe.attention]}
            return {name: positions for name, positions in maps.items() if name in wanted}

        def stop_when_all_fired(*args: Any) -> None:
            if len(fired()) == len(wanted):
                raise _AllFiredError

        samples = [_resized(pass_.samples[0], size) for _ in inputs]
        with ExitStack() as stack:
            stack.enter_context(taps)
            probe = taps.begin(inputs, samples)
            stack.enter_context(undisturbed(inputs.device))
            stack.enter_context(suppress(Exception))  # what is not needed may fail in many ways
            for module in taps.modules.values():
                module.register_forward_hook(stop_when_all_fired)
            options = dict(data_samples=samples, mode=mode) if has_modes else {}
            skeleton.forward(share(inputs), **options)
        return fired(), taps.fired


def _input_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes (height, width) that are tried for a detector whose pass has some size: small ones first."""
    pixels, small = math.prod(size), math.prod(SMALL_INPUT)
    if all(map(operator.ge, size, SMALL_INPUT)) and pixels <= 2 * small:  # as SSD300, which needs it
        return [size]
    return [SMALL_INPUT, size] if pixels <= LARGEST_INPUT else [SMALL_INPUT]


def _is_resampled(axes: Axes | None, level: ActivationMap, size: tuple[int, int]) -> bool:
    """Whether centers that were found in another input are not those in an input of this size."""
    cells = level.values.shape[1:]
    return axes is not None and not all(
        n == 1 or (axis.is_whole and axis.fits(n, pixels)) for axis, n, pixels in zip(axes, cells, size)
    )


def _two_cells(size: tuple[int, int], levels: Mapping[str, ActivationMap]) -> tuple[int, int]:
    """The size (height, width) of an input for two cells of each level, or `size` where that is smaller."""
    strides = zip(*(activation.stride for activation in levels.values()))
    return tuple(min(length, max(SHORTEST, math.ceil(2 * max(of_axis)))) for length, of_axis in zip(size, strides))


def _with_strides(maps: Mapping[str, Tensor], wanted: Mapping[str, ActivationMap]) -> dict[str, Tensor]:
    """The maps (3, rows, columns) whose stride can be seen: a single cell has none, unless the pass has no more."""
    return {
        name: positions
        for name, positions in maps.items()
        if all(n == 1 or m > 1 for n, m in zip(wanted[name].values.shape[1:], positions.shape[1:]))
    }


class _AllFiredError(Exception):
    """Ends a forward early."""


def _fingerprint(modules: Sequence[nn.Module]) -> int:
    """Changes when the weights of modules change: PyTorch counts the changes of each tensor."""
    weights = (weight for module in modules for weight in module._parameters.values() if weight is not None)
    return hash(tuple((weight.data_ptr(), _changes(weight)) for weight in weights))


def _changes(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Run without gradients, with full precision, and without a trace in the random state."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == 'cuda' else []))
        stack.enter_context(torch.no_grad())
        for kind in {'cpu', device.type} & {'cpu', 'cuda'}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _coordinates(size: tuple[int, int], channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Three pictures (3, C, H, W): all 1; 1 + x and 1 + y, in pixels divided by the larger side; times ``PIXEL``."""
    y, x = ((torch.arange(length, dtype=dtype, device=device) + 0.5) / max(size) for length in size)
    pictures = torch.ones(3, 1, *size, dtype=dtype, device=device)
    pictures[1] += x
    pictures[2] += y[:, None]
    return pictures.repeat(1, channels, 1, 1) * PIXEL


def _resized(sample: Any, size: tuple[int, int]) -> Any:
    """A copy of a data sample for an image of another size."""
    if not isinstance(sample, BaseDataElement):
        return sample
    copy = sample.new()
    shapes = dict.fromkeys(('ori_shape', 'img_shape', 'pad_shape', 'batch_input_shape'), size)
    copy.set_metainfo(dict(shapes, scale_factor=(1.0, 1.0)))
    return copy


def _mean_positions(features: Tensor) -> Tensor:
    """Mean position of what the cells of a level depend on: (3, rows, columns) with 0, x and y.

    NaN where sums leave the range of their precision.
    """
    if not is_share(features):  # from no pixel, or from an operator without a rule
        return torch.full_like(features[:, 0], -torch.inf)
    total = plain(features).sum(1)
    return total / total[0].masked_fill(total[0] < torch.finfo(total.dtype).tiny, torch.nan) - 1


def _axes(positions: Tensor, scale: float) -> Axes | None:
    """The lines through the mean positions (3, rows, columns) of cells; None if the cells are not on lines."""
    _, x, y = positions.double().cpu().numpy() * scale
    vertical, horizontal = _line_through(np.median(y, axis=1)), _line_through(np.median(x, axis=0))
    errors = y.T - _places(vertical, len(y)), x - _places(horizontal, len(x.T))
    lengths = vertical.stride * len(y), horizontal.stride * len(x.T)
    # The length of a single cell is 0 here. Infinity and NaN are not straight.
    is_straight = all(
        np.abs(error).mean() <= STRAIGHT * length + 10**-DECIMALS for error, length in zip(errors, lengths)
    )
    return Axes(vertical, horizontal) if is_straight else None


def _line_through(positions: np.ndarray) -> Axis:
    """Median of all slopes, and mean of the quartiles of all offsets: cells at borders may be elsewhere.

    Cells that were upsampled are in steps around the line. The slope of a single cell is 0.
    """
    index = np.arange(len(positions))
    first, second = np.triu_indices(len(positions), 1)
    slopes = (positions[second] - positions[first]) / (second - first)
    stride = _fraction(float(np.median(slopes))) if len(slopes) else 0.0
    return Axis(stride, round(float(np.percentile(positions - stride * index, (25, 75)).mean()), DECIMALS))


def _fraction(stride: float) -> float:
    """The fraction with a small denominator that is meant by a stride with rounding errors, or else its decimals."""
    if not math.isfinite(stride):
        return stride
    fraction = float(Fraction(stride).limit_denominator(DENOMINATOR))
    return fraction if abs(fraction - stride) < 10**-DECIMALS / 2 else round(stride, DECIMALS)


def _places(axis: Axis, cells: int) -> np.ndarray:
    return axis.offset + axis.stride * np.arange(cells)
