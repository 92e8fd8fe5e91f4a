"""Detectors of the model zoo's configs as they are tried here: offline, with random weights, on small inputs."""

import copy
import tempfile
from pathlib import Path

import numpy as np

# Detectors whose coarsest level must bear a kernel; all others are tried at 320 x 240.
LARGER = {'DDOD': (520, 400)}
AS_MANY_AS_QUERIES = ('QueryInst', 'SparseRCNN')  # boxes, by design
CAPTION = ('cat', 'dog')  # what detectors of any object are asked for
PROPOSALS = np.array([[20, 20, 180, 150], [100, 60, 300, 220], [150, 10, 220, 90]], np.float32)
MOST = dict(max_per_img=20, nms_pre=100)  # boxes that are followed: each costs a head's time, and shows nothing more


def without_downloads(cfg):
    """Remove, in place and at any depth, what would load weights from elsewhere or wants several processes."""
    if isinstance(cfg, dict):
        if isinstance(cfg.get('init_cfg'), dict) and 'checkpoint' in cfg['init_cfg']:
            cfg['init_cfg'] = None
        for key in ('pretrained', 'teacher_ckpt'):
            if key in cfg:
                cfg[key] = None
        if cfg.get('type') in ('MMSyncBN', 'SyncBN'):
            cfg['type'] = 'BN'
        for key in {'num_cp', 'use_checkpoint'} & cfg.keys():  # saves memory in training, by another package
            cfg[key] = type(cfg[key])(0)
    for value in cfg.values() if isinstance(cfg, dict) else cfg:
        if isinstance(value, (dict, list, tuple)):
            without_downloads(value)
    return cfg


def with_few_boxes(cfg):
    """Lower the limits of a test_cfg, in place and at any depth."""
    for key, value in cfg.items():
        if isinstance(value, dict):
            with_few_boxes(value)
        elif key in MOST and isinstance(value, int):
            cfg[key] = min(value, MOST[key]) if value > 0 else MOST[key]


def save_tiny_bert(folder):
    """Write a language model of one layer, with random weights and the words of the caption."""
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?', *CAPTION]
    vocabulary = Path(folder) / 'vocab.txt'
    vocabulary.write_text('\n'.join(words), encoding='utf-8')
    BertTokenizer(str(vocabulary)).save_pretrained(folder)
    # GLIP's fusion is made for 768 channels, the default.
    config = BertConfig(vocab_size=len(words), num_hidden_layers=1, intermediate_size=64)
    BertModel(config).save_pretrained(folder)


def build(cfg, seed=0):
    """The detector of a model's config, initialized with random weights and in evaluation mode."""
    import torch
    from mmdet.models import SSDHead
    from mmdet.registry import MODELS

    cfg = without_downloads(copy.deepcopy(cfg))
    if cfg.get('test_cfg') and not cfg['type'].startswith(AS_MANY_AS_QUERIES):  # a drawing sibling's type ends with Hp
        with_few_boxes(cfg['test_cfg'])
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
            module.loss_cls = None  # which mmdet 3.3 reads to predict, and sets in all heads but this
    model.eval()  # returns None for some
    return model


def pipeline_of(cfg):
    return cfg.test_dataloader.dataset.get('pipeline') or cfg.test_pipeline


def small(pipeline, scale=(320, 240)):
    """The test pipeline for a small input: the same transforms, without annotations."""
    pipeline = [copy.deepcopy(t) for t in pipeline if 'Annotations' not in t['type']]
    for transform in pipeline:
        if transform['type'] == 'ProposalBroadcaster':
            transform['transforms'] = small(transform['transforms'], scale)
        own = transform.get('scale')
        if isinstance(own, (list, tuple)) and min(own) > max(scale) and transform.get('keep_ratio', False):
            transform['scale'] = (max(scale), max(scale)) if own[0] == own[1] else scale
        if transform['type'] == 'Pad' and 'size' in transform:
            transform['size'] = (max(scale), max(scale))
    return pipeline


def packed(pipeline, image):
    """Model input of a image, given as a path or an array."""
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
