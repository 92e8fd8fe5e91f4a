"""FeatVizMixin: makes any detector class draw its feature maps whenever it predicts."""

from __future__ import annotations

import logging
import os.path as osp
from contextvars import ContextVar
from typing import Any, Callable, Sized

from mmdet.models.detectors import BaseDetector
from mmengine.dataset import DefaultSampler
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import BaseLoop
from torch import Tensor

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.capture.linear_skeleton import is_share
from mmdet_featviz.runs.visualizer_backends import current_visualizer
from mmdet_featviz.utils.call_stack import calling

# Stage of the prediction that runs in each thread, and its batch before preprocessing, which explanations need.
_step: ContextVar[tuple[str, Any]] = ContextVar('step', default=('test', None))


class FeatVizMixin:
    """Makes an mmdet detector draw its feature maps whenever it predicts.

    It must be the first base class. It adds neither parameters nor buffers, so the detector's checkpoints still fit.
    Pictures that wait for the end (with ``normalize='run'`` all) and the report are made by ``featviz.close()``, at the
    end of a block ``with model.featviz:``, or else when the process ends.

    Args:
        *args: Arguments of the detector.
        featviz: Arguments of :class:`mmdet_featviz.FeatureVisualizer` and :class:`mmdet_featviz.Style`.
        **kwargs: Arguments of the detector.

    Example:
        >>> @MODELS.register_module()
        ... class MyDetectorHp(FeatVizMixin, MyDetector):
        ...     pass
    """

    def __init__(self, *args: Any, featviz: dict | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.featviz = FeatureVisualizer(**(featviz or {}))

    def val_step(self, data: Any) -> list:
        return self._run_step('val', super().val_step, data)

    def test_step(self, data: Any) -> list:
        return self._run_step('test', super().test_step, data)

    def _run_step(self, stage: str, step: Callable[[Any], list], data: Any) -> list:
        token = _step.set((stage, data))
        try:
            return step(data)
        finally:
            _step.reset(token)

    def predict(self, batch_inputs: Tensor, batch_data_samples: list, *args: Any, **kwargs: Any) -> list:
        return self._run_and_draw(_step.get()[0], super().predict, batch_inputs, batch_data_samples, *args, **kwargs)

    def loss(self, batch_inputs: Tensor, batch_data_samples: list, *args: Any, **kwargs: Any) -> Any:
        if self.featviz.needs_check:
            self.featviz.check(self, _dataset_meta(self))
        return self._run_and_draw('train', super().loss, batch_inputs, batch_data_samples, *args, **kwargs)

    def _run_and_draw(self, stage: str, run: Any, inputs: Tensor, samples: list, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the detector, and draw what its layers output during the call."""
        if not self.featviz.draws(stage) or not isinstance(inputs, Tensor) or is_share(inputs):
            return run(inputs, samples, *args, **kwargs)
        loop = calling('run', BaseLoop)
        folder, run_dir = _position_in_run(stage, loop)
        sizes = (None, None) if stage == 'train' else _round_sizes(loop)
        selection = self.featviz.select(inputs, samples, folder, stage, *sizes)
        if all(position is None for position in selection.positions):
            return run(inputs, samples, *args, **kwargs)
        self.featviz.open(self, osp.join(run_dir, 'featviz'), dataset_meta=_dataset_meta(self), stage=stage)
        with self.featviz.taps as taps:
            taps.begin(inputs, samples)
            outputs = run(inputs, samples, *args, **kwargs)
        results, data = ((), None) if stage == 'train' else (outputs, _step.get()[1])
        self.featviz.draw(taps.take(results), results, folder, stage, selection, data)
        return outputs


def _round_sizes(loop: BaseLoop | None) -> tuple[int | None, int | None]:
    """Return how many images this rank sees in a round of a loop, and how many its data set has; None if not known."""
    sampler = getattr(getattr(loop, 'dataloader', None), 'sampler', None)
    repeats = isinstance(sampler, DefaultSampler)
    return len(sampler) if isinstance(sampler, Sized) else None, len(sampler.dataset) if repeats else None


def _position_in_run(stage: str, loop: BaseLoop | None) -> tuple[str, str]:
    """Return the subfolder for the pictures, named as by FeatVizHook, and the log folder of the run.

    A detector does not know its runner, so both come from the loop that calls it, mmengine's message hub and log file.
    """
    handlers = MMLogger.get_current_instance().handlers
    log_files = [handler.baseFilename for handler in handlers if isinstance(handler, logging.FileHandler)]
    # A log file exists on the first rank only.
    run_dir = loop.runner.log_dir if loop else osp.dirname(log_files[0]) if log_files else 'work_dirs'
    if stage == 'test':
        return '', run_dir
    info = MessageHub.get_current_instance().runtime_info
    # The number of the current epoch and iteration, from 0, or nothing if nothing trains.
    epochs, iterations = (0 if n is None else n + 1 for n in (info.get('epoch'), info.get('iter')))
    # An iteration-based loop reports a single epoch.
    if stage == 'train' or (iterations and info.get('max_epochs') == 1):
        return f'iter_{iterations}', run_dir
    return f'epoch_{epochs}', run_dir


def _dataset_meta(detector: BaseDetector) -> dict | None:
    """Return classes and palette, from the detector (set by init_detector) or from the visualizer of its runner."""
    if getattr(detector, 'dataset_meta', None):
        return detector.dataset_meta
    return getattr(current_visualizer(), 'dataset_meta', None)  # no visualizer: no runner either
