"""Linear skeleton: sends a picture through a network that only weighs and adds, to see where its outputs look.

How much a cell depends on a pixel is the sum, over all paths between them, of the products of the weights on the path.
The skeleton adds the absolute values of these products. Biases are dropped, activations are the identity, gates are
open, a maximum becomes a mean, and norms only scale. Attention looks everywhere and so has no position of its own:
each token keeps its position. Global means are dropped for the same reason.

Values that were upsampled count only where nothing of the level's own resolution is added to or concatenated with them.
They are the coarse cells' positions, repeated.

Values pass through a module's own ``forward``. They are tensors of a class of their own, :class:`Share`, whose
``__torch_function__`` replaces the functions that are not linear; functions that only move values stay as they are.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

RULES: dict[str, Callable] = {}

_counting = threading.local()  # whether this thread counts paths


@contextmanager
def counting_paths() -> Iterator[None]:
    """Within the context, every path counts, and the values of weights do not: also those that are zero.

    All weights of an output are equal, upsampled values are not faint, and a token attends to all tokens. What a cell
    depends on then has a gradient above 0.
    """
    _counting.on = True
    try:
        yield
    finally:
        _counting.on = False


def _counts_paths() -> bool:
    return getattr(_counting, 'on', False)


class Share(Tensor):
    """Sums of pixels, weighted by how much they matter; ordinary functions of torch follow the skeleton's rules.

    Attributes:
        upsampled: How often the values were upsampled.
    """

    upsampled = 0

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: Sequence = (), kwargs: dict | None = None) -> Any:
        apply = None if func is Tensor.__float__ else RULES.get(func.__name__.strip('_'))
        if apply is not None:
            result = apply(func, *args, **(kwargs or {}))
        else:
            result = super().__torch_function__(func, types, args, kwargs or {})
            # Shapes, comparisons and indices are no sums of pixels.
            result = plain(result) if is_share(result) and not result.is_floating_point() else result
        upsampled = max((one.upsampled for one in _shares_in(args)), default=0)
        for one in _shares_in([result]):
            vars(one).setdefault('upsampled', upsampled)  # unless the rule has set it
        return result


def share(values: Tensor, upsampled: int | None = None) -> Share:
    values = values.as_subclass(Share)
    if upsampled is not None:
        values.upsampled = upsampled
    return values


def _shares_in(values: Sequence) -> list[Share]:
    """The shares among some values and in the sequences among them."""
    nested = (value if isinstance(value, (tuple, list)) else [value] for value in values)
    return [one for group in nested for one in group if is_share(one)]


def _own_resolution(shares: Sequence[Share]) -> int:
    """How often those of some shares were upsampled that count: the fewest times, shares of 0 left out."""
    counts = {one.upsampled for one in shares}
    if len(counts) > 1:
        counts = {one.upsampled for one in shares if plain(one).any()} or counts
    return min(counts)


def _counted(values: Tensor, upsampled: int) -> Tensor:
    """The values of a share that was upsampled no more often than this; else, and for constants, 0."""
    return plain(values) if is_share(values) and values.upsampled <= upsampled else torch.zeros_like(plain(values))


def plain(values: Tensor) -> Tensor:
    return values.as_subclass(Tensor)


def is_share(value: Any) -> bool:
    return isinstance(value, Share)


def skeleton_of(model: nn.Module) -> nn.Module:
    """A copy of a model for shares: in evaluation mode, without hooks, with the parameters and buffers of the model.

    Nothing that is done with the copy changes the model or calls its hooks.
    """
    return _copy(model, {})


def _copy(module: nn.Module, copies: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in copies or isinstance(module, torch.jit.ScriptModule):
        return copies.get(module, module)
    copies[module] = copy = type(module).__new__(type(module))
    hooks = {name: OrderedDict() for name, value in vars(module).items() if 'hooks' in name and isinstance(value, dict)}
    children = ((name, child and _copy(child, copies)) for name, child in module._modules.items())
    vars(copy).update({**vars(module), **hooks, 'training': False, '_modules': OrderedDict(children)})
    for kind in type(module).__mro__:
        if kind.__name__ in COMPILED:
            vars(copy)['forward'] = COMPILED[kind.__name__](module)
    return copy


# Operators that are compiled, and so call no functions of torch


def _undeformed(module: Any) -> Callable:
    def forward(values: Tensor, *offsets: Any, **kwargs: Any) -> Tensor:
        return F.conv2d(values, module.weight, None, module.stride, module.padding, module.dilation, module.groups)

    return forward


def _own_token(module: Any) -> Callable:
    def forward(query: Tensor, key: Any = None, value: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        values = query if value is None else value
        return query + values.mean((0, 1), keepdim=True) if _counts_paths() else query

    return forward


def _upsampled(module: Any) -> Callable:
    return lambda values, *args, **kwargs: F.interpolate(values, scale_factor=module.scale_factor)


COMPILED = dict(
    DeformConv2d=_undeformed,
    ModulatedDeformConv2d=_undeformed,
    MultiScaleDeformableAttention=_own_token,
    CARAFEPack=_upsampled,
)


# Rules


def rule(*names: str) -> Callable:
    """Register the rule of functions of torch; methods, operators and in-place versions go by the same name."""

    def register(function: Callable) -> Callable:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def _result(func: Callable, old: Share, new: Tensor, inplace: bool = False, upsampled: int | None = None) -> Share:
    """Return new values; a function that works in place also writes them into the old ones, where they fit."""
    name = func.__name__
    inplace = inplace or name.startswith('__i') or (name.endswith('_') and not name.endswith('__'))
    upsampled = old.upsampled if upsampled is None else upsampled
    if inplace and new.shape == old.shape:
        plain(old).copy_(new)
        old.upsampled = upsampled
        return old
    return share(new.clone() if new.data_ptr() == old.data_ptr() else new, upsampled)


def _weight(weight: Any, like: Tensor) -> Any:
    """The absolute value of a weight, a number or a tensor."""
    if isinstance(weight, Tensor) and _counts_paths():
        equal = 1 / weight[0].numel() if weight.dim() > 1 else 1.0
        return torch.full(weight.shape, equal, dtype=like.dtype, device=like.device)
    return weight.detach().to(like.device, like.dtype).abs() if isinstance(weight, Tensor) else abs(weight)


def _expanded(values: Tensor, other: Any) -> Tensor:
    shape = other.shape if isinstance(other, Tensor) else ()
    return plain(values).expand(torch.broadcast_shapes(values.shape, shape))


@rule('relu', 'relu6', 'leaky_relu', 'prelu', 'rrelu', 'elu', 'celu', 'selu', 'silu', 'gelu', 'mish', 'hardswish')
@rule('softplus', 'hardtanh', 'threshold', 'softsign', 'log_sigmoid', 'hardshrink', 'softshrink', 'tanhshrink')
@rule('abs', 'neg', 'normalize', 'local_response_norm')
@rule('dropout', 'dropout2d', 'feature_dropout', 'alpha_dropout', 'feature_alpha_dropout')
@rule('square', 'pow', 'sqrt', 'rsqrt', 'exp', 'log', 'reciprocal')
@rule('to', 'type', 'float', 'double', 'half', 'bfloat16', 'type_as')  # shares keep their precision
def keep(func: Callable, values: Share, *args: Any, inplace: bool = False, **kwargs: Any) -> Share:
    return _result(func, values, plain(values), inplace) if is_share(values) else values


@rule('sigmoid', 'hardsigmoid', 'tanh', 'erf')
def open_gate(func: Callable, values: Share, *args: Any, **kwargs: Any) -> Tensor:
    return torch.ones_like(plain(values))


@rule('clamp', 'clip')
def clamp(func: Callable, values: Share, *limits: Any, **kwargs: Any) -> Tensor:
    """Between two limits there is a gate, as in a hard sigmoid; a single limit is that of a rectifier."""
    limits = [limit for limit in (*limits, *kwargs.values()) if limit is not None]
    return keep(func, values) if len(limits) < 2 else open_gate(func, values)


@rule('new_ones', 'new_full', 'new_tensor', 'ones_like', 'full_like', 'rand_like', 'randn_like')
def new(func: Callable, values: Share, *args: Any, **kwargs: Any) -> Tensor:
    """Constants come from no pixel."""
    return func(plain(values), *args, **kwargs)


@rule('cat', 'concat', 'concatenate', 'stack')
def join(func: Callable, tensors: Sequence[Tensor], *args: Any, **kwargs: Any) -> Share:
    """Constants beside shares, such as coordinates or class tokens, come from no pixel."""
    upsampled = _own_resolution(_shares_in(tensors))
    return share(func([_counted(part, upsampled) for part in tensors], *args, **kwargs), upsampled)


@rule('expand_as', 'view_as', 'reshape_as')
def shaped_as(func: Callable, values: Tensor, other: Tensor) -> Tensor:
    shaped = func(plain(values), plain(other))
    return share(shaped) if is_share(values) else shaped


@rule('softmax', 'log_softmax')
def softmax(func: Callable, values: Share, dim: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """Each token attends to itself if there are as many queries as keys, else to none; other gates are open."""
    shape = values.shape
    if dim not in (-1, len(shape) - 1):
        return torch.ones_like(plain(values))
    if _counts_paths():
        return torch.full(shape, 1 / shape[-1], dtype=values.dtype, device=values.device)
    if len(shape) > 1 and shape[-1] == shape[-2]:
        return torch.eye(shape[-1], dtype=values.dtype, device=values.device).expand(shape)
    return torch.zeros_like(plain(values))


@rule('add', 'radd', 'iadd', 'sub', 'subtract', 'rsub', 'isub', 'maximum', 'minimum')
def add(func: Callable, first: Any, second: Any, *args: Any, **kwargs: Any) -> Share:
    if is_share(first) and is_share(second):
        upsampled = _own_resolution([first, second])
        return _result(func, first, _counted(first, upsampled) + _counted(second, upsampled), upsampled=upsampled)
    values, constant = (first, second) if is_share(first) else (second, first)
    return _result(func, values, _expanded(values, constant))


@rule('mul', 'multiply', 'rmul', 'imul')
def multiply(func: Callable, first: Any, second: Any) -> Share:
    values, weight = (first, second) if is_share(first) else (second, first)
    if is_share(weight):  # a gate
        values, weight = sorted((values, weight), key=Tensor.numel, reverse=True)
        return _result(func, values, _expanded(values, weight))
    return _result(func, values, plain(values) * _weight(weight, values))


@rule('div', 'divide', 'true_divide', 'truediv', 'itruediv', 'idiv')
def divide(func: Callable, first: Any, second: Any, *args: Any, **kwargs: Any) -> Any:
    if not is_share(first):
        return first
    if is_share(second):  # a norm
        return _result(func, first, _expanded(first, second))
    return _result(func, first, plain(first) / _weight(second, first))


@rule('matmul', 'rmatmul', 'bmm', 'mm')
def matmul(func: Callable, first: Any, second: Any) -> Share:
    if is_share(first) and is_share(second):  # attention
        return share(torch.matmul(plain(first), plain(second)) * 0)
    if is_share(first):
        return share(torch.matmul(plain(first), _weight(second, first)))
    return share(torch.matmul(_weight(first, second), plain(second)))


@rule('einsum')
def einsum(func: Callable, equation: str, *operands: Any) -> Share:
    operands = operands[0] if isinstance(operands[0], (tuple, list)) else operands
    like, *others = filter(is_share, operands)
    values = [plain(operand) if is_share(operand) else _weight(operand, like) for operand in operands]
    return share(torch.einsum(equation, *values) * (0 if others else 1))


@rule('linear')
def linear(func: Callable, values: Any, weight: Tensor, bias: Any = None) -> Share:
    return matmul(func, values, weight.t())


@rule('scaled_dot_product_attention')
def dot_product_attention(func: Callable, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kw: Any) -> Tensor:
    if _counts_paths():
        return value.mean(-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])
    if query.shape[-2] == key.shape[-2]:
        return value
    return value.new_zeros(*query.shape[:-1], value.shape[-1])


@rule('multi_head_attention_forward')
def multi_head_attention(
    func: Callable, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    return (query + value.mean(0, keepdim=True) if _counts_paths() else query), None


@rule('batch_norm')
def batch_norm(
    func: Callable,
    values: Share,
    mean: Any,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Share:
    if variance is None:
        return _scaled(_normed(values), weight)
    scale = (variance.detach().to(values.dtype) + eps).rsqrt()
    return _scaled(plain(values), scale if weight is None else scale * weight)


@rule('instance_norm')
def instance_norm(
    func: Callable, values: Share, mean: Any = None, variance: Any = None, weight: Any = None, *args: Any, **kwargs: Any
) -> Share:
    return _scaled(_normed(values), weight)


@rule('group_norm')
def group_norm(func: Callable, values: Share, groups: int, weight: Any = None, *args: Any, **kwargs: Any) -> Share:
    return _scaled(_normed(values), weight)


@rule('layer_norm', 'rms_norm')
def layer_norm(func: Callable, values: Share, shape: Any, weight: Any = None, *args: Any, **kwargs: Any) -> Share:
    normed = _normed(values)
    return share(normed if weight is None else normed * _weight(weight, normed))


def _normed(values: Share) -> Tensor:
    """Values of mean 1. All get the same factor, so that they stay linear in the pixels."""
    mean = plain(values).mean().detach()
    return plain(values) / torch.where(mean > 0, mean, torch.ones_like(mean))


def _scaled(values: Tensor, weight: Tensor | None) -> Share:
    """Values (N, C, ...) times the weights of their channels."""
    if weight is None:
        return share(values)
    return share(values * _weight(weight, values).view(-1, *[1] * (values.dim() - 2)))


# Convolutions, pools and resampling. Borders are left out of account: values continue beyond them as they do inside.


@rule('conv2d')
def conv2d(
    func: Callable,
    values: Any,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Share:
    if is_share(weight):  # a kernel that depends on the image
        weight = torch.ones_like(plain(weight))
    if isinstance(padding, str):
        totals = [d * (k - 1) * (padding == 'same') for d, k in zip(_pair(dilation), weight.shape[2:])]
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
    else:
        top, left = bottom, right = _pair(padding)
    continued = _continue(plain(values), (left, right, top, bottom))
    return share(F.conv2d(continued, _weight(weight, values), None, stride, 0, dilation, groups))


@rule('conv_transpose2d')
def conv_transpose2d(
    func: Callable,
    values: Any,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Share:
    kernel, step, extra = weight.shape[2:], _pair(stride), _pair(output_padding)
    down, across = (-(-(d * (k - 1) + e) // s) for d, k, e, s in zip(_pair(dilation), kernel, extra, step))
    continued = _continue(plain(values), (across, across, down, down))
    cut = [side + cells * s for side, cells, s in zip(_pair(padding), (down, across), step)]  # also what was continued
    weight = _weight(weight, values)
    return share(F.conv_transpose2d(continued, weight, None, stride, cut, output_padding, groups, dilation))


@rule('conv1d', 'conv3d', 'conv_transpose1d', 'conv_transpose3d')
def convolve(func: Callable, values: Any, weight: Tensor, bias: Any = None, *args: Any, **kwargs: Any) -> Share:
    return share(func(plain(values), _weight(weight, values), None, *args, **kwargs))


@rule('max_pool2d')
def max_pool(
    func: Callable,
    values: Share,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    **kwargs: Any,
) -> Share:
    window = tuple((size - 1) * step + 1 for size, step in zip(_pair(kernel_size), _pair(dilation)))
    return avg_pool(func, values, window, stride or kernel_size, padding, ceil_mode)


@rule('max_pool2d_with_indices')
def max_pool_with_indices(func: Callable, values: Share, *args: Any, **kwargs: Any) -> tuple[Share, Tensor]:
    pooled = max_pool(func, values, *args, **kwargs)
    return pooled, torch.zeros_like(plain(pooled), dtype=torch.long)


@rule('avg_pool2d')
def avg_pool(
    func: Callable,
    values: Share,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *args: Any,
    **kwargs: Any,
) -> Share:
    top, left = _pair(padding)
    kernel, step = _pair(kernel_size), _pair(stride or kernel_size)
    pads = left, left, top, top
    if ceil_mode:  # the last windows are whole, beyond the border
        right, bottom = (
            -(length + 2 * side - size) % by
            for length, side, size, by in zip(values.shape[:-3:-1], (left, top), kernel[::-1], step[::-1])
        )
        pads = left, left + right, top, top + bottom
    return share(F.avg_pool2d(_continue(plain(values), pads), kernel, step))


@rule('adaptive_avg_pool2d', 'adaptive_max_pool2d')
def adaptive_pool(func: Callable, values: Share, size: Any, *args: Any, **kwargs: Any) -> Share:
    pooled = F.adaptive_avg_pool2d(plain(values), size)
    return share(pooled * (pooled.shape[-2:].numel() > 1))


@rule('pad')
def pad(func: Callable, values: Share, pads: Sequence[int], *args: Any, **kwargs: Any) -> Share:
    if values.dim() == 4 and len(pads) <= 4:
        return share(_continue(plain(values), (*pads, 0, 0)[:4]))
    return share(F.pad(plain(values), pads))


@rule('interpolate')
def interpolate(func: Callable, values: Share, *args: Any, **kwargs: Any) -> Share:
    resampled = F.interpolate(plain(values), *args, **kwargs)
    times = values.upsampled + (resampled.numel() > values.numel())
    return share(resampled, 0 if _counts_paths() else times)


@rule('mean', 'sum', 'var', 'std', 'norm', 'amax', 'amin')
def reduce(func: Callable, values: Share, *args: Any, **kwargs: Any) -> Share:
    """Means and sums; those over whole maps are dropped."""
    dims = kwargs.get('dim', args[0] if args else None)
    keepdim = kwargs.get('keepdim', args[1] if len(args) > 1 else False)
    dims = list(range(values.dim())) if dims is None else [dims] if isinstance(dims, int) else list(dims)
    is_whole = values.dim() == 4 and {dim % 4 for dim in dims} >= {2, 3}
    function = torch.sum if func.__name__ == 'sum' else torch.mean
    return share(function(plain(values), dims, keepdim) * (not is_whole))


@rule('max', 'min')
def extreme(func: Callable, values: Share, *args: Any, **kwargs: Any) -> Any:
    dim = kwargs.get('dim', args[0] if args else None)
    if isinstance(dim, Tensor):
        return add(func, values, dim)
    mean = reduce(func, values, *args, **kwargs)
    return mean if dim is None else (mean, torch.zeros_like(plain(mean), dtype=torch.long))


def _pair(value: Any) -> tuple[int, int]:
    if not isinstance(value, (tuple, list)):
        return value, value
    return tuple(value) if len(value) == 2 else (value[0], value[0])


def _continue(values: Tensor, pads: Sequence[int]) -> Tensor:
    """Pad the last two axes (left, right, top, bottom), and go on there in the steps from the last cell but one."""
    left, right, top, bottom = pads
    wide = _continue_last_axis(values, left, right)
    return _continue_last_axis(wide.transpose(-1, -2), top, bottom).transpose(-1, -2)


def _continue_last_axis(values: Tensor, before: int, after: int) -> Tensor:
    values = values[..., max(-before, 0) : values.shape[-1] - max(-after, 0)]
    neighbor = min(1, values.shape[-1] - 1)
    first, last = values[..., :1], values[..., -1:]
    steps = torch.arange(1, max(before, after, 0) + 1, dtype=values.dtype, device=values.device)
    start = first + (first - values[..., neighbor : neighbor + 1]) * steps[: max(before, 0)].flip(0)
    end = last + (last - values[..., -1 - neighbor : values.shape[-1] - neighbor]) * steps[: max(after, 0)]
    return torch.cat([start, values, end], -1)
