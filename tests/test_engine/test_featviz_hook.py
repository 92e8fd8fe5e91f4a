"""FeatVizHook in a runner: testing, validation, training, and the errors before them."""

import gc
import json
import re

import numpy as np
import pytest
import torch
from conftest import (
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
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

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
    folder = tmp_path / 'work' / runner.timestamp / 'featviz'
    assert len(pictures(folder)) == 5 * 6
    log = next((tmp_path / 'work' / runner.timestamp).glob('*.log')).read_text()
    assert re.search(rf'Feature maps: 30 pictures of 5 images in {folder}\n', log)


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
    assert pictures(tmp_path / 'out') == before


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
    pipeline = keep_ratio_pipeline((128, 128))
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
