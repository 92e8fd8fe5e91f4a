"""Reused features: a detector predicts again, without computing again what it has computed of the same batch."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Iterator, Mapping

from torch import Tensor, nn

from mmdet_featviz.capture.kept_features import KeptCalls, KeptFeatures
from mmdet_featviz.capture.layer_selection import modules_by_name
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.explanation.replacement import one_thread, replace
from mmdet_featviz.explanation.sparse_gradients import convolve_known


@contextmanager
def reusing(model: nn.Module, features: Mapping[str, KeptFeatures | KeptCalls], taps: Taps) -> Iterator[None]:
    """Within the context, modules return what is kept of them, up to the first tapped layer, and that layer too.

    Modules with a tapped layer inside, and all modules after the first tapped layer, compute as ever: predictions
    depend on the taps then. Only convolutions of the heads return what is kept wherever their input is the same; their
    output has the gradient that it would have. Calls of other threads compute as ever, too.

    Args:
        model: The detector.
        features: What modules returned, by path, as taps keep it.
        taps: Taps that have not seen a pass yet.
    """
    named, tapped, thread = modules_by_name(model), set(taps.modules.values()), threading.get_ident()

    def reusing_forward(forward: Callable, kept: KeptFeatures) -> Callable:
        def forward_or_kept(*args: Any, **kwargs: Any) -> Any:
            is_own = threading.get_ident() == thread and taps.fired.isdisjoint(taps.modules)
            return kept.output() if is_own and kept.are_intact else forward(*args, **kwargs)

        return forward_or_kept

    def reusing_convolution(module: nn.Conv2d, kept: KeptCalls) -> Callable:
        forward = module.forward

        def forward_or_kept(input: Tensor) -> Tensor:
            known = kept.output(input) if threading.get_ident() == thread else None
            return forward(input) if known is None else convolve_known(known, input, module)

        return forward_or_kept

    with one_thread, ExitStack() as undo:
        for path, kept in features.items():
            module = named[path]
            if isinstance(kept, KeptCalls):
                replace(module, 'forward', reusing_convolution(module, kept), undo)
            elif tapped.isdisjoint(part for part in module.modules() if part is not module):
                replace(module, 'forward', reusing_forward(module.forward, kept), undo)
        yield
