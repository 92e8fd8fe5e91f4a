"""Pictures sent to the backends of mmengine's visualizer."""

import threading

import numpy as np
import pytest
from conftest import (
    noise,
    pictures,
    pool_detector,
    read,
    resnet_detector,
    runner_config,
    train_config,
    write_dataset,
)
from mmengine.registry import MODELS, VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization.vis_backend import BaseVisBackend

from mmdet_featviz import FeatureVisualizer

LEVELS = ['backbone_0', 'backbone_1']
MODEL = pool_detector((4, 8))


@VISBACKENDS.register_module()
class Recorder(BaseVisBackend):
    """Keeps the pictures it receives, and fails for names that contain `fails_at`."""

    seen = []
    fails_at = 'nothing'

    @property
    def experiment(self):
        return self

    def _init_env(self):
        pass

    def add_image(self, name, image, step=0, **kwargs):
        if self.fails_at in name:
            raise RuntimeError('the server is away')
        self.seen.append((name, image, step, threading.current_thread()))


@pytest.fixture(autouse=True)
def fresh_recorder():
    Recorder.seen, Recorder.fails_at = [], 'nothing'


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', {'a.png': noise(), 'b/c.png': noise(seed=1), 'd.png': noise(seed=2)})


def with_backends(cfg, *backends):
    cfg.visualizer = dict(type='Visualizer', vis_backends=list(backends))
    return cfg


def options(tmp_path, **extra):
    return dict(out_dir=str(tmp_path / 'out'), image_format='png', log_to_visualizer=True, **extra)


@pytest.mark.parametrize('workers', [0, 2])
def test_all_pictures_of_a_test_are_sent_with_the_number_of_their_image(tmp_path, data, workers):
    hook = options(tmp_path, save=('overlay', 'panel'), workers=workers)
    Runner.from_cfg(
        with_backends(runner_config(data, tmp_path / 'work', MODEL, hook=hook), dict(type='Recorder'))
    ).test()
    expected = [(key, number) for number, key in enumerate(('a', 'b__c', 'd'))]
    names = [(f'{key}.{name}.png', number) for key, number in expected for name in (*LEVELS, 'panel')]
    assert [(name, step) for name, _, step, _ in Recorder.seen] == names
    assert {thread for *_, thread in Recorder.seen} == {threading.main_thread()}
    for name, image, _, _ in Recorder.seen:
        key, _, picture = name.partition('.')
        written = read(tmp_path / 'out' / key.replace('__', '/') / picture)
        np.testing.assert_array_equal(image[..., ::-1], written)


def test_nothing_is_sent_unless_asked_for(tmp_path, data):
    cfg = runner_config(data, tmp_path / 'work', MODEL, hook=dict(out_dir=str(tmp_path / 'out')))
    Runner.from_cfg(with_backends(cfg, dict(type='Recorder'))).test()
    assert len(pictures(tmp_path / 'out')) == 6
    assert Recorder.seen == []


@pytest.mark.parametrize('normalize', ['image', 'run'])
def test_steps_of_validations_are_their_epochs(tmp_path, data, normalize):
    hook = options(tmp_path, stages=('val',), max_images=2, normalize=normalize, layers='backbone')
    cfg = train_config(data, tmp_path / 'work', MODEL, hook=hook)
    Runner.from_cfg(with_backends(cfg, dict(type='Recorder'))).train()
    steps = [(name, step) for name, _, step, _ in Recorder.seen]
    epochs = [('a', 1), ('b__c', 1), ('a', 2), ('b__c', 2)]
    assert steps == [(f'{key}.{level}.png', epoch) for key, epoch in epochs for level in LEVELS]


def test_steps_of_validations_by_iterations_and_of_training(tmp_path, data):
    hook = options(tmp_path, stages=('train', 'val'), layers='backbone')
    loop = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    cfg = train_config(data, tmp_path / 'work', pool_detector((4,)), hook=hook, loop=loop)
    Runner.from_cfg(with_backends(cfg, dict(type='Recorder'))).train()
    assert [step for _, _, step, _ in Recorder.seen] == [1, 1, 2, 2, 2, 2]  # two batches (2 + 1 images), 3 images


def test_a_failing_backend_is_counted_and_files_are_still_written(tmp_path, data):
    Recorder.fails_at = 'b__c'
    cfg = runner_config(data, tmp_path / 'work', MODEL, hook=options(tmp_path))
    runner = Runner.from_cfg(with_backends(cfg, dict(type='Recorder')))
    runner.test()
    assert len(Recorder.seen) == 4
    assert len(pictures(tmp_path / 'out')) == 6
    summary = next(hook for hook in runner.hooks if hasattr(hook, 'visualizer')).visualizer.summary()
    assert summary.endswith('skipped: 1 image, RuntimeError while drawing (c.png)')


