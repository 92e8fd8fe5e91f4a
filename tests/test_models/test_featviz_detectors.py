"""Detectors that draw by themselves, with and without a runner."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import (
    FLIP_KEYS,
    ROOT,
    keep_ratio_pipeline,
    manifest,
    noise,
    pictures,
    pool_detector,
    read,
    resnet_detector,
    runner_config,
    test_predictions,
    train_config,
    write_dataset,
)
from mmcv.transforms import BaseTransform
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.models import YOLOX, SingleStageDetector
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from mmengine.model import BaseTTAModel, revert_sync_batchnorm
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from mmdet_featviz import FeatVizMixin
from mmdet_featviz.runs import rank_agreement
from mmdet_featviz.runs.maps_file import load_snapshot
from mmdet_featviz.runs.writer import RunWriter

SINGLE_STAGE = [
    'retinanet/retinanet_r18_fpn_1x_coco.py',
    'atss/atss_r50_fpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'gfl/gfl_r50_fpn_1x_coco.py',
    'yolox/yolox_tiny_8xb8-300e_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
]
TWO_STAGE = ['faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py']


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(4)})


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def zoo_config(path):
    """Config of a model of mmdet's zoo, without pretrained weights."""
    cfg = get_config(f'mmdet::{path}').model
    cfg.backbone.init_cfg = None
    return cfg


def build_for_cpu(cfg):
    """Build a detector as mmdet's init_detector does; the SyncBN of torch 1 runs on GPUs only."""
    return revert_sync_batchnorm(MODELS.build(cfg)).eval()


@pytest.mark.parametrize('path', SINGLE_STAGE + TWO_STAGE)
def test_checkpoints_fit_key_for_key_and_predictions_are_identical(tmp_path, path):
    cfg = zoo_config(path)
    hp_type = 'SingleStageDetectorHp' if path in SINGLE_STAGE else 'TwoStageDetectorHp'
    plain = build_for_cpu(copy.deepcopy(cfg))
    drawing = build_for_cpu({**cfg, 'type': hp_type, 'featviz': dict(out_dir=str(tmp_path), save='heatmap')})
    state = plain.state_dict()
    assert list(drawing.state_dict()) == list(state)
    drawing.load_state_dict(state, strict=True)

    inputs = demo_mm_inputs(2, [[3, 96, 128], [3, 128, 80]])
    for sample in inputs['data_samples']:
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0), ori_shape=sample.img_shape))
    with torch.no_grad():
        expected = plain.test_step(copy.deepcopy(inputs))
        found = drawing.test_step(copy.deepcopy(inputs))
    for one, other in zip(expected, found):
        assert torch.equal(one.pred_instances.bboxes, other.pred_instances.bboxes)
        assert torch.equal(one.pred_instances.scores, other.pred_instances.scores)
    levels = len(drawing.backbone(torch.zeros(1, 3, 128, 128))) + len(
        drawing.neck(drawing.backbone(torch.zeros(1, 3, 128, 128)))
    )
    assert len(pictures(tmp_path)) == 2 * levels


def test_pictures_are_those_of_the_hook(tmp_path, data):
    options = dict(save=('overlay', 'panel'), image_format='png', boxes='pred', score_thr=0.0)
    hook = dict(out_dir=str(tmp_path / 'hook'), **options)
    by_hook = test_predictions(runner_config(data, tmp_path / 'work', resnet_detector(), batch_size=2, hook=hook))
    featviz = dict(out_dir=str(tmp_path / 'detector'), image_root=str(data / 'images'), **options)
    model = resnet_detector('SingleStageDetectorHp', featviz=featviz)
    cfg = runner_config(data, tmp_path / 'work2', model, batch_size=2)
    cfg.experiment_name = 'detector'
    by_detector = test_predictions(cfg)
    for one, other in zip(by_hook[0], by_detector[0]):
        np.testing.assert_array_equal(one['bboxes'], other['bboxes'])
    assert pictures(tmp_path / 'hook') == pictures(tmp_path / 'detector')
    for name in pictures(tmp_path / 'hook'):
        assert (tmp_path / 'hook' / name).read_bytes() == (tmp_path / 'detector' / name).read_bytes()


