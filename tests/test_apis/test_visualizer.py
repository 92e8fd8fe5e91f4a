"""FeatureVisualizer: pictures, manifest, selection and errors, with feature maps of known values."""

import json
import threading
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import manifest, noise, pictures, pool_detector, read, write_dataset
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.capture.activation_map import ActivationMap, Pass
from mmdet_featviz.cli import main
from mmdet_featviz.visualization.views import Views

SIZE = (64, 96)


def make_pass(values, stride=8.0, image_path=None, size=SIZE, **meta):
    """A pass over one unpadded, unscaled image, whose only layer `neck` has these levels (rows, columns)."""
    meta = dict(ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0), img_path=image_path, **meta)
    maps = [
        ActivationMap('neck', level, 16, (stride, stride), torch.as_tensor(value, dtype=torch.float32)[None])
        for level, value in enumerate(values)
    ]
    return Pass(torch.zeros(1, 3, *size), [DetDataSample(metainfo=meta)], maps)


def opened(tmp_path, **options):
    """A visualizer that was opened on a small detector."""
    visualizer = FeatureVisualizer(out_dir=str(tmp_path / 'out'), image_format='png', **options)
    visualizer.open(MODELS.build(pool_detector()), image_root=str(tmp_path))
    return visualizer


def image_file(tmp_path, image, name='a.png'):
    cv2.imwrite(str(tmp_path / name), image)
    return str(tmp_path / name)


@pytest.mark.parametrize('size', [(64, 96), (128, 192)])
def test_the_published_recipe_is_reproduced(tmp_path, size):
    """Sum the channels, clip at zero, divide by the maximum, resize, JET, 0.4 * heat + image, saturated."""
    image = noise(*size)
    summed = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    heat = cv2.resize(np.maximum(summed, 0) / summed.max(), size[::-1], interpolation=cv2.INTER_LINEAR)
    colored = cv2.applyColorMap(np.uint8(255 * heat), cv2.COLORMAP_JET)
    expected = np.clip(colored * 0.4 + image, 0, 255).astype(np.uint8)

    visualizer = opened(tmp_path, reduction='sum', normalize='max', blend='add', alpha=0.4, colormap='jet')
    visualizer.draw([make_pass([summed], size[0] / 8, image_file(tmp_path, image), size)])
    drawn = read(tmp_path / 'out' / 'a' / 'neck_0.png')
    difference = np.abs(drawn.astype(int) - expected)
    assert difference.max() <= 1


def gray_heatmaps(tmp_path, values, **options):
    visualizer = opened(tmp_path, save=('heatmap',), colormap='gray', **options)
    visualizer.draw([make_pass(values)])
    folder = tmp_path / 'out' / 'array_000000'
    return [read(folder / f'neck_{level}.heatmap.png')[..., 0] for level in range(len(values))]


VALUES = [np.linspace(-1, 3, 96).reshape(8, 12), np.linspace(2, 5, 96).reshape(8, 12)]


@pytest.mark.parametrize(
    ('normalize', 'expected'),
    [
        ('image', [(0, 255), (0, 255)]),
        ('max', [(0, 255), (255 * 2 / 5, 255)]),
        ('layer', [(0, 255 * 4 / 6), (255 * 3 / 6, 255)]),
        ((-1, 9), [(0, 255 * 0.4), (255 * 0.3, 255 * 0.6)]),
    ],
)
def test_ranges(tmp_path, normalize, expected):
    for heat, (low, high) in zip(gray_heatmaps(tmp_path, VALUES, normalize=normalize), expected):
        assert heat.min() == int(low + 1e-3)
        assert heat.max() == int(high + 1e-3)


@pytest.mark.parametrize(
    ('options', 'low', 'high'),
    [
        (dict(normalize='percentile'), 0.95, 94.05),  # of 0, 1, 2 to 95
        (dict(normalize='percentile', percentiles=(20, 40)), 19, 38),
        (dict(border=1), 13, 82),
        (dict(border=2, normalize='max'), 0, 69),
        (dict(border=3, normalize='layer'), 39, 56),
        (dict(border=4), 0, 95),  # there is nothing else
    ],
)
def test_percentiles_and_borders(tmp_path, options, low, high):
    """Eight rows of twelve cells: at the middle of cells, heat is their value."""
    cells = np.arange(96).reshape(8, 12)
    heat = gray_heatmaps(tmp_path, [cells], **options)[0].reshape(8, 8, 12, 8)[:, 3:5, :, 3:5].mean((1, 3))
    expected = np.clip((cells - low) / (high - low), 0, 1) * 255
    inner = (slice(1, -1), slice(1, -1))  # at the sides, heat is not interpolated
    assert np.abs(heat - expected)[inner].max() <= 2 + 255 / (high - low) / 2  # of a cell: where heat is cut
    assert manifest(tmp_path / 'out')[0]['max'] == 95


