"""Small detectors whose boxes come from the queries of a decoder, and what their decoder does, found in another way."""

from contextlib import contextmanager

import mmcv.ops.multi_scale_deform_attn as deformable
import torch
import torch.nn.functional as F  # noqa: N812
from mmengine.config import Config
from pytest import MonkeyPatch
from torch import nn

from mmdet_featviz.benchmarks.zoo_coverage import zoo
from mmdet_featviz.benchmarks.zoo_models import build, packed, pipeline_of, small

CONFIGS = {
    'DETR': 'detr/detr_r50_8xb2-150e_coco',
    'ConditionalDETR': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco',
    'DABDETR': 'dab_detr/dab-detr_r50_8xb2-50e_coco',
    'DeformableDETR': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
    'DeformableDETR in two stages': 'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco',
    'DINO': 'dino/dino-4scale_r50_8xb2-12e_coco',
    'DDQDETR': 'ddq/ddq-detr-4scale_r50_8xb2-12e_coco',
    'GroundingDINO': 'grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco',
    'MaskFormer': 'maskformer/maskformer_r50_ms-16xb1-75e_coco',
    'Mask2Former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco',
}
MASKS = 'MaskFormer', 'Mask2Former'
CHANNELS = [64, 128, 256, 512]  # of ResNet-18


def query_detector(name, scale=(128, 96), **test_cfg):
    """A detector of the model zoo with ResNet-18, an encoder of one layer, a decoder of two or three, and its pipeline.

    Its weights are random, and larger than usual, so that queries differ.
    """
    cfg = Config.fromfile(zoo() / f'{CONFIGS[name]}.py')
    model = cfg.model
    model.backbone.update(depth=18)
    if name in MASKS:
        head = model.panoptic_head
        head.update(in_channels=CHANNELS, num_queries=12)
        head.pixel_decoder.encoder.num_layers = 1
        head.transformer_decoder.num_layers = 3
        model.test_cfg.update(instance_on=True, panoptic_on=False, max_per_image=20)
    else:
        model.neck.in_channels = CHANNELS[-len(model.neck.in_channels) :]
        model.update(num_queries=12)
        model.encoder.num_layers, model.decoder.num_layers = 1, 2
    model.test_cfg = dict(model.get('test_cfg') or {}, **{**dict(max_per_img=10), **test_cfg})
    detector = build(model)
    torch.manual_seed(3)
    for path, parameter in detector.named_parameters():
        if 'backbone' not in path and parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    return detector, small(pipeline_of(cfg), scale)


def batch_of(pipeline, *images, flip=False):
    """A batch of images, given as arrays."""
    if flip:
        keys = 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'
        pipeline = [*pipeline[:-1], dict(type='RandomFlip', prob=1.0), {**pipeline[-1], 'meta_keys': keys}]
    samples = [packed(pipeline, image) for image in images]
    return {key: [sample[key][0] for sample in samples] for key in samples[0]}


@contextmanager
def spied(model):
    """Record what the last decoder layer and its attention to the image return, with hooks of this test."""
    decoder = model.panoptic_head.transformer_decoder if hasattr(model, 'panoptic_head') else model.decoder
    seen, last, sampling = {}, decoder.layers[-1], deformable.multi_scale_deformable_attn_pytorch
    (attention,) = [part for part in last.cross_attn.modules() if isinstance(part, nn.MultiheadAttention)] or [
        last.cross_attn
    ]

    def spy(function, keep):
        def spying(*args, **kwargs):
            output = function(*args, **kwargs)
            seen.update(keep(args, output))
            return output

        return spying

    with MonkeyPatch.context() as patch:
        patch.setattr(last, 'forward', spy(last.forward, lambda args, output: dict(outputs=output)))
        patch.setattr(
            deformable,
            'multi_scale_deformable_attn_pytorch',
            spy(sampling, lambda args, output: dict(points=[args[1].tolist(), *args[2:]])),
        )
        for name in {'forward_attn', 'forward'}:
            if isinstance(attention, nn.MultiheadAttention) == (name == 'forward') and hasattr(attention, name):
                patch.setattr(
                    attention, name, spy(getattr(attention, name), lambda args, output: dict(weights=output[1]))
                )
        if hasattr(model, 'panoptic_head'):
            head = model.panoptic_head
            patch.setattr(head, 'forward', spy(head.forward, lambda args, output: dict(masks=output[1][-1])))
        yield seen


def cells_of_points(grids, locations, weights):
    """The weight of each cell (N, queries, cells): the derivative of mmcv's own interpolation by the values there."""
    values = torch.zeros(len(weights), sum(rows * columns for rows, columns in grids), weights.shape[2], 1)
    values.requires_grad_()
    with torch.enable_grad():
        output = deformable.multi_scale_deformable_attn_pytorch(values, torch.tensor(grids), locations, weights)
        heat = [
            torch.stack(
                [
                    torch.autograd.grad(output[image, query].sum(), values, retain_graph=True)[0][image, :, :, 0].mean(
                        1
                    )
                    for query in range(output.shape[1])
                ]
            )
            for image in range(len(output))
        ]
    return torch.stack(heat)


def scores_of_queries(model, seen, sample, image):
    """The scores (queries, classes) of an image that the head gives to what the last decoder layer returned."""
    head, outputs = getattr(model, 'bbox_head', None), seen['outputs']
    with torch.no_grad():
        if head is None:
            return _scores_of_masks(model, seen, sample, image)
        if hasattr(head, 'fc_cls'):
            scores = head.fc_cls(model.decoder.post_norm(outputs))[image]
            return scores.sigmoid() if head.loss_cls.use_sigmoid else scores.softmax(-1)[:, :-1]
        norm = getattr(model.decoder, 'norm', nn.Identity())
        return head.cls_branches[model.decoder.num_layers - 1](norm(outputs))[image].sigmoid()


def _scores_of_masks(model, seen, sample, image):
    """The probability of the class, times the mean of the mask's probability where it is more than a half."""
    head = model.panoptic_head
    classes = head.cls_embed(head.transformer_decoder.post_norm(seen['outputs']))[image].softmax(-1)[:, :-1]
    masks = F.interpolate(seen['masks'][image][None], size=sample.batch_input_shape, mode='bilinear')
    height, width = sample.img_shape
    masks = F.interpolate(masks[:, :, :height, :width], size=sample.ori_shape, mode='bilinear')[0]
    inside = masks > 0
    return classes * ((masks.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6))[:, None]