def demo_detector(tmp_path, **featviz):
    """A detector built by mmdet's own init_detector from a config file, without a runner."""
    data = write_dataset(tmp_path / 'none', {'x.png': noise()})
    cfg = runner_config(data, tmp_path, resnet_detector('SingleStageDetectorHp', featviz=featviz))
    cfg.model.backbone.init_cfg = None
    return init_detector(cfg, device='cpu'), cfg


def test_inference_on_a_path_draws_into_work_dirs(tmp_path, in_tmp_path):
    model, _ = demo_detector(tmp_path, image_root=str(tmp_path))
    cv2.imwrite('image.png', noise())
    result = inference_detector(model, 'image.png')
    assert result.img_path == 'image.png'
    assert len(pictures(tmp_path / 'work_dirs' / 'featviz' / 'image')) == 9


def test_without_a_root_the_folder_is_named_by_the_whole_path(tmp_path, in_tmp_path):
    model, _ = demo_detector(tmp_path)
    cv2.imwrite('image.png', noise())
    inference_detector(model, 'image.png')
    assert len(pictures(f'work_dirs/featviz{os.getcwd()}/image')) == 9


def test_inference_on_an_array_and_on_several(tmp_path):
    model, _ = demo_detector(tmp_path, out_dir=str(tmp_path / 'out'), image_format='png', alpha=0)
    image = noise(120, 160)  # the size of the pipeline's scale: rebuilt without loss
    inference_detector(model, image)
    inference_detector(model, [image, noise(90, 60)])
    assert len(pictures(tmp_path / 'out')) == 3 * 9
    np.testing.assert_array_equal(read(tmp_path / 'out' / 'array_000000' / 'neck_0.png'), image)
    assert read(tmp_path / 'out' / 'array_000002' / 'neck_0.png').shape == (90, 60, 3)


def test_det_inferencer_with_a_batch(tmp_path):
    model, cfg = demo_detector(tmp_path, out_dir=str(tmp_path / 'out'), image_root=str(tmp_path))
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f'{number}.png'))
        cv2.imwrite(paths[-1], noise(seed=number))
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'weights.pth')
    cfg.visualizer = dict(type='DetLocalVisualizer', name='of_inferencer')
    cfg.dump(str(tmp_path / 'config.py'))
    inferencer = DetInferencer(str(tmp_path / 'config.py'), str(tmp_path / 'weights.pth'), device='cpu')
    inferencer(paths, batch_size=2, no_save_vis=True)
    assert sorted({name.split('/')[0] for name in pictures(tmp_path / 'out')}) == ['0', '1', '2']
    assert len(pictures(tmp_path / 'out')) == 27


def test_training_draws_only_when_asked(tmp_path, data):
    for stages, folders in [
        ('test', set()),
        ('val', {'epoch_1', 'epoch_2'}),
        (('train', 'val'), {'epoch_1', 'epoch_2', 'iter_1', 'iter_2', 'iter_3', 'iter_4'}),
    ]:
        name = '_'.join([stages] if isinstance(stages, str) else stages)
        featviz = dict(out_dir=str(tmp_path / name), stages=stages, save='heatmap', image_root=str(data / 'images'))
        cfg = train_config(data, tmp_path / f'work_{name}', resnet_detector('SingleStageDetectorHp', featviz=featviz))
        cfg.experiment_name = name
        Runner.from_cfg(cfg).train()
        drawn = pictures(tmp_path / name) if folders else []
        assert {picture.split('/')[0] for picture in drawn} == folders
        assert folders or not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(layers='nek'), "unknown layer 'nek'"),
        (dict(save='scores', classes='cow'), "unknown class 'cow': the closest are cat, dog"),
        (dict(explain=dict(layers='nek')), "unknown layer 'nek'"),
        (dict(out_dir='taken', classes='cat'), 'holds the pictures of another run'),
        (dict(out_dir='taken', overwrite=True), None),
    ],
)
def test_settings_of_validations_are_checked_before_the_first_iteration(tmp_path, data, in_tmp_path, options, message):
    """Also under mmdet's own tools, where the detector does not know that a training begins."""
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken' / 'manifest.jsonl').write_text('')
    featviz = dict(stages='val', **options)
    cfg = train_config(
        data, tmp_path / 'work', {**pool_detector((8,)), 'type': 'SingleStageDetectorHp', 'featviz': featviz}
    )
    cfg.train_cfg.max_epochs = 1
    runner = Runner.from_cfg(cfg)
    if message is None:
        runner.train()
        assert len(pictures('taken')) == 4
        return
    with pytest.raises((ValueError, FileExistsError), match=message):
        runner.train()
    assert runner.iter == 0


