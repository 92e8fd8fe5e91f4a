"""FeatVizHook: draws feature maps while a runner tests, validates or trains."""

from __future__ import annotations

import weakref
from collections import Counter
from contextlib import ExitStack
from functools import wraps
from typing import Any, Callable, Sequence

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
from mmengine.runner.amp import autocast

from mmdet_featviz.apis.snapshot_builder import numbered_folder
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.capture.detector import predicting_branch, unwrap_detector
from mmdet_featviz.capture.taps import Taps
from mmdet_featviz.engine.decoded_images import decoded_images
from mmdet_featviz.engine.run_setup import begin_round, open_for_run
from mmdet_featviz.runs import early_exit


class MetricsHook(Hook):
    """Passes the metrics of each evaluation to a visualizer, for its report.

    Args:
        visualizer: The visualizer, such as that of a detector that draws by itself and never sees its metrics.
    """

    priority = 'LOW'

    def __init__(self, visualizer: FeatureVisualizer) -> None:
        self.visualizer = visualizer
        self._validations: Counter = Counter()  # of each epoch or iteration, which a loop may validate again

    def before_val(self, runner: Runner) -> None:
        self._validations[_validation_folder(runner)] += 1

    def validation_folder(self, runner: Runner) -> str:
        """Return the subfolder for the metrics, and for the pictures of all branches, of the current validation."""
        folder = _validation_folder(runner)
        return numbered_folder(folder, self._validations[folder])

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if 'val' in self.visualizer.stages:
            self._record(runner.val_loop, metrics, self.validation_folder(runner))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if 'test' in self.visualizer.stages:
            self._record(runner.test_loop, metrics, self.visualizer.test_folder)

    def _record(self, loop: BaseLoop, metrics: dict[str, float] | None, folder: str) -> None:
        """Pass on the metrics of an evaluation, and the files that its metrics made."""
        self.visualizer.record_metrics(metrics, folder, _focus_settings(loop))
        self.visualizer.write_evaluation(_error_files(loop), folder)


