"""Gradients of single predictions: those of plain autograd, without work at the levels that they do not depend on."""

import pytest
import torch
from explained import narrow_retinanet, write_image
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

from mmdet_featviz import explain
from mmdet_featviz.explanation import level_gradients


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path)


def backward_counts(model, image):
    """Explain the best box, and count in how many calls of the last convolution before the classes gradients arrive."""
    counts = []

    def count(module, args, output):
        if output.requires_grad:
            output.register_hook(lambda gradient: counts.append(tuple(gradient.shape[2:])))

    handle = model.bbox_head.cls_convs[0].conv.register_forward_hook(count)
    explanations = explain(model, image, targets='top 3')
    handle.remove()
    return explanations, counts


def test_only_the_level_that_found_a_box_is_passed(image, monkeypatch):
    model = narrow_retinanet()
    found, counts = backward_counts(model, image)
    assert len(counts) == 3  # one level of five for each of three boxes
    monkeypatch.setattr(level_gradients.HeadOutputs, '_lie_between', lambda *args: False)
    expected, all_counts = backward_counts(model, image)
    assert len(all_counts) == 15
    for one, other in zip(found, expected):
        assert one.levels == other.levels
        for level, same in zip(one.snapshot.levels, other.snapshot.levels):
            assert (level.values == same.values).all()


@pytest.mark.parametrize('layers', [None, 'backbone', 'bbox_head.cls_convs.0.conv', ['neck', 'bbox_head.retina_cls']])
@pytest.mark.parametrize('of', ['score', 'both'])
def test_gradients_are_those_of_plain_autograd(image, monkeypatch, layers, of):
    model = narrow_retinanet()
    layers_of_both = layers if of == 'score' or layers in (None, 'backbone') else ['neck']
    found = explain(model, image, targets='all', layers=layers_of_both, of=of)
    monkeypatch.setattr(level_gradients.HeadOutputs, '_lie_between', lambda *args: False)
    expected = explain(model, image, targets='all', layers=layers_of_both, of=of)
    for one, other in zip(found, expected):
        for level, same in zip(one.snapshot.levels, other.snapshot.levels):
            torch.testing.assert_close(torch.tensor(level.values), torch.tensor(same.values), rtol=1e-5, atol=1e-8)


def test_a_score_that_does_not_only_depend_on_the_dense_head(image):
    """A two-stage detector: its boxes come from the neck, past the proposals."""
    neck = torch.rand(1, 4, 8, 8).requires_grad_()
    head = level_gradients.HeadOutputs(torch.nn.Module())
    out = neck.clone() * 2
    head._tensors = [out]
    (through,) = head.gradients((out * out).sum(), [neck])
    torch.testing.assert_close(through, 8 * neck)
    (past,) = head.gradients((out * out).sum() + neck.sum(), [neck])
    torch.testing.assert_close(past, 8 * neck + 1)
    assert head.gradients((out * 0).sum(), [neck]) == [None]


def test_hooks_are_removed(image):
    model = narrow_retinanet()
    explain(model, image, targets='top 1')
    assert not any(module._forward_hooks for module in model.modules() if isinstance(module, BaseDenseHead))