def test_the_range_ignores_padding(tmp_path):
    """The image covers 48 x 64 of 64 x 96 input pixels; the padding is a hundred times hotter."""
    values = np.full((8, 12), 100.0)
    values[:6, :8] = np.linspace(0, 1, 48).reshape(6, 8)
    pass_ = make_pass([values])
    pass_.samples[0].set_metainfo(dict(ori_shape=(48, 64), img_shape=SIZE))
    visualizer = opened(tmp_path, save=('heatmap',), colormap='gray')
    visualizer.draw([pass_])
    entry = manifest(tmp_path / 'out')[0]
    assert (entry['min'], entry['max']) == (0, 1)
    heat = read(tmp_path / 'out' / 'array_000000' / 'neck_0.heatmap.png')[..., 0]
    assert heat.shape == (48, 64)
    assert (heat[0, 0], heat[-1, -1]) == (0, 255)
    assert abs(int(heat[20, 28]) - 255 * (2 * 8 + 3 + 0.5 + 0.0625) / 47) <= 8  # cell (2, 3), near its center


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('normalize', ['max', 'layer', (-5.0, 5.0)])
def test_values_that_are_not_finite_are_zero_heat_and_counted(tmp_path, bad, normalize):
    values = np.full((8, 12), 2.0)
    values[0, 0], values[0, 11], values[4, 5] = 4.0, 1.0, bad
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        some, everything, constant = gray_heatmaps(
            tmp_path, [values, np.full((8, 12), bad), np.zeros((8, 12))], normalize=normalize
        )
    assert some[4, 4] > some[36, 28]
    assert some[36, 44] < some[36, 28] / 8  # half a pixel from the center of the bad cell; two cells away
    assert not everything.any()
    assert constant.min() == constant.max()
    assert [entry['not_finite'] for entry in manifest(tmp_path / 'out')] == [1, 96, 0]
    assert [(entry['min'], entry['max']) for entry in manifest(tmp_path / 'out')][0] == (1.0, 4.0)


def test_manifest_and_files(tmp_path):
    path = image_file(tmp_path, noise(*SIZE))
    visualizer = opened(tmp_path, save=('overlay', 'heatmap', 'panel'))
    visualizer.draw([make_pass(VALUES, image_path=path)])
    files = ['a/neck_0.heatmap.png', 'a/neck_0.png', 'a/neck_1.heatmap.png', 'a/neck_1.png', 'a/panel.png']
    assert pictures(tmp_path / 'out') == files
    entries = manifest(tmp_path / 'out')
    assert entries[1] == dict(
        image=path,
        key='a',
        folder='',
        position=0,
        augmentation=0,
        layer='neck',
        level=1,
        channels=16,
        stride=8.0,
        offset=None,
        shape=[8, 12],
        min=2.0,
        max=5.0,
        not_finite=0,
        files=['a/neck_1.png', 'a/neck_1.heatmap.png', 'a/panel.png'],
    )
    assert sorted({file for entry in entries for file in entry['files']}) == files
    assert visualizer.summary() == f'5 pictures of 1 image in {tmp_path / "out"}'


def test_passes_over_one_image_and_images_of_one_name_get_files_of_their_own(tmp_path):
    (tmp_path / 'sub').mkdir()
    first, second = image_file(tmp_path, noise(*SIZE)), image_file(tmp_path, noise(*SIZE, seed=1), 'sub/a.png')
    visualizer = opened(tmp_path)
    visualizer.draw([make_pass(VALUES[:1], image_path=first), make_pass(VALUES[1:], image_path=first)])
    visualizer.draw([make_pass(VALUES[:1], image_path=second)])
    visualizer.draw([make_pass(VALUES[:1], image_path=first)])
    names = ['a/neck_0.pass_1.png', 'a/neck_0.pass_2.png', 'a/neck_0.png', 'sub/a/neck_0.png']
    assert pictures(tmp_path / 'out') == names
    assert [entry['augmentation'] for entry in manifest(tmp_path / 'out')] == [0, 1, 0, 2]


