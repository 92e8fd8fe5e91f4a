"""Annotated samples: images with their ground truth, from a COCO file or from the data set of a detector's config."""

from __future__ import annotations

import copy
import os.path as osp
from typing import Any, Callable, Sequence

from mmdet.registry import DATASETS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset
from torch import nn

from mmdet_featviz.explanation.targets import NoTargetError
from mmdet_featviz.structures.boxes import class_names
from mmdet_featviz.utils.image_path import image_path
from mmdet_featviz.utils.messages import first_names, one_line


def annotated_samples(model: nn.Module, annotations: str | None = None, root: str = '') -> Callable[[str], Any]:
    """Return a function from the path of an image to its sample, prepared as in a test, with its ground truth.

    Args:
        model: The detector, with its config as ``cfg`` and its classes.
        annotations: A file in COCO's format. None is the test data set of the config.
        root: The folder that the names in the file are relative to.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not in COCO's format, or has none of the detector's classes.
    """
    dataset = annotated_dataset(model, annotations, root)
    paths = (image_path(dataset.get_data_info(index)) for index in range(len(dataset)))
    indices = {osp.realpath(path): index for index, path in enumerate(paths) if path}
    source = annotations or 'the test data set of the config'

    def load(image: str) -> Any:
        if osp.realpath(image) not in indices:
            raise NoTargetError(f'{source} has no image {image}')
        return dataset[indices[osp.realpath(image)]]

    return load


def annotated_dataset(model: nn.Module, annotations: str | None = None, root: str = '') -> BaseDataset:
    """Return a data set of samples prepared as in a test, with their ground truth: see :func:`annotated_samples`."""
    cfg = _data_set_of(model, annotations, root)
    for part in _innermost(cfg):
        part.pipeline, part.test_mode = _with_boxes(get_test_pipeline_cfg(model.cfg)), True
    return DATASETS.build(cfg) if annotations is None else _build_of_file(cfg, annotations)


def _build_of_file(cfg: ConfigDict, annotations: str) -> BaseDataset:
    try:
        dataset = DATASETS.build(cfg)
    except Exception as error:  # whatever mmdet or pycocotools meet in a file of another kind
        what = one_line(f'{type(error).__name__}: {error}')
        raise ValueError(f"annotations {annotations} cannot be read as a file in COCO's format ({what})") from error
    if not dataset.cat_ids:
        classes = first_names(dataset.metainfo['classes'])
        raise ValueError(f'annotations {annotations} have none of the classes of the detector: {classes}')
    return dataset


def _data_set_of(model: nn.Module, annotations: str | None, root: str) -> ConfigDict:
    if annotations is None:
        return copy.deepcopy(model.cfg.test_dataloader.dataset)
    if not osp.isfile(annotations):
        raise FileNotFoundError(f'annotations {annotations} do not exist')
    names = class_names(getattr(model, 'dataset_meta', None))
    metainfo = dict(metainfo=dict(classes=tuple(names))) if names else {}
    prefix = dict(img=osp.abspath(root))
    return ConfigDict(type='CocoDataset', ann_file=osp.abspath(annotations), data_prefix=prefix, **metainfo)


def _innermost(cfg: ConfigDict) -> Sequence[ConfigDict]:
    """Return the configs of the data sets inside wrappers such as ConcatDataset."""
    parts = cfg.get('datasets') or ([cfg.dataset] if 'dataset' in cfg else [])
    return [inner for part in parts for inner in _innermost(part)] or [cfg]


def _with_boxes(pipeline: Sequence[dict]) -> list[dict]:
    """Return a test pipeline that loads boxes: in pixels of the image, so after the image was resized."""
    pipeline = copy.deepcopy(list(pipeline))
    if not any('LoadAnnotations' in str(step['type']) for step in pipeline):
        pipeline.insert(len(pipeline) - 1, ConfigDict(type='mmdet.LoadAnnotations', with_bbox=True))
    return pipeline
