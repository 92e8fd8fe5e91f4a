"""Taps on wrapped, mixed-precision, fused, compiled and scripted detectors, on videos, and with crops and warps."""

import copy

import cv2
import numpy as np
import pytest
import torch
from conftest import pictures, pool_detector, read, resnet_detector
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.model import MMDistributedDataParallel
from torch import nn

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.capture.layer_selection import find_layers
from mmdet_featviz.capture.reductions import get_reduction
from mmdet_featviz.capture.taps import Taps

MAX = get_reduction('max')


def batch(size=(64, 96)):
    inputs = demo_mm_inputs(1, [[3, *size]])
    inputs['data_samples'][0].set_metainfo(dict(scale_factor=(1.0, 1.0), ori_shape=size))
    return inputs


def forward(model, data):
    """Run preprocessor, backbone, neck and head, without post-processing, which needs a scale and full precision."""
    model = unwrap_detector(model)
    model(**model.data_preprocessor(data, False), mode='tensor')


def maps_of(model, inputs, layers=None):
    taps = Taps(model, layers, MAX)
    with taps, torch.no_grad():
        forward(model, copy.deepcopy(inputs))
    (pass_,) = taps.take()
    return {activation.name: activation for activation in pass_.maps}


@pytest.fixture
def model():
    return MODELS.build(resnet_detector()).eval()


def test_distributed_wrappers_keep_the_names(model, tmp_path):
    torch.distributed.init_process_group('gloo', f'file://{tmp_path / "store"}', rank=0, world_size=1)
    try:
        inputs, plain = batch(), None
        plain = maps_of(model, inputs)
        wrapped = maps_of(MMDistributedDataParallel(model), inputs)
    finally:
        torch.distributed.destroy_process_group()
    assert wrapped.keys() == plain.keys()
    for name, activation in plain.items():
        assert torch.equal(activation.values, wrapped[name].values)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_mixed_precision(model, dtype):
    try:
        with torch.autocast('cpu', dtype):
            pass
    except RuntimeError as error:  # torch 1
        pytest.skip(f'this torch has no such precision on a CPU: {error}')
    inputs = batch()
    plain = maps_of(model, inputs, ['backbone', 'neck'])
    with torch.autocast('cpu', dtype):
        mixed = maps_of(model, inputs, ['backbone', 'neck'])
    for name, activation in mixed.items():
        assert activation.values.dtype == torch.float32
        scale = plain[name].values.abs().max()
        assert (activation.values - plain[name].values).abs().max() < 0.05 * scale, name


def test_fused_convolutions(model):
    """Fusing turns batch norms into identities and replaces convolutions, before the taps are made."""
    inputs = batch()
    plain = maps_of(model, inputs)
    fused = copy.deepcopy(model)
    for parent in fused.modules():
        names = list(parent._modules)
        for conv, norm in zip(names, names[1:]):
            pair = parent._modules[conv], parent._modules[norm]
            if isinstance(pair[0], nn.Conv2d) and isinstance(pair[1], nn.BatchNorm2d):
                parent._modules[conv] = nn.utils.fuse_conv_bn_eval(*pair)
                parent._modules[norm] = nn.Identity()
    found = maps_of(fused, inputs)
    assert found.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(found[name].values, plain[name].values, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not hasattr(torch, 'compile'), reason='torch 1 does not compile')
def test_a_compiled_part_works(model):
    inputs = batch()
    plain = maps_of(model, inputs)
    model.backbone = torch.compile(model.backbone, backend='eager')
    for name, activation in maps_of(model, inputs, ['backbone', 'neck']).items():
        assert torch.equal(activation.values, plain[name].values)


def test_an_error_says_that_hooks_do_not_fire(model):
    class Silent(nn.Module):  # calls no submodules, like a compiled or exported detector
        def __init__(self, detector):
            super().__init__()
            self.backbone, self.data_preprocessor = detector.backbone, detector.data_preprocessor

        def forward(self, inputs, data_samples, mode):
            pass

    with pytest.raises(ValueError, match='none of the layers backbone fired in the first pass: .*compiled'):
        maps_of(Silent(model), batch())


def test_a_scripted_layer_is_an_error():
    with pytest.raises(ValueError, match="layer 'backbone' is scripted: forward hooks do not fire there"):
        find_layers(nn.ModuleDict({'backbone': torch.jit.script(nn.Conv2d(3, 4, 1))}), ['backbone'])


@pytest.mark.parametrize('frames', [1, 3])
def test_frames_of_a_video_have_their_own_metas(frames):
    """A tracker's preprocessor returns (N, T, C, H, W), and samples of frames inside the sample of the video."""
    structures = pytest.importorskip('mmdet.structures.track_data_sample', reason='mmdet 3.0 has no trackers')
    model = nn.ModuleDict({'backbone': nn.AvgPool2d(8), 'data_preprocessor': nn.Identity()})
    video = structures.TrackDataSample()
    video.video_data_samples = [
        DetDataSample(metainfo=dict(ori_shape=(64, 96), frame_id=7 + frame)) for frame in range(frames)
    ]
    inputs = torch.rand(1, frames, 3, 64, 96)
    taps = Taps(model, None, MAX)
    with taps:
        model['data_preprocessor'](dict(inputs=dict(img=inputs), data_samples=[video]))
        model['backbone'](inputs[0])
    (pass_,) = taps.take()
    assert [sample.metainfo['frame_id'] for sample in pass_.samples] == list(range(7, 7 + frames))
    assert pass_.maps[0].stride == (8, 8)
    torch.testing.assert_close(pass_.maps[0].values, nn.functional.avg_pool2d(inputs[0], 8).amax(1))