def test_an_image_without_a_file_is_rebuilt_from_the_input(tmp_path):
    image = noise(*SIZE)
    pass_ = make_pass([np.zeros((8, 12))])
    pass_.inputs = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None]
    opened(tmp_path, blend='add', colormap='gray').draw([pass_])  # zero heat of `gray` is black
    np.testing.assert_array_equal(read(tmp_path / 'out' / 'array_000000' / 'neck_0.png'), image)


def instances(**fields):
    return InstanceData(**{name: torch.tensor(value) for name, value in fields.items()})


def test_boxes_of_predictions_and_ground_truth(tmp_path):
    pass_ = make_pass([np.zeros((8, 12))])
    pass_.samples[0].gt_instances = instances(bboxes=[[10.0, 20.0, 40.0, 50.0]], labels=[1])
    result = DetDataSample()
    result.pred_instances = instances(
        bboxes=[[50.0, 20.0, 90.0, 50.0], [0.0, 0.0, 9.0, 9.0]], labels=[0, 0], scores=[0.9, 0.29]
    )
    meta = dict(classes=('cat', 'dog'), palette=[(220, 20, 60), (0, 0, 0)])
    for boxes, truth_seen, found_seen in [('gt', True, False), ('pred', False, True), ('both', True, True)]:
        visualizer = FeatureVisualizer(boxes=boxes, out_dir=str(tmp_path / boxes), image_format='png', alpha=0)
        visualizer.open(MODELS.build(pool_detector()), dataset_meta=meta)
        visualizer.draw([pass_], [result])
        drawn = read(tmp_path / boxes / 'array_000000' / 'neck_0.png')
        assert (drawn[45, 10].tolist() == [255, 255, 255]) == truth_seen
        assert (drawn[45, 50].tolist() == [125, 93, 255]) == found_seen  # the red of the palette, lighter
        assert not drawn[9, 4].any()  # its score is below the threshold


def test_interval_and_maximum(tmp_path):
    visualizer = opened(tmp_path, interval=3, max_images=2)
    for number in range(10):
        path = image_file(tmp_path, noise(*SIZE), f'{number}.png')
        visualizer.draw([make_pass(VALUES[:1], image_path=path)])
        assert visualizer.is_done() == (number >= 3)
    assert pictures(tmp_path / 'out') == ['0/neck_0.png', '3/neck_0.png']


def test_images_by_name(tmp_path):
    visualizer = opened(tmp_path, image_names=('4.png', '2'))
    for number in range(5):
        path = image_file(tmp_path, noise(*SIZE), f'{number}.png')
        visualizer.draw([make_pass(VALUES[:1], image_path=path)])
    assert pictures(tmp_path / 'out') == ['2/neck_0.png', '4/neck_0.png']


def test_unreadable_images_are_counted_by_reason(tmp_path):
    good = image_file(tmp_path, noise(*SIZE), 'good.png')
    (tmp_path / 'corrupt.png').write_bytes(b'no image')
    visualizer = opened(tmp_path)
    for path in (str(tmp_path / 'missing.png'), good, str(tmp_path / 'corrupt.png')):
        visualizer.draw([make_pass(VALUES[:1], image_path=path)])
    assert pictures(tmp_path / 'out') == ['good/neck_0.png']
    assert visualizer.summary() == (
        f'1 picture of 1 image in {tmp_path / "out"}; skipped: 2 images, image not readable (missing.png, corrupt.png)'
    )


def test_a_picture_that_cannot_be_written_is_counted(tmp_path):
    path = image_file(tmp_path, noise(*SIZE))
    visualizer = opened(tmp_path)
    (tmp_path / 'out' / 'a').write_text('a file where the folder of a.png should be')
    visualizer.draw([make_pass(VALUES[:1], image_path=path)])
    assert visualizer.summary().endswith(
        '0 images in ' + f'{tmp_path / "out"}; skipped: 1 image, picture not written, File exists (a.png)'
    )


def test_an_unexpected_error_skips_only_its_image(tmp_path, monkeypatch):
    visualizer = opened(tmp_path)
    monkeypatch.setattr(Views, 'paint', lambda *args: 1 / 0)
    visualizer.draw([make_pass(VALUES[:1], image_path=image_file(tmp_path, noise(*SIZE), 'bad.png'))])
    monkeypatch.undo()
    visualizer.draw([make_pass(VALUES[:1], image_path=image_file(tmp_path, noise(*SIZE), 'good.png'))])
    assert pictures(tmp_path / 'out') == ['good/neck_0.png']
    assert visualizer.summary().endswith('; skipped: 1 image, ZeroDivisionError while drawing (bad.png)')