def test_test_time_augmentation_counts_images_not_passes_and_flips_boxes_back(tmp_path):
    """The detector runs on the flipped image first, where its predictions are flipped too."""
    image = np.full((120, 160, 3), 30, np.uint8)
    data = write_dataset(tmp_path / 'data', {'a.png': image, 'b.png': image})
    featviz = dict(out_dir=str(tmp_path / 'out'), boxes='pred', score_thr=0.0, alpha=0, image_format='png')
    model = resnet_detector('LeftBoxHp', featviz={**featviz, 'max_images': 1, 'image_root': str(data / 'images')})
    tta_cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
    pipeline = keep_ratio_pipeline((160, 120), meta_keys=FLIP_KEYS)
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    pack = [dict(type='PackDetInputs', meta_keys=pipeline[-1]['meta_keys'])]
    pipeline[-2:] = [dict(type='TestTimeAug', transforms=[flips, pack])]

    @MODELS.register_module(force=True)
    class LeftBox(SingleStageDetector):
        """Predicts one box at the left edge of the image, wherever that is in the input."""

        def predict(self, batch_inputs, batch_data_samples, rescale=True):
            self.extract_feat(batch_inputs)
            for sample in batch_data_samples:
                box = [130.0, 40.0, 150.0, 90.0] if sample.metainfo.get('flip') else [10.0, 40.0, 30.0, 90.0]
                sample.pred_instances = InstanceData(
                    bboxes=torch.tensor([box]), scores=torch.tensor([0.9]), labels=torch.tensor([0])
                )
            return batch_data_samples

    @MODELS.register_module(force=True)
    class LeftBoxHp(FeatVizMixin, LeftBox):
        pass

    wrapped = dict(type='DetTTAModel', tta_cfg=tta_cfg, module=model)
    Runner.from_cfg(runner_config(data, tmp_path / 'work', wrapped, pipeline)).test()
    assert len(pictures(tmp_path / 'out')) == 2 * 9  # both passes of the first image
    for suffix in ('', '.pass_1'):
        drawn = read(tmp_path / 'out' / 'a' / f'neck_0{suffix}.png')
        assert drawn[80, 10].tolist() == [125, 93, 255]  # the red of the palette, lighter
        assert drawn[80, 150].tolist() == [30, 30, 30]


def test_the_default_folder_is_that_of_the_run(tmp_path, data):
    cfg = runner_config(data, tmp_path / 'work', resnet_detector('SingleStageDetectorHp'))
    runner = Runner.from_cfg(cfg)
    runner.test()
    drawn = pictures(tmp_path / 'work' / runner.timestamp / 'featviz')
    assert len(drawn) == 4 * 9


def test_the_default_folder_needs_neither_a_log_file_nor_a_visualizer_backend(tmp_path, data, in_tmp_path):
    """As on further ranks, which have no log file."""
    cfg = runner_config(data, tmp_path / 'work', resnet_detector('SingleStageDetectorHp', featviz=dict(save='heatmap')))
    cfg.visualizer = dict(type='Visualizer', vis_backends=None)  # mmengine 0.7 takes no empty list
    runner = Runner.from_cfg(cfg)
    for handler in [one for one in runner.logger.handlers if hasattr(one, 'baseFilename')]:
        runner.logger.removeHandler(handler)
    runner.test()
    assert len(pictures(tmp_path / 'work' / runner.timestamp / 'featviz')) == 4 * 9
    assert not (tmp_path / 'work_dirs').exists()


def test_two_lines_make_a_custom_detector_draw(tmp_path):
    @MODELS.register_module(force=True)
    class MyDetectorHp(FeatVizMixin, YOLOX):
        pass

    cfg = zoo_config('yolox/yolox_tiny_8xb8-300e_coco.py')
    model = MODELS.build({**cfg, 'type': 'MyDetectorHp', 'featviz': dict(out_dir=str(tmp_path))})
    assert list(model.state_dict()) == list(MODELS.build(cfg).state_dict())
    with pytest.raises(ValueError, match="unknown reduction 'x'"):
        MODELS.build({**cfg, 'type': 'MyDetectorHp', 'featviz': dict(reduction='x')})


