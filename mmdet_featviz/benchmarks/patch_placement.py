"""Whether the heat of each level lies where the picture changed: figures, and a verdict.

A patch is moved over an even picture. The centre of the change that it makes in a level, brought back to the
picture as a heatmap is, must

- *move* as the patch does. The patch moves by whole cells of even the coarsest level, so whatever a network does alike
  everywhere cancels, such as looking at a corner of its cells. What is left of a network of convolutions is almost
  nothing, while swapped axes, forgotten flips, stretched maps and tokens in a wrong order are off by many cells.
- lie *at* the patch, on average over its places. Half a cell is what a strided convolution does (it looks at the corner
  of its block).

Both within one cell. A level into which coarser ones are resampled shares their errors, in pixels: an FPN's finest
level, fed by stride 32 cell by cell, may lie 16 pixels beside. So for necks, and for a backbone that resamples its own
levels (HRNet), it is half a cell of their own and half a cell of the backbone's coarsest level, where that is more.

Attention, deformable, dynamic and widely dilated convolutions, wide pools, hourglasses (to stride 128 and back, cell by
cell) and norms over the whole image look further: levels that fail behind such modules are called blurred as long as
they stay near the patch, and wrong beyond.
"""

import re
from dataclasses import dataclass

import numpy as np

PICTURE = (384, 512)  # height, width
PATCH = 32
# Centres (x, y) of the patch: none is the mirror image of another. The second lies elsewhere in the cells of coarse
# levels, and has another texture.
PLACES = [(110, 110), (174, 174)]
TEXTURE = 4  # pixels: a patch of one color would be seen at its edges only, and with random weights at one of them
EVEN = 110
MOVES = [(0, 0), (256, 0), (0, 128)]  # whole cells of stride 128
BLUR = 128  # pixels of the network's input: SSD's widest kernel reaches 96 to each side
FAR = 7  # cells across a kernel, beyond which most of it lies beside the patch: SSD, YOLOF, YOLOX's pyramid of pools
FED_BY_THEMSELVES = {'FPG', 'NASFPN', 'NASFCOS_FPN'}  # necks whose coarsest levels flow back into the finer ones
LOOKS_FAR = re.compile('Attention|MSA|Deform|DyReLU|GroupNorm|ContextBlock|NonLocal|SELayer|InstanceNorm|Hourglass|SPP')


@dataclass(frozen=True)
class LevelPlacement:
    """How one level follows the patch, in cells of the level.

    Attributes:
        layer: Path of the module inside the detector.
        level: Index among the outputs of the layer.
        moves: Largest difference between the ways of the change and of the patch.
        offset: How far the change lies from the patch, on average.
        allowed: The largest of either that is right.
        verdict: ``right``, ``blurred`` or ``wrong``.
    """

    layer: str
    level: int
    moves: float
    offset: float
    allowed: float
    verdict: str


class _EnoughError(Exception):
    """Ends a detector's forward early."""


def run_layers(model, data, keep):
    """Run a detector until its default layers have fired, which spares the heads.

    Returns:
        The pass that the taps saw, `keep` being their reduction.
    """
    import torch

    from mmdet_featviz.capture.taps import Taps

    def stop(*args):
        raise _EnoughError

    taps = Taps(model, None, keep)
    with taps, torch.no_grad():
        last = list(taps.modules.values())[-1].register_forward_hook(stop)
        try:
            model.test_step(data)
        except _EnoughError:
            pass
        finally:
            last.remove()
        (pass_,) = taps.take()
    return pass_


