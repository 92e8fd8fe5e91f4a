"""Pass recorder: finds the detector under evaluation by itself and captures its latest pass; for metrics."""

from __future__ import annotations

import weakref
from typing import Any, Callable

from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import BaseLoop
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.detector import predicting_branch, unwrap_detector
from mmdet_featviz.capture.nested_passes import are_nested
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.utils.call_stack import calling


class PassRecorder:
    """Captures the latest pass of a predicting detector, without a reference to the detector.

    mmengine passes a metric neither the detector nor a signal that an evaluation begins. Therefore global forward hooks
    wait for the first call of a detector; they are removed as soon as it is found. From then on, one hook on its data
    preprocessor marks the start of each pass, and does nothing while the detector trains. The taps are attached only
    during a pass. An error during the pass removes them too; torch 1.x has no hooks that run after an error, so there
    the next pass or :meth:`close` removes them. A semi-supervised detector has taps for each branch that predicts.

    Args:
        make_taps: Creates the taps for a detector.
        is_wanted: Whether a pass that begins is to be captured: a runner may also evaluate without the metric.

    Attributes:
        taps: The taps of the detector, or of its branch that predicts; None until the detector is found.
    """

    def __init__(self, make_taps: Callable[[nn.Module], Taps], is_wanted: Callable[[], bool]) -> None:
        self._make_taps = make_taps
        self._is_wanted = is_wanted
        self._branch_taps: dict[str, Taps] = {}
        self.taps: Taps | None = None
        self._preprocessed: Any = None
        self._handles = [
            register_module_forward_hook(self._after_any_module),
            register_module_forward_pre_hook(self._before_any_module),
        ]
        self._end_handle: Any = None

    def take(self) -> Pass | None:
        """Return the latest pass since the last call of this method and forget it; None if there was none.

        Raises:
            ValueError: If a layer that was selected by its path, not by a glob, did not fire.
        """
        latest = self.taps.take() if self.taps is not None else []
        return latest[-1] if latest else None

    def close(self) -> None:
        """Remove all hooks. Safe to call at any time, also repeatedly."""
        while self._handles:
            self._handles.pop().remove()
        self._end_pass()
        self._preprocessed = None

    def _after_any_module(self, module: nn.Module, args: Any, output: Any) -> None:
        """Keep the output of a data preprocessor, the input of the detector that is called next."""
        if isinstance(output, dict) and 'data_samples' in output:
            self._preprocessed = output

    def _before_any_module(self, module: nn.Module, args: Any) -> None:
        if isinstance(module, BaseModel) and not are_nested():
            preprocessed = self._preprocessed
            self.close()
            self._take_branch(module)
            self._handles.append(module.data_preprocessor.register_forward_hook(self._on_preprocessed))
            self._on_preprocessed(module.data_preprocessor, (), preprocessed)

    def _on_preprocessed(self, module: nn.Module, args: Any, output: Any) -> None:
        if are_nested():
            return
        self._end_pass()
        detector = self.taps.model
        if not detector.training and self._is_wanted():
            self._take_branch(detector)
            self.taps.attach()  # also drops a pass that was not taken: only the latest one counts
            self.taps.begin_preprocessed(output)
            self._end_handle = _register_end_hook(detector, self._end_pass)

    def _take_branch(self, detector: nn.Module) -> None:
        """Make the taps those of the branch that predicts: TeacherStudentValLoop evaluates one after the other."""
        branch = predicting_branch(unwrap_detector(detector))
        if branch not in self._branch_taps:
            taps = self._make_taps(detector)
            taps.keep_branch(branch)
            self._branch_taps[branch] = taps
        self.taps = self._branch_taps[branch]

    def _end_pass(self, *call: Any) -> None:
        if self._end_handle is not None:
            self._end_handle.remove()
            self._end_handle = None
        if self.taps is not None:
            self.taps.detach()


def is_evaluated(metric: weakref.ref[BaseMetric]) -> bool:
    """Whether the loop that runs evaluates with a metric: a test may run without the metric of the validations."""
    loop = calling('run_iter', BaseLoop)
    evaluator = getattr(loop, 'evaluator', None)
    return evaluator is None or any(one is metric() for one in getattr(evaluator, 'metrics', ()))


def _register_end_hook(module: nn.Module, hook: Callable[..., None]) -> Any:
    """Register a hook that runs after the module's forward; from torch 2.0 on also after an error."""
    try:
        return module.register_forward_hook(hook, always_call=True)
    except TypeError:
        return module.register_forward_hook(hook)