def test_pictures_drawn_by_workers_are_the_same_and_complete_after_close(tmp_path):
    paths = [image_file(tmp_path, noise(*SIZE, seed=n), f'{n}.png') for n in range(9)]
    (tmp_path / '3.png').unlink()
    threads = threading.active_count()
    for workers in (0, 3):
        visualizer = FeatureVisualizer(out_dir=str(tmp_path / str(workers)), workers=workers, max_images=8)
        visualizer.open(MODELS.build(pool_detector()), image_root=str(tmp_path), in_run=True)
        for path in paths:
            visualizer.draw([make_pass(VALUES, image_path=path)] * 2)
        visualizer.close()
        assert '28 pictures of 7 images' in visualizer.summary()
        assert visualizer.summary().endswith('skipped: 2 images, image not readable (3.png, 3.png)')
        assert len(pictures(tmp_path / str(workers))) == 28
    assert threading.active_count() == threads
    lines = [sorted(map(str, manifest(tmp_path / str(workers)))) for workers in (0, 3)]
    assert lines[0] == lines[1]
    for name in pictures(tmp_path / '0'):
        assert (tmp_path / '0' / name).read_bytes() == (tmp_path / '3' / name).read_bytes()


def test_an_image_is_decoded_once_for_all_levels_and_passes(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        'mmdet_featviz.apis.snapshot_builder.read_image', lambda path, *args: decoded.append(path) or noise(*SIZE)
    )
    visualizer = FeatureVisualizer(out_dir=str(tmp_path / 'out'), workers=3)
    visualizer.open(MODELS.build(pool_detector()), in_run=True)
    visualizer.draw([make_pass(VALUES, image_path='a.png')] * 3)
    visualizer.close()
    assert decoded == ['a.png']


