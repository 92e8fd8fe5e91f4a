"""FeatVizHook in a runner: testing, validation, training, and the errors before them."""

import gc
import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    FLIP_KEYS,
    keep_ratio_pipeline,
    manifest,
    noise,
    pictures,
    pool_detector,
    read,
    resnet_detector,
    runner_config,
    teacher_and_student,
    test_predictions,
    train_config,
    write_dataset,
)
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, MODELS
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdet_featviz.runs import early_exit

RESNET_PICTURES = [f'backbone_{level}' for level in range(4)] + [f'neck_{level}' for level in range(5)]


@pytest.fixture
def data(tmp_path):
    sizes = [(90, 120), (120, 90), (64, 200), (77, 77), (90, 120)]
    images = {f'{number}.png': noise(*size, seed=number) for number, size in enumerate(sizes)}
    return write_dataset(tmp_path / 'data', images)


def hook_count(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize('batch_size', [1, 2, 3])
def test_the_hook_does_not_change_predictions_or_metrics(tmp_path, data, batch_size):
    results = {}
    for name, hook in [('plain', None), ('drawn', dict(out_dir=str(tmp_path / 'out'), save=('overlay', 'panel')))]:
        cfg = runner_config(data, tmp_path / name, resnet_detector(), batch_size=batch_size, hook=hook)
        results[name] = test_predictions(cfg)
    for plain, drawn in zip(results['plain'][0], results['drawn'][0]):
        assert len(plain['scores']) > 0
        for field in plain:
            np.testing.assert_array_equal(plain[field], drawn[field])
    assert results['plain'][1] == results['drawn'][1]
    expected = sorted(f'{n}/{name}.jpg' for n in range(5) for name in [*RESNET_PICTURES, 'panel'])
    assert pictures(tmp_path / 'out') == expected
    assert hook_count(results['drawn'][2].model) == 0


def test_the_default_folder_and_the_logged_summary(tmp_path, data):
    runner = Runner.from_cfg({**runner_config(data, tmp_path / 'work', pool_detector(), hook={}), 'log_level': 'INFO'})
    runner.test()
    early_exit._stop_open_runs()  # as at the end of the process
    folder = tmp_path / 'work' / runner.timestamp / 'featviz'
    assert len(pictures(folder)) == 5 * 6
    log = next((tmp_path / 'work' / runner.timestamp).glob('*.log')).read_text()
    assert re.search(rf'Feature maps: 30 pictures of 5 images in {folder}\n', log)
    assert 'ended early' not in log


def test_a_missing_image_is_in_the_summary_and_the_evaluation_continues(tmp_path, data):
    @HOOKS.register_module(force=True)
    class RemoveImage(Hook):  # after the pipeline has read the image, before it is drawn
        def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if batch_idx == 1:
                (data / 'images' / '1.png').unlink()

    cfg = runner_config(data, tmp_path / 'work', pool_detector(), hook=dict(out_dir=str(tmp_path / 'out')))
    cfg.custom_hooks = [dict(type='RemoveImage', priority='VERY_HIGH')]
    cfg.log_level = 'INFO'
    predictions, metrics, runner = test_predictions(cfg)
    assert len(predictions) == 5
    assert 'coco/bbox_mAP' in metrics
    log = next((tmp_path / 'work' / runner.timestamp).glob('*.log')).read_text()
    assert '24 pictures of 4 images in' in log
    assert 'skipped: 1 image, image not readable (1.png)' in log


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(layers=['backbone', 'nek']), ValueError, "unknown layer 'nek'.*neck"),
        (dict(layers=['neck.fpn_convs']), ValueError, 'never fires: a ModuleList'),
        (
            dict(image_names=['1', 'nowhere/2']),
            ValueError,
            "no image of the test data set is called 'nowhere/2'.*images/0.png",
        ),
        (dict(out_dir='{tmp}/file/out'), OSError, 'cannot be written to'),
    ],
)
def test_bad_settings_stop_the_run_before_its_first_batch(tmp_path, data, options, error, message):
    (tmp_path / 'file').write_text('')
    batches = []

    @HOOKS.register_module(force=True)
    class CountBatches(Hook):
        def before_test_iter(self, runner, batch_idx, data_batch=None):
            batches.append(batch_idx)

    options = {key: value.format(tmp=tmp_path) if key == 'out_dir' else value for key, value in options.items()}
    cfg = runner_config(data, tmp_path / 'work', resnet_detector(), hook=options)
    cfg.custom_hooks = [dict(type='CountBatches')]
    with pytest.raises(error, match=message):
        Runner.from_cfg(cfg).test()
    assert batches == []


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(layers=['backbone', 'nek']), ValueError, "unknown layer 'nek'"),
        (dict(image_names=['nowhere/2']), ValueError, "no image of the val data set is called 'nowhere/2'"),
        (dict(out_dir='{tmp}/data/images/0.png/out'), OSError, 'cannot be written to'),
    ],
)
@pytest.mark.parametrize('stages', ['val', ('train', 'val')])
def test_bad_settings_of_the_validation_stop_a_training_before_its_first_batch(
    tmp_path, data, stages, options, error, message
):
    batches = []

    @HOOKS.register_module(force=True)
    class CountBatches(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            batches.append(batch_idx)

    options = {key: value.format(tmp=tmp_path) if key == 'out_dir' else value for key, value in options.items()}
    cfg = train_config(data, tmp_path / 'work', resnet_detector(), hook=dict(stages=stages, **options))
    cfg.custom_hooks = [dict(type='CountBatches')]
    with pytest.raises(error, match=message):
        Runner.from_cfg(cfg).train()
    assert batches == []


def log_of(runner):
    return next(Path(runner.log_dir).glob('*.log')).read_text()


def raise_at(stage, iteration, error):
    """Register a hook that raises an error in an iteration of a stage, counted from 0 over all epochs."""

    @HOOKS.register_module(force=True)
    class Raise(Hook):
        count = 0

        def _before_iter(self, runner, batch_idx, data_batch=None, mode='train'):
            self.count += mode == stage
            if mode == stage and self.count == iteration + 1:
                raise error

    return dict(type='Raise', priority='VERY_LOW')


@pytest.mark.parametrize('error', [RuntimeError('broken'), KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupted_test_leaves_no_hook_and_no_thread(tmp_path, data, error):
    hook = dict(out_dir=str(tmp_path / 'out'), layers='backbone')
    cfg = runner_config(data, tmp_path / 'work', pool_detector((8,)), hook=hook)
    cfg.custom_hooks, cfg.log_level = [raise_at('test', 2, error)], 'INFO'
    runner = Runner.from_cfg(cfg)
    with pytest.raises(type(error)):
        runner.test()
    assert hook_count(runner.model) == 0
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith('featviz')]
    summary = f'Feature maps drawn before the run ended early: 2 pictures of 2 images in {tmp_path / "out"}'
    assert log_of(runner).count(summary) == 1
    early_exit._stop_open_runs()  # the end of the process does not log it again
    assert log_of(runner).count(summary) == 1


def test_an_error_after_the_first_validation_is_logged(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), stages='val')
    cfg = train_config(data, tmp_path / 'work', pool_detector((8,)), hook=hook)
    cfg.custom_hooks, cfg.log_level = [raise_at('train', 4, RuntimeError('broken'))], 'INFO'
    runner = Runner.from_cfg(cfg)
    with pytest.raises(RuntimeError, match='broken'):
        runner.train()
    assert 'drawn before the run ended early: 5 pictures of 5 images' in log_of(runner)


@pytest.mark.parametrize('stages', ['val', ('train', 'val')])
def test_the_summary_of_a_finished_training_is_logged_once_per_validation(tmp_path, data, stages):
    hook = dict(out_dir=str(tmp_path / 'out'), stages=stages)
    cfg = train_config(data, tmp_path / 'work', pool_detector((8,)), hook=hook)
    cfg.log_level = 'INFO'
    runner = Runner.from_cfg(cfg)
    runner.train()
    early_exit._stop_open_runs()
    each = 5 if stages == 'val' else 10
    counts = re.findall(r'Feature maps.*?: (\d+) pictures', log_of(runner))
    assert counts == [str(each), str(2 * each)]


def test_the_info_of_a_training_does_not_name_the_first_weights_as_those_of_its_maps(tmp_path, data):
    model = pool_detector((8,))
    torch.save(dict(state_dict=MODELS.build(model).state_dict()), tmp_path / 'first.pth')
    first = str(tmp_path / 'first.pth')
    for stage, expected in (('val', (None, first)), ('test', (first, None))):
        hook = dict(out_dir=str(tmp_path / stage), stages=stage)
        cfg = train_config(data, tmp_path / 'work', model, hook=hook, load_from=first)
        cfg.experiment_name = stage
        runner = Runner.from_cfg(cfg)
        runner.train() if stage == 'val' else runner.test()
        info = json.loads((tmp_path / stage / 'run.json').read_text())
        assert (info.get('checkpoint'), info.get('load_from')) == expected


@pytest.mark.parametrize(
    ('layers', 'names'),
    [
        (None, {'teacher': 'teacher.backbone_0', 'student': 'student.backbone_0'}),
        ('backbone', {'teacher': 'teacher.backbone_0', 'student': 'student.backbone_0'}),
        ('student.backbone', {'student': 'student.backbone_0'}),
        (['student.backbone', 'teacher.backbone'], {'teacher': 'teacher.backbone_0', 'student': 'student.backbone_0'}),
    ],
)
def test_a_validation_of_teacher_and_student_draws_both(tmp_path, data, layers, names):
    model = teacher_and_student(pool_detector((8,)))
    hook = dict(out_dir=str(tmp_path / 'out'), stages='val', layers=layers, max_images=2, save=('overlay', 'maps'))
    cfg = runner_config(data, tmp_path / 'work', model, hook=hook)
    cfg.val_cfg = dict(type='TeacherStudentValLoop')
    runner = Runner.from_cfg(cfg)
    runner.model.student.backbone.scale.data.fill_(3)
    runner.val()
    expected = [
        f'epoch_0/{branch}/{n}/{file}' for branch in names for n in (0, 1) for file in ('maps.npz', names[branch])
    ]
    assert sorted(name.replace('.jpg', '') for name in pictures(tmp_path / 'out')) == sorted(expected)
    if len(names) == 2:
        means = [np.load(tmp_path / f'out/epoch_0/{branch}/0/maps.npz')[f'{names[branch]}'] for branch in names]
        np.testing.assert_allclose(means[1], 3 * means[0], rtol=1e-5)


def test_another_runs_folder_stops_the_run(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'))
    Runner.from_cfg(runner_config(data, tmp_path / 'work', pool_detector(), hook=hook)).test()
    before = {name: (tmp_path / 'out' / name).stat().st_mtime_ns for name in pictures(tmp_path / 'out')}
    with pytest.raises(FileExistsError, match='holds the pictures of another run'):
        cfg = runner_config(data, tmp_path / 'work', pool_detector(), hook=hook)
        cfg.experiment_name = 'another'
        Runner.from_cfg(cfg).test()
    assert before == {name: (tmp_path / 'out' / name).stat().st_mtime_ns for name in pictures(tmp_path / 'out')}


def test_consecutive_samples_of_one_image_are_drawn_separately(tmp_path):
    """As in data sets of referring expressions."""
    data = write_dataset(tmp_path / 'data', {f'{name}.png': noise(seed=n) for n, name in enumerate('abc')})
    path = data / 'annotations.json'
    content = json.loads(path.read_text())
    content['images'] = [
        dict(content['images'][number], id=10 + place) for place, number in enumerate([0, 0, 0, 1, 1, 2])
    ]
    content['annotations'] = []
    path.write_text(json.dumps(content))
    hook = dict(out_dir=str(tmp_path / 'out'), layers='neck', interval=2, max_images=3)
    runner = Runner.from_cfg(runner_config(data, tmp_path / 'work', resnet_detector(), hook=hook))
    runner.test_loop.evaluator.metrics.clear()
    runner.test()
    drawn = [(entry['key'], entry['augmentation']) for entry in manifest(tmp_path / 'out') if entry['level'] == 0]
    assert sorted(drawn) == [('a', 0), ('a', 1), ('b', 0)]


def test_another_test_of_a_runner_draws_its_images_again(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), layers='backbone', save=('overlay', 'maps'))
    runner = Runner.from_cfg(runner_config(data, tmp_path / 'work', pool_detector(), hook=hook))
    runner.test()
    before = pictures(tmp_path / 'out')
    (tmp_path / 'out' / before[0]).unlink()
    runner.test()
    assert pictures(tmp_path / 'out') == before[1:] + [f'test_2/{name}' for name in before]


def test_an_empty_data_set_is_an_error(tmp_path, data):
    cfg = runner_config(data, tmp_path / 'work', pool_detector(), hook={})
    cfg.test_dataloader.dataset.update(serialize_data=False, indices=0)
    with pytest.raises(ValueError, match='the test data set is empty: check its ann_file'):
        Runner.from_cfg(cfg).test()


def test_file_names_with_parent_folders_stay_in_the_output_folder(tmp_path):
    data = write_dataset(tmp_path / 'a' / 'b' / 'data', {'../../x.png': noise(), '../x.png': noise(seed=1)})
    cfg = runner_config(data, tmp_path / 'work', pool_detector(), hook=dict(out_dir=str(tmp_path / 'out')))
    before = set(tmp_path.rglob('*'))
    Runner.from_cfg(cfg).test()
    made = {path for path in set(tmp_path.rglob('*')) - before if path.suffix in ('.jpg', '.part')}
    assert len(made) == 12
    assert all(tmp_path / 'out' in path.resolve().parents for path in made)


def test_two_folders_with_one_file_name_and_boxes(tmp_path):
    images = {'a/1.png': noise(), 'b/1.png': noise(seed=1), '猫/1 (2).png': noise(seed=2)}
    data = write_dataset(tmp_path / 'data', images)
    hook = dict(out_dir=str(tmp_path / 'out'), boxes='both', score_thr=0.0, layers=['backbone'])
    Runner.from_cfg(runner_config(data, tmp_path / 'work', resnet_detector(), hook=hook)).test()
    folders = {name.rpartition('/')[0] for name in pictures(tmp_path / 'out')}
    assert folders == {'a/1', 'b/1', '猫/1 (2)'}


def test_each_pass_of_test_time_augmentation_is_drawn_in_place(tmp_path):
    """The left edge is bright: flipped to the right in the first pass, but on the left in both heatmaps."""
    image = np.full((90, 120, 3), 20, np.uint8)
    image[:, :24] = 250
    data = write_dataset(tmp_path / 'data', {'a.png': image})
    pipeline = keep_ratio_pipeline((128, 128), meta_keys=FLIP_KEYS)
    meta_keys = pipeline[-1]['meta_keys']
    pipeline[-2:] = [
        dict(
            type='TestTimeAug',
            transforms=[
                [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
                [dict(type='PackDetInputs', meta_keys=meta_keys)],
            ],
        )
    ]
    options = dict(save=('heatmap',), colormap='gray', normalize=(0, 255), average_passes=True)
    hook = dict(out_dir=str(tmp_path / 'out'), **options)
    model = dict(
        type='DetTTAModel',
        tta_cfg=ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10),
        module=pool_detector(),
    )
    Runner.from_cfg(runner_config(data, tmp_path / 'work', model, pipeline, hook=hook)).test()
    assert len(pictures(tmp_path / 'out')) == 18
    heats = [
        read(tmp_path / 'out' / 'a' / f'backbone_4{suffix}.heatmap.png')[..., 0].astype(float)
        for suffix in ('', '.pass_1', '.mean')
    ]
    assert np.abs(heats[2] - (heats[0] + heats[1]) / 2).max() <= 1
    for suffix in ('', '.pass_1', '.mean'):
        heat = read(tmp_path / 'out' / 'a' / f'backbone_0{suffix}.heatmap.png')[..., 0]
        assert heat[45, 8] > 240, suffix
        assert heat[45, 110] < 30, suffix


def test_validation_and_training_pictures_have_their_own_folders(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), stages=('train', 'val'), layers=['neck'], boxes='gt')
    cfg = train_config(data, tmp_path / 'work', resnet_detector(), hook=hook)
    Runner.from_cfg(cfg).train()
    folders = {name.split('/')[0] for name in pictures(tmp_path / 'out')}
    assert folders == {'epoch_1', 'epoch_2', *(f'iter_{n}' for n in range(1, 7))}
    assert {name.split('/')[0] for name in pictures(tmp_path / 'out' / 'epoch_2')} == set('01234')
    assert len(pictures(tmp_path / 'out' / 'epoch_2')) == 5 * 5
    assert len(pictures(tmp_path / 'out' / 'iter_1')) == 2 * 5
    assert not (tmp_path / 'out' / 'iter_1').joinpath('0').joinpath('neck_0.pass_1.jpg').exists()


