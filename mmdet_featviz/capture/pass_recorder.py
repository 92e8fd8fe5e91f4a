"""Pass recorder: records the latest pass of the detector that is being evaluated."""

from __future__ import annotations

from typing import Any, Callable

from mmengine.model import BaseModel
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.taps import Taps


class PassRecorder:
    """Keeps what taps catch in the latest pass of a detector that predicts, without being told which detector.

    mmengine gives a metric neither the detector nor word of an evaluation that begins. So hooks on all modules look out
    for the first detector that is called, and are gone as soon as it is found. From then on a single hook, on its data
    preprocessor, tells when a pass begins; while the detector trains it does nothing. The taps are on the detector only
    during a pass, and an error in the pass removes them too (with torch 1.x, which has no hooks that are called after
    an error, the next pass or :meth:`close` does).

    Args:
        make_taps: Makes the taps for the detector.

    Attributes:
        taps: Those of the detector; None until one is found.
    """

    def __init__(self, make_taps: Callable[[nn.Module], Taps]) -> None:
        self._make_taps = make_taps
        self.taps: Taps | None = None
        self._preprocessed: Any = None
        self._handles = [
            register_module_forward_hook(self._on_any_output),
            register_module_forward_pre_hook(self._on_any_call),
        ]
        self._end: Any = None

    def take(self) -> Pass | None:
        """The latest pass since the last one was taken; the watch forgets it.

        Raises:
            ValueError: If a layer that was asked for by name did not fire.
        """
        latest = self.taps.take() if self.taps is not None else []
        return latest[-1] if latest else None

    def close(self) -> None:
        """Remove all hooks; may be called at any time."""
        while self._handles:
            self._handles.pop().remove()
        self._end_pass()
        self._preprocessed = None

    def _on_any_output(self, module: nn.Module, args: Any, output: Any) -> None:
        """Keep what a data preprocessor gives the detector, which is called next."""
        if isinstance(output, dict) and 'data_samples' in output:
            self._preprocessed = output

    def _on_any_call(self, module: nn.Module, args: Any) -> None:
        if isinstance(module, BaseModel):
            preprocessed = self._preprocessed
            self.close()
            self.taps = self._make_taps(module)
            self._handles.append(module.data_preprocessor.register_forward_hook(self._on_preprocessed))
            self._on_preprocessed(module.data_preprocessor, (), preprocessed)

    def _on_preprocessed(self, module: nn.Module, args: Any, output: Any) -> None:
        self._end_pass()
        detector = self.taps.model
        if not detector.training:
            self.taps.attach()  # and forget a pass that nobody took: the latest one counts
            self.taps.begin_with(output)
            self._end = _on_end(detector, self._end_pass)

    def _end_pass(self, *call: Any) -> None:
        if self._end is not None:
            self._end.remove()
            self._end = None
        if self.taps is not None:
            self.taps.detach()


def _on_end(module: nn.Module, hook: Callable[..., None]) -> Any:
    """Register a hook for the end of the module's forward, also by an error if this torch (2.0) knows how."""
    try:
        return module.register_forward_hook(hook, always_call=True)
    except TypeError:
        return module.register_forward_hook(hook)
