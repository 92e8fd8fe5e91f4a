"""Random weights: detectors whose head, then neck, then backbone have lost what they learned."""

from __future__ import annotations

import contextlib
from typing import Iterator, Sequence

import torch
from torch import nn

PARTS = ('head', 'neck', 'backbone')  # in this order, from the output to the input


def parts_of(model: nn.Module) -> list[str]:
    """Return those of `PARTS` that a detector has weights in."""
    return [part for part in PARTS if _modules_of(model, part)]


@contextlib.contextmanager
def shuffled_weights(model: nn.Module, parts: Sequence[str], seed: int) -> Iterator[None]:
    """Within the context, the weights of some parts are shuffled, each tensor in itself.

    Shuffled weights have the size of the trained ones, so the network still works with numbers of usual size, but they
    have lost what was learned. (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, randomise from the
    output to the input.)

    Args:
        model: The detector.
        parts: Some of `PARTS`; the head is all that is neither neck nor backbone.
        seed: Seed of the order.
    """
    weights = [weight for part in parts for module in _modules_of(model, part) for weight in module.parameters()]
    originals = [weight.detach().clone() for weight in weights]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for weight in weights:
                order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))
        yield
    finally:
        with torch.no_grad():
            for weight, original in zip(weights, originals):
                weight.copy_(original)


def _modules_of(model: nn.Module, part: str) -> list[nn.Module]:
    """Return the children of a detector that make up a part and have weights."""
    children = dict(model.named_children())
    if part == 'head':
        chosen = [child for name, child in children.items() if name not in PARTS]
    else:
        chosen = [children[part]] if part in children else []
    return [module for module in chosen if any(True for _ in module.parameters())]
