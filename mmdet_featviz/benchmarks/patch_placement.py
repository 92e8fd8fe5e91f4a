"""Patch placement: checks that the heat of each level is where a patch changed the image, and follows it.

A patch is moved over a plain image. The center of the change that it causes in a level, brought back to the image as a
heatmap is, must

- *move* as the patch does. The patch moves by whole cells of even the coarsest level, so constant offsets cancel. What
  remains is almost zero for a network of convolutions, while swapped axes, forgotten flips, stretched maps and tokens
  in a wrong order are off by many cells.
- be *at* the patch, on average over its positions. The cells are where their receptive fields were found to be
  (``align='auto'``).

Both must hold to within one cell. A level into which coarser levels are resampled shares their errors, in pixels: the
finest level of an FPN, fed by stride 32 cell by cell, may be off by 16 pixels. So necks, and backbones that resample
their own levels (HRNet), are allowed half a cell of their own plus half a cell of the backbone's coarsest level, if
that is more.

Attention, deformable, dynamic and widely dilated convolutions, wide pools, hourglasses (to stride 128 and back, cell by
cell) and norms over the whole image look further. Levels that fail behind these modules are called blurred up
to four times these bounds, and wrong beyond.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, NoReturn, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmdet_featviz.capture.activation_map import ActivationMap, Pass
from mmdet_featviz.capture.channel_selection import DetailRecorder
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.structures import grid
from mmdet_featviz.structures import placement as placements

PICTURE = (384, 512)  # height, width
PATCH = 32  # side, in pixels
# Centers (x, y) of the patch; none is the mirror image of another. Each is elsewhere in the cells of coarse levels, and
# its patch has another texture: a level of stride 4 finds a single texture up to half a cell beside its center.
PLACES = [(110, 110), (174, 174), (190, 206), (126, 190), (133, 201), (150, 114)]
MOVED = 2  # places from which the patch is moved; the others have one move each
TEXTURE = 4  # pixels per color: a patch of one color would be visible only at its edges, or at one of them
BACKGROUND = 110  # gray level
MOVES = [(0, 0), (256, 0), (0, 128)]  # whole cells of stride 128
BLUR = 4  # times the bound of a level that is right
WIDE_KERNEL = 7  # cells; most of a wider kernel is beside the patch: SSD, YOLOF, the pools of YOLOX
FEEDBACK_NECKS = {'FPG', 'NASFPN', 'NASFCOS_FPN'}  # their coarsest levels flow back into the finer ones
FAR_MODULES = re.compile(
    'Attention|MSA|Deform|DyReLU|GroupNorm|ContextBlock|NonLocal|SELayer|InstanceNorm|Hourglass|SPP'
)


@dataclass(frozen=True)
class LevelPlacement:
    """How well one level follows the patch, in cells of the level.

    Attributes:
        layer: Path of the module inside the detector.
        level: Index among the outputs of the layer.
        found: Offset (vertical, horizontal) that was found for its first cell, in pixels; None if none was.
        moves: Largest difference between the movement of the change and that of the patch.
        offset: Mean distance of the change from the patch.
        allowed: Largest value of either that counts as right.
        verdict: ``right``, ``blurred`` or ``wrong``.
    """

    layer: str
    level: int
    found: tuple[float, float] | None
    moves: float
    offset: float
    allowed: float
    verdict: str


class _StopForwardError(Exception):
    """Ends the forward of a detector early."""


def run_layers(
    model: nn.Module, data: dict, layers: Sequence[str] | None = None, raw: bool = False, find_centers: bool = True
) -> Pass:
    """Run a detector until its layers have fired; the heads do not run.

    Args:
        model: The detector, in evaluation mode.
        data: Input of its ``test_step``.
        layers: The layers; None is the default ones.
        raw: Whether the activation maps keep the whole feature maps in their details.
        find_centers: Whether to find the centers of the cells' receptive fields.

    Returns:
        The pass that the taps recorded.
    """

    def stop(*args: Any) -> NoReturn:
        raise _StopForwardError

    detail_recorder = DetailRecorder(raw=True) if raw else None
    taps = Taps(model, layers, _first_channel, detail_recorder=detail_recorder, find_centers=find_centers)
    with taps, torch.no_grad():
        last = list(taps.modules.values())[-1].register_forward_hook(stop)
        try:
            model.test_step(data)
        except _StopForwardError:
            pass
        finally:
            last.remove()
        (pass_,) = taps.take()
    return pass_


def _first_channel(features: Tensor) -> Tensor:
    return features[:, 0]


def settle_weights(model: nn.Module, data: dict) -> None:
    """Change random weights, in place, so that levels look where those of a trained detector look.

    - Batch norms get the statistics of one image. Otherwise activations grow from block to block, to infinity in the
      deepest detectors.
    - Last norms of residual blocks that are initialized with zero are set to one. Otherwise a block only passes on its
      shortcut, a single pixel of each cell.
    - Attention is scaled to a tenth. With random weights it looks anywhere, while a token should mostly represent its
      own position.
    - Two-stage detectors keep the boxes of their anchors. Random corrections throw a box far from the features it rests
      on.
    - Deformable convolutions get zero offsets, as at the start of a training. Random offsets lead anywhere.
    - The pools of spatial pyramids, up to 13 cells wide, pass on their input. With random weights they would hide it.

    Args:
        model: The detector, in evaluation mode.
        data: Input of its ``test_step``, for the statistics.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    def take_statistics(norm: nn.Module, args: tuple) -> None:
        features = args[0]
        if norm.track_running_stats and features.dim() == 4 and features[:, 0].numel() > 1:
            norm.running_mean.copy_(features.mean((0, 2, 3)))
            norm.running_var.copy_(features.var((0, 2, 3)) + 1e-3)

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        if norm.affine and not norm.weight.any():
            torch.nn.init.ones_(norm.weight)
    handles = [norm.register_forward_pre_hook(take_statistics) for norm in norms]
    with torch.no_grad():
        for name, module in model.named_modules():
            weight = getattr(module, 'weight', None)  # blocks may have these names too
            if weight is not None and name.endswith(('out_proj', 'output_proj')):
                weight.mul_(0.1)
            elif weight is not None and name.endswith(('conv_offset', 'rpn_reg', 'fc_reg')):
                weight.zero_()
    for module in model.modules():
        if isinstance(module, torch.nn.MaxPool2d) and module.stride == 1 and module.kernel_size >= 5:
            module.kernel_size, module.padding = 1, 0
    run_layers(model, data, find_centers=False)
    for handle in handles:
        handle.remove()


