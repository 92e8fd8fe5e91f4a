"""Decoder record: where the queries of a transformer decoder look in the image, while the detector predicts."""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Sequence

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import ConditionalAttention
from torch import Tensor, nn

from mmdet_featviz.capture.detector import predicting_branch
from mmdet_featviz.capture.layer_selection import find_layers
from mmdet_featviz.explanation.attention_weights import DenseAttention, SampledAttention
from mmdet_featviz.explanation.replacement import replace


@dataclass(frozen=True, eq=False)
class DecoderRecord:
    """What a decoder did during a pass.

    Attributes:
        attention: {path of a decoder layer: its attention in each call}.
        outputs: What the last layer returned in each call, (N, queries, C). Predictions carry gradients back to here.
    """

    attention: dict[str, list[DenseAttention | SampledAttention]]
    outputs: list[Tensor] = field(default_factory=list)


@contextmanager
def recorded_decoder(model: nn.Module, layers: Sequence[str] | None) -> Iterator[DecoderRecord]:
    """Within the context, record the attention of decoder layers to the image.

    The last layer turns gradients on. Afterwards, also after an error, no hook or replaced method is left.

    Args:
        model: The detector.
        layers: Paths or globs of decoder layers, or of modules that contain them. None is the last one.

    Raises:
        ValueError: If the detector has no such decoder, or a layer is none of its layers.
    """
    decoder = find_decoder_layers(model)
    if not decoder:
        raise ValueError(
            f'{type(model).__name__} has no decoder with cross-attention to the image, as DETR, DINO or Mask2Former '
            "have: method='odam' or 'drise' explains its boxes"
        )
    *_, last = decoder
    chosen = [last] if layers is None else _choose(model, layers, list(decoder))
    record = DecoderRecord({layer: [] for layer in chosen})

    def on_last_layer(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # from here on; the context of the pass restores the mode
        record.outputs.append(output.detach().clone().requires_grad_())
        return record.outputs[-1]

    with ExitStack() as undo:
        for layer in chosen:
            _record_calls(decoder[layer], record.attention[layer], undo)
        undo.callback(model.get_submodule(last).register_forward_hook(on_last_layer).remove)
        yield record


def find_decoder_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return {path of each decoder layer: the module that computes its attention to the image}, in order.

    A decoder layer is a module with a part ``cross_attn``, as those of all DETRs and mask transformers of mmdet.
    """
    found, branch = {}, predicting_branch(model)
    for path, module in model.named_modules():
        cross_attention = getattr(module, 'cross_attn', None)
        if path.startswith(branch) and isinstance(cross_attention, nn.Module):
            parts = [part for part in cross_attention.modules() if isinstance(part, tuple(RECORDERS))]
            found.update({path: parts[0]} if parts else {})
    return found


def _choose(model: nn.Module, layers: Sequence[str], decoder: Sequence[str]) -> list[str]:
    chosen = set()
    for name in find_layers(model, layers):
        inside = {layer for layer in decoder if f'{layer}.'.startswith(f'{name}.')}
        if not inside:
            raise ValueError(f'attention is that of decoder layers, {", ".join(decoder)}, which {name!r} is not')
        chosen |= inside
    return [layer for layer in decoder if layer in chosen]


def _record_calls(module: nn.Module, calls: list, undo: ExitStack) -> None:
    """Replace the method that computes attention by one that also records it, until `undo` closes."""
    kind, (name, attention_of) = next((kind, found) for kind, found in RECORDERS.items() if isinstance(module, kind))
    original, signature = getattr(module, name), inspect.signature(getattr(kind, name))

    def recording(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        arguments = signature.bind(module, *args, **kwargs).arguments
        with torch.no_grad():
            calls.append(attention_of(output, original, **arguments))
        return output

    # On the instance only. Forward hooks get no keyword arguments before torch 2.0.
    replace(module, name, recording, undo)


def _of_heads(output: Any, forward: Callable, self: nn.MultiheadAttention, **arguments: Any) -> DenseAttention:
    """Ask once more, for the weights: whether they were returned, and how, is up to the caller.

    The mode without weights computes other bits, so the network keeps its own output.
    """
    arguments.update(need_weights=True, average_attn_weights=True)
    return DenseAttention(forward(**arguments)[1])


def _conditional(output: tuple[Tensor, Tensor], *ignored: Any, **arguments: Any) -> DenseAttention:
    return DenseAttention(output[1])


def _sampled(
    output: Tensor,
    forward: Callable,
    self: MultiScaleDeformableAttention,
    query: Tensor,
    reference_points: Tensor,
    spatial_shapes: Tensor,
    query_pos: Tensor | None = None,
    **ignored: Any,
) -> SampledAttention:
    """The sampling points of mmcv's deformable attention (Zhu et al., ICLR 2021, eq. 3)."""
    query = query if query_pos is None else query + query_pos
    query = query if self.batch_first else query.transpose(0, 1)
    shape = *query.shape[:2], self.num_heads, self.num_levels, self.num_points
    offsets = self.sampling_offsets(query).view(*shape, 2)
    weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
    references = reference_points[:, :, None, :, None]
    if references.shape[-1] == 2:
        locations = references + offsets / spatial_shapes.flip(1)[:, None]
    else:  # boxes: center and size
        locations = references[..., :2] + offsets / self.num_points * references[..., 2:] / 2
    return SampledAttention(locations, weights, [tuple(grid) for grid in spatial_shapes.tolist()])


# Kind of module: its method that computes attention, and a function that returns the attention of a call.
RECORDERS: dict[type, tuple[str, Callable]] = {
    nn.MultiheadAttention: ('forward', _of_heads),
    ConditionalAttention: ('forward_attn', _conditional),
    MultiScaleDeformableAttention: ('forward', _sampled),
}