def drawing_pools(folder, **options):
    """A detector on BrightnessPools that draws, and a data sample for it."""
    options = dict(save='heatmap', out_dir=str(folder / 'heatmaps'), image_root='/i', **options)
    return MODELS.build({**pool_detector((8, 16)), 'type': 'SingleStageDetectorHp', 'featviz': options}).eval()


def predict(model, path, inputs):
    """Predict on inputs (1, 3, 64, 64) that belong to an image path."""
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0), img_path=path)
    with torch.no_grad():
        model.predict(inputs, [DetDataSample(metainfo=meta)])


def test_a_copy_of_a_model_draws_into_a_folder_of_its_own(tmp_path):
    model = drawing_pools(tmp_path)
    predict(model, '/i/a.png', torch.rand(1, 3, 64, 64))
    assert not any(module._forward_hooks for module in model.modules())
    copies = [copy.deepcopy(model), copy.deepcopy(model)]  # as EMAHook does
    copies.append(copy.deepcopy(copies[0]))
    for copied in copies:
        predict(copied, '/i/a.png', torch.rand(1, 3, 64, 64))
    for folder in ('heatmaps', 'heatmaps_2', 'heatmaps_3', 'heatmaps_4'):
        assert pictures(tmp_path / folder) == ['a/backbone_0.heatmap.png', 'a/backbone_1.heatmap.png']
    assert len({(tmp_path / name / 'a/backbone_0.heatmap.png').read_bytes() for name in os.listdir(tmp_path)}) == 4


def test_ranks_agree_on_the_folder_of_each_copy(tmp_path, monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setattr(rank_agreement, 'get_dist_info', lambda: (0, 2))
    monkeypatch.setattr(rank_agreement, '_default_store', lambda: store)
    model = drawing_pools(tmp_path)
    for one in (model, copy.deepcopy(model)):
        predict(one, '/i/a.png', torch.rand(1, 3, 64, 64))
    assert len(pictures(tmp_path / 'heatmaps')) == len(pictures(tmp_path / 'heatmaps_2')) == 2


def test_a_run_is_not_resumed_with_other_weights(tmp_path):
    """A detector does not know its checkpoint."""
    for factor, path in ((1, '/i/a.png'), (1, '/i/b.png'), (2, '/i/c.png')):
        torch.manual_seed(0)
        model = drawing_pools(tmp_path, resume=True)
        model.backbone.scale.data *= factor
        if factor == 2:
            with pytest.raises(ValueError, match=r'other settings \(weights_crc32 was'):
                predict(model, path, torch.rand(1, 3, 64, 64))
        else:
            predict(model, path, torch.rand(1, 3, 64, 64))
        model.featviz.close()
    assert {entry['key'] for entry in manifest(tmp_path / 'heatmaps')} == {'a', 'b'}


def test_a_model_can_be_saved_after_it_has_drawn(tmp_path):
    model = drawing_pools(tmp_path, channels='all')
    model.featviz.style = type(model.featviz.style)(save=('channels',), channels='all')
    predict(model, '/i/a.png', torch.rand(1, 3, 64, 64))
    torch.save(model, tmp_path / 'model.pth')
    loaded = pickle.loads(pickle.dumps(model))
    assert loaded.featviz.style.channels == 'all'
    assert loaded.featviz.out_dir == model.featviz.out_dir
    with pytest.raises(FileExistsError, match='another hook or detector of this process still writes'):
        predict(loaded, '/i/a.png', torch.rand(1, 3, 64, 64))


def test_heatmaps_of_two_threads_are_on_their_own_images(tmp_path):
    inputs = {f'/i/{number}.png': torch.rand(1, 3, 64, 64) for number in range(24)}
    alone = drawing_pools(tmp_path / 'alone')
    for path, image in inputs.items():
        predict(alone, path, image)
    shared, paths = drawing_pools(tmp_path / 'shared'), list(inputs)
    with futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: predict(shared, path, inputs[path]), paths))
    names = pictures(tmp_path / 'alone' / 'heatmaps')
    assert len(names) == 48
    assert pictures(tmp_path / 'shared' / 'heatmaps') == names
    for name in names:
        found, expected = (tmp_path / folder / 'heatmaps' / name for folder in ('shared', 'alone'))
        assert found.read_bytes() == expected.read_bytes()
    assert not any(module._forward_hooks for module in shared.modules())


