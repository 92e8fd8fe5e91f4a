"""featviz explain: one picture per detection."""

import json

import pytest
import torch
from commands import featviz, run_process
from conftest import manifest, noise, pictures, read, resnet_detector, write_dataset
from explained import SIZE, narrow_retinanet, small_detr, with_config, write_image
from mmdet.apis import init_detector
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_featviz import explain, look


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with a config, weights, two images and a file that is none."""
    folder = tmp_path_factory.mktemp('a project')
    model = narrow_retinanet()
    cfg = Config(dict(model=resnet_detector(), test_cfg=dict(), **model.cfg))
    cfg.test_dataloader.dataset.type = 'CocoDataset'
    cfg.dump(folder / 'config.py')
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=model.dataset_meta)), folder / 'weights.pth')
    (folder / 'images').mkdir()
    for seed in (0, 1):
        write_image(folder / 'images', seed)
    (folder / 'images' / 'broken.jpg').write_bytes(b'no image')
    return folder


def test_a_folder_of_images(project):
    arguments = 'images', 'config.py', 'weights.pth', '--out-dir', 'why', '--targets', 'top 2', '--image-format', 'png'
    done = run_process('explain.py', *arguments, cwd=project)
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    skipped = '1 image, explanations: image not readable (broken.jpg)'
    assert last == f'4 pictures of 2 images in {project / "why"}; skipped: {skipped}'
    files, model = [], init_detector(project / 'config.py', str(project / 'weights.pth'), device='cpu')
    for seed in (0, 1):
        image = str(project / 'images' / f'{seed}.png')
        for one in explain(model, image, targets='top 2'):
            files.append(f'{seed}/explain/{one.target.number:03d}_{one.class_name}_{one.score:.2f}.odam.png')
            drawn = read(project / 'why' / files[-1])[..., ::-1]
            assert drawn.shape == (*SIZE, 3)
            assert (drawn == one.overlay()).all()
    assert pictures(project / 'why') == sorted(files)
    entries = manifest(project / 'why')
    assert sorted(name for entry in entries for name in entry['files']) == sorted(files)
    assert {entry['key'] for entry in entries} == {'0', '1'}
    for entry in entries:
        assert (entry['method'], entry['of'], entry['target']) == ('odam', 'score', 'detection')
        assert sum(entry['shares'].values()) == pytest.approx(1)
    info = json.loads((project / 'why' / 'run.json').read_text())
    assert info['explanations']['targets'] == ['top 2']
    again = featviz('explain', *arguments, cwd=project)
    assert (again.returncode, 'holds the pictures of another run' in again.stderr) == (1, True)
    replaced = featviz(
        'explain', *arguments, '--overwrite', '--of', 'box', '--each-level', '--layers', 'backbone', cwd=project
    )
    assert replaced.returncode == 0, replaced.stderr
    names = pictures(project / 'why')
    assert not set(files) & set(names)
    assert any('.box.odam.png' in name for name in names)
    assert len({name.rpartition('.box.odam.')[2] for name in names}) > 2  # merged, and single levels of the backbone


def test_attention_of_a_detr(tmp_path):
    """The picture of the command, and that of explain() and look()."""
    model, image = with_config(MODELS.build(small_detr())), write_image(tmp_path)
    cfg = Config(dict(model=small_detr(), **model.cfg))
    cfg.test_dataloader.dataset.type = 'CocoDataset'
    cfg.dump(tmp_path / 'config.py')
    weights = str(tmp_path / 'weights.pth')
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=model.dataset_meta)), weights)
    options = '--targets', '0', '--layers', 'decoder', '--image-format', 'png'
    done = featviz(
        'explain', image, 'config.py', weights, '--out-dir', 'why', '--method', 'attention', *options, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (picture,) = pictures(tmp_path / 'why')
    assert picture.endswith('.attention.png')
    (entry,) = manifest(tmp_path / 'why')
    assert (entry['method'], entry['shares']) == ('attention', {'decoder.layers.0_0': 1.0})
    loaded = init_detector(tmp_path / 'config.py', weights, device='cpu')
    for one in (
        *explain(loaded, image, 'attention', 0, layers='decoder'),
        *look(loaded, image).explain('attention', targets=0),
    ):
        assert (read(tmp_path / 'why' / picture)[..., ::-1] == one.overlay()).all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--method', 'odan'], "unknown method 'odan': did you mean 'odam'"),
        (['--targets', 'best'], "target 'best' is not understood"),
        (['--targets', 'class cow'], "unknown class 'cow'"),
        (['--targets', 'score 0.9999'], 'no detection scores 0.9999 or more'),
        (['--layers', 'nekc'], "unknown layer 'nekc'"),
        (['--method', 'attention'], 'SingleStageDetector has no decoder with cross-attention to the image'),
        (['--method-options', 'masks=7'], "unknown option 'masks': "),
        (['--colormap', 'purplish'], "unknown color map 'purplish'"),
        (['--save', 'panel'], "save='panel' is not known: choose from overlay, maps"),
        (['--targets', 'gt', '--annotations', 'nowhere.json'], 'annotations nowhere.json do not exist'),
    ],
)
def test_mistakes(project, tmp_path, options, message):
    arguments = 'images/0.png', 'config.py', 'weights.pth', '--out-dir', tmp_path / 'out', *options
    done = featviz('explain', *arguments, cwd=project)
    assert done.returncode == 1
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert not list(tmp_path.rglob('*.jpg'))
    assert not (tmp_path / 'out' / 'run.json').exists()


def test_options_of_a_method(project, tmp_path):
    arguments = 'images/0.png', 'config.py', 'weights.pth', '--out-dir', tmp_path, '--method', 'drise', '--targets', '1'
    done = featviz('explain', *arguments, '--method-options', 'masks=3', 'batch_size=2', cwd=project)
    assert done.returncode == 0, done.stderr
    (picture,) = pictures(tmp_path)
    assert picture.startswith('0/explain/001_')
    assert picture.endswith('.drise.jpg')


def test_ground_truth_of_a_file_and_of_the_config(tmp_path):
    """Boxes in pixels of the image, which the pipeline scales by a half; one image is not in the annotations."""
    images = {f'{seed}.png': noise(128, 192, seed=seed) for seed in (0, 1)}
    write_dataset(tmp_path, images, {'0.png': [[10, 20, 60, 70], [90, 40, 50, 50]], '1.png': [[30, 10, 80, 90]]})
    write_image(tmp_path / 'images', 2)
    model = narrow_retinanet()
    cfg = Config(dict(model=resnet_detector(), test_cfg=dict(), **model.cfg))
    cfg.test_dataloader.dataset.update(
        type='CocoDataset',
        ann_file=str(tmp_path / 'annotations.json'),
        data_prefix=dict(img=str(tmp_path / 'images')),
        metainfo=dict(classes=('cat', 'dog')),
    )
    cfg.dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=model.dataset_meta)), tmp_path / 'w.pth')
    found = {}
    for name, options in dict(file=['--annotations', 'annotations.json'], config=[]).items():
        arguments = 'images', 'config.py', 'w.pth', '--out-dir', name, '--targets', 'gt', '--save', 'maps', *options
        done = featviz('explain', *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert 'skipped: 1 image, nothing to explain (2.png)' in done.stdout
        found[name] = [
            (entry['key'], entry['number'], entry['wanted'], entry['files']) for entry in manifest(tmp_path / name)
        ]
    assert found['file'] == found['config']
    assert [row[:3] for row in found['file']] == [
        ('0', 0, [10, 20, 70, 90]),
        ('0', 1, [90, 40, 140, 90]),
        ('1', 0, [30, 10, 110, 100]),
    ]
    assert all(files == [f'{key}/explain/{files[0].split("/")[-1]}'] for key, _, _, files in found['file'])


def test_options_of_a_method_without_a_value(project, tmp_path):
    arguments = 'images/0.png', 'config.py', 'weights.pth', '--out-dir', tmp_path, '--method', 'drise'
    done = featviz('explain', *arguments, '--method-options', 'masks', cwd=project)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("argument --method-options: give KEY=VALUE, not 'masks'")
