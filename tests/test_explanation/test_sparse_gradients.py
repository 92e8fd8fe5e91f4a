"""Gradients of single predictions: those of plain autograd, without work at the levels that they do not depend on."""

import pytest
import torch
from explained import narrow_retinanet, write_image

from mmdet_featviz import explain
from mmdet_featviz.explanation import sparse_gradients
from mmdet_featviz.explanation.differentiable import differentiable


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path)


@pytest.fixture
def plain_autograd(monkeypatch):
    """Call it to join tensors and to convolve as PyTorch does."""

    def use():
        monkeypatch.setattr('mmdet_featviz.explanation.differentiable.join', torch.cat)
        monkeypatch.setattr('mmdet_featviz.explanation.differentiable.convolve', torch.conv2d)

    return use


def backward_counts(model, image):
    """Explain the best boxes, and count in how many calls of a convolution of the head gradients arrive."""
    counts = []

    def count(gradient):
        if gradient is not None:
            counts.append(tuple(gradient.shape[2:]))

    def count_gradients(module, args, output):
        if output.requires_grad:
            output.register_hook(count)

    handle = model.bbox_head.cls_convs[0].conv.register_forward_hook(count_gradients)
    explanations = explain(model, image, targets='top 3')
    handle.remove()
    return explanations, counts


def test_only_the_level_that_found_a_box_is_passed(image, plain_autograd):
    model = narrow_retinanet()
    found, counts = backward_counts(model, image)
    assert len(counts) == 3  # one level of five for each of three boxes
    plain_autograd()
    expected, all_counts = backward_counts(model, image)
    assert len(all_counts) == 15
    for one, other in zip(found, expected):
        assert one.levels == other.levels
        for level, same in zip(one.snapshot.levels, other.snapshot.levels):
            torch.testing.assert_close(torch.tensor(level.values), torch.tensor(same.values), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize('layers', [None, 'backbone', 'bbox_head.cls_convs.0.conv', ['neck', 'bbox_head.retina_cls']])
@pytest.mark.parametrize('of', ['score', 'both'])
def test_gradients_are_those_of_plain_autograd(image, plain_autograd, layers, of):
    model = narrow_retinanet()
    layers_of_both = layers if of == 'score' or layers in (None, 'backbone') else ['neck']
    found = explain(model, image, targets='all', layers=layers_of_both, of=of)
    plain_autograd()
    expected = explain(model, image, targets='all', layers=layers_of_both, of=of)
    for one, other in zip(found, expected):
        for level, same in zip(one.snapshot.levels, other.snapshot.levels):
            torch.testing.assert_close(torch.tensor(level.values), torch.tensor(same.values), rtol=1e-5, atol=1e-8)


def test_parts_of_a_joined_tensor():
    first, second = torch.rand(2, 3, requires_grad=True), torch.rand(2, 2, requires_grad=True)
    with differentiable(torch.nn.Module()), torch.enable_grad():
        joined = torch.cat([first * 2, torch.ones(2, 1), second * 3], dim=1)
        assert joined.tolist() == torch.cat([first * 2, torch.ones(2, 1), second * 3], 1).tolist()
        numbers = joined[0, 1], joined[1, 5] * joined[0, 0], joined[1, 3]
        again = torch.cat((torch.cat([first, first]), torch.cat([second, second])[:, :1].expand(-1, 3)), 0)
        assert torch.cat([torch.zeros(0), first]).shape == (2, 3)
    found = [torch.autograd.grad(number, [first, second], retain_graph=True, allow_unused=True) for number in numbers]
    assert found[0][0].tolist() == [[0, 2, 0], [0, 0, 0]]
    assert found[0][1] is None
    assert found[1][0][0, 0] == 2 * joined[1, 5]
    assert found[1][1].tolist() == [[0, 0], [0, 3 * joined[0, 0].item()]]
    assert found[2] == (None, None)
    (of_first,) = torch.autograd.grad(again.square().sum(), first)
    torch.testing.assert_close(of_first, 4 * first)


@pytest.mark.parametrize(
    ('kernel', 'settings'),
    [
        (3, dict(padding=1)),
        (1, dict()),
        (3, dict(padding=1, stride=2)),
        ((3, 5), dict(padding=(1, 2), dilation=(1, 2), stride=(2, 1))),
        (3, dict(padding=2, dilation=2, groups=2)),
        (7, dict(padding=3, stride=2)),
        (1, dict(padding=3)),  # the first cells see nothing but padding
    ],
)
@pytest.mark.parametrize('cells', [[(2, 3)], [(0, 0)], [(-1, -1)], [(0, 2), (3, 1)], [(0, 0), (-1, -1)], []])
def test_gradients_of_few_cells_of_a_convolution(kernel, settings, cells, monkeypatch):
    layer = torch.nn.Conv2d(4, 6, kernel, **settings).double()
    values = torch.randn(2, 4, 13, 18, dtype=torch.float64, requires_grad=True)
    seed = torch.zeros_like(layer(values))
    for cell in cells:
        seed[1, :3, cell[0], cell[1]] = torch.rand(3, dtype=torch.float64)
    expected = torch.autograd.grad(layer(values), values, seed)[0]
    with differentiable(torch.nn.Module()), torch.enable_grad():
        output = layer(values)
        assert type(output.grad_fn).__name__ == '_ConvolveBackward'
    assert torch.equal(output, layer(values))
    torch.testing.assert_close(torch.autograd.grad(output, values, seed)[0], expected, rtol=1e-12, atol=1e-12)


def test_only_a_window_of_a_convolution_is_computed(image, monkeypatch):
    sizes, compute = [], sparse_gradients.conv2d_input

    def counting(size, *args):
        sizes.append(tuple(size[2:]))
        return compute(size, *args)

    monkeypatch.setattr(sparse_gradients, 'conv2d_input', counting)
    explain(narrow_retinanet(), image, targets='top 1')
    assert len(sizes) == 2  # the convolution before the classes, and the one before that
    assert sizes[0] == (3, 3)
    assert max(sizes[1]) <= 5  # less where a ReLU lets no gradient pass


def test_weights_that_are_predicted_get_gradients():
    weight, values = torch.rand(1, 2, 3, 3, requires_grad=True), torch.rand(1, 2, 5, 5, requires_grad=True)
    with differentiable(torch.nn.Module()), torch.enable_grad():
        output = torch.nn.functional.conv2d(values, weight * 2, padding='same')
        other = torch.nn.functional.conv2d(values, weight * 2)
    for number in (output.sum(), other.sum()):
        found = torch.autograd.grad(number, [weight, values])
        assert all(gradient.any() for gradient in found)