def test_one_thread_at_a_time_builds_and_writes(tmp_path, monkeypatch):
    """The state of a run, such as its counts of passes, is not made for several threads."""
    model, build, free = drawing_pools(tmp_path), RunWriter.build_and_write, []

    def checked(self, *args):
        with futures.ThreadPoolExecutor(1) as pool:
            free.append(pool.submit(model.featviz._lock.acquire, False).result())
        return build(self, *args)

    monkeypatch.setattr(RunWriter, 'build_and_write', checked)
    predict(model, '/i/a.png', torch.rand(1, 3, 64, 64))
    assert free == [False]


def test_two_models_do_not_share_a_folder(tmp_path):
    one, other = drawing_pools(tmp_path), drawing_pools(tmp_path, overwrite=True)
    predict(one, '/i/a.png', torch.rand(1, 3, 64, 64))
    with pytest.raises(FileExistsError, match='still writes to'):
        predict(other, '/i/a.png', torch.rand(1, 3, 64, 64))
    one.featviz.close()
    predict(other, '/i/b.png', torch.rand(1, 3, 64, 64))
    assert pictures(tmp_path / 'heatmaps') == ['b/backbone_0.heatmap.png', 'b/backbone_1.heatmap.png']


def test_without_a_visualizer_other_threads_can_still_use_mmengine(tmp_path):
    model = drawing_pools(tmp_path)
    Visualizer._instance_dict.clear()
    predict(model, '/i/a.png', torch.rand(1, 3, 64, 64))
    found = []
    thread = threading.Thread(target=lambda: found.append(MessageHub.get_current_instance()), daemon=True)
    thread.start()
    thread.join(20)
    assert found


def test_an_error_in_the_detector_leaves_no_hooks(tmp_path):
    model = MODELS.build({**pool_detector(), 'type': 'SingleStageDetectorHp', 'featviz': dict(out_dir=str(tmp_path))})
    with pytest.raises(AttributeError):
        model.predict(torch.zeros(1, 3, 64, 64), [None])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_second_prediction_is_no_pass_of_the_first(tmp_path):
    """Neither directly after it, nor with another transform, nor after another image."""
    model = drawing_pools(tmp_path, image_names=['a.png', 'b.png'])
    inputs = [torch.rand(1, 3, 64, 64) for _ in range(4)]
    for path, image in zip(['/i/a.png', '/i/a.png', '/i/b.png', '/i/a.png'], inputs):
        predict(model, path, image)
    names = ['a/backbone_0.heatmap.png', 'a/backbone_1.heatmap.png']
    second, third = ([f'test_{number}/{name}' for name in names] for number in (2, 3))
    others = [name.replace('a', 'b', 1) for name in names]
    assert pictures(tmp_path / 'heatmaps') == sorted([*names, *others, *second, *third])
    entries = [entry for entry in manifest(tmp_path / 'heatmaps') if entry['level'] == 0]
    assert [(entry['key'], entry['folder'], entry['augmentation'], entry['position']) for entry in entries] == [
        ('a', '', 0, 0),
        ('test_2/a', 'test_2', 0, 1),
        ('b', '', 0, 2),
        ('test_3/a', 'test_3', 0, 3),
    ]
    alone = drawing_pools(tmp_path / 'alone')
    predict(alone, '/i/a.png', inputs[3])
    for name, expected in zip(third, names):
        found = (tmp_path / 'heatmaps' / name).read_bytes()
        assert found == (tmp_path / 'alone' / 'heatmaps' / expected).read_bytes()


def test_each_prediction_with_augmentation_has_its_own_passes(tmp_path):
    """Passes with other colors only, and the same image again."""
    model = drawing_pools(tmp_path)

    class Augmenting(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return [samples[0] for samples in data_samples_list]

    augmenting = Augmenting(model)
    inputs = [torch.full((3, 64, 64), value) for value in (10.0, 20.0, 30.0)]
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0), img_path='/i/a.png')
    for _ in range(2):
        data = dict(inputs=[[image] for image in inputs], data_samples=[[DetDataSample(metainfo=meta)] for _ in inputs])
        with torch.no_grad():
            augmenting.test_step(data)
    predict(model, '/i/a.png', inputs[0][None])
    found = [(e['key'], e['augmentation']) for e in manifest(tmp_path / 'heatmaps') if e['level'] == 0]
    assert found == [(key, number) for key in ('a', 'test_2/a') for number in range(3)] + [('test_3/a', 0)]