@HOOKS.register_module()
class FeatVizHook(MetricsHook):
    """Draws heatmaps of backbone and neck, or of any layers, while a runner tests, validates or trains.

    Pictures of a test are written to ``{out_dir}/{image key}`` (of a second one to ``{out_dir}/test_2/{image key}``),
    those of a validation to ``{out_dir}/epoch_N`` (or ``iter_N`` with an iteration-based loop; ``epoch_N_2`` if the
    same weights are validated again), and those of training to ``{out_dir}/iter_N``. mmdet's TeacherStudentValLoop
    validates both branches; their pictures are in ``epoch_N/teacher`` and ``epoch_N/student``.

    Settings are checked before the first iteration, also those that only concern the validations of a training. If the
    run ends with an error or is interrupted, the forward hooks are removed from the detector, and what was drawn so far
    is logged.

    Args:
        **options: All arguments of :class:`mmdet_featviz.FeatureVisualizer` and :class:`mmdet_featviz.Style`.

    Example:
        >>> custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
        >>> custom_hooks = [dict(type='FeatVizHook', boxes='pred')]
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(FeatureVisualizer(**options))
        self._guarded: weakref.WeakSet[BaseLoop] = weakref.WeakSet()
        self._branch_taps: dict[str, Taps] = {}  # by branch of a semi-supervised detector
        self._is_training = False
        self._logged_summary = ''

    def before_run(self, runner: Runner) -> None:
        # mmengine calls no hook after an error, so this wraps the loops, which have been built but not run by now.
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop) and loop not in self._guarded:
                self._guarded.add(loop)
                loop.run = _watched(loop, self.visualizer)

    def before_train(self, runner: Runner) -> None:
        self._is_training = True
        self._open(runner, 'val')  # so that an error in the settings is found now, not after the first epoch
        self._open(runner, 'train')

    def before_val(self, runner: Runner) -> None:
        super().before_val(runner)
        self._open(runner, 'val')

    def before_test(self, runner: Runner) -> None:
        self._open(runner, 'test')

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train') -> None:
        if mode not in self.visualizer.stages:
            return
        if mode == 'val' and batch_idx == 0 and _validates_branches(runner):
            self._begin_branch(runner)
        if not self.visualizer.taps.are_empty and not self.visualizer.is_done(mode):  # a branch may have no layers
            self.visualizer.taps.attach()

    def _begin_branch(self, runner: Runner) -> None:
        """Begin the round of one branch: the loop runs through the data once per branch, and calls no hook between."""
        begin_round(self.visualizer, runner, 'val')
        branch = predicting_branch(unwrap_detector(runner.model))
        if branch not in self._branch_taps:
            taps = self.visualizer.make_taps(runner.model)
            taps.keep_branch(branch)
            taps.not_maps = self.visualizer.taps.not_maps  # one summary for both branches
            self._branch_taps[branch] = taps
        self.visualizer.taps = self._branch_taps[branch]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._draw('train', [], f'iter_{runner.iter + 1}')

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] = ()
    ) -> None:
        folder = self.validation_folder(runner)
        if _validates_branches(runner):
            folder += f'/{predicting_branch(unwrap_detector(runner.model)).rstrip(".")}'
        self._draw('val', outputs, folder, data_batch, runner.val_loop)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] = ()
    ) -> None:
        self._draw('test', outputs, self.visualizer.test_folder, data_batch, runner.test_loop)

    def after_train(self, runner: Runner) -> None:
        self._is_training = False
        early_exit.release(self.visualizer)
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

    def _draw(
        self, stage: str, outputs: Sequence[Any], folder: str, data_batch: Any = None, loop: BaseLoop | None = None
    ) -> None:
        if stage not in self.visualizer.stages:
            return
        taps = self.visualizer.taps
        taps.detach()
        with autocast(enabled=getattr(loop, 'fp16', False)):  # explanations predict as the loop does
            self.visualizer.draw(taps.take(), outputs, folder, stage, data=data_batch)

    def _close(self, runner: Runner, stage: str) -> None:
        if stage in self.visualizer.stages:
            self.visualizer.close()
            summary = self.visualizer.summary()
            if summary != self._logged_summary:  # a training may have drawn nothing since its last validation
                runner.logger.info(f'Feature maps: {summary}')
            self._logged_summary = summary
            if self._is_training:  # the training may still end early
                self.visualizer.summarize_at_exit()


def _watched(loop: BaseLoop, visualizer: FeatureVisualizer) -> Callable[[], Any]:
    """Return ``run`` of a loop such that an error or an interruption in it also ends the drawing.

    While it runs, the visualizer draws on the images that the loop's data loader has decoded, where it can.
    """
    run = loop.run

    @wraps(run)
    def run_and_stop() -> Any:
        with ExitStack() as stack:
            stack.enter_context(early_exit.stopping(visualizer))
            if isinstance(loop, (ValLoop, TestLoop)):
                visualizer.draw_on(stack.enter_context(decoded_images(loop.dataloader)))
            return run()

    return run_and_stop


def _validates_branches(runner: Runner) -> bool:
    """Whether the validation loop evaluates teacher and student one after the other."""
    # Here, as the import brings all of mmdet's data sets, with matplotlib and SciPy; in a run they are loaded already.
    from mmdet.engine.runner import TeacherStudentValLoop

    return isinstance(runner.val_loop, TeacherStudentValLoop)


def _validation_folder(runner: Runner) -> str:
    """Return the subfolder that is named after the current epoch or iteration."""
    counts_iterations = isinstance(runner._train_loop, IterBasedTrainLoop)  # the property would build the loop
    return f'iter_{runner.iter}' if counts_iterations else f'epoch_{runner.epoch}'


def _focus_settings(loop: BaseLoop) -> dict[str, dict]:
    """Return {prefix: settings} of each FeatureFocusMetric that a loop evaluates with."""
    from mmdet_featviz.evaluation.feature_focus_metric import FeatureFocusMetric  # not needed before an evaluation

    return {metric.prefix: metric.settings for metric in _metrics_of(loop) if isinstance(metric, FeatureFocusMetric)}


def _error_files(loop: BaseLoop) -> dict[str, bytes]:
    """Return {name: content} of the files that the DetectionErrorMetric of a loop made, on the first rank."""
    from mmdet_featviz.evaluation.detection_error_metric import DetectionErrorMetric

    metrics = (metric for metric in _metrics_of(loop) if isinstance(metric, DetectionErrorMetric))
    return {name: content for metric in metrics for name, content in metric.files.items()}


def _metrics_of(loop: BaseLoop) -> Sequence[Any]:
    return getattr(getattr(loop, 'evaluator', None), 'metrics', ())
