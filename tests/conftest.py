"""Small detectors made of mmdet's parts, small data sets, and runners for them, shared by all tests."""

import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import mmdet
import mmengine.config.config
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

import mmdet_featviz  # noqa: F401
from mmdet_featviz.runs import early_exit

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / 'shared'
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
STRIDES = (4, 8, 16, 32, 64, 128)
register_all_modules()  # for fixtures of whole modules, which come before those of each test

# Half of the time of a small run would go into these two: mmengine lays out the config of a runner four times, and a
# data set collects garbage among all that was ever imported.
mmengine.config.config.FormatCode = lambda text, **style: (text + '\n', False)
gc.freeze()


def pytest_sessionfinish():
    """Forget the detectors of tests that were not closed: their folders may be gone when the process ends."""
    early_exit._unfinished.clear()


@pytest.fixture(autouse=True)
def fresh_mmengine():
    """Reset the random state, and remove loggers and visualizers of an earlier test's runner."""
    register_all_modules()
    torch.manual_seed(0)
    yield
    for manager in (MMLogger, MessageHub, Visualizer):
        for instance in manager._instance_dict.values():
            for handler in getattr(instance, 'handlers', []):
                handler.close()
        manager._instance_dict.clear()


@pytest.fixture
def pool_model():
    """A detector on BrightnessPools with strides 8, 16 and 32."""
    return MODELS.build(pool_detector((8, 16, 32))).eval()


@MODELS.register_module()
class BrightnessPools(torch.nn.Module):
    """A backbone whose levels average the brightness of the input over blocks of each stride."""

    def __init__(self, strides=STRIDES):
        super().__init__()
        self.strides = strides
        self.scale = torch.nn.Parameter(torch.ones(1))  # a parameter for the optimizer

    def forward(self, x):
        brightness = x.mean(1, keepdim=True) * self.scale
        pools = (
            F.avg_pool2d(brightness, stride, stride, ceil_mode=True, count_include_pad=False) for stride in self.strides
        )
        # Two channels, so that reductions differ.
        return tuple(torch.cat([pool, pool - 1], 1) for pool in pools)


def head_config(channels, strides):
    return dict(
        type='RetinaHead',
        num_classes=2,
        in_channels=channels,
        feat_channels=4,
        stacked_convs=1,
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[1.0], strides=list(strides)
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss'),
    )


TRAIN_CFG = ConfigDict(
    assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
    sampler=dict(type='PseudoSampler'),
    allowed_border=-1,
    pos_weight=-1,
    debug=False,
)
TEST_CFG = ConfigDict(
    nms_pre=50, min_bbox_size=0, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5
)


def pool_detector(strides=STRIDES, **preprocessor):
    """Config of a single-stage detector on BrightnessPools; images are not normalized, and padding is 0."""
    return dict(
        type='SingleStageDetector',
        data_preprocessor=dict(type='DetDataPreprocessor', **{'pad_size_divisor': 32, **preprocessor}),
        backbone=dict(type='BrightnessPools', strides=strides),
        bbox_head=head_config(2, strides),
        train_cfg=TRAIN_CFG,
        test_cfg=TEST_CFG,
    )


def teacher_and_student(detector):
    """A config of mmdet's semi-supervised detector around the config of a detector."""
    return dict(
        type='SemiBaseDetector',
        detector={**detector, 'data_preprocessor': None},
        semi_train_cfg=dict(freeze_teacher=True),
        semi_test_cfg=dict(predict_on='teacher'),
        data_preprocessor=detector['data_preprocessor'],
    )


def resnet_detector(type='SingleStageDetector', **extra):
    """Config of a narrow RetinaNet with random weights: levels of strides 4 to 32 and 8 to 128."""
    return dict(
        type=type,
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_size_divisor=32,
        ),
        backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
        neck=dict(
            type='FPN',
            in_channels=[8, 16, 32, 64],
            out_channels=16,
            start_level=1,
            add_extra_convs='on_output',
            num_outs=5,
        ),
        bbox_head=head_config(16, (8, 16, 32, 64, 128)),
        train_cfg=TRAIN_CFG,
        test_cfg=TEST_CFG,
        **extra,
    )


FLIP_KEYS = ('flip', 'flip_direction')


def keep_ratio_pipeline(scale=(160, 120), *after_resize, meta_keys=()):
    """Pipeline: load, resize with the ratio kept, further transforms, pack.

    mmdet 3.0 packs no keys that the transforms do not set: add FLIP_KEYS for flips that are inserted later.
    """
    if any('Flip' in step['type'] for step in after_resize):
        meta_keys = (*FLIP_KEYS, *meta_keys)
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', *meta_keys)
    return [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=scale, keep_ratio=True),
        *after_resize,
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=keys),
    ]


