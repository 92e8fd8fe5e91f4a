"""The hook: draws while a runner tests, validates or trains, whatever the detector."""

from __future__ import annotations

import os.path as osp
from typing import Any, Iterator, Sequence

from mmengine.dataset import BaseDataset, DefaultSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch.utils.data import Dataset

from .visualizer import FeatureVisualizer


class ResultsHook(Hook):
    """Keeps what evaluators tell, for the report of a visualizer.

    Args:
        visualizer: Of a detector that draws by itself, which hears nothing of its evaluation.
    """

    priority = 'LOW'

    def __init__(self, visualizer: FeatureVisualizer) -> None:
        self.visualizer = visualizer

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if 'val' in self.visualizer.stages:
            focus = _focus_settings(runner.val_loop)
            self.visualizer.keep_metrics(metrics, _validation_folder(runner), focus)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if 'test' in self.visualizer.stages:
            self.visualizer.keep_metrics(metrics, focus=_focus_settings(runner.test_loop))


@HOOKS.register_module()
class FeatVizHook(ResultsHook):
    """Draws heatmaps of backbone and neck, or of any layers, while the runner works.

    Pictures of a test go to ``{out_dir}/{image key}``, those of a validation to ``epoch_N`` below `out_dir` (``iter_N``
    where training counts iterations), and those of training to ``iter_N``.

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
        self.visualizer.write_report()  # once: a training may have closed after each of many validations

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


def open_for_run(visualizer: FeatureVisualizer, runner: Runner, stage: str) -> None:
    """Open a visualizer with what a runner knows: its folder and its data set. It must be closed at the end.

    Args:
        visualizer: That of a hook, or of a detector that draws by itself.
        runner: The runner, whose model and data loader are built.
        stage: ``train``, ``val`` or ``test``.

    Raises:
        ValueError: If the data set is empty, or a layer does not exist.
        OSError: If the folder cannot be written to, or holds another run's pictures.
    """
    loop = getattr(runner, f'{stage}_loop')
    if loop is None:  # a training without validation
        return
    datasets = list(_innermost(loop.dataloader.dataset))
    if not sum(map(len, datasets)):
        raise ValueError(f'the {stage} data set is empty: check its ann_file, data_prefix and filter_cfg')
    sampler = loop.dataloader.sampler
    visualizer.begin(stage, len(sampler.dataset) if stage != 'train' and isinstance(sampler, DefaultSampler) else None)
    visualizer.open(
        runner.model,
        default_dir=osp.join(runner.log_dir, 'featviz'),
        image_root=_image_folder(datasets),
        image_paths=_image_paths(datasets),
        dataset_meta=getattr(datasets[0], 'metainfo', None),
        backend_args=getattr(datasets[0], 'backend_args', None),
        stage=stage,
        facts=dict(config=runner.cfg.filename, checkpoint=runner._load_from),
        in_run=True,
        log=runner.visualizer,
    )
    visualizer.tell_at_exit()


def close_run(visualizer: FeatureVisualizer, runner: Runner) -> None:
    """Close the visualizer of a detector that draws by itself when its runner ends: finish, report and tell."""
    visualizer.close()
    visualizer.write_report()
    runner.logger.info(f'Feature maps: {visualizer.summary()}')


def _focus_settings(loop: BaseLoop) -> dict[str, dict]:
    """The settings of each FeatureFocusMetric that a loop evaluates with, by its prefix."""
    from .metrics import FeatureFocusMetric  # only of use here once something was evaluated

    metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', ())
    return {metric.prefix: metric.settings for metric in metrics if isinstance(metric, FeatureFocusMetric)}


def _validation_folder(runner: Runner) -> str:
    """Of the pictures of the validation that goes on."""
    by_iterations = isinstance(runner._train_loop, IterBasedTrainLoop)  # the property would build the loop
    return f'iter_{runner.iter}' if by_iterations else f'epoch_{runner.epoch}'


def _innermost(dataset: Dataset) -> Iterator[Dataset]:
    """The data sets inside wrappers such as ConcatDataset and RepeatDataset."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if all(isinstance(part, Dataset) for part in inner):
        for part in inner:
            yield from _innermost(part)
    else:
        yield dataset


def _image_paths(datasets: Sequence[Dataset]) -> Iterator[str]:
    """The paths of all images, as far as the data sets tell."""
    for dataset in datasets:
        if isinstance(dataset, BaseDataset):
            paths = (dataset.get_data_info(index).get('img_path') for index in range(len(dataset)))
            yield from filter(None, paths)


def _image_folder(datasets: Sequence[Dataset]) -> str | None:
    """The folder that holds the images of all data sets, if they say where these are."""
    folders = []
    for dataset in datasets:
        prefix = getattr(dataset, 'data_prefix', None) or {}
        folders.append(prefix.get('img') or prefix.get('img_path') or getattr(dataset, 'data_root', None))
    if not all(folders):
        return None
    if len(set(folders)) == 1:
        return folders[0]
    return osp.commonpath([osp.abspath(folder) for folder in folders])
