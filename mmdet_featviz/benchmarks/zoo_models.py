"""Zoo models: builds the detectors of mmdet's model zoo offline, with random weights and small inputs."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmdet_featviz.utils.dependencies import require

# Input sizes of detectors whose coarsest level would be smaller than a kernel; all others get 320 x 240.
LARGER = {'DDOD': (520, 400)}
ONE_BOX_PER_QUERY = ('QueryInst', 'SparseRCNN')  # their number of boxes cannot be lowered
CAPTION = ('cat', 'dog')  # prompt of open-vocabulary detectors
PROPOSALS = np.array([[20, 20, 180, 150], [100, 60, 300, 220], [150, 10, 220, 90]], np.float32)
BOX_LIMITS = dict(max_per_img=20, nms_pre=100)  # more boxes would only take more time


def remove_downloads(cfg: Any) -> Any:
    """Remove, in place and at any depth, what would download weights or needs several processes.

    Returns:
        The same config.
    """
    if isinstance(cfg, dict):
        if isinstance(cfg.get('init_cfg'), dict) and 'checkpoint' in cfg['init_cfg']:
            cfg['init_cfg'] = None
        for key in ('pretrained', 'teacher_ckpt'):
            if key in cfg:
                cfg[key] = None
        if cfg.get('type') in ('MMSyncBN', 'SyncBN'):
            cfg['type'] = 'BN'
        for key in {
            'num_cp',
            'use_checkpoint',
        } & cfg.keys():  # activation checkpointing: needs another package, and only saves memory in training
            cfg[key] = type(cfg[key])(0)
    for value in cfg.values() if isinstance(cfg, dict) else cfg:
        if isinstance(value, (dict, list, tuple)):
            remove_downloads(value)
    return cfg


def limit_boxes(cfg: ConfigDict) -> None:
    """Lower the numbers of boxes in a test_cfg, in place and at any depth."""
    for key, value in cfg.items():
        if isinstance(value, dict):
            limit_boxes(value)
        elif key in BOX_LIMITS and isinstance(value, int):
            cfg[key] = min(value, BOX_LIMITS[key]) if value > 0 else BOX_LIMITS[key]


def save_tiny_bert(folder: str) -> None:
    """Save a language model with one layer, random weights and the words of the caption.

    Raises:
        ImportError: If transformers is not installed.
    """
    require('transformers', 'a detector with a language model', "'mmdet-featviz[coverage]'")
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?', *CAPTION]
    vocabulary = Path(folder) / 'vocab.txt'
    vocabulary.write_text('\n'.join(words), encoding='utf-8')
    BertTokenizer(str(vocabulary)).save_pretrained(folder)
    # GLIP needs 768 channels, the default.
    config = BertConfig(vocab_size=len(words), num_hidden_layers=1, intermediate_size=64)
    BertModel(config).save_pretrained(folder)


def build(cfg: ConfigDict, seed: int = 0) -> nn.Module:
    """Build a detector with random weights, in evaluation mode.

    Args:
        cfg: Config of the model; not changed.
        seed: Random seed of the weights.
    """
    from mmdet.models import SSDHead
    from mmdet.registry import MODELS

    cfg = remove_downloads(copy.deepcopy(cfg))
    if cfg.get('test_cfg') and not cfg['type'].startswith(
        ONE_BOX_PER_QUERY
    ):  # or their drawing versions, whose names end with Hp
        limit_boxes(cfg['test_cfg'])
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        if 'language_model' in cfg:
            save_tiny_bert(folder)
            cfg['language_model']['name'] = folder
            if 'lang_model_name' in cfg['bbox_head']:
                cfg['bbox_head']['lang_model_name'] = folder
        model = MODELS.build(cfg)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, SSDHead) and not hasattr(module, 'loss_cls'):
            module.loss_cls = None  # mmdet 3.3 reads it when predicting, but SSDHead does not set it
    model.eval()  # not returned directly: for some detectors it returns None
    return model


def pipeline_of(cfg: Config) -> list[dict]:
    """The test pipeline of a config."""
    return cfg.test_dataloader.dataset.get('pipeline') or cfg.test_pipeline


def small(pipeline: Sequence[dict], scale: tuple[int, int] = (320, 240)) -> list[dict]:
    """A copy of a test pipeline for a small input.

    Args:
        pipeline: The pipeline.
        scale: Width and height of the input.

    Returns:
        The same transforms with smaller sizes, without those that load annotations.
    """
    pipeline = [copy.deepcopy(transform) for transform in pipeline if 'Annotations' not in transform['type']]
    for transform in pipeline:
        if transform['type'] == 'ProposalBroadcaster':
            transform['transforms'] = small(transform['transforms'], scale)
        original = transform.get('scale')
        if isinstance(original, (list, tuple)) and min(original) > max(scale) and transform.get('keep_ratio', False):
            transform['scale'] = (max(scale), max(scale)) if original[0] == original[1] else scale
        if transform['type'] == 'Pad' and 'size' in transform:
            transform['size'] = (max(scale), max(scale))
    return pipeline


def packed(pipeline: Sequence[dict], image: str | Path | np.ndarray) -> dict[str, list]:
    """The input of a detector's ``test_step`` for one image, given as a path or an array."""
    from mmcv.transforms import Compose

    info = dict(img_id=0, text=CAPTION, custom_entities=True)
    if any(transform['type'] == 'LoadProposals' for transform in pipeline):
        info['proposals'] = dict(bboxes=PROPOSALS, scores=np.ones(len(PROPOSALS), np.float32))
    if isinstance(image, np.ndarray):
        load = dict(type='mmdet.LoadImageFromNDArray', to_float32=pipeline[0].get('to_float32', False))
        data = Compose([load, *pipeline[1:]])(dict(info, img=image, img_path=None))
    else:
        data = Compose(pipeline)(dict(info, img_path=str(image)))
    return {key: [value] for key, value in data.items()}