def test_two_samples_of_an_image_in_sequence_have_passes_of_their_own(tmp_path):
    """Only their ids tell them apart, as with several expressions for one image."""
    model = drawing_pools(tmp_path)

    class Augmenting(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return [samples[0] for samples in data_samples_list]

    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0), img_path='/i/a.png')
    for number in range(2):
        samples = [[DetDataSample(metainfo=dict(meta, img_id=number))] for _ in range(2)]
        inputs = [[torch.full((3, 64, 64), value)] for value in (10.0, 20.0)]
        with torch.no_grad():
            Augmenting(model).test_step(dict(inputs=inputs, data_samples=samples))
    found = [(e['key'], e['augmentation']) for e in manifest(tmp_path / 'heatmaps') if e['level'] == 0]
    assert found == [(key, number) for key in ('a', 'test_2/a') for number in range(2)]


def test_threads_keep_their_stage(tmp_path):
    """A validation in one thread does not make the test in another one a validation."""
    model = drawing_pools(tmp_path, stages=('val', 'test'))
    in_validation, tested = threading.Event(), threading.Event()

    class Waiting(type(model)):
        def predict(self, *args):
            if threading.current_thread() is not threading.main_thread():
                in_validation.set()
                assert tested.wait(20)
            return super().predict(*args)

    model.__class__ = Waiting
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0), img_path='/i/val.png')
    data = dict(inputs=[torch.rand(3, 64, 64)], data_samples=[DetDataSample(metainfo=meta)])
    with torch.no_grad(), futures.ThreadPoolExecutor(1) as pool:
        validation = pool.submit(model.val_step, data)
        assert in_validation.wait(20)
        predict(model, '/i/test.png', torch.rand(1, 3, 64, 64))
        tested.set()
        validation.result()
    assert {name.rpartition('/')[0] for name in pictures(tmp_path / 'heatmaps')} == {'test', 'epoch_0/val'}


WAITING = dict(normalize='run', report=True)


def test_the_end_of_a_block_draws_what_waits_for_the_end(tmp_path):
    model = drawing_pools(tmp_path, **WAITING)
    with model.featviz as visualizer:
        for number in range(3):
            predict(model, f'/i/{number}.png', torch.rand(1, 3, 64, 64))
        assert visualizer is model.featviz
        assert not [name for name in pictures(tmp_path / 'heatmaps') if name.endswith('heatmap.png')]
    drawn = [name for name in pictures(tmp_path / 'heatmaps') if name.endswith('heatmap.png')]
    assert drawn == [f'{number}/backbone_{level}.heatmap.png' for number in range(3) for level in range(2)]
    assert (tmp_path / 'heatmaps' / 'report' / 'index.html').exists()
    assert '6 pictures' in model.featviz.summary()


def test_an_error_in_a_block_is_not_the_end_of_a_run(tmp_path, capfd):
    model = drawing_pools(tmp_path, normalize='run')
    with pytest.raises(KeyError), model.featviz:
        predict(model, '/i/a.png', torch.rand(1, 3, 64, 64))
        raise KeyError
    assert pictures(tmp_path / 'heatmaps') == ['a/maps.npz']


def test_a_deleted_detector_gives_its_folder_free_with_all_its_pictures(tmp_path):
    model = drawing_pools(tmp_path, normalize='run')
    predict(model, '/i/a.png', torch.rand(1, 3, 64, 64))
    torch.manual_seed(0)  # the same weights
    model = drawing_pools(tmp_path, resume=True, normalize='run')  # as a cell of a notebook that runs again
    predict(model, '/i/b.png', torch.rand(1, 3, 64, 64))
    names = [name for name in pictures(tmp_path / 'heatmaps') if name.endswith('.png')]
    assert names == ['a/backbone_0.heatmap.png', 'a/backbone_1.heatmap.png']
    model.featviz.close()
    assert len([name for name in pictures(tmp_path / 'heatmaps') if name.endswith('.png')]) == 4