def write_dataset(folder, images, boxes=None):
    """Write a data set with COCO annotations.

    Args:
        folder: Where to write it.
        images: {file name: BGR array or encoded bytes}.
        boxes: {file name: [[x, y, w, h], ...]}; other images get one box in the middle.
    """
    folder = Path(folder)
    entries, annotations = [], []
    for number, (name, image) in enumerate(images.items(), 1):
        path = folder / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            path.write_bytes(image)
            image = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        else:
            path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
        height, width = image.shape[:2]
        entries.append(dict(id=number, file_name=name, height=height, width=width))
        for box in (boxes or {}).get(name, [[width // 4, height // 4, width // 2, height // 2]]):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=1 + len(annotations) % 2,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    content = dict(images=entries, annotations=annotations, categories=categories)
    (folder / 'annotations.json').write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')
    return folder


def runner_config(data, work_dir, model, pipeline=None, batch_size=1, hook=None, **extra):
    """Config of a runner that tests on a data set of `write_dataset`; `hook` has the options of a FeatVizHook."""
    pipeline = pipeline or keep_ratio_pipeline()
    dataset = dict(
        type='CocoDataset',
        data_root=str(data),
        ann_file='annotations.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cat', 'dog'), palette=[(220, 20, 60), (0, 120, 240)]),
        test_mode=True,
        pipeline=pipeline,
    )
    loader = dict(
        batch_size=batch_size, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset
    )
    evaluator = dict(type='CocoMetric', ann_file=str(Path(data) / 'annotations.json'), metric='bbox')
    return Config(
        dict(
            default_scope='mmdet',
            work_dir=str(work_dir),
            model=model,
            test_dataloader=loader,
            test_cfg=dict(type='TestLoop'),
            test_evaluator=evaluator,
            val_dataloader=loader,
            val_cfg=dict(type='ValLoop'),
            val_evaluator=evaluator,
            default_hooks={} if hook is None else dict(featviz=dict(type='FeatVizHook', **hook)),
            log_level='ERROR',
            randomness=dict(seed=0),
            env_cfg=dict(dist_cfg=dict(backend='nccl')),  # the default, which mmengine 0.7 does not have
            experiment_name='test',
            **extra,
        )
    )


def train_config(data, work_dir, model, hook=None, loop=None, **extra):
    """Config of a runner that also trains on the data set, with two images per batch, flipped at random."""
    cfg = runner_config(data, work_dir, model, hook=hook, **extra)
    cfg.train_dataloader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            {**cfg.test_dataloader.dataset, 'test_mode': False},
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='Resize', scale=(160, 120), keep_ratio=True),
                dict(type='RandomFlip', prob=0.5),
                dict(type='PackDetInputs'),
            ],
        ),
    )
    cfg.train_cfg = loop or dict(type='EpochBasedTrainLoop', max_epochs=2)
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-4))
    return cfg


def test_predictions(cfg):
    """Run a test, and return the predictions as arrays, the metrics and the runner."""
    cfg.test_evaluator = [cfg.test_evaluator, dict(type='KeepPredictions')]
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()
    return runner.test_evaluator.metrics[1].results, metrics, runner


test_predictions.__test__ = False


def write_project(folder, images=7, trouble='pass'):
    """Write a data set, config.py of a plain detector, weights.pth, and a hook in trouble.py.

    Args:
        folder: Where to write them.
        images: Number of images in the data set.
        trouble: Code that the hook runs after each test iteration. It can use `batch_idx`, `rank`, `os`, `signal` and
            `sys`.
    """
    data = write_dataset(folder / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(images)})
    cfg = runner_config(data, folder / 'work', resnet_detector())
    cfg.log_level = 'INFO'
    cfg.custom_imports = dict(imports=['trouble'], allow_failed_imports=False)
    cfg.custom_hooks = [dict(type='Trouble', priority='VERY_LOW')]
    cfg.model.backbone.init_cfg = None
    cfg.dump(str(folder / 'config.py'))
    register_all_modules()
    torch.manual_seed(0)  # a project that is written again has the same weights
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta={}), folder / 'weights.pth')
    (folder / 'trouble.py').write_text(
        'import os, signal, sys\n'
        'from mmengine.dist import get_rank\n'
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n'
        '@HOOKS.register_module()\n'
        'class Trouble(Hook):\n'
        '    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):\n'
        '        rank = get_rank()\n'
        f'        {trouble}\n'
    )


def test_project(folder, *options, ranks=None):
    """Run tools/test.py, or tools/dist_test.sh on a number of ranks, in a project of `write_project`."""
    command = [sys.executable, ROOT / 'tools' / 'test.py', 'config.py', 'weights.pth']
    if ranks is not None:
        command = ['bash', ROOT / 'tools' / 'dist_test.sh', 'config.py', 'weights.pth', ranks]
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(folder), str(ROOT)])
    env = {**os.environ, 'PYTHONPATH': paths, 'PYTHON': sys.executable, 'PORT': str(port), 'OMP_NUM_THREADS': '1'}
    return subprocess.run(
        [*map(str, command), *options], cwd=folder, env=env, capture_output=True, encoding='utf-8', timeout=300
    )


