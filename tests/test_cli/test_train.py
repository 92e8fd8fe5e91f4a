"""featviz train: its checkpoint, and the hook that drawing options add."""

import pytest
from commands import featviz
from conftest import pictures
from mmengine.runner import CheckpointLoader


def test_training_saves_a_checkpoint_and_its_published_part(trained_project):
    """Both are loaded as mmengine does by default, which is with weights_only since torch 2.6."""
    published = next((trained_project / 'work').glob('epoch_1-*.pth'))
    assert set(CheckpointLoader.load_checkpoint(str(published))) == {'meta', 'state_dict'}
    assert 'message_hub' in CheckpointLoader.load_checkpoint(str(trained_project / 'work' / 'epoch_1.pth'))


def test_drawing_options_draw_each_validation(trained_project):
    assert pictures(trained_project / 'drawn') == [f'epoch_1/0/neck_{level}.jpg' for level in range(5)]


@pytest.fixture
def config_of(trained_project, monkeypatch):
    """Returns the config from which `featviz train` would build its runner."""
    configs = []

    def stop(cfg):
        configs.append(cfg)
        raise SystemExit(0)

    monkeypatch.setattr('mmdet_featviz.cli.train.Runner.from_cfg', stop)
    monkeypatch.setattr('mmdet_featviz.cli.loading.exit_on_sigterm', lambda launcher: None)
    monkeypatch.setenv('LOCAL_RANK', '0')

    def config(*arguments):
        done = featviz('train', *arguments, cwd=trained_project)
        assert done.returncode == 0, done.stderr
        return configs.pop()

    return config


def test_an_added_hook_draws_validations_unless_stages_are_given(config_of):
    hook = dict(type='FeatVizHook', out_dir='heat', max_images=3)
    options = ['--featviz-dir', 'heat', '--max-images', '3']
    assert config_of('train.py', *options).default_hooks.featviz == dict(hook, stages=('val',))
    stages = ['--stages', 'train', 'val']
    assert config_of('train.py', *options, *stages).default_hooks.featviz == dict(hook, stages=['train', 'val'])
    assert 'featviz' not in config_of('train.py').default_hooks


def test_a_hook_in_the_config_keeps_its_stages(trained_project, config_of):
    hook = "dict(type='FeatVizHook', stages=('train',), boxes='gt')"
    (trained_project / 'hooked.py').write_text(f"_base_ = './train.py'\ncustom_hooks = [{hook}]\n")
    cfg = config_of('hooked.py', '--featviz-dir', 'heat', '--boxes', 'both')
    assert [dict(hook) for hook in cfg.custom_hooks] == [
        dict(type='FeatVizHook', stages=('train',), boxes='both', out_dir='heat')
    ]
    assert 'featviz' not in cfg.default_hooks


def test_resume_is_that_of_the_training(config_of):
    cfg = config_of('train.py', '--resume', '--featviz-dir', 'heat')
    assert cfg.resume is True
    assert 'resume' not in cfg.default_hooks.featviz


@pytest.mark.parametrize('loader', ['train', 'val'])
def test_a_missing_data_set_is_named(trained_project, tmp_path, loader):
    missing = tmp_path / 'data' / 'demo' / f'{loader}.json'
    options = ['--cfg-options', f'{loader}_dataloader.dataset.ann_file={missing}', '--work-dir', tmp_path / 'work']
    done = featviz('train', 'train.py', *options, cwd=trained_project)
    assert done.returncode == 1
    message = f'the {loader} data set needs {missing}, which does not exist: generate it with featviz demo-data'
    assert done.stderr.strip().splitlines()[-1] == message
