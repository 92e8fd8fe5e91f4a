"""featviz image: files, folders, globs and URLs, options, and errors."""

import json
import signal
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError

import cv2
import mmdet.apis
import pytest
import torch
from commands import run, run_process
from conftest import ROOT, manifest, pictures, python, read
from mmengine.config import Config

SIZE = (64, 96)


def test_a_folder_of_images(pools_project):
    arguments = 'images', 'pools.py', 'pools.pth', '--out-dir', 'out', '--save', 'overlay'
    done = run_process('image_demo.py', *arguments, cwd=pools_project)
    assert done.returncode == 0, done.stderr
    expected = [f'{key}/backbone_{level}.jpg' for key in ('a', 'gray', '子/猫 1') for level in range(2)]
    assert pictures(pools_project / 'out') == sorted(expected)
    last, unreadable = done.stdout.strip().splitlines()[-2:]
    assert last == f'6 pictures of 3 images in {pools_project / "out"}'
    assert unreadable == 'skipped 1 image that could not be read (images/broken.jpg)'
    assert read(pools_project / 'out' / '子' / '猫 1' / 'backbone_0.jpg').shape == (*SIZE, 3)


@pytest.mark.parametrize(('source', 'keys'), [('images/a.jpg', ['a']), ('images/**/*.png', ['gray', '子/猫 1'])])
def test_an_image_and_a_glob(pools_project, tmp_path, source, keys):
    done = run('image_demo.py', source, 'pools.py', 'pools.pth', '--out-dir', tmp_path / 'out', cwd=pools_project)
    assert done.returncode == 0, done.stderr
    assert sorted({entry['key'] for entry in manifest(tmp_path / 'out')}) == keys


def test_an_image_from_a_server(pools_project, tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=str(pools_project / 'images'))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/a.jpg'
        done = run('image_demo.py', url, 'pools.py', 'pools.pth', '--out-dir', tmp_path / 'out', cwd=pools_project)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert pictures(tmp_path / 'out') == ['a/backbone_0.jpg', 'a/backbone_1.jpg']


def test_options_of_the_hook_in_a_config_are_used_except_folder_and_stages(pools_project, tmp_path):
    hook = dict(type='FeatVizHook', save=('heatmap',), layers='backbone', out_dir='elsewhere', stages=('val',))
    cfg = Config.fromfile(pools_project / 'pools.py')
    cfg.default_hooks = dict(mine=hook)
    cfg.dump(pools_project / 'hooked.py')
    out = tmp_path / 'out'
    done = run('image_demo.py', 'images/a.jpg', 'hooked.py', 'pools.pth', '--out-dir', out, cwd=pools_project)
    assert done.returncode == 0, done.stderr
    assert pictures(out) == ['a/backbone_0.heatmap.png', 'a/backbone_1.heatmap.png']


def test_options_are_passed_as_arguments(pools_project, tmp_path):
    options = [
        '--layers',
        'backbone',
        '--save',
        'channels',
        'heatmap',
        'maps',
        '--channels',
        '1',
        '0',
        '--normalize',
        '-5',
        '250',
        '--colormap',
        'gray',
    ]
    done = run(
        'image_demo.py',
        'images/a.jpg',
        'pools.py',
        'pools.pth',
        '--out-dir',
        tmp_path / 'out',
        *options,
        cwd=pools_project,
    )
    assert done.returncode == 0, done.stderr
    names = [f'a/backbone_{level}.{kind}' for level in range(2) for kind in ('channels.jpg', 'heatmap.png')]
    assert pictures(tmp_path / 'out') == [*names, 'a/maps.npz']
    brightness = cv2.imread(str(pools_project / 'images' / 'a.jpg')).mean(2)
    heat = read(tmp_path / 'out' / 'a' / 'backbone_0.heatmap.png')[..., 0]
    assert abs(heat.mean() - (brightness.mean() + 5)) < 1.5


def test_show_layers_prints_a_tree_and_draws_nothing(pools_project, tmp_path):
    done = run(
        'image_demo.py', 'images', 'pools.py', 'pools.pth', '--out-dir', tmp_path, '--show-layers', cwd=pools_project
    )
    assert done.returncode == 0, done.stderr
    assert '* backbone  BrightnessPools  2 x 8 x 12 (8), 2 x 4 x 6 (16)' in done.stdout
    assert pictures(tmp_path) == []


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.jpg', 'pools.py'], 'no image found: none.jpg is neither an image nor a folder with images'),
        (['images', 'nothing.py'], 'config nothing.py does not exist'),
        (
            ['images', 'pools.py'],
            'pools.py has no load_from: name a checkpoint after the config, or set --random-weights',
        ),
        (['images', 'no_such_model_8xb2'], "no_such_model_8xb2 is neither a config file nor a model of mmdet's zoo"),
        (['images', 'pools.py', 'nothing.pth'], 'checkpoint nothing.pth does not exist'),
        (['images', 'pools.py', 'pools.py'], 'pools.py cannot be read as a checkpoint ('),
        (['images', 'pools.py', 'pools.pth', '--layers', 'bakbone'], 'the closest are backbone'),
        (['images', 'pools.py', 'pools.pth', '--channels', 'best'], "channels='best' is not known"),
        (
            ['images/broken.jpg', 'pools.py', 'pools.pth', '--out-dir', 'none'],
            'skipped 1 image that could not be read (images/br',
        ),
    ],
)
def test_mistakes_end_with_a_message(pools_project, arguments, message):
    done = run('image_demo.py', *arguments, cwd=pools_project)
    assert done.returncode != 0
    assert message in done.stderr.strip().splitlines()[-1]