def test_validation_by_iterations(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), stages='val', max_images=3, workers=0)
    loop = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
    Runner.from_cfg(train_config(data, tmp_path / 'work', pool_detector(), hook=hook, loop=loop)).train()
    keys = [entry['key'] for entry in manifest(tmp_path / 'out') if entry['level'] == 0]
    assert keys == [f'iter_{round_}/{n}' for round_ in (2, 4) for n in range(3)]


@pytest.mark.parametrize(
    ('options', 'validated', 'trained'),
    [(dict(max_images=3), '012', 3), (dict(interval=2), '024', 5), ({}, '01234', 10)],
)
def test_validations_draw_the_same_images_and_training_continues_to_count(tmp_path, data, options, validated, trained):
    hook = dict(out_dir=str(tmp_path / 'out'), stages=('train', 'val'), workers=0, **options)
    Runner.from_cfg(train_config(data, tmp_path / 'work', pool_detector((8,)), hook=hook)).train()
    keys = [entry['key'] for entry in manifest(tmp_path / 'out') if entry['level'] == 0]
    for epoch in ('epoch_1', 'epoch_2'):
        assert [key.split('/')[1] for key in keys if key.startswith(epoch)] == list(validated)
    assert len([key for key in keys if key.startswith('iter_')]) == trained