def settle_weights(model, data):
    """Make random weights behave as trained ones do, in what decides where a level looks.

    - Batch norms get the statistics of a image: otherwise activations grow from block to block, to infinity in the
      deepest detectors.
    - A last norm of a residual block that begins with zero gets a say: otherwise the block only hands on what its
      shortcut picks, a single pixel of each cell.
    - Attention is muted to a tenth: it looks anywhere at random, and a token should mostly say what lies at its place.
    - Deformable convolutions begin undeformed, as in training: random offsets lead anywhere.
    - The pools of spatial pyramids, up to 13 cells wide, hand on what they get: at random they drown what lies there.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    def take_statistics(norm, args):
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
            weight = getattr(module, 'weight', None)  # the name may be that of a whole block
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


def level_placements(model, pack):
    """Follow the patch through all levels that are drawn by default.

    Args:
        model: A detector in evaluation mode.
        pack: From a picture (an array) to the detector's input.

    Returns:
        A LevelPlacement for each level.
    """
    even = np.full((*PICTURE, 3), EVEN, np.uint8)
    _, before = _look(model, pack(even))
    shifts = []  # for each picture, of all levels, (x, y) in cells
    for number, (x, y) in enumerate(PLACES):
        for right, down in MOVES:
            centre = (x + right, y + down)
            pass_, after = _look(model, pack(_with_patch(even, centre, number)))
            shifts.append([_shift(*level, pass_, centre) for level in zip(pass_.maps, before, after)])
    by_level = np.array(shifts).reshape(len(PLACES), len(MOVES), len(before), 2)
    moves = np.abs(by_level - by_level.mean(1, keepdims=True)).max((0, 1, 3))
    offsets = np.abs(by_level.mean((0, 1))).max(1)
    found = []
    for activation, moved, offset in zip(pass_.maps, moves, offsets):
        stride = max(activation.stride)
        allowed = max(1, (1 + _feeding_stride(model, activation, pass_.maps) / stride) / 2)
        verdict = 'wrong'
        if max(moved, offset) <= allowed:
            verdict = 'right'
        elif _looks_far(model, activation.layer, pass_.maps) and max(moved, offset) <= max(1, BLUR / stride):
            verdict = 'blurred'
        figures = (round(float(figure), 2) for figure in (moved, offset, allowed))
        found.append(LevelPlacement(activation.layer, activation.level, *figures, verdict))
    return found


def _look(model, data):
    """The pass over an input, and the feature maps (C, rows, columns) of its levels."""
    import torch

    features = []

    def keep(feature_map):
        features.append(feature_map[0].float().clone())
        return feature_map[:, 0]

    torch.manual_seed(0)
    return run_layers(model, data, keep), features


def _with_patch(picture, centre, seed):
    """The picture with a patch of colored noise."""
    x, y = centre
    picture = picture.copy()
    coarse = np.random.default_rng(seed).integers(0, 256, (PATCH // TEXTURE, PATCH // TEXTURE, 3), np.uint8)
    patch = coarse.repeat(TEXTURE, axis=0).repeat(TEXTURE, axis=1)
    picture[y - PATCH // 2 : y + PATCH // 2, x - PATCH // 2 : x + PATCH // 2] = patch
    return picture


def _shift(activation, before, after, pass_, patch):
    """From the patch to the centre of the change that it made, (x, y) in cells; NaN where nothing finite changed."""
    from mmdet_featviz.structures import grid
    from mmdet_featviz.structures import placement as placements

    change = (after - before).abs().mean(0).numpy()
    placement = placements.placement_from_metas(pass_.samples[0].metainfo, pass_.inputs[0])
    heat = grid.Grid(change.shape, activation.stride, placement).heatmap(change).astype(np.float64)
    # What lies halfway above the usual: attention and norms over the image change a little everywhere.
    usual = np.median(heat) if np.median(heat) < heat.max() else 0
    heat = np.clip(heat - (heat.max() + usual) / 2, 0, None)
    if not (np.isfinite(change).all() and heat.any()):
        return np.nan, np.nan
    centre = np.array([(heat.sum(0) * _middles(heat.shape[1])).sum(), (heat.sum(1) * _middles(heat.shape[0])).sum()])
    scale = np.abs(np.diag(placement.matrix)[:2])
    return (centre / heat.sum() - patch) * scale / activation.stride[::-1]


def _middles(pixels):
    return np.arange(pixels) + 0.5


def _feeding_stride(model, activation, maps):
    """Stride of the coarsest level that flows into this one."""
    import torch

    layer = model.get_submodule(activation.layer)
    own = activation.layer.rpartition('.')[2] == 'backbone'
    if own and not any(isinstance(module, torch.nn.Upsample) for module in layer.modules()):
        return max(activation.stride)
    feeding = {maps[0].layer}
    if type(layer).__name__ in FED_BY_THEMSELVES:
        feeding.add(activation.layer)
    return max(max(level.stride) for level in maps if level.layer in feeding)


def _looks_far(model, layer, maps):
    """Whether this layer or one before it has modules that look beyond their cell's surroundings."""
    layers = list(dict.fromkeys(level.layer for level in maps))
    layers = layers[: layers.index(layer) + 1]
    modules = (module for name in layers for module in model.get_submodule(name).modules())
    return any(map(_reaches_far, modules))


def _reaches_far(module):
    import torch

    if isinstance(module, (torch.nn.Conv2d, torch.nn.MaxPool2d)):
        sides = (np.array(getattr(module, name)).max() for name in ('kernel_size', 'dilation'))
        return (next(sides) - 1) * next(sides) > FAR
    return any(LOOKS_FAR.search(kind.__name__) for kind in type(module).__mro__)