test_project.__test__ = False


def python(code, *path, executable=sys.executable, **kwargs):
    """Run code in a new interpreter that looks for modules in `path` first."""
    prefix = ''.join(f'import sys; sys.path.insert(0, {str(entry)!r})\n' for entry in path)
    return subprocess.run([executable, '-c', prefix + code], capture_output=True, text=True, encoding='utf-8', **kwargs)


@pytest.fixture(scope='session')
def pools_project(tmp_path_factory):
    """A folder with pools.py (a detector on BrightnessPools), pools.pth, and images of several kinds in images/."""
    size = (64, 96)
    folder = tmp_path_factory.mktemp('a project')
    model = pool_detector((8, 16))
    pipeline = [step for step in keep_ratio_pipeline(size[::-1]) if 'Annotations' not in step['type']]
    loader = dict(dataset=dict(type='CocoDataset', pipeline=pipeline))
    # BrightnessPools is a class of this module, which a command in a new process has to import.
    imports = dict(imports=['conftest'], allow_failed_imports=False)
    cfg = Config(dict(custom_imports=imports, model=model, test_dataloader=loader, test_cfg=dict()))
    cfg.dump(folder / 'pools.py')
    torch.save(dict(state_dict=MODELS.build(model).state_dict(), meta={}), folder / 'pools.pth')
    images = folder / 'images'
    (images / '子').mkdir(parents=True)
    for name, image in (
        ('a.jpg', noise(*size)),
        ('子/猫 1.png', noise(*size, seed=1)),
        ('gray.png', noise(*size, seed=2)[..., 0]),
    ):
        (images / name).write_bytes(cv2.imencode(name[-4:], image)[1].tobytes())
    (images / 'broken.jpg').write_bytes(b'no image')
    (images / 'notes.txt').write_text('not an image either')
    return folder


@pytest.fixture(scope='session')
def trained_project(tmp_path_factory):
    """A folder with a space in its name, in which `featviz train` has run.

    It has a data set, train.py and plain.py (a config without anything of this package), checkpoints in work/, and
    pictures of the validation in drawn/.
    """
    from commands import run_process

    folder = tmp_path_factory.mktemp('my project')
    data = write_dataset(folder / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(3)})
    cfg = train_config(data, folder / 'work', resnet_detector())
    cfg.train_cfg.max_epochs = 1
    cfg.log_level = 'INFO'
    cfg.custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)  # so that publishing can read it
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', published_keys=['meta', 'state_dict']))
    cfg.dump(str(folder / 'train.py'))
    options = ['--featviz-dir', 'drawn', '--layers', 'neck', '--max-images', '1']
    trained = run_process('train.py', 'train.py', *options, cwd=folder)
    assert trained.returncode == 0, trained.stderr
    plain = runner_config(data, folder / 'work', resnet_detector())
    plain.log_level = 'INFO'
    plain.dump(str(folder / 'plain.py'))
    return folder


@pytest.fixture(scope='session')
def browser():
    """One headless Chromium for all tests of pages."""
    from page_driver import start_chromium

    driver = start_chromium()
    yield driver
    driver.quit()


def same_files(one, other):
    """Check that two runs wrote the same files, byte for byte, and the same manifest in any order."""
    assert pictures(one) == pictures(other)
    for name in pictures(one):
        assert (Path(one) / name).read_bytes() == (Path(other) / name).read_bytes(), name
    assert sorted(map(str, manifest(one))) == sorted(map(str, manifest(other)))
    return True


def noise(height=90, width=120, seed=0):
    """A smooth random image."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def read(path):
    """Read a written picture, BGR."""
    picture = cv2.imdecode(np.fromfile(str(path), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, path
    return picture


def manifest(out_dir):
    """Entries of the manifest in a folder."""
    lines = (Path(out_dir) / 'manifest.jsonl').read_text(encoding='utf-8').splitlines()
    return [json.loads(line) for line in lines]


def pictures(out_dir):
    """Names of all files in a folder and its subfolders, except manifest and run.json."""
    names = (path.relative_to(out_dir).as_posix() for path in Path(out_dir).rglob('*') if path.is_file())
    return sorted(name for name in names if name not in ('manifest.jsonl', 'run.json'))


def _register_metric():
    from mmdet.registry import METRICS
    from mmengine.evaluator import BaseMetric

    @METRICS.register_module()
    class KeepPredictions(BaseMetric):
        """Keeps the predictions for `test_predictions`."""

        def process(self, data_batch, data_samples):
            for sample in data_samples:
                found = sample['pred_instances']
                self.results.append({name: found[name].cpu().numpy().copy() for name in ('bboxes', 'scores', 'labels')})

        def evaluate(self, size):
            return {}

        def compute_metrics(self, results):
            return {}


_register_metric()
sys.path.insert(0, str(Path(__file__).parent))
