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
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.structures import grid
from mmdet_featviz.structures import placement as placements

PICTURE = (384, 512)  # height, width
PATCH = 32  # side, in pixels
# Centers (x, y) of the patch; none is the mirror image of another. The second is elsewhere in the cells of coarse
# levels, and its patch has another texture.
PLACES = [(110, 110), (174, 174)]
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


def run_layers(model: nn.Module, data: dict, reduction: Callable[[Tensor], Tensor]) -> Pass:
    """Run a detector until its default layers have fired; the heads do not run.

    Args:
        model: The detector, in evaluation mode.
        data: Input of its ``test_step``.
        reduction: Reduction of the feature maps, (N, C, H, W) to (N, H, W).

    Returns:
        The pass that the taps recorded.
    """

    def stop(*args: Any) -> NoReturn:
        raise _StopForwardError

    taps = Taps(model, None, reduction)
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


def settle_weights(model: nn.Module, data: dict) -> None:
    """Change random weights, in place, so that levels look where those of a trained detector look.

    - Batch norms get the statistics of one image. Otherwise activations grow from block to block, to infinity in the
      deepest detectors.
    - Last norms of residual blocks that are initialized with zero are set to one. Otherwise a block only passes on its
      shortcut, a single pixel of each cell.
    - Attention is scaled to a tenth. With random weights it looks anywhere, while a token should mostly represent its
      own position.
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
            elif weight is not None and name.endswith('conv_offset'):
                weight.zero_()
    for module in model.modules():
        if isinstance(module, torch.nn.MaxPool2d) and module.stride == 1 and module.kernel_size >= 5:
            module.kernel_size, module.padding = 1, 0
    run_layers(model, data, lambda features: features[:, 0])
    for handle in handles:
        handle.remove()


def level_placements(model: nn.Module, pack: Callable[[np.ndarray], dict]) -> list[LevelPlacement]:
    """Measure how well the levels that are drawn by default follow the patch.

    Args:
        model: The detector, in evaluation mode.
        pack: Makes the input of the detector's ``test_step`` from an image (height, width, 3), uint8.
    """
    plain = np.full((*PICTURE, 3), BACKGROUND, np.uint8)
    _, before = _run_with_features(model, pack(plain))
    shifts = []  # for each image, (x, y) of all levels in cells
    for number, (x, y) in enumerate(PLACES):
        for right, down in MOVES:
            center = (x + right, y + down)
            pass_, after = _run_with_features(model, pack(_add_patch(plain, center, number)))
            shifts.append([_shift(*level, pass_, center) for level in zip(pass_.maps, before, after)])
    by_level = np.array(shifts).reshape(len(PLACES), len(MOVES), len(before), 2)
    moves = np.abs(by_level - by_level.mean(1, keepdims=True)).max((0, 1, 3))
    offsets = np.abs(by_level.mean((0, 1))).max(1)
    results = []
    for activation, moved, offset in zip(pass_.maps, moves, offsets):
        stride = max(activation.stride)
        allowed = max(1, (1 + _feeding_stride(model, activation, pass_.maps) / stride) / 2)
        verdict = 'wrong'
        if max(moved, offset) <= allowed:
            verdict = 'right'
        elif _looks_far(model, activation.layer, pass_.maps) and max(moved, offset) <= BLUR * allowed:
            verdict = 'blurred'
        rounded = (round(float(figure), 2) for figure in (moved, offset, allowed))
        results.append(LevelPlacement(activation.layer, activation.level, activation.offset, *rounded, verdict))
    return results


def _run_with_features(model: nn.Module, data: dict) -> tuple[Pass, list[Tensor]]:
    """Run the detector; returns its pass and the feature maps (C, rows, columns) of all levels."""
    features: list[Tensor] = []

    def keep(feature_map: Tensor) -> Tensor:
        features.append(feature_map[0].float().clone())
        return feature_map[:, 0]

    torch.manual_seed(0)
    return run_layers(model, data, keep), features


def _add_patch(image: np.ndarray, center: tuple[int, int], seed: int) -> np.ndarray:
    """A copy of the image with a patch of colored noise around a center (x, y)."""
    x, y = center
    image = image.copy()
    coarse = np.random.default_rng(seed).integers(0, 256, (PATCH // TEXTURE, PATCH // TEXTURE, 3), np.uint8)
    patch = coarse.repeat(TEXTURE, axis=0).repeat(TEXTURE, axis=1)
    image[y - PATCH // 2 : y + PATCH // 2, x - PATCH // 2 : x + PATCH // 2] = patch
    return image


def _shift(
    activation: ActivationMap, before: Tensor, after: Tensor, pass_: Pass, patch: tuple[int, int]
) -> np.ndarray | tuple[float, float]:
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
    change = (after - before).abs().mean(0).numpy()
    placement = placements.placement_from_metas(pass_.samples[0].metainfo, pass_.inputs[0])
    cells = grid.Grid(change.shape, activation.stride, placement, 'auto', activation.offset)
    heat = cells.heatmap(change).astype(np.float64)
    # Keep only strong changes: attention and norms over the image change a little everywhere.
    typical = np.median(heat) if np.median(heat) < heat.max() else 0
    heat = np.clip(heat - (heat.max() + typical) / 2, 0, None)
    if not (np.isfinite(change).all() and heat.any()):
        return np.nan, np.nan
    columns, rows = (np.arange(size) + 0.5 for size in heat.shape[::-1])
    center = np.array([(heat.sum(0) * columns).sum(), (heat.sum(1) * rows).sum()])
    scale = np.abs(np.diag(placement.matrix)[:2])
    return (center / heat.sum() - patch) * scale / activation.stride[::-1]


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
    return any(map(_reaches_far, modules))


def _reaches_far(module: nn.Module) -> bool:
    if isinstance(module, (torch.nn.Conv2d, torch.nn.MaxPool2d)):
        kernel_size, dilation = (np.array(getattr(module, name)).max() for name in ('kernel_size', 'dilation'))
        return (kernel_size - 1) * dilation > WIDE_KERNEL
    return any(FAR_MODULES.search(kind.__name__) for kind in type(module).__mro__)
