"""FeatVizMixin: lets a detector draw whenever it predicts."""

from __future__ import annotations

import logging
import os.path as osp
from typing import Any

from mmdet.models.detectors import BaseDetector
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from torch import Tensor

from mmdet_featviz.apis.visualizer import FeatureVisualizer


class FeatVizMixin:
    """Lets any mmdet detector draw its feature maps whenever it predicts.

    It comes first among the bases, and adds neither parameters nor buffers: checkpoints fit key for key.

    Args:
        featviz: Arguments of :class:`mmdet_featviz.FeatureVisualizer` and :class:`mmdet_featviz.Style`.

    Example:
        >>> @MODELS.register_module()
        ... class MyDetectorHp(FeatVizMixin, MyDetector):
        ...     pass
    """

    def __init__(self, *args: Any, featviz: dict | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.featviz = FeatureVisualizer(**(featviz or {}))
        self._featviz_stage = 'test'

    def val_step(self, data: Any) -> list:
        self._featviz_stage = 'val'
        try:
            return super().val_step(data)
        finally:
            self._featviz_stage = 'test'

    def predict(self, batch_inputs: Tensor, batch_data_samples: list, *args: Any, **kwargs: Any) -> list:
        return self._drawn(self._featviz_stage, super().predict, batch_inputs, batch_data_samples, *args, **kwargs)

    def loss(self, batch_inputs: Tensor, batch_data_samples: list, *args: Any, **kwargs: Any) -> Any:
        return self._drawn('train', super().loss, batch_inputs, batch_data_samples, *args, **kwargs)

    def _drawn(self, stage: str, run: Any, inputs: Tensor, samples: list, *args: Any, **kwargs: Any) -> Any:
        """Call the detector's own method and draw what its layers put out meanwhile."""
        if stage not in self.featviz.stages or not isinstance(inputs, Tensor):
            return run(inputs, samples, *args, **kwargs)
        folder, run_dir = _position_in_run(stage)
        selected = self.featviz.select(samples, folder, stage)
        if not any(selected):
            return run(inputs, samples, *args, **kwargs)
        self.featviz.open(self, osp.join(run_dir, 'featviz'), dataset_meta=_dataset_meta(self), stage=stage)
        with self.featviz.taps as taps:
            taps.begin(inputs, samples)
            outputs = run(inputs, samples, *args, **kwargs)
        self.featviz.draw(taps.take(), outputs if stage != 'train' else (), folder, stage, selected)
        return outputs


def _position_in_run(stage: str) -> tuple[str, str]:
    """Folder of the pictures within the run (as FeatVizHook names it), and the run's own folder.

    A detector does not know its runner; mmengine's message hub and log file tell.
    """
    handlers = MMLogger.get_current_instance().handlers
    log_files = [handler.baseFilename for handler in handlers if isinstance(handler, logging.FileHandler)]
    run_dir = osp.dirname(log_files[0]) if log_files else 'work_dirs'
    if stage == 'test':
        return '', run_dir
    hub = MessageHub.get_current_instance()
    # The hub counts what has begun, from 0; absent where nothing trains.
    epochs, iterations = (0 if begun is None else begun + 1 for begun in (hub.get_info('epoch'), hub.get_info('iter')))
    # A training that counts iterations reports a single epoch.
    if stage == 'train' or (iterations and hub.get_info('max_epochs') == 1):
        return f'iter_{iterations}', run_dir
    return f'epoch_{epochs}', run_dir


def _dataset_meta(detector: BaseDetector) -> dict | None:
    """Classes and palette: those that init_detector gave the detector, or those that a runner gave its visualizer."""
    if getattr(detector, 'dataset_meta', None):
        return detector.dataset_meta
    try:
        return Visualizer.get_current_instance().dataset_meta
    except (RuntimeError, AttributeError):  # there is no visualizer, so no runner either
        return None