@pytest.mark.parametrize('branch', [1, -1])
def test_all_branches_of_tridentnet_at_once_are_no_spatial_map(branch):
    """Three branches return three maps per image, none of which is the one to draw; a single branch returns one."""
    backbone = dict(type='TridentResNet', depth=50, base_channels=8, stem_channels=8, trident_dilations=(1, 2, 3))
    backbone.update(num_branch=3, test_branch_idx=branch, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1))
    model = nn.ModuleDict({'backbone': MODELS.build(dict(backbone, out_indices=(2,)))}).eval()
    inputs = torch.rand(2, 3, 64, 96)
    taps = Taps(model, None, MAX)
    with taps, torch.no_grad():
        taps.begin(inputs, [None, None])
        model['backbone'](inputs)
    (pass_,) = taps.take()
    if branch == -1:
        assert pass_.maps == []
        assert taps.not_maps['backbone'].startswith('crops of regions, or several maps for each image')
    else:
        assert [activation.values.shape for activation in pass_.maps] == [(2, 4, 6)]


def drawn(tmp_path, image, transforms, meta_keys=()):
    """Heatmaps of BrightnessPools through a real pipeline, as gray values for each level."""
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    keys = ('img_path', 'ori_shape', 'img_shape', *meta_keys)
    pipeline = [
        dict(type='LoadImageFromFile', to_float32=True),
        *transforms,
        dict(type='mmdet.PackDetInputs', meta_keys=keys),
    ]
    data = Compose(pipeline)(dict(img_path=str(tmp_path / 'a.png')))
    model = MODELS.build(pool_detector()).eval()
    options = dict(save=('heatmap', 'overlay'), colormap='gray', normalize=(0, 255), alpha=0, image_format='png')
    visualizer = FeatureVisualizer(out_dir=str(tmp_path / 'out'), **options)
    visualizer.open(model, image_root=str(tmp_path))
    with visualizer.taps, torch.no_grad():
        forward(model, {key: [value] for key, value in data.items()})
    visualizer.draw(visualizer.taps.take())
    assert len(pictures(tmp_path / 'out')) == 12
    np.testing.assert_array_equal(read(tmp_path / 'out' / 'a' / 'backbone_0.png'), image)
    return [read(tmp_path / 'out' / 'a' / f'backbone_{level}.heatmap.png')[..., 0] for level in range(6)]


def dotted(size, dot, sigma=5):
    """An image (H, W, 3) with a bright dot at (x, y)."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    bump = np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.round(230 * bump)[..., None], 3, 2).astype(np.uint8)


def center_of(heat):
    """Center of mass (x, y), in pixels."""
    heat = heat.astype(np.float64)
    y, x = np.mgrid[: heat.shape[0], : heat.shape[1]] + 0.5
    return np.array([(heat * x).sum(), (heat * y).sum()]) / heat.sum()


def test_border_in_place_of_a_scale(tmp_path):
    """The test pipeline of CenterNet and CornerNet puts the unscaled image in the middle of a larger input."""
    crop = dict(
        type='mmdet.RandomCenterCropPad',
        ratios=None,
        border=None,
        mean=[0, 0, 0],
        std=[1, 1, 1],
        to_rgb=False,
        test_mode=True,
        test_pad_mode=['logical_or', 127],
    )
    dot = (71.3, 40.8)
    heats = drawn(tmp_path, dotted((101, 150), dot), [crop], ('border',))
    for level in (0, 1):
        assert np.abs(center_of(np.clip(heats[level].astype(float) - 60, 0, None)) - dot).max() <= 1


def test_homography_of_a_rotation(tmp_path):
    rotate = dict(type='mmdet.Rotate', prob=1.0, level=10, min_mag=20.0, max_mag=20.0, img_border_value=0)
    dot = (100.4, 50.2)
    heats = drawn(tmp_path, dotted((128, 160), dot), [dict(type='AddNoBoxes'), rotate], ('homography_matrix',))
    assert (heats[0][:4, :4] > 100).all()  # rotated out of the input, so not seen: white and hatched
    around = (slice(30, 71), slice(80, 121))
    for level in (0, 1):
        assert np.abs(center_of(heats[level][around]) + (80, 30) - dot).max() <= 1


def _register_transform():
    from mmcv.transforms import BaseTransform
    from mmdet.registry import TRANSFORMS
    from mmdet.structures.bbox import HorizontalBoxes

    @TRANSFORMS.register_module()
    class AddNoBoxes(BaseTransform):
        """Adds an empty list of boxes, which transforms need."""

        def transform(self, results):
            results.update(
                gt_bboxes=HorizontalBoxes(np.zeros((0, 4), np.float32)),
                gt_bboxes_labels=np.zeros(0, np.int64),
                gt_ignore_flags=np.zeros(0, bool),
            )
            return results


_register_transform()


def test_a_crop_leaves_the_unseen_part_of_the_image_without_heat(tmp_path):
    """mmdet's RandomCrop stores its offset only in the homography."""
    np.random.seed(0)
    crop = dict(type='mmdet.RandomCrop', crop_size=(96, 64), allow_negative_crop=True)
    image = np.full((128, 192, 3), 200, np.uint8)
    heats = drawn(tmp_path, image, [dict(type='AddNoBoxes'), crop], ('homography_matrix',))
    seen = (heats[0] > 190) & (heats[0] < 210)  # the heat; what was not seen is white and hatched
    assert seen.sum() == 64 * 96
    rows, columns = np.nonzero(seen)
    assert (np.ptp(rows), np.ptp(columns)) == (63, 95)