def test_strict_raises_instead_of_counting(tmp_path):
    visualizer = opened(tmp_path, strict=True)
    with pytest.raises(Exception, match=r'missing.png: the image cannot be read'):
        visualizer.draw([make_pass(VALUES[:1], image_path=str(tmp_path / 'missing.png'))])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(reduction='maximum'), "unknown reduction 'maximum'"),
        (dict(normalize='picture'), "normalize='picture' is not known: choose from image, percentile, max"),
        (dict(normalize=(3, 1)), r'normalize=\(3, 1\): two numbers, the smaller one first'),
        (dict(percentiles=(1, 101)), r'percentiles=\(1, 101\): two numbers from 0 to 100'),
        (dict(percentiles=99), 'percentiles must be a pair of numbers, but is 99'),
        (dict(border=-1), 'border must be a whole number of at least 0, but is -1'),
        (dict(colormap='jett'), "unknown color map 'jett': .*jet"),
        (dict(alpha=40), 'alpha must lie between 0 and 1, but is 40'),
        (dict(alpha='0.5'), "alpha must be a number, but is '0.5'"),
        (dict(score_thr=None), 'score_thr must be a number, but is None'),
        (dict(save=()), 'save is empty: name at least one'),
        (dict(blend='mix'), "blend='mix' is not known: choose from alpha, fade, add"),
        (dict(align='middle'), "align='middle' is not known"),
        (dict(save=('overlays',)), "save='overlays' is not known: choose from overlay, heatmap, panel"),
        (dict(image_format='gif'), "image_format='gif' is not known: choose from jpg, png, webp"),
        (dict(boxes='all'), "boxes='all' is not known: choose from pred, gt, both"),
        (dict(interval=0), 'interval must be a whole number of at least 1, but is 0'),
        (dict(workers=-1), 'workers must be a whole number of at least 0, but is -1'),
        (dict(max_images=-1), 'max_images must be a whole number of at least 1, but is -1'),
        (dict(stages=('testing',)), "stages='testing' is not known: choose from train, val, test"),
        (
            dict(image_names='a', max_images=1),
            'image_names cannot be combined with interval or max_images: choose one',
        ),
        (dict(image_names=()), 'image_names is empty: name at least one'),
        (dict(layers=[1]), 'layers must be a name or a list of names'),
        (dict(normalize=5), 'normalize must be one of image, percentile, max, layer, run or a pair, but is 5'),
    ],
)
def test_invalid_arguments_are_errors(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        FeatureVisualizer(**options)


def test_the_whole_path_through_a_real_pipeline(tmp_path):
    """After a real pipeline has loaded, scaled and padded an image, an overlay of weight 0 is the image itself."""
    image = noise(75, 111)
    data = write_dataset(tmp_path, {'a.png': image})
    pipeline = Compose(
        [
            dict(type='LoadImageFromFile'),
            dict(type='mmdet.Resize', scale=(64, 64), keep_ratio=True),
            dict(type='mmdet.PackDetInputs', meta_keys=('img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ]
    )
    model = MODELS.build(pool_detector()).eval()
    visualizer = FeatureVisualizer(out_dir=str(tmp_path / 'out'), alpha=0, image_format='png', layers='backbone')
    visualizer.open(model, image_root=str(data / 'images'))
    packed = pipeline(dict(img_path=str(data / 'images' / 'a.png')))
    with visualizer.taps, torch.no_grad():
        model.test_step({key: [value] for key, value in packed.items()})
    visualizer.draw(visualizer.taps.take())
    assert pictures(tmp_path / 'out') == [f'a/backbone_{level}.png' for level in range(6)]
    np.testing.assert_array_equal(read(tmp_path / 'out' / 'a' / 'backbone_3.png'), image)


@pytest.mark.parametrize(('options', 'name'), [({}, 'max'), (dict(save='overview'), 'mean')])
def test_an_overview_is_the_mean_over_channels_unless_another_reduction_is_named(options, name):
    assert FeatureVisualizer(**options).reduction_name == name
    assert FeatureVisualizer(reduction='l2', **options).reduction_name == 'l2'


@pytest.mark.parametrize(
    ('backend_args', 'error', 'message'),
    [
        (dict(backend='nowhere'), ValueError, "no file backend can be made from .*'nowhere'"),
        (dict(backend='local', key=1), ValueError, 'no file backend can be made from .*key'),
        ('local', TypeError, "backend_args must be a dict such as .*'local'"),
    ],
)
def test_wrong_backend_args_are_found_at_once(backend_args, error, message):
    with pytest.raises(error, match=message):
        FeatureVisualizer(backend_args=backend_args)
    assert FeatureVisualizer(backend_args=dict(backend='local')).backend_args == dict(backend='local')


def test_cells_are_at_their_offset_in_the_pictures_the_manifest_the_run_and_the_maps(tmp_path):
    """A run of a detector with corner alignment, drawn, drawn again from its maps, and centered."""
    path = image_file(tmp_path, noise(*SIZE))
    visualizer = opened(tmp_path, save=('heatmap', 'maps'))
    pass_ = make_pass(VALUES, image_path=path)
    pass_.maps = [replace(activation, offset=(0.5, 2.5)) for activation in pass_.maps]
    visualizer.draw([pass_])
    visualizer.close()
    out = tmp_path / 'out'
    assert [entry['offset'] for entry in manifest(out)] == [[0.5, 2.5]] * 2
    level = dict(stride=[8.0, 8.0], offset=[0.5, 2.5])
    assert json.loads((out / 'run.json').read_text())['levels'] == {'neck_0': level, 'neck_1': level}
    main('render', [str(out), '--out-dir', str(tmp_path / 'later')])
    drawn = read(out / 'a' / 'neck_1.heatmap.png')
    assert np.array_equal(read(tmp_path / 'later' / 'a' / 'neck_1.heatmap.png'), drawn)
    main('render', [str(out), '--out-dir', str(tmp_path / 'centered'), '--align', 'center'])
    assert not np.array_equal(read(tmp_path / 'centered' / 'a' / 'neck_1.heatmap.png'), drawn)


def test_images_of_another_data_set_than_that_of_the_run_are_not_drawn_later(tmp_path):
    """run.json has the classes and the file backend of the first stage only, and a resumed run draws by them."""
    visualizer = opened(tmp_path, save='heatmap', stages=('test', 'val'))
    visualizer.open(visualizer.taps.model, dataset_meta=dict(classes=['dog']), stage='val')
    visualizer._schedule.postpones = True
    for stage, postpones in (('val', False), ('test', True)):
        visualizer.draw([make_pass(VALUES)], stage=stage)
        assert visualizer._writer.postpones == postpones
