"""FeatVizHook: draws feature maps while a runner tests, validates or trains."""

from __future__ import annotations

from typing import Any, Sequence

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.engine.run_setup import open_for_run


class MetricsHook(Hook):
    """Passes the metrics of each evaluation to a visualizer, for its report.

    Args:
        visualizer: The visualizer, such as that of a detector that draws by itself and never sees its metrics.
    """

    priority = 'LOW'

    def __init__(self, visualizer: FeatureVisualizer) -> None:
        self.visualizer = visualizer

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if 'val' in self.visualizer.stages:
            focus = _focus_settings(runner.val_loop)
            self.visualizer.record_metrics(metrics, _validation_folder(runner), focus)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if 'test' in self.visualizer.stages:
            self.visualizer.record_metrics(metrics, focus=_focus_settings(runner.test_loop))


@HOOKS.register_module()
class FeatVizHook(MetricsHook):
    """Draws heatmaps of backbone and neck, or of any layers, while a runner tests, validates or trains.

    Pictures of a test are written to ``{out_dir}/{image key}``, those of a validation to ``{out_dir}/epoch_N`` (or
    ``iter_N`` with an iteration-based loop), and those of training to ``{out_dir}/iter_N``.

    Args:
        **options: All arguments of :class:`mmdet_featviz.FeatureVisualizer` and :class:`mmdet_featviz.Style`.

    Example:
        >>> custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
        >>> custom_hooks = [dict(type='FeatVizHook', boxes='pred')]
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(FeatureVisualizer(**options))

    def before_train(self, runner: Runner) -> None:
        self._open(runner, 'train')

    def before_val(self, runner: Runner) -> None:
        self._open(runner, 'val')

    def before_test(self, runner: Runner) -> None:
        self._open(runner, 'test')

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train') -> None:
        if mode in self.visualizer.stages and not self.visualizer.is_done(mode):
            self.visualizer.taps.attach()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._draw('train', [], f'iter_{runner.iter + 1}')

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] = ()
    ) -> None:
        self._draw('val', outputs, _validation_folder(runner))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] = ()
    ) -> None:
        self._draw('test', outputs, '')

    def after_train(self, runner: Runner) -> None:
        self._close(runner, 'train')

    def after_val(self, runner: Runner) -> None:
        self._close(runner, 'val')

    def after_test(self, runner: Runner) -> None:
        self._close(runner, 'test')

    def after_run(self, runner: Runner) -> None:
        self.visualizer.write_report()  # not in _close, which a training calls after each validation

    def _open(self, runner: Runner, stage: str) -> None:
        if stage in self.visualizer.stages:
            open_for_run(self.visualizer, runner, stage)

    def _draw(self, stage: str, outputs: Sequence[Any], folder: str) -> None:
        if stage not in self.visualizer.stages:
            return
        taps = self.visualizer.taps
        taps.detach()
        self.visualizer.draw(taps.take(), outputs, folder, stage)

    def _close(self, runner: Runner, stage: str) -> None:
        if stage in self.visualizer.stages:
            self.visualizer.close()
            runner.logger.info(f'Feature maps: {self.visualizer.summary()}')


def _validation_folder(runner: Runner) -> str:
    """Return the subfolder for the pictures of the current validation."""
    counts_iterations = isinstance(runner._train_loop, IterBasedTrainLoop)  # the property would build the loop
    return f'iter_{runner.iter}' if counts_iterations else f'epoch_{runner.epoch}'


def _focus_settings(loop: BaseLoop) -> dict[str, dict]:
    """Return {prefix: settings} of each FeatureFocusMetric that a loop evaluates with."""
    from mmdet_featviz.evaluation.feature_focus_metric import FeatureFocusMetric  # not needed before an evaluation

    metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', ())
    return {metric.prefix: metric.settings for metric in metrics if isinstance(metric, FeatureFocusMetric)}
