"""The command line tools, each run as a user runs it."""

import pickle
import re
import subprocess
import sys

import mmdet
import numpy as np
import pytest
import torch
from conftest import ROOT, manifest, noise, pictures, read, resnet_detector, runner_config, train_config, write_dataset
from mmdet.models import ATSS
from mmengine.config import Config

from mmdet_featviz import FeatVizHook
from mmdet_featviz.benchmarks.demo_data import MAX_SIZE, MIN_SIZE, make_scene, make_split
from mmdet_featviz.cli.loading import add_heatmaps

MMDET_TOOLS = ROOT.__class__(mmdet.__file__).parent / '.mim' / 'tools'


def run(tool, *arguments, cwd):
    command = [sys.executable, str(tool), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding='utf-8')


@pytest.fixture(scope='module')
def workplace(tmp_path_factory):
    """A folder with a space, as a user's: data, a plain mmdet config, and a checkpoint that mmdet's training wrote."""
    folder = tmp_path_factory.mktemp('my project')
    data = write_dataset(folder / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(3)})
    cfg = train_config(data, folder / 'work', resnet_detector())
    cfg.train_cfg.max_epochs = 1
    cfg.log_level = 'INFO'
    cfg.custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)  # so that publishing can read it
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', published_keys=['meta', 'state_dict']))
    cfg.dump(str(folder / 'train.py'))
    trained = run(ROOT / 'tools' / 'train.py', 'train.py', cwd=folder)
    assert trained.returncode == 0, trained.stderr
    plain = runner_config(data, folder / 'work', resnet_detector())
    plain.log_level = 'INFO'
    plain.dump(str(folder / 'plain.py'))
    return folder


def test_training_leaves_a_checkpoint_and_its_published_part(workplace):
    published = next((workplace / 'work').glob('epoch_1-*.pth'))
    assert set(torch.load(published, weights_only=True)) == {'meta', 'state_dict'}
    assert 'message_hub' in torch.load(workplace / 'work' / 'epoch_1.pth', weights_only=True)


def same_predictions(one, other):
    one, other = (pickle.loads(path.read_bytes()) for path in (one, other))
    assert len(one) == len(other) > 0
    for left, right in zip(one, other):
        for field in ('bboxes', 'scores', 'labels'):
            assert torch.equal(left['pred_instances'][field], right['pred_instances'][field])
    return True


