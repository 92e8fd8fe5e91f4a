"""The record of a decoder's attention, against what the attention modules themselves return."""

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from torch import nn

from mmdet_featviz.explanation.decoder_record import recorded_decoder


class Layer(nn.Module):
    """A decoder layer, which calls its attention with the given arguments."""

    def __init__(self, cross_attn, *args, **kwargs):
        super().__init__()
        self.cross_attn, self.args, self.kwargs = cross_attn, args, kwargs

    def forward(self):
        output = self.cross_attn(*self.args, **self.kwargs)
        return output if isinstance(output, torch.Tensor) else output[0]


def record_of(attention, *args, **kwargs):
    """The output of a layer, the attention of its only call, and the output that predictions go on with."""
    layer = Layer(attention, *args, **kwargs).eval()
    model = nn.ModuleDict(dict(decoder=layer))
    with torch.no_grad():
        expected = layer()
        with recorded_decoder(model, None) as record:
            output = layer()
            assert torch.is_grad_enabled()
    assert list(record.attention) == ['decoder']
    (recorded,) = record.attention['decoder']
    assert record.outputs == [output]
    assert output.requires_grad
    assert torch.equal(output, expected)
    assert 'forward' not in vars(attention)
    assert not layer._forward_hooks
    return expected, recorded


def weights_by_hand(module, query, key, masked):
    """The weights of each head (heads, queries, keys) of one sample, in float64."""
    width = module.embed_dim // module.num_heads
    weight, bias = module.in_proj_weight.double(), module.in_proj_bias.double()
    queries = query.double() @ weight[: module.embed_dim].T + bias[: module.embed_dim]
    keys = key.double() @ weight[module.embed_dim : -module.embed_dim].T + bias[module.embed_dim : -module.embed_dim]
    parts = [slice(start, start + width) for start in range(0, module.embed_dim, width)]
    logits = torch.stack([queries[:, part] @ keys[:, part].T / width**0.5 for part in parts])
    return logits.masked_fill(masked, -torch.inf).softmax(-1)


@pytest.mark.parametrize('batch_first', [False, True])
@pytest.mark.parametrize('options', [{}, dict(need_weights=False), dict(average_attn_weights=False)])
def test_weights_sum_to_one_and_give_the_output_of_the_module(batch_first, options):
    module = nn.MultiheadAttention(16, 4, batch_first=batch_first)
    nn.init.normal_(module.in_proj_weight, std=0.5)
    nn.init.normal_(module.in_proj_bias)
    query, key, value = torch.randn(2, 3, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    masked = torch.zeros(2, 7, dtype=torch.bool)
    masked[1, 5:] = True
    given = [part if batch_first else part.transpose(0, 1) for part in (query, key, value)]
    output, recorded = record_of(module, *given, key_padding_mask=masked, **options)
    assert recorded.weights.shape == (2, 3, 7)
    torch.testing.assert_close(recorded.weights.sum(-1), torch.ones(2, 3))
    output = output if batch_first else output.transpose(0, 1)
    weight, bias = module.in_proj_weight[-16:].double(), module.in_proj_bias[-16:].double()
    for sample in range(2):
        heads = weights_by_hand(module, query[sample], key[sample], masked[sample])
        torch.testing.assert_close(recorded.weights[sample].double(), heads.mean(0), rtol=0, atol=1e-6)
        values = (value[sample].double() @ weight.T + bias).unflatten(1, (4, 4)).transpose(0, 1)
        again = (heads @ values).transpose(0, 1).flatten(1) @ module.out_proj.weight.double().T
        torch.testing.assert_close(again + module.out_proj.bias.double(), output[sample].double(), rtol=0, atol=1e-5)


def test_options_may_be_given_by_position():
    module, query, key = nn.MultiheadAttention(8, 2), torch.randn(3, 1, 8), torch.randn(5, 1, 8)
    _, recorded = record_of(module, query, key, key, None, False)
    torch.testing.assert_close(recorded.weights, module(query, key, key)[1])


@pytest.mark.parametrize('batch_first', [False, True])
@pytest.mark.parametrize('numbers', [2, 4])
def test_sampling_points_give_the_output_of_the_module(batch_first, numbers):
    module = MultiScaleDeformableAttention(16, num_heads=4, num_levels=3, num_points=5, batch_first=batch_first)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    grids = [(6, 8), (3, 4), (2, 2)]
    query, position, value = torch.randn(2, 7, 16), torch.randn(2, 7, 16), torch.randn(2, 64, 16)
    masked = torch.rand(2, 64) < 0.2
    shapes = torch.tensor(grids)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    turned = [part if batch_first else part.transpose(0, 1) for part in (query, value, position)]
    output, recorded = record_of(
        module,
        turned[0],
        None,
        turned[1],
        query_pos=turned[2],
        key_padding_mask=masked,
        reference_points=torch.rand(2, 7, 3, numbers),
        spatial_shapes=shapes,
        level_start_index=starts,
    )
    assert recorded.grids == grids
    assert recorded.locations.shape == (2, 7, 4, 3, 5, 2)
    torch.testing.assert_close(recorded.weights.sum((3, 4)), torch.ones(2, 7, 4))
    values = module.value_proj(value).masked_fill(masked[..., None], 0).view(2, 64, 4, 4)
    sampled = multi_scale_deformable_attn_pytorch(values, shapes, recorded.locations, recorded.weights)
    again = module.output_proj(sampled) + query
    assert torch.equal(again if batch_first else again.transpose(0, 1), output)


def test_a_method_that_was_replaced_already_is_put_back():
    module = nn.MultiheadAttention(8, 2)
    module.forward = own = lambda *args, **kwargs: nn.MultiheadAttention.forward(module, *args, **kwargs)
    model = nn.ModuleDict(dict(decoder=Layer(module)))
    with pytest.raises(ZeroDivisionError), recorded_decoder(model, None):
        assert module.forward is not own
        1 / 0  # noqa: B018
    assert module.forward is own
    assert not model['decoder']._forward_hooks


def test_half_precision():
    module = nn.MultiheadAttention(8, 2)
    with torch.autocast('cpu', torch.bfloat16):
        _, recorded = record_of(module, torch.randn(3, 1, 8), torch.randn(5, 1, 8), torch.randn(5, 1, 8))
    torch.testing.assert_close(recorded.weights.float().sum(-1), torch.ones(1, 3), rtol=0, atol=0.02)
