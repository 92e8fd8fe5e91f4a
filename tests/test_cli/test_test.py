"""featviz test: its pictures, predictions and options, compared with mmdet's own tools/test.py."""

import pickle
import re

import numpy as np
import pytest
import torch
from commands import run_process
from conftest import MMDET_TOOLS, manifest, pictures, read


def same_predictions(first_file, second_file):
    first, second = (pickle.loads(path.read_bytes()) for path in (first_file, second_file))
    assert len(first) == len(second) > 0
    for left, right in zip(first, second):
        for field in ('bboxes', 'scores', 'labels'):
            assert torch.equal(left['pred_instances'][field], right['pred_instances'][field])
    return True


def test_drawing_options_add_the_hook_to_a_plain_config(trained_project):
    """Predictions are compared with those of mmdet's own tool."""
    result = run_process(
        'test.py', 'plain.py', 'work/epoch_1.pth', '--featviz-dir', 'heat maps',
        '--layers', 'neck', 'backbone.layer4', '--reduction', 'l2', '--save', 'overlay', 'panel', '--max-images', 2,
        '--out', 'drawn.pkl', cwd=trained_project,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    names = ['backbone.layer4_0', *(f'neck_{level}' for level in range(5)), 'panel']
    assert pictures(trained_project / 'heat maps') == [f'{number}/{name}.jpg' for number in (0, 1) for name in names]
    line = f'Feature maps: 14 pictures of 2 images in {trained_project / "heat maps"}'
    assert result.stdout.count('Feature maps:') == 1
    assert line in result.stdout

    published = next((trained_project / 'work').glob('epoch_1-*.pth'))
    own = run_process(MMDET_TOOLS / 'test.py', 'plain.py', published, '--out', 'own.pkl', cwd=trained_project)
    assert own.returncode == 0, own.stderr
    assert same_predictions(trained_project / 'drawn.pkl', trained_project / 'own.pkl')
    scores = [re.findall(r'coco/bbox_mAP: (\S+)', output) for output in (result.stdout, own.stdout)]
    assert scores[0] == scores[1] != []


def test_mmdets_own_tool_draws_the_same_pictures_with_two_lines_in_the_config(trained_project):
    lines = (
        "_base_ = './plain.py'\n"
        "custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)\n"
        "custom_hooks = [dict(type='FeatVizHook', out_dir='by mmdet')]\n"
    )
    (trained_project / 'two_lines.py').write_text(lines)
    # The import in the config is what makes this checkpoint load, because it has training state.
    by_mmdet = run_process(MMDET_TOOLS / 'test.py', 'two_lines.py', 'work/epoch_1.pth', cwd=trained_project)
    assert by_mmdet.returncode == 0, by_mmdet.stderr
    assert 'Feature maps: 27 pictures of 3 images in' in by_mmdet.stdout

    (trained_project / 'hp.py').write_text(
        "_base_ = './plain.py'\nmodel = dict(type='SingleStageDetectorHp')\nload_from = 'work/epoch_1.pth'\n"
    )
    # The checkpoint is that of load_from.
    by_itself = run_process('test.py', 'hp.py', '--featviz-dir', 'by itself', cwd=trained_project)
    assert by_itself.returncode == 0, by_itself.stderr
    assert by_itself.stdout.count('Feature maps: 27 pictures of 3 images in') == 1
    assert len(pictures(trained_project / 'by mmdet')) == 27
    assert pictures(trained_project / 'by mmdet') == pictures(trained_project / 'by itself')
    for name in pictures(trained_project / 'by mmdet'):
        assert (trained_project / 'by mmdet' / name).read_bytes() == (trained_project / 'by itself' / name).read_bytes()


def test_test_time_augmentation_from_the_command_line(trained_project):
    result = run_process(
        'test.py', 'plain.py', 'work/epoch_1.pth', '--tta', '--featviz-dir', 'tta', cwd=trained_project
    )
    assert result.returncode == 0, result.stderr
    assert len(pictures(trained_project / 'tta')) == 2 * 27
    assert {entry['augmentation'] for entry in manifest(trained_project / 'tta')} == {0, 1}
    flipped, straight = (read(trained_project / 'tta' / '0' / f'neck_0{s}.jpg').astype(float) for s in ('', '.pass_1'))
    # The response of random weights is not symmetric, but both overlays show the same image.
    assert np.abs(flipped - straight).mean() < 30
    assert np.abs(flipped[:, ::-1] - straight).mean() > np.abs(flipped - straight).mean()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['plain.py'], 'plain.py has no load_from: name a checkpoint after the config'),
        (['nothing.py', 'work/epoch_1.pth'], 'config nothing.py does not exist'),
        (['plain.py', 'nothing.pth'], 'checkpoint nothing.pth does not exist'),
        (['plain.py', 'work/epoch_1.pth', '--out', 'a.json'], '--out must end with .pkl or .pickle'),
        (['plain.py', 'work/epoch_1.pth', '--layers', 'nekk'], "unknown layer 'nekk': the closest are neck"),
        (
            ['plain.py', 'work/epoch_1.pth', '--cfg-options', 'test_dataloader.dataset.ann_file=data/demo/none.json'],
            'data/demo/none.json, which does not exist: generate it with featviz demo-data',
        ),
        (['empty.py', 'work/epoch_1.pth'], 'the test data set is empty: check its ann_file'),
    ],
)
def test_mistakes_end_with_a_message(trained_project, arguments, message):
    annotations = trained_project / 'none.json'
    annotations.write_text('{"images": [], "annotations": [], "categories": []}')
    (trained_project / 'empty.py').write_text(
        f"_base_ = './plain.py'\ntest_dataloader = dict(dataset=dict(ann_file={str(annotations)!r}))\n"
    )
    result = run_process('test.py', *arguments, cwd=trained_project)
    assert result.returncode != 0
    assert message in result.stderr.strip().splitlines()[-1]