def level_placements(
    model: nn.Module, pack: Callable[[np.ndarray], dict], layers: Sequence[str] | None = None
) -> list[LevelPlacement]:
    """Measure how well levels follow the patch.

    Args:
        model: The detector, in evaluation mode.
        pack: Makes the input of the detector's ``test_step`` from an image (height, width, 3), uint8.
        layers: The layers; None is those that are drawn by default.
    """
    plain = np.full((*PICTURE, 3), BACKGROUND, np.uint8)
    _, before = _run_with_features(model, pack(plain), layers)
    shifts: dict[str, list[list[np.ndarray]]] = {}  # for each level and place, (x, y) in cells for each move
    for number, (x, y) in enumerate(PLACES):
        moves = MOVES if number < MOVED else [MOVES[number % len(MOVES)]]
        for index, (right, down) in enumerate(moves):
            center = (x + right, y + down)
            pass_, after = _run_with_features(model, pack(add_patch(plain, center, number)), layers)
            for one in pass_.maps:
                places = shifts.setdefault(one.name, [])
                if not index:
                    places.append([])
                places[-1].append(_shift(one, before[one.name], after[one.name], pass_, center))
    return [_placement_of(model, one, shifts[one.name], pass_.maps) for one in pass_.maps]


def _placement_of(
    model: nn.Module, activation: ActivationMap, shifts: Sequence[Sequence[np.ndarray]], maps: Sequence[ActivationMap]
) -> LevelPlacement:
    """Judge the shifts of one of the levels of a pass: (x, y) for each place and move."""
    means = [np.mean(of_place, axis=0) for of_place in shifts]
    moved = np.max([np.abs(of_place - mean).max() for of_place, mean in zip(shifts, means)])
    offset = np.abs(np.mean(means, axis=0)).max()
    allowed = max(1, (1 + _feeding_stride(model, activation, maps) / max(activation.stride)) / 2)
    verdict = verdict_of(max(moved, offset), allowed, _looks_far(model, activation.layer, maps))
    rounded = (round(float(figure), 2) for figure in (moved, offset, allowed))
    return LevelPlacement(activation.layer, activation.level, activation.offset, *rounded, verdict)


def verdict_of(deviation: float, allowed: float, looks_far: bool) -> str:
    """Judge a deviation: ``right``, ``blurred`` or ``wrong``; NaN is wrong.

    Args:
        deviation: In cells.
        allowed: Largest deviation that is right.
        looks_far: Whether the level is behind modules that look far beyond their cell.
    """
    if deviation <= allowed:
        return 'right'
    return 'blurred' if looks_far and deviation <= BLUR * allowed else 'wrong'