def test_max_images_of_a_validation_does_not_end_drawing_of_the_training(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), stages=('train', 'val'), max_images=3, workers=0)
    loop = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1)
    Runner.from_cfg(train_config(data, tmp_path / 'work', pool_detector((8,)), hook=hook, loop=loop)).train()
    keys = [entry['key'] for entry in manifest(tmp_path / 'out')]
    # Two training images and three of the first validation, then the third training image and three again.
    assert keys == [f'iter_1/{n}' for n in (0, 1, 0, 1, 2)] + [f'iter_2/{n}' for n in (2, 0, 1, 2)]


def test_images_are_followed_through_validations_by_name(tmp_path, data):
    hook = dict(out_dir=str(tmp_path / 'out'), stages=('val',), image_names=['3.png', 'images/1'], workers=0)
    Runner.from_cfg(train_config(data, tmp_path / 'work', pool_detector((8,)), hook=hook)).train()
    keys = [entry['key'] for entry in manifest(tmp_path / 'out') if entry['level'] == 0]
    assert keys == ['epoch_1/1', 'epoch_1/3', 'epoch_2/1', 'epoch_2/3']


def test_the_hook_does_not_change_training(tmp_path, data):
    weights = []
    for hook in (None, dict(out_dir=str(tmp_path / 'out'), stages=('train',))):
        cfg = train_config(data, tmp_path / f'work_{hook is None}', resnet_detector(), hook=hook)
        cfg.experiment_name = f'run_{hook is None}'
        weights.append(Runner.from_cfg(cfg).train().state_dict())
    assert len(pictures(tmp_path / 'out')) == 2 * 5 * 9
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_memory_does_not_grow_with_the_data_set(tmp_path, data):
    """From batch to batch, as many tensors are added with the hook as without."""
    counts = []

    @HOOKS.register_module(force=True)
    class CountTensors(Hook):
        def before_test_iter(self, runner, batch_idx, data_batch=None):
            gc.collect()
            counts[-1].append(sum(type(item) is torch.Tensor for item in gc.get_objects()))

    for hook in (None, dict(out_dir=str(tmp_path / 'out'), boxes='both', score_thr=0.0, workers=0)):
        counts.append([])
        cfg = runner_config(data, tmp_path / f'work_{hook is None}', pool_detector(), hook=hook)
        cfg.custom_hooks = [dict(type='CountTensors')]
        cfg.experiment_name = f'run_{hook is None}'
        Runner.from_cfg(cfg).test()
    plain, drawn = (np.diff(count)[1:] for count in counts)  # the first batch builds anchors and caches
    np.testing.assert_array_equal(plain, drawn)