@pytest.mark.parametrize('way', ['runner', 'plain', 'deleted', 'error', 'fork', 'threads'])
def test_what_waits_is_drawn_at_the_end_of_the_process(tmp_path, way):
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(3)})
    options = dict(save='heatmap', out_dir=str(tmp_path / 'run'), image_root=str(data / 'images'), **WAITING)
    model = {**pool_detector((8, 16)), 'type': 'SingleStageDetectorHp', 'featviz': options}
    cfg = runner_config(data, tmp_path / 'work', model)
    cfg.custom_imports = dict(imports=['mmdet_featviz', 'conftest'], allow_failed_imports=False)
    cfg.log_level = 'INFO'
    cfg.dump(str(tmp_path / 'config.py'))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name('predicting_script.py')), way, str(tmp_path / 'config.py')],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT / 'tests'), str(ROOT)])},
    )
    assert done.returncode == (way == 'error'), done.stderr
    drawn = [name for name in pictures(tmp_path / 'run') if name.endswith('heatmap.png')]
    assert drawn == [f'{number}/backbone_{level}.heatmap.png' for number in range(3) for level in range(2)]
    assert (tmp_path / 'run' / 'report' / 'index.html').exists()
    assert (done.stdout + done.stderr).count('Feature maps: 6 pictures') == 1, done.stdout + done.stderr


def test_several_ranks_under_other_tools_are_refused_what_needs_all_images(tmp_path, monkeypatch):
    monkeypatch.setattr('mmdet_featviz.apis.visualizer.get_dist_info', lambda: (0, 2))
    for options, message in ((dict(report=True), 'report=True'), (dict(normalize='run'), "normalize='run'")):
        model = drawing_pools(tmp_path, **options)
        with pytest.raises(ValueError, match=f'{message} needs the images of all ranks.*use featviz test'):
            predict(model, '/i/a.png', torch.rand(1, 3, 64, 64))
        with pytest.raises(ValueError, match=f'{message} needs the images of all ranks'):
            model.featviz.check(model)  # before a training
    assert not (tmp_path / 'heatmaps').exists()


@TRANSFORMS.register_module()
class ForgetPath(BaseTransform):
    """Leaves an array, of which nothing says which image of the data set it is."""

    def transform(self, results):
        del results['img_path']
        return results


@pytest.mark.parametrize('limit', [None, 3])
def test_each_round_over_arrays_gives_an_image_the_same_key(tmp_path, data, limit):
    options = dict(save='heatmap', out_dir=str(tmp_path / 'out'), stages=('val', 'test'), max_images=limit)
    pipeline = keep_ratio_pipeline()
    pipeline[-1] = dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape', 'scale_factor'))
    pipeline.insert(-1, dict(type='ForgetPath'))
    model = dict(pool_detector((8,)), type='SingleStageDetectorHp', featviz=options)
    runner = Runner.from_cfg(runner_config(data, tmp_path / 'work', model, pipeline, batch_size=3))
    for loop in (runner.val_loop, runner.test_loop):
        loop.evaluator.metrics.clear()
    for evaluate in (runner.val, runner.val, runner.test, runner.test):
        evaluate()
    runner.model.featviz.close()
    folders = 'epoch_0', 'epoch_0_2', '', 'test_2'
    expected = [f'{folder}/array_{n:06d}'.lstrip('/') for folder in folders for n in range(limit or 4)]
    assert sorted(entry['key'] for entry in manifest(tmp_path / 'out')) == sorted(expected)
    assert {entry['position'] for entry in manifest(tmp_path / 'out')} == set(range(limit or 4))
    for n in range(limit or 4):
        heat = {read(tmp_path / 'out' / key / 'backbone_0.heatmap.png').tobytes() for key in expected[n :: limit or 4]}
        assert len(heat) == 1


def test_a_single_augmented_pass_is_merged_already(tmp_path, data):
    """DetTTAModel flips the boxes of its passes back, also if there is only one pass."""
    pipeline = keep_ratio_pipeline((160, 120), meta_keys=FLIP_KEYS)
    pack = [dict(type='PackDetInputs', meta_keys=pipeline[-1]['meta_keys'])]
    pipeline[-2:] = [dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip', prob=1.0)], pack])]
    tta_cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
    model = dict(type='DetTTAModel', tta_cfg=tta_cfg, module=resnet_detector())
    hook = dict(out_dir=str(tmp_path / 'out'), save='maps', image_root=str(data / 'images'))
    predictions, _, _ = test_predictions(runner_config(data, tmp_path / 'work', model, pipeline, hook=hook))
    for number, predicted in enumerate(predictions):
        boxes = load_snapshot(str(tmp_path / 'out' / str(number) / 'maps.npz')).boxes
        corners = boxes.corners[~boxes.are_truth]
        assert len(corners)
        np.testing.assert_array_equal(corners, predicted['bboxes'][predicted['scores'].argsort(kind='stable')])