def _run_with_features(
    model: nn.Module, data: dict, layers: Sequence[str] | None
) -> tuple[Pass, dict[str, np.ndarray]]:
    """Run the detector; returns its pass and {name: feature map (C, rows, columns)} of all levels."""
    torch.manual_seed(0)
    pass_ = run_layers(model, data, layers, raw=True)
    return pass_, {activation.name: np.float32(activation.details[0]['raw']) for activation in pass_.maps}


def add_patch(image: np.ndarray, center: tuple[int, int], seed: int) -> np.ndarray:
    """A copy of the image with a patch of colored noise around a center (x, y)."""
    x, y = center
    image = image.copy()
    coarse = np.random.default_rng(seed).integers(0, 256, (PATCH // TEXTURE, PATCH // TEXTURE, 3), np.uint8)
    patch = coarse.repeat(TEXTURE, axis=0).repeat(TEXTURE, axis=1)
    image[y - PATCH // 2 : y + PATCH // 2, x - PATCH // 2 : x + PATCH // 2] = patch
    return image


def _shift(
    activation: ActivationMap, before: np.ndarray, after: np.ndarray, pass_: Pass, patch: tuple[int, int]
) -> np.ndarray:
    """Measure how far a change of a level is from the patch that caused it.

    Args:
        activation: The level.
        before: Its feature map (C, rows, columns) without the patch.
        after: Its feature map with the patch.
        pass_: The pass with the patch.
        patch: Center (x, y) of the patch.

    Returns:
        (x, y) in cells; NaN if nothing changed or a change is not finite.
    """
    change = np.abs(after - before).mean(0)
    placement = placements.placement_from_metas(pass_.samples[0].metainfo, pass_.inputs[0])
    cells = grid.Grid(change.shape, activation.stride, placement, 'auto', activation.offset)
    if not np.isfinite(change).all():
        return np.full(2, np.nan)
    scale = np.abs(np.diag(placement.matrix)[:2])
    return (center_of(cells.heatmap(change)) - patch) * scale / activation.stride[::-1]


def center_of(heatmap: np.ndarray) -> np.ndarray:
    """The center of mass (x, y) of the strong heat of a heatmap, in pixels; NaN if all heat is equal.

    Attention and norms over the image change a little everywhere, so that weak heat does not count.
    """
    heat = heatmap.astype(np.float64)
    typical = np.median(heat) if np.median(heat) < heat.max() else 0
    heat = np.clip(heat - (heat.max() + typical) / 2, 0, None)
    if not heat.any():
        return np.full(2, np.nan)
    columns, rows = (np.arange(size) + 0.5 for size in heat.shape[::-1])
    return np.array([(heat.sum(0) * columns).sum(), (heat.sum(1) * rows).sum()]) / heat.sum()


def _feeding_stride(model: nn.Module, activation: ActivationMap, maps: Sequence[ActivationMap]) -> float:
    """Stride of the coarsest level that flows into this one."""
    layer = model.get_submodule(activation.layer)
    is_backbone = activation.layer.rpartition('.')[2] == 'backbone'
    if is_backbone and not any(isinstance(module, torch.nn.Upsample) for module in layer.modules()):
        return max(activation.stride)
    feeding = {maps[0].layer}
    if type(layer).__name__ in FEEDBACK_NECKS:
        feeding.add(activation.layer)
    return max(max(level.stride) for level in maps if level.layer in feeding)


def _looks_far(model: nn.Module, layer: str, maps: Sequence[ActivationMap]) -> bool:
    """Whether this layer or one before it has modules that look far beyond their cell."""
    layers = list(dict.fromkeys(level.layer for level in maps))
    layers = layers[: layers.index(layer) + 1]
    modules = (module for name in layers for module in model.get_submodule(name).modules())
    return any(map(reaches_far, modules))


def reaches_far(module: nn.Module) -> bool:
    """Whether a module looks far beyond its cell."""
    if isinstance(module, (torch.nn.Conv2d, torch.nn.MaxPool2d)):
        kernel_size, dilation = (np.array(getattr(module, name)).max() for name in ('kernel_size', 'dilation'))
        return (kernel_size - 1) * dilation > WIDE_KERNEL
    return any(FAR_MODULES.search(kind.__name__) for kind in type(module).__mro__)
