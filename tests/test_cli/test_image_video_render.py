"""The tools for images, videos and saved runs, as a user calls them."""

import inspect
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
import torch
from commands import run, run_process
from conftest import keep_ratio_pipeline, manifest, noise, pictures, pool_detector, read
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_featviz import FeatureVisualizer, Style

SIZE = (64, 96)
# The pools are a module of these tests, which a tool in a process of its own has to import.
IMPORTS = dict(imports=['conftest'], allow_failed_imports=False)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with a config of the pools, a checkpoint, images of all kinds, and a video."""
    folder = tmp_path_factory.mktemp('a place')
    model = pool_detector((8, 16))
    pipeline = [step for step in keep_ratio_pipeline(SIZE[::-1]) if 'Annotations' not in step['type']]
    loader = dict(dataset=dict(type='CocoDataset', pipeline=pipeline))
    cfg = Config(dict(custom_imports=IMPORTS, model=model, test_dataloader=loader, test_cfg=dict()))
    cfg.dump(folder / 'pools.py')
    torch.save(dict(state_dict=MODELS.build(model).state_dict(), meta={}), folder / 'pools.pth')
    images = folder / 'images'
    (images / '子').mkdir(parents=True)
    for name, picture in (('a.jpg', noise(*SIZE)), ('子/猫 1.png', noise(*SIZE, seed=1)), ('grey.png', None)):
        picture = noise(*SIZE, seed=2)[..., 0] if picture is None else picture
        (images / name).write_bytes(cv2.imencode(name[-4:], picture)[1].tobytes())
    (images / 'broken.jpg').write_bytes(b'no image')
    (images / 'notes.txt').write_text('no image either')
    return folder


def test_a_folder_of_images(place):
    arguments = 'images', 'pools.py', 'pools.pth', '--out-dir', 'out', '--save', 'overlay'
    done = run_process('image_demo.py', *arguments, cwd=place)
    assert done.returncode == 0, done.stderr
    expected = [f'{key}/backbone_{level}.jpg' for key in ('a', 'grey', '子/猫 1') for level in range(2)]
    assert pictures(place / 'out') == sorted(expected)
    last, unreadable = done.stdout.strip().splitlines()[-2:]
    assert last == f'6 pictures of 3 images in {place / "out"}'
    assert unreadable == 'could not be read and were left out: 1 (images/broken.jpg)'
    assert read(place / 'out' / '子' / '猫 1' / 'backbone_0.jpg').shape == (*SIZE, 3)


@pytest.mark.parametrize(('source', 'keys'), [('images/a.jpg', ['a']), ('images/**/*.png', ['grey', '子/猫 1'])])
def test_a_image_and_a_glob(place, tmp_path, source, keys):
    done = run('image_demo.py', source, 'pools.py', 'pools.pth', '--out-dir', tmp_path / 'out', cwd=place)
    assert done.returncode == 0, done.stderr
    assert sorted({entry['key'] for entry in manifest(tmp_path / 'out')}) == keys


def test_a_image_from_a_server(place, tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=str(place / 'images'))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/a.jpg'
        done = run('image_demo.py', url, 'pools.py', 'pools.pth', '--out-dir', tmp_path / 'out', cwd=place)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert pictures(tmp_path / 'out') == ['a/backbone_0.jpg', 'a/backbone_1.jpg']


def test_what_a_config_says_of_its_hook_is_taken_over_but_for_the_folder(place, tmp_path):
    hook = dict(type='FeatVizHook', save=('heatmap',), layers='backbone', out_dir='elsewhere', stages=('val',))
    cfg = Config.fromfile(place / 'pools.py')
    cfg.default_hooks = dict(mine=hook)
    cfg.dump(place / 'hooked.py')
    out = tmp_path / 'out'
    done = run('image_demo.py', 'images/a.jpg', 'hooked.py', 'pools.pth', '--out-dir', out, cwd=place)
    assert done.returncode == 0, done.stderr
    assert pictures(out) == ['a/backbone_0.heatmap.png', 'a/backbone_1.heatmap.png']


def test_options_have_the_arguments_names(place, tmp_path):
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
        'image_demo.py', 'images/a.jpg', 'pools.py', 'pools.pth', '--out-dir', tmp_path / 'out', *options, cwd=place
    )
    assert done.returncode == 0, done.stderr
    names = [f'a/backbone_{level}.{kind}' for level in range(2) for kind in ('channels.jpg', 'heatmap.png')]
    assert pictures(tmp_path / 'out') == [*names, 'a/maps.npz']
    brightness = cv2.imread(str(place / 'images' / 'a.jpg')).mean(2)
    heat = read(tmp_path / 'out' / 'a' / 'backbone_0.heatmap.png')[..., 0]
    assert abs(heat.mean() - (brightness.mean() + 5)) < 1.5

    later = run('render.py', tmp_path / 'out', '--out-dir', tmp_path / 'later', '--levels', '*_1', cwd=place)
    assert later.returncode == 0, later.stderr
    assert later.stdout.strip().splitlines()[-1] == f'2 pictures of 1 image in {tmp_path / "later"}'
    for name in names[2:]:
        assert (tmp_path / 'later' / name).read_bytes() == (tmp_path / 'out' / name).read_bytes()


def test_a_run_whose_images_are_gone_cannot_be_drawn_again(place, tmp_path):
    image = tmp_path / 'gone.jpg'
    image.write_bytes((place / 'images' / 'a.jpg').read_bytes())
    options = ['--out-dir', tmp_path / 'out', '--save', 'maps']
    assert run('image_demo.py', image, 'pools.py', 'pools.pth', *options, cwd=place).returncode == 0
    image.unlink()
    later = run('render.py', tmp_path / 'out', '--out-dir', tmp_path / 'later', cwd=place)
    assert later.returncode == 1
    assert later.stderr.strip().splitlines()[-1].endswith('skipped: 1 image, image not readable (gone.jpg)')


def test_every_argument_is_an_option_with_help(place):
    words = run('image_demo.py', '--help', cwd=place).stdout
    for kind in (FeatureVisualizer, Style):
        for name in set(inspect.signature(kind).parameters) - {'style', 'stages', 'average_passes', 'backend_args'}:
            assert f'--{name.replace("_", "-")}' in words, name
    assert 'Weight of the heat in the overlay, 0 to 1. (default: 0.4)' in ' '.join(words.split())


def test_show_layers_prints_the_tree_and_draws_nothing(place, tmp_path):
    done = run('image_demo.py', 'images', 'pools.py', 'pools.pth', '--out-dir', tmp_path, '--show-layers', cwd=place)
    assert done.returncode == 0, done.stderr
    assert '* backbone  BrightnessPools  2 x 8 x 12 (8), 2 x 4 x 6 (16)' in done.stdout
    assert pictures(tmp_path) == []


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('image_demo.py', ['none.jpg', 'pools.py'], 'no image found: none.jpg is no image'),
        ('image_demo.py', ['images', 'nothing.py'], 'there is no config nothing.py'),
        ('image_demo.py', ['images', 'pools.py', 'nothing.pth'], 'there is no checkpoint nothing.pth'),
        ('image_demo.py', ['images', 'pools.py', 'pools.pth', '--layers', 'bakbone'], 'the closest are backbone'),
        ('image_demo.py', ['images', 'pools.py', 'pools.pth', '--channels', 'best'], "channels='best' is not known"),
        (
            'image_demo.py',
            ['images/broken.jpg', 'pools.py', 'pools.pth', '--out-dir', 'none'],
            'left out: 1 (images/br',
        ),
        ('render.py', ['images', '--out-dir', 'x'], 'images is no run: it has no manifest.jsonl'),
        ('video_demo.py', ['none.mp4', 'pools.py', '--out', 'x.mp4'], 'there is no video none.mp4'),
        ('video_demo.py', ['images/notes.txt', 'pools.py', '--out', 'x.mp4'], 'notes.txt cannot be read as a video'),
        ('video_demo.py', ['none.mp4', 'pools.py', '--out', 'x.gif'], '--out must end with .mp4, .avi'),
    ],
)
def test_mistakes_are_told_in_one_sentence(place, tool, arguments, message):
    done = run(tool, *arguments, cwd=place)
    assert done.returncode != 0
    assert message in done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope='module')
def video(place):
    """A bright disc that moves 4 pixels to the right in each of 12 frames."""
    writer = cv2.VideoWriter(str(place / 'in.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 7.5, SIZE[::-1])
    for number in range(12):
        frame = np.full((*SIZE, 3), 30, np.uint8)
        cv2.circle(frame, (20 + 4 * number, 32), 8, (240, 240, 240), -1)
        writer.write(frame)
    writer.release()
    return 'in.avi'


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_a_video_has_the_heat_on_the_object_at_the_same_rate(place, video, tmp_path, direction):
    out = tmp_path / 'out' / 'heat.avi'
    options = ['--out', out, '--levels', 'backbone_0', '--direction', direction, '--tile-size', 96]
    done = run('video_demo.py', video, 'pools.py', 'pools.pth', *options, '--alpha', 1, '--colormap', 'gray', cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == f'12 frames at 7.5 a second in {out}'
    assert [path.name for path in out.parent.iterdir()] == ['heat.avi']
    reader = cv2.VideoCapture(str(out))
    assert reader.get(cv2.CAP_PROP_FPS) == pytest.approx(7.5)
    for number in range(12):
        frame = reader.read()[1].astype(float).mean(2)
        right, below = (96, 24) if direction == 'horizontal' else (0, 88 + 24)
        for x, y in ((0, 24), (right, below)):  # the frame, and the heat
            tile = np.clip(frame[y : y + 64, x : x + 96] - 60, 0, None)
            rows, columns = np.mgrid[:64, :96] + 0.5
            centre = (tile * columns).sum() / tile.sum(), (tile * rows).sum() / tile.sum()
            assert np.hypot(centre[0] - 20.5 - 4 * number, centre[1] - 32.5) < 2
    assert not reader.read()[0]


def test_a_video_that_ends_early(place, video, tmp_path):
    whole = (place / video).read_bytes()
    (place / 'torn.avi').write_bytes(whole[: len(whole) // 2])
    options = ['--out', tmp_path / 'x.avi', '--tile-size', 96]
    done = run('video_demo.py', 'torn.avi', 'pools.py', 'pools.pth', *options, cwd=place)
    if done.returncode:  # some builds of OpenCV open no torn video at all
        assert 'cannot be read' in done.stderr.strip().splitlines()[-1]
        return
    last = done.stdout.strip().splitlines()[-1]
    count = int(last.split()[0])
    assert 0 < count < 12
    reader = cv2.VideoCapture(str(tmp_path / 'x.avi'))
    assert int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) == count


def test_a_level_that_no_video_has(place, video, tmp_path):
    out = tmp_path / 'x.avi'
    done = run('video_demo.py', video, 'pools.py', 'pools.pth', '--out', out, '--levels', 'neck_*', cwd=place)
    assert 'no level fits --levels neck_*: there are backbone_0, backbone_1' in done.stderr
    assert not list(tmp_path.iterdir())
