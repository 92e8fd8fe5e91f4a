"""Gradients of single predictions: those of plain autograd, without work at the levels that they do not depend on."""

import pytest
import torch
from explained import narrow_retinanet, write_image

from mmdet_featviz import explain
from mmdet_featviz.explanation.differentiable import differentiable


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path)


@pytest.fixture
def plain_autograd(monkeypatch):
    """Call it to join tensors as PyTorch does."""
    return lambda: monkeypatch.setattr('mmdet_featviz.explanation.differentiable._join', torch.cat)


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
            assert (level.values == same.values).all()


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