@pytest.mark.parametrize('kind', ['files of channels', 'Path'])
def test_images_whose_path_is_a_list_or_no_string(tmp_path, kind):
    """LoadMultiChannelImageFromFiles takes one file per channel."""
    grays = {f'{n}_{color}.png': noise(seed=n)[..., i] for n in range(3) for i, color in enumerate('bgr')}
    data = write_dataset(tmp_path / 'data', grays)

    @DATASETS.register_module(force=True)
    class PathsDataset(CocoDataset):
        def parse_data_info(self, raw_data_info):
            info = super().parse_data_info(raw_data_info)
            first = info['img_path']
            channels = [first, first.replace('_b.', '_g.'), first.replace('_b.', '_r.')]
            info['img_path'] = channels if kind == 'files of channels' else Path(first)
            return info

    content = json.loads((data / 'annotations.json').read_text())
    content['images'] = [image for image in content['images'] if '_b' in image['file_name']]
    content['annotations'] = []
    (data / 'annotations.json').write_text(json.dumps(content))
    hook = dict(out_dir=str(tmp_path / 'out'), save=('heatmap',), normalize=(0, 255), colormap='gray', interval=2)
    cfg = runner_config(data, tmp_path / 'work', pool_detector((8,)), hook=hook)
    cfg.test_dataloader.dataset.type = 'PathsDataset'
    if kind == 'files of channels':
        load = dict(type='LoadMultiChannelImageFromFiles', color_type='unchanged')
        cfg.test_dataloader.dataset.pipeline[0] = load
    runner = Runner.from_cfg(cfg)
    runner.test_loop.evaluator.metrics.clear()
    runner.test()
    assert pictures(tmp_path / 'out') == [f'{n}_b/backbone_0.heatmap.png' for n in (0, 2)]
    channels = noise(seed=2) if kind == 'files of channels' else noise(seed=2)[..., 0]
    heat = read(tmp_path / 'out' / '2_b' / 'backbone_0.heatmap.png')
    assert abs(heat.mean() - channels.mean()) < 2
    assert [entry['image'] for entry in manifest(tmp_path / 'out')] == [f'{data}/images/{n}_b.png' for n in (0, 2)]


@pytest.mark.parametrize(('boxes', 'is_loaded'), [('gt', False), ('both', False), ('pred', False), ('gt', True)])
def test_ground_truth_that_the_pipeline_does_not_load_is_missed_once(tmp_path, data, boxes, is_loaded):
    pipeline = [step for step in keep_ratio_pipeline() if is_loaded or step['type'] != 'LoadAnnotations']
    hook = dict(out_dir=str(tmp_path / 'out'), boxes=boxes)
    cfg = runner_config(data, tmp_path / 'work', pool_detector((8,)), pipeline=pipeline, hook=hook)
    cfg.log_level = 'INFO'
    runner = Runner.from_cfg(cfg)
    runner.test()
    expected = 0 if is_loaded or boxes == 'pred' else 1
    assert log_of(runner).count(f'boxes={boxes!r}, but the data samples have no ground truth') == expected