def test_a_detector_that_draws_by_itself_sends_too(tmp_path, data):
    model = resnet_detector('SingleStageDetectorHp', featviz=options(tmp_path, layers='neck'))
    Runner.from_cfg(with_backends(runner_config(data, tmp_path / 'work', model), dict(type='Recorder'))).test()
    assert len(Recorder.seen) == 3 * 5


def test_logging_without_a_runner_is_an_error(tmp_path):
    visualizer = FeatureVisualizer(out_dir=str(tmp_path / 'out'), log_to_visualizer=True)
    with pytest.raises(ValueError, match='log_to_visualizer=True needs the visualizer of a runner'):
        visualizer.open(MODELS.build(MODEL))


def test_the_local_backend_writes_files(tmp_path, data):
    cfg = runner_config(data, tmp_path / 'work', MODEL, hook=options(tmp_path))
    Runner.from_cfg(with_backends(cfg, dict(type='LocalVisBackend'))).test()
    (folder,) = (tmp_path / 'work').glob('*/vis_data/vis_image')
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f'{key}.{level}.png_{number}.png' for number, key in enumerate(('a', 'b__c', 'd')) for level in LEVELS
    )
    sent, written = folder / 'b__c.backbone_1.png_1.png', tmp_path / 'out' / 'b' / 'c' / 'backbone_1.png'
    np.testing.assert_array_equal(read(sent), read(written))


def test_tensorboard_gets_pictures_and_focus(tmp_path, data):
    pytest.importorskip('tensorboard', reason='tensorboard is not installed')
    import cv2
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    hook = options(tmp_path, stages=('val',), layers='backbone')
    cfg = with_backends(train_config(data, tmp_path / 'work', MODEL, hook=hook), dict(type='TensorboardVisBackend'))
    cfg.val_evaluator = [cfg.val_evaluator, dict(type='FeatureFocusMetric')]
    Runner.from_cfg(cfg).train()
    (events,) = (tmp_path / 'work').glob('*/vis_data/events*')
    found = EventAccumulator(str(events), size_guidance=dict(images=0, scalars=0)).Reload()
    tags = found.Tags()
    assert sorted(tags['images']) == sorted(f'{key}.{level}.png' for key in ('a', 'b__c', 'd') for level in LEVELS)
    assert {'focus/backbone_0/energy', 'focus/images', 'coco/bbox_mAP'} <= set(tags['scalars'])
    assert [event.step for event in found.Scalars('focus/backbone_0/energy')] == [1, 2]
    for event in found.Images('b__c.backbone_1.png'):
        sent = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
        written = read(tmp_path / 'out' / f'epoch_{event.step}' / 'b' / 'c' / 'backbone_1.png')
        np.testing.assert_array_equal(sent, written)
    assert [event.step for event in found.Images('b__c.backbone_1.png')] == [1, 2]


def test_mlflow_gets_pictures_and_focus(tmp_path, data, monkeypatch):
    mlflow = pytest.importorskip('mlflow', reason='mlflow is not installed')
    # mmengine uses a file store by default, which MLflow 3 allows only with this variable.
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    hook = options(tmp_path, stages=('val',), layers='backbone')
    backend = dict(type='MLflowVisBackend', save_dir=str(tmp_path / 'store'), exp_name='heat')
    cfg = with_backends(train_config(data, tmp_path / 'work', MODEL, hook=hook), backend)
    cfg.val_evaluator = [cfg.val_evaluator, dict(type='FeatureFocusMetric')]
    try:
        Runner.from_cfg(cfg).train()
    finally:
        mlflow.end_run()
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name('heat').experiment_id])
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    keys = [f'epoch_{epoch}__{key}' for epoch in (1, 2) for key in ('a', 'b__c', 'd')]
    assert {f'{key}.{level}.png' for key in keys for level in LEVELS} <= artifacts
    local = client.download_artifacts(run.info.run_id, 'epoch_2__b__c.backbone_1.png', str(tmp_path))
    np.testing.assert_array_equal(read(local), read(tmp_path / 'out' / 'epoch_2' / 'b' / 'c' / 'backbone_1.png'))
    energies = client.get_metric_history(run.info.run_id, 'focus/backbone_0/energy')
    assert [metric.step for metric in energies] == [1, 2]