def test_options_add_the_hook_to_a_config_that_knows_nothing_of_it(workplace):
    """mmdet's own tool gives the predictions to compare with, and it reads the same fresh checkpoint through ours."""
    result = run(
        ROOT / 'tools' / 'test.py', 'plain.py', 'work/epoch_1.pth', '--featviz-dir', 'heat maps',
        '--layers', 'neck', 'backbone.layer4', '--reduction', 'l2', '--save', 'overlay', 'panel', '--max-images', 2,
        '--out', 'drawn.pkl', cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    names = ['backbone.layer4_0', *(f'neck_{level}' for level in range(5)), 'panel']
    assert pictures(workplace / 'heat maps') == [f'{number}/{name}.jpg' for number in (0, 1) for name in names]
    line = f'Feature maps: 14 pictures of 2 images in {workplace / "heat maps"}'
    assert result.stdout.count('Feature maps:') == 1
    assert line in result.stdout

    published = next((workplace / 'work').glob('epoch_1-*.pth'))
    own = run(MMDET_TOOLS / 'test.py', 'plain.py', published, '--out', 'own.pkl', cwd=workplace)
    assert own.returncode == 0, own.stderr
    assert same_predictions(workplace / 'drawn.pkl', workplace / 'own.pkl')
    scores = [re.findall(r'coco/bbox_mAP: (\S+)', output) for output in (result.stdout, own.stdout)]
    assert scores[0] == scores[1] != []


def test_mmdets_own_tool_draws_the_same_pictures_from_two_lines_in_the_config(workplace):
    lines = (
        "_base_ = './plain.py'\n"
        "custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)\n"
        "custom_hooks = [dict(type='FeatVizHook', out_dir='by mmdet')]\n"
    )
    (workplace / 'two_lines.py').write_text(lines)
    # A checkpoint with training state: that it loads is due to the import in the config.
    by_mmdet = run(MMDET_TOOLS / 'test.py', 'two_lines.py', 'work/epoch_1.pth', cwd=workplace)
    assert by_mmdet.returncode == 0, by_mmdet.stderr
    assert 'Feature maps: 27 pictures of 3 images in' in by_mmdet.stdout

    (workplace / 'hp.py').write_text(
        "_base_ = './plain.py'\nmodel = dict(type='SingleStageDetectorHp')\nload_from = 'work/epoch_1.pth'\n"
    )
    # The checkpoint may be left out here.
    by_itself = run(ROOT / 'tools' / 'test.py', 'hp.py', '--featviz-dir', 'by itself', cwd=workplace)
    assert by_itself.returncode == 0, by_itself.stderr
    assert by_itself.stdout.count('Feature maps: 27 pictures of 3 images in') == 1
    assert len(pictures(workplace / 'by mmdet')) == 27
    assert pictures(workplace / 'by mmdet') == pictures(workplace / 'by itself')
    for name in pictures(workplace / 'by mmdet'):
        assert (workplace / 'by mmdet' / name).read_bytes() == (workplace / 'by itself' / name).read_bytes()


def test_test_time_augmentation_from_the_command_line(workplace):
    result = run(
        ROOT / 'tools' / 'test.py', 'plain.py', 'work/epoch_1.pth', '--tta', '--featviz-dir', 'tta', cwd=workplace
    )
    assert result.returncode == 0, result.stderr
    assert len(pictures(workplace / 'tta')) == 2 * 27
    assert {entry['augmentation'] for entry in manifest(workplace / 'tta')} == {0, 1}
    flipped, straight = (read(workplace / 'tta' / '0' / f'neck_0{s}.jpg').astype(float) for s in ('', '.pass_1'))
    # A network with random weights is no mirror of itself, but both overlays lie over the same image.
    assert np.abs(flipped - straight).mean() < 30
    assert np.abs(flipped[:, ::-1] - straight).mean() > np.abs(flipped - straight).mean()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['plain.py'], 'plain.py has no load_from: name a checkpoint after the config'),
        (['plain.py', 'work/epoch_1.pth', '--out', 'a.json'], '--out must end with .pkl or .pickle'),
        (['plain.py', 'work/epoch_1.pth', '--layers', 'nekk'], "unknown layer 'nekk': the closest are neck"),
        (['empty.py', 'work/epoch_1.pth'], 'the test data set is empty: check its ann_file'),
    ],
)
def test_mistakes_are_told_in_one_sentence(workplace, arguments, message):
    (workplace / 'none.json').write_text('{"images": [], "annotations": [], "categories": []}')
    (workplace / 'empty.py').write_text(
        f"_base_ = './plain.py'\ntest_dataloader = dict(dataset=dict(ann_file={str(workplace / 'none.json')!r}))\n"
    )
    result = run(ROOT / 'tools' / 'test.py', *arguments, cwd=workplace)
    assert result.returncode != 0
    assert message in result.stderr.strip().splitlines()[-1]


def test_options_reach_a_hook_whose_type_is_a_class():
    """As pure Python configs name it."""
    options = dict(out_dir='there', max_images=3)
    cfg = Config(dict(model=dict(type=ATSS), default_hooks=dict(mine=dict(type=FeatVizHook, boxes='pred'))))
    add_heatmaps(cfg, options)
    assert dict(cfg.default_hooks) == dict(mine=dict(type=FeatVizHook, boxes='pred', out_dir='there', max_images=3))


def test_every_option_of_mmdets_own_tools_is_there():
    for tool in ('test.py', 'train.py'):
        own, ours = (run(folder / tool, '--help', cwd=ROOT).stdout for folder in (MMDET_TOOLS, ROOT / 'tools'))
        assert set(re.findall(r'--[\w-]+', own)) <= set(re.findall(r'--[\w-]+', ours))


def test_the_demos_scenes_are_deterministic_and_of_the_promised_sizes(tmp_path):
    scene, objects = make_scene('val', 3)
    again, same = make_scene('val', 3)
    np.testing.assert_array_equal(scene, again)
    assert objects == same
    assert (make_scene('train', 3)[0] != scene).any()
    make_split(tmp_path, 'val', 4)
    assert np.abs(read(tmp_path / 'val' / 'scene_0003.jpg').astype(int) - scene).mean() < 6
    sizes = [max(box[2:]) for index in range(20) for _, box in make_scene('val', index)[1]]
    assert MIN_SIZE - 0.1 <= min(sizes) < 24
    assert 180 < max(sizes) <= MAX_SIZE + 0.1
    for _, (x, y, w, h) in objects:
        assert x >= 0
        assert y >= 0
        assert x + w <= 640
        assert y + h <= 480
