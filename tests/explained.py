"""Small detectors for explanations, and what an explanation must leave as it was."""

import copy

import cv2
import numpy as np
import torch
from conftest import keep_ratio_pipeline, noise, resnet_detector
from mmdet.registry import MODELS
from mmengine.config import Config

SIZE = 64, 96  # height and width of the image and of the network's input


def narrow_retinanet(type='SingleStageDetector', **extra):
    """A narrow RetinaNet as init_detector builds it; always with the same random weights, whose scores differ."""
    torch.manual_seed(0)
    return with_config(MODELS.build(resnet_detector(type, **extra)))


def small_detr():
    """Config of a small DETR."""
    attention = dict(embed_dims=16, num_heads=2, dropout=0.0, batch_first=True)
    feed_forward = dict(embed_dims=16, feedforward_channels=16, num_fcs=2, ffn_drop=0.0)
    encoder = dict(self_attn_cfg=attention, ffn_cfg=feed_forward)
    backbone = dict(resnet_detector()['backbone'], out_indices=(3,))
    focal_loss = dict(type='FocalLoss', use_sigmoid=True)
    return dict(
        type='DETR',
        num_queries=8,
        data_preprocessor=resnet_detector()['data_preprocessor'],
        backbone=backbone,
        neck=dict(type='ChannelMapper', in_channels=[64], kernel_size=1, out_channels=16, act_cfg=None, num_outs=1),
        encoder=dict(num_layers=1, layer_cfg=encoder),
        decoder=dict(num_layers=1, layer_cfg=dict(encoder, cross_attn_cfg=attention), return_intermediate=True),
        positional_encoding=dict(num_feats=8, normalize=True),
        bbox_head=dict(type='DETRHead', num_classes=2, embed_dims=16, loss_cls=focal_loss),
        test_cfg=dict(max_per_img=8),
    )


def with_config(model):
    """Give a detector random weights of usual size in its head, and a config with a pipeline."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if 'head' in name and parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    pipeline = [step for step in keep_ratio_pipeline(SIZE[::-1]) if 'Annotations' not in step['type']]
    model.cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    model.dataset_meta = dict(classes=('cat', 'dog'), palette=[(220, 20, 60), (0, 120, 240)])
    return model.eval()


def write_image(folder, seed=0):
    """Write an image and return its path."""
    path = str(folder / f'{seed}.png')
    cv2.imwrite(path, noise(*SIZE, seed=seed))
    return path


def state_of(model):
    """All that an explanation must leave as it was: hooks, gradients, flags, configs, functions and random state."""
    modules = [
        (
            name,
            module.training,
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            str(getattr(module, 'test_cfg', None)),
            id(module.__dict__.get('test_cfg')),
            module.__dict__.get('with_cp'),
            [name for name in ('forward', 'forward_attn', 'predict_by_feat') if name in module.__dict__],
        )
        for name, module in model.named_modules()
    ]
    parameters = [(name, p.requires_grad, p.grad, float(p.double().sum())) for name, p in model.named_parameters()]
    return modules, parameters, torch.is_grad_enabled(), torch.get_rng_state().tolist()


def features_by_hand(model, image):
    """The outputs of the neck for an image of `SIZE`, in float64, without the pipeline and the preprocessor."""
    pixels = torch.from_numpy(cv2.imread(image).transpose(2, 0, 1).copy())[None].float()
    preprocessor = model.data_preprocessor
    inputs = (pixels.flip(1) - preprocessor.mean) / preprocessor.std  # the size is divisible by 32 already
    with torch.no_grad():
        return list(copy.deepcopy(model).double().extract_feat(inputs.double()))


def by_hand(model, image, explanation):
    """Features and gradient at the level that found a box, and the level, in float64, without the detector's predict.

    The head is called on features of its own; the score is looked for among all cells, classes and levels.
    """
    exact = copy.deepcopy(model).double()
    features = [level.requires_grad_() for level in features_by_hand(model, image)]
    scores = [level.sigmoid() for level in exact.bbox_head(features)[0]]
    distance, level, place = min(
        (float((score[0] - explanation.score).abs().min()), number, int((score[0] - explanation.score).abs().argmin()))
        for number, score in enumerate(scores)
    )
    assert distance < 1e-5
    score = scores[level].flatten()[place]
    (gradient,) = torch.autograd.grad(score, features[level])
    return features[level][0].detach().numpy(), gradient[0].numpy(), level


def energy_in(heatmap, box):
    """Share of the heat inside a box."""
    left, top, right, bottom = np.round(box).astype(int).clip(0)
    return heatmap[top:bottom, left:right].sum() / heatmap.sum()
