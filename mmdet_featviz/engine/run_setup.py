"""Run setup: opens a visualizer with the image folder and classes of a runner's data set, and closes it."""

from __future__ import annotations

import os.path as osp
from typing import Iterator, Sequence

from mmengine.dataset import BaseDataset, ClassBalancedDataset, DefaultSampler, RepeatDataset
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import Dataset

from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.utils.image_path import image_path

DATA_SETS = Dataset, RepeatDataset, ClassBalancedDataset  # these wrappers are no Dataset of torch


def open_for_run(visualizer: FeatureVisualizer, runner: Runner, stage: str) -> None:
    """Open a visualizer for one stage of a runner. It must be closed at the end.

    Args:
        visualizer: The visualizer of a hook, or of a detector that draws by itself.
        runner: The runner; its model and data loader are built if needed.
        stage: ``train``, ``val`` or ``test``.

    Raises:
        ValueError: If the data set is empty, or a layer does not exist.
        OSError: If the folder cannot be written to, or holds another run's pictures.
    """
    loop = getattr(runner, f'{stage}_loop')
    if loop is None:  # a training without validation
        return
    datasets = list(innermost(loop.dataloader.dataset))
    if not sum(map(len, datasets)):
        raise ValueError(f'the {stage} data set is empty: check its ann_file, data_prefix and filter_cfg')
    begin_round(visualizer, runner, stage)
    # The maps of a training come from its current weights, not from those that it starts with.
    weights = 'load_from' if isinstance(runner._train_loop, BaseLoop) and stage != 'test' else 'checkpoint'
    visualizer.open(
        runner.model,
        default_dir=osp.join(runner.log_dir, 'featviz'),
        image_root=_image_folder(datasets),
        image_paths=_image_paths(datasets),
        dataset_meta=getattr(datasets[0], 'metainfo', None),
        backend_args=getattr(datasets[0], 'backend_args', None),
        stage=stage,
        info={'config': runner.cfg.filename, weights: runner._load_from},
        in_run=True,
        log=runner.visualizer,
    )
    visualizer.summarize_at_exit()


def begin_round(visualizer: FeatureVisualizer, runner: Runner, stage: str) -> None:
    """Begin a round over the data set of a stage: images are counted from 0 again, except in a training."""
    sampler = getattr(runner, f'{stage}_loop').dataloader.sampler
    visualizer.begin(stage, len(sampler.dataset) if stage != 'train' and isinstance(sampler, DefaultSampler) else None)


def close_run(visualizer: FeatureVisualizer, runner: Runner) -> None:
    """Close the visualizer of a detector that draws by itself at the end of a runner: finish, report, log a summary."""
    visualizer.close()
    visualizer.write_report()
    runner.logger.info(f'Feature maps: {visualizer.summary()}')


def innermost(dataset: Dataset) -> Iterator[Dataset]:
    """Iterate over the data sets inside wrappers such as ConcatDataset; one in a RepeatDataset comes several times."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)] * getattr(dataset, 'times', 1)
    if all(isinstance(part, DATA_SETS) for part in inner):
        for part in inner:
            yield from innermost(part)
    else:
        yield dataset


def _image_paths(datasets: Sequence[Dataset]) -> Iterator[str]:
    """Iterate over the paths of all images; data sets that are not mmengine's BaseDataset are left out."""
    paths: dict[Dataset, list[str]] = {}  # a repeated data set is read once
    for dataset in datasets:
        if isinstance(dataset, BaseDataset):
            if dataset not in paths:
                found = (image_path(dataset.get_data_info(index)) for index in range(len(dataset)))
                paths[dataset] = list(filter(None, found))
            yield from paths[dataset]


def _image_folder(datasets: Sequence[Dataset]) -> str | None:
    """Return the folder that contains the images of all data sets, or None if one of them does not name its own."""
    folders = []
    for dataset in datasets:
        prefix = getattr(dataset, 'data_prefix', None) or {}
        folders.append(prefix.get('img') or prefix.get('img_path') or getattr(dataset, 'data_root', None))
    if not all(folders):
        return None
    if len(set(folders)) == 1:
        return folders[0]
    return osp.commonpath([osp.abspath(folder) for folder in folders])