def test_a_checkpoint_without_names(pools_project, tmp_path):
    torch.save([torch.ones(1)], tmp_path / 'list.pth')
    done = run('image_demo.py', 'images', 'pools.py', tmp_path / 'list.pth', cwd=pools_project)
    assert done.returncode == 1
    assert 'list.pth is no checkpoint: it has a list, not weights by name' in done.stderr


def test_random_weights_are_named_in_the_summary_in_the_run_and_on_the_page(pools_project, tmp_path):
    torch.save(
        dict(state_dict={'other.weight': torch.ones(1), 'backbone.scale': torch.ones(7)}), tmp_path / 'other.pth'
    )
    for name, options, note in (
        ('none', ['--random-weights'], 'random weights'),
        ('other', [tmp_path / 'other.pth'], f'random weights: no weight of {tmp_path / "other.pth"} fits the detector'),
        ('fits', ['pools.pth', '--random-weights'], None),
    ):
        arguments = ['images/a.jpg', 'pools.py', *options, '--out-dir', tmp_path / name, '--report']
        done = run('image_demo.py', *arguments, cwd=pools_project)
        assert done.returncode == 0, done.stderr
        summary = f'2 pictures and 1 file of maps of 1 image in {tmp_path / name}'
        assert done.stdout.strip().splitlines()[-1] == (f'{note}: {summary}' if note else summary)
        assert json.loads((tmp_path / name / 'run.json').read_text()).get('weights') == note
        page = (tmp_path / name / 'report' / 'index.html').read_text()
        assert note in page if note else 'random weights' not in page


def test_a_model_of_the_zoo_that_cannot_be_fetched(pools_project, monkeypatch):
    def fail(*args, **kwargs):
        raise URLError('no route to host')

    monkeypatch.setattr(mmdet.apis, 'DetInferencer', fail)
    done = run('image_demo.py', 'images', 'rtmdet_tiny_8xb32-300e_coco', cwd=pools_project)
    assert done.returncode == 1
    assert 'the weights of rtmdet_tiny_8xb32-300e_coco cannot be fetched (<urlopen error no route' in done.stderr


def test_a_stopped_command_says_what_it_drew(pools_project, tmp_path):
    """SIGTERM arrives when the second image is predicted."""
    code = (
        'import os, signal, sys\n'
        'from mmdet_featviz.apis import inference\n'
        'predict = inference.inference_detector\n'
        'def stop(model, image, *args):\n'
        '    if image.endswith(".png"):\n'
        '        os.kill(os.getpid(), signal.SIGTERM)\n'
        '    return predict(model, image, *args)\n'
        'inference.inference_detector = stop\n'
        'from mmdet_featviz.cli import main\n'
        f'main("image", ["images", "pools.py", "pools.pth", "--out-dir", {str(tmp_path / "out")!r}])\n'
    )
    done = python(f'import sys; sys.path.insert(0, {str(ROOT / "tests")!r})\n{code}', ROOT, cwd=pools_project)
    assert done.returncode == 128 + signal.SIGTERM
    summary = f'Feature maps drawn before the run ended early: 2 pictures of 1 image in {tmp_path / "out"}'
    assert summary in done.stdout + done.stderr


def test_pictures_of_the_run_are_not_drawn_as_images(pools_project, tmp_path):
    (tmp_path / 'a.jpg').write_bytes((pools_project / 'images' / 'a.jpg').read_bytes())
    arguments = tmp_path, 'pools.py', 'pools.pth', '--out-dir', tmp_path / 'out'
    assert run('image_demo.py', *arguments, cwd=pools_project).returncode == 0
    before = pictures(tmp_path)
    for option in ('--resume', '--overwrite'):
        done = run('image_demo.py', *arguments, option, cwd=pools_project)
        assert done.returncode == 1
        assert 'is a picture of the run in' in done.stderr.strip().splitlines()[-1]
        assert pictures(tmp_path) == before
